//! Sessions of the observer page: random ids, stored by this node, in exchange for the admin token; callers that
//! the guard has admitted.
//!
//! A session exists only at its node, reveals nothing about the token, and ends with log-out, expiry, replacement of
//! the token, or the node.
//!
//! The cookie is limited to the page's paths: cookies ignore ports, and an app on the same host has its own paths.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::http::header::{CACHE_CONTROL, COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use subtle::ConstantTimeEq;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use trunkline_protocol::id::random_id;

use super::access::{Access, Actor};
use crate::ground::auth::ADMIN_COOKIE;

/// Lifetime of a session: a working day.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// Maximum number of open sessions. A further one ends the oldest.
const SESSIONS_MAX: usize = 64;

/// Header by which browsers indicate the requesting site.
const FETCH_SITE: &str = "sec-fetch-site";

/// Header with the path prefix at which a proxy serves the page.
const FORWARDED_PREFIX: &str = "x-forwarded-prefix";

/// Maximum length of the path prefix.
const PREFIX_MAX_BYTES: usize = 256;

#[derive(Debug, Clone)]
pub(super) struct Sessions {
    cookie_name: Arc<str>,
    open: Arc<Mutex<Vec<Session>>>,
    /// Number of sessions started so far.
    begun: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Session {
    id: String,
    end: SessionEnd,
}

/// End of a session, for its open streams.
#[derive(Debug, Clone)]
pub(super) struct SessionEnd {
    revoked: CancellationToken,
    expires: Instant,
    /// Number of the session since the node started, for people.
    number: u64,
}

impl SessionEnd {
    fn has_come(&self) -> bool {
        self.revoked.is_cancelled() || self.expires <= Instant::now()
    }

    pub(super) async fn wait(self) {
        tokio::select! {
            () = self.revoked.cancelled() => {}
            () = sleep_until(self.expires) => {}
        }
    }
}

impl Sessions {
    /// Creates an empty list. The cookie name includes the node's name, because nodes on one host share cookies.
    pub(super) fn new(node: &str) -> Self {
        Self { cookie_name: format!("{ADMIN_COOKIE}_{node}").into(), open: Arc::default(), begun: Arc::default() }
    }

    /// Responds to a log-in with the cookie of a new session, which ends when its token is replaced.
    pub(super) fn begin_session(&self, token_replaced: &CancellationToken, headers: &HeaderMap) -> Response {
        let (id, revoked) = (random_id(), token_replaced.child_token());
        let mut open = self.open_sessions();
        open.retain(|session| !session.end.has_come());
        if open.len() >= SESSIONS_MAX {
            open.remove(0).end.revoked.cancel();
        }
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let end = SessionEnd { revoked, expires: Instant::now() + LIFETIME, number };
        open.push(Session { id: id.clone(), end });
        Actor::Session(number).sign(self.with_cookie(headers, &id, LIFETIME, Access::Act))
    }

    pub(super) fn end_session(&self, headers: &HeaderMap) -> Response {
        let mut actor = Actor::Unauthenticated;
        self.open_sessions().retain(|session| {
            let is_meant = self.ids(headers).any(|id| is_same(&session.id, id));
            if is_meant {
                session.end.revoked.cancel();
                actor = Actor::Session(session.end.number);
            }
            !is_meant
        });
        actor.sign(self.with_cookie(headers, "", Duration::ZERO, Access::Read))
    }

    /// Finds the open session of a request's cookie.
    ///
    /// Stale cookies are ignored, so the page shows the log-in form. Cookies in cross-origin requests are ignored, too.
    pub(super) fn find(&self, headers: &HeaderMap) -> Option<SessionEnd> {
        let is_other_page = |site: &HeaderValue| !matches!(site.as_bytes(), b"same-origin" | b"none");
        if headers.get_all(FETCH_SITE).iter().any(is_other_page) {
            return None;
        }
        let open = self.open_sessions();
        let mut found = self.ids(headers).filter_map(|id| open.iter().find(|session| is_same(&session.id, id)));
        found.find(|session| !session.end.has_come()).map(|session| session.end.clone())
    }

    fn ids<'a>(&self, headers: &'a HeaderMap) -> impl Iterator<Item = &'a str> {
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let pairs = cookies.flat_map(|all| all.split(';')).filter_map(|one| one.trim().split_once('='));
        pairs.filter(|(name, _)| *name == &*self.cookie_name).map(|(_, value)| value)
    }

    fn with_cookie(&self, headers: &HeaderMap, value: &str, lifetime: Duration, access: Access) -> Response {
        let (name, prefix, seconds) = (&self.cookie_name, prefix(headers), lifetime.as_secs());
        let cookie = format!("{name}={value}; Path={prefix}{PAGE_PATH}/; HttpOnly; SameSite=Strict; Max-Age={seconds}");
        let mut response = Json(json!({ "access": access })).into_response();
        // Session ids and node names contain only valid header characters.
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            response.headers_mut().insert(SET_COOKIE, cookie);
        }
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    fn open_sessions(&self) -> MutexGuard<'_, Vec<Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Path prefix of the page, as stated by the page itself or a proxy. A forged value only breaks the caller's own
/// cookie.
fn prefix(headers: &HeaderMap) -> &str {
    let is_path = |text: &&str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%".contains(&byte);
        text.starts_with('/') && text.len() <= PREFIX_MAX_BYTES && text.bytes().all(is_plain)
    };
    let given = headers.get(FORWARDED_PREFIX).and_then(|value| value.to_str().ok());
    given.map(|text| text.trim_end_matches('/')).filter(is_path).unwrap_or_default()
}

fn is_same(id: &str, given: &str) -> bool {
    id.as_bytes().ct_eq(given.as_bytes()).into()
}

/// Attached to each request that the guard has admitted.
#[derive(Debug, Clone)]
pub(super) struct AdmittedCaller {
    pub access: Access,
    /// End of the caller's session, for open streams.
    pub end: Option<SessionEnd>,
    pub actor: Actor,
}

impl AdmittedCaller {
    pub(super) fn new(access: Access, actor: Actor) -> Self {
        Self { access, end: None, actor }
    }

    pub(super) fn of_session(end: SessionEnd) -> Self {
        Self { access: Access::Act, actor: Actor::Session(end.number), end: Some(end) }
    }
}

/// Path of the page, below the prefix never passed through to app servers.
pub(super) const PAGE_PATH: &str = "/.trunkline/observer";

#[cfg(test)]
mod tests {
    use super::*;

    fn cookies(texts: &[&str]) -> HeaderMap {
        texts.iter().map(|text| (COOKIE, text.parse().unwrap())).collect()
    }

    fn begun(sessions: &Sessions) -> String {
        let cookie = sessions.begin_session(&CancellationToken::new(), &HeaderMap::new()).headers()[SET_COOKIE]
            .to_str()
            .unwrap()
            .to_owned();
        cookie.split(';').next().unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_session_is_good_at_the_node_that_began_it_until_it_is_ended() {
        let (ours, others) = (Sessions::new("proxy-a"), Sessions::new("proxy-b"));
        let pair = begun(&ours);
        let among_others = format!("theme=dark;{pair}; x=y");
        for headers in [cookies(&[&pair]), cookies(&[&among_others]), cookies(&["a=b", &pair])] {
            assert!(ours.find(&headers).is_some() && others.find(&headers).is_none());
            assert!(Sessions::new("proxy-a").find(&headers).is_none(), "it has started again");
        }
        let renamed = pair.replace("proxy-a", "proxy-b");
        assert!(others.find(&cookies(&[&renamed])).is_none());
        let other = begun(&ours);
        let end = ours.find(&cookies(&[&pair])).unwrap();
        ours.end_session(&cookies(&[&pair]));
        end.wait().await;
        assert!(ours.find(&cookies(&[&pair])).is_none(), "who has kept the cookie has nothing");
        assert!(ours.find(&cookies(&[&other])).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_expires() {
        let sessions = Sessions::new("proxy-a");
        let headers = cookies(&[&begun(&sessions)]);
        let began = Instant::now();
        sessions.find(&headers).unwrap().wait().await;
        assert_eq!(began.elapsed().as_secs(), LIFETIME.as_secs());
        assert!(sessions.find(&headers).is_none());
    }

    #[tokio::test]
    async fn sessions_are_bounded_and_the_oldest_makes_room() {
        let sessions = Sessions::new("proxy-a");
        let pairs: Vec<_> = (0..=SESSIONS_MAX).map(|_| begun(&sessions)).collect();
        let open = pairs.iter().filter(|pair| sessions.find(&cookies(&[pair])).is_some()).count();
        assert_eq!((open, sessions.find(&cookies(&[&pairs[0]])).is_some()), (SESSIONS_MAX, false));
    }

    #[test]
    fn the_cookie_stays_on_the_paths_of_the_page_and_out_of_scripts() {
        let sessions = Sessions::new("proxy-a");
        let begun = sessions.begin_session(&CancellationToken::new(), &HeaderMap::new()).headers()[SET_COOKIE]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(begun.ends_with("; Path=/.trunkline/observer/; HttpOnly; SameSite=Strict; Max-Age=43200"), "{begun}");
        let ended = sessions.end_session(&HeaderMap::new()).headers()[SET_COOKIE].to_str().unwrap().to_owned();
        let removed = "trunkline_admin_proxy-a=; Path=/.trunkline/observer/; HttpOnly; SameSite=Strict; Max-Age=0";
        assert_eq!(ended, removed);
        for (given, expected) in [("/ops/", "/ops"), ("/a/b", "/a/b"), ("ops", ""), ("/", ""), ("/x; Domain=y", "")] {
            let headers = HeaderMap::from_iter([(FORWARDED_PREFIX.parse().unwrap(), given.parse().unwrap())]);
            let begun = sessions.begin_session(&CancellationToken::new(), &headers).headers()[SET_COOKIE].clone();
            assert!(begun.to_str().unwrap().contains(&format!("; Path={expected}/.trunkline/observer/;")), "{given}");
        }
    }

    #[test]
    fn a_cookie_that_a_page_of_another_origin_sends_along_counts_as_none() {
        let sessions = Sessions::new("proxy-a");
        let pair = begun(&sessions);
        for (site, counts) in [("same-origin", true), ("none", true), ("same-site", false), ("cross-site", false)] {
            let mut headers = cookies(&[&pair]);
            headers.insert(FETCH_SITE, site.parse().unwrap());
            assert_eq!(sessions.find(&headers).is_some(), counts, "{site}");
        }
    }
}
