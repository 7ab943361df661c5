//! Removal of the observer page's cookies from clients' requests.
//!
//! Cookies ignore ports: a browser logged in at the admin port also sends the cookie to the client port, where neither
//! node nor app server should see it.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

use crate::ground::auth::ADMIN_COOKIE;

pub(crate) fn remove(headers: &mut HeaderMap) {
    if !headers.get_all(COOKIE).iter().any(holds_one) {
        return;
    }
    let left: Vec<_> = headers.get_all(COOKIE).iter().filter_map(without).collect();
    headers.remove(COOKIE);
    for cookies in left {
        headers.append(COOKIE, cookies);
    }
}

fn holds_one(cookies: &HeaderValue) -> bool {
    pairs(cookies).any(is_of_admin)
}

fn without(cookies: &HeaderValue) -> Option<HeaderValue> {
    if !holds_one(cookies) {
        return Some(cookies.clone());
    }
    let others: Vec<&[u8]> = pairs(cookies).filter(|pair| !pair.is_empty() && !is_of_admin(pair)).collect();
    // Part of a valid value, so also valid.
    HeaderValue::from_bytes(&others.join(&b"; "[..])).ok().filter(|left| !left.is_empty())
}

fn pairs(cookies: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    cookies.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii)
}

fn is_of_admin(pair: &[u8]) -> bool {
    pair.starts_with(ADMIN_COOKIE.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(cookies: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut headers = HeaderMap::new();
        for value in cookies {
            headers.append(COOKIE, HeaderValue::from_bytes(value).unwrap());
        }
        remove(&mut headers);
        headers.get_all(COOKIE).iter().map(|value| value.as_bytes().to_vec()).collect()
    }

    #[test]
    fn cookies_of_admin_sessions_are_removed_and_others_stay_as_they_are() {
        let session = format!("{ADMIN_COOKIE}_proxy-a=abc");
        let among = |text: &str| text.replace("SESSION", &session).into_bytes();
        for (sent, expected) in [
            (among("a=1; SESSION; b=2"), Some("a=1; b=2")),
            (among("SESSION"), None),
            (among("SESSION;SESSION ; a=1"), Some("a=1")),
            (among("a=1;  b=\u{e9};;"), Some("a=1;  b=\u{e9};;")),
            (among("x=SESSION"), Some(&*format!("x={session}"))),
        ] {
            let expected: Vec<_> = expected.map(|text| text.as_bytes().to_vec()).into_iter().collect();
            assert_eq!(left(&[&sent]), expected, "{}", String::from_utf8_lossy(&sent));
        }
        assert_eq!(left(&[b"a=1", session.as_bytes(), b"b=2"]), [b"a=1".to_vec(), b"b=2".to_vec()]);
    }
}
