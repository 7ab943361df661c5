//! Question of a node about a connecting client, as an event for the back end.
//!
//! The node sends a webhook, like any app that decides about its clients, a request with the client's headers. The back
//! end receives user, claims and query in the usual headers, and in the body the items that the operator lists.

use std::collections::BTreeMap;

use bytes::Bytes;
use bytestring::ByteString;
use http::header::COOKIE;
use http::{HeaderMap, HeaderName, Uri};
use serde::Serialize;
use trunkline_protocol::access_token::User;
use trunkline_protocol::manifest::{CLIENT_URI_HEADER, USER_HEADER, USER_ID_CLAIM};
use trunkline_protocol::service::OpenConnection;
use trunkline_protocol::wire::{ACCESS_TOKEN_PARAMETER, CONNECTION_TOKEN_PARAMETER, FORWARDED_FOR_HEADER};

use super::client_fact::ClientFacts;
use crate::ground::config::ConnectItem;

/// Body of the event `connect`.
#[derive(Debug, Default, Serialize)]
struct ConnectBody {
    #[serde(rename = "type")]
    number: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    cookies: BTreeMap<String, String>,
}

/// Facts about the client of a request that a node sends to an app.
pub(super) fn facts(head: &HeaderMap) -> ClientFacts {
    let user = text(head, USER_HEADER).and_then(User::from_header).unwrap_or_default();
    let id = user.id.into_iter().map(|id| (ByteString::from_static(USER_ID_CLAIM), id.into()));
    let own = user.claims.into_iter().map(|(name, value)| (name.into(), value.into()));
    ClientFacts::from_opening(&OpenConnection {
        claims: id.chain(own).collect(),
        query: text(head, CLIENT_URI_HEADER).and_then(query_without_tokens),
        ..OpenConnection::default()
    })
}

/// Body with the listed items of the client's request.
pub(super) fn body(number: u8, head: &HeaderMap, items: &[ConnectItem]) -> Bytes {
    let mut body = ConnectBody { number, ..ConnectBody::default() };
    for item in items {
        match item {
            ConnectItem::Address => body.address = text(head, FORWARDED_FOR_HEADER).map(str::to_owned),
            ConnectItem::Header(name) => {
                let values: Vec<_> = values(head, name).collect();
                if !values.is_empty() {
                    body.headers.insert(name.as_str().to_owned(), values);
                }
            }
            ConnectItem::Cookie(name) => {
                let value = cookie(head, name);
                body.cookies.extend(value.map(|value| (name.clone(), value)));
            }
        }
    }
    serde_json::to_vec(&body).unwrap_or_default().into()
}

fn values<'h>(head: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = String> + use<'h> {
    head.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// First cookie of this name.
fn cookie(head: &HeaderMap, wanted: &str) -> Option<String> {
    let pairs: Vec<_> = values(head, &COOKIE).collect();
    let mut pairs = pairs.iter().flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == wanted).map(|(_, value)| value.trim_matches('"').to_owned())
}

fn query_without_tokens(uri: &str) -> Option<ByteString> {
    let uri: Uri = uri.parse().ok()?;
    let is_token = |part: &&str| {
        let name = form_urlencoded::parse(part.as_bytes()).next().map(|(name, _)| name).unwrap_or_default();
        [ACCESS_TOKEN_PARAMETER, CONNECTION_TOKEN_PARAMETER].iter().any(|token| name.eq_ignore_ascii_case(token))
    };
    let kept: Vec<_> = uri.query()?.split('&').filter(|part| !is_token(part)).collect();
    let kept = kept.join("&");
    (!kept.is_empty()).then(|| format!("?{kept}").into())
}

fn text<'h>(head: &'h HeaderMap, name: &str) -> Option<&'h str> {
    head.get(name).and_then(|value| str::from_utf8(value.as_bytes()).ok())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn head(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_back_end_receives_what_the_operator_lists_and_nothing_else() {
        let mut head = head(&[("x-forwarded-for", "203.0.113.9"), ("user-agent", "test"), ("x-secret", "s")]);
        head.append("cookie", HeaderValue::from_static("a=1; sid=\"x=y\""));
        head.append("cookie", HeaderValue::from_static("sid=late; b=2"));
        let items = |list: &str| list.split(',').map(|item| item.parse().unwrap()).collect::<Vec<ConnectItem>>();
        assert_eq!(body(10, &head, &[]), "{\"type\":10}");
        assert_eq!(
            body(10, &head, &items("address,header:User-Agent,header:x-none,cookie:sid,cookie:none")),
            "{\"type\":10,\"address\":\"203.0.113.9\",\"headers\":{\"user-agent\":[\"test\"]},\
             \"cookies\":{\"sid\":\"x=y\"}}"
        );
    }

    #[test]
    fn the_facts_are_those_of_the_token_and_the_query_without_tokens() {
        let claims = vec![("role".to_owned(), "cook".to_owned())];
        let user = User { id: Some("ann".into()), claims, expires_s: None };
        let head = head(&[
            ("x-trunkline-user", &user.to_header()),
            ("x-trunkline-uri", "/chat/negotiate?room=1&Access_Token=x&id=y&negotiateVersion=1"),
        ]);
        let facts = facts(&head);
        assert_eq!(
            (facts.user.unwrap(), facts.claims.unwrap()),
            ("ann".parse().unwrap(), "role: cook".parse().unwrap())
        );
        assert_eq!(facts.query.unwrap(), "?room=1&negotiateVersion=1");
        assert_eq!(query_without_tokens("/chat?access_token=x"), None);
        let raw = self::head(&[("x-trunkline-uri", "/chat?room=ü&plain=1")]);
        assert_eq!(self::facts(&raw).query.unwrap(), "?room=ü&plain=1");
    }
}
