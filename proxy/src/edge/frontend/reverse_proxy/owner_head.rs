//! Heads between a forwarding node and the owner of a connection: data needed by the owner, and data permitted for its
//! client. Also requests of a node to the owner.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, EXPIRES, PRAGMA,
    RETRY_AFTER,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use hyper::body::Incoming;
use trunkline_protocol::limits::{FORWARD_MARK_LIFETIME_S, MARK_CLAIMS_MAX_BYTES};
use trunkline_protocol::manifest::{BOOT_HEADER, FORWARD_HEADER, NODE_HEADER};
use trunkline_protocol::token::{ForwardMark, TokenError, User, UserBinding};
use trunkline_protocol::wire::CONNECTION_TOKEN_PARAMETER;

use crate::edge::frontend::dial_in::is_for_clients;
use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::forwarded_header::ForwardedScheme;
use crate::edge::frontend::hub_request::ConnectingClient;
use crate::edge::frontend::plain_response::plain;
use crate::edge::frontend::request::{bearer, is_for_the_app};
use crate::edge::frontend::request_context::{RequestContext, SourceChannel};
use crate::edge::frontend::request_query::RequestQuery;
use crate::edge::frontend::reverse_proxy::next_hop;
use crate::ground::clock::unix_seconds;
use crate::ground::config::Settings;
use crate::ground::metrics::RelayFailure;
use crate::ground::net::address::Address;
use crate::ground::net::http_client::{HttpClient, HttpError};

/// Maximum overhead in bytes of a claim in a mark, besides name and value.
const CLAIM_FRAME_BYTES: usize = 7;

/// Maximum response body of an owner, which is a text at most.
const ANSWER_MAX_BYTES: usize = 1024;

/// Request headers used by HTTP transports.
const REQUEST_HEADERS: [HeaderName; 2] = [ACCEPT, EXPECT];

/// Response headers set by HTTP transports, and the node's name.
const ANSWER_HEADERS: [HeaderName; 9] = [
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    EXPIRES,
    PRAGMA,
    RETRY_AFTER,
    HeaderName::from_static("x-accel-buffering"),
    HeaderName::from_static(NODE_HEADER),
];

/// Media types of HTTP transport responses; browsers execute none of them.
const ANSWER_TYPES: [&str; 3] = ["application/octet-stream", "text/event-stream", "text/plain"];

/// Reduces a request head to the data needed by the owner; returns the user vouched for by this node.
///
/// The GET that starts a connection includes its query and headers, without the access token, to describe the client to
/// the hub. All other requests only name the connection.
pub(super) fn prepare_request(parts: &mut Parts, query: &RequestQuery, client: &ConnectingClient) -> Option<User> {
    next_hop::prepare_request(parts);
    if is_for_clients(&parts.uri) {
        // The owner reads the token itself, which contains more than a mark can.
        return None;
    }
    let begins = parts.method == Method::GET && client.is_fresh;
    let is_bearer = bearer(&parts.headers).is_some();
    let is_needed = |name: &HeaderName| {
        let is_forwarded = begins && is_for_the_app(name.as_str()) && *name != CONTENT_LENGTH;
        REQUEST_HEADERS.contains(name) || (is_forwarded && !(is_bearer && *name == AUTHORIZATION))
    };
    let others: Vec<_> = parts.headers.keys().filter(|name| !is_needed(name)).cloned().collect();
    for name in others {
        parts.headers.remove(name);
    }
    let rest = if begins { query.for_hub(&parts.uri) } else { None };
    if let Some(uri) = target(&parts.uri, query, rest.as_deref()) {
        parts.uri = uri;
    }
    let token = client.token.as_ref().filter(|token| token.binding == UserBinding::AccessToken)?;
    Some(if begins { client.user.clone() } else { User { id: token.user.clone(), ..User::default() } })
}

/// Refuses the GET that starts a connection if the user's claims don't fit into the header for the owner. Dial-in
/// clients need no such claims.
pub(super) fn check_claims(method: &Method, client: &ConnectingClient) -> Result<(), Response> {
    let begins = method == Method::GET && client.is_fresh;
    let is_bound = client.token.as_ref().is_some_and(|token| token.binding == UserBinding::AccessToken);
    let is_needed = begins && is_bound;
    let sizes = client.user.claims.iter().map(|(name, value)| name.len() + value.len() + CLAIM_FRAME_BYTES);
    let bytes: usize = sizes.sum();
    if !is_needed || bytes <= MARK_CLAIMS_MAX_BYTES {
        return Ok(());
    }
    let text = format!(
        "the claims of the user have {bytes} bytes, but a request relayed to another node allows \
         {MARK_CLAIMS_MAX_BYTES}: connect by WebSockets, which are not relayed"
    );
    Err(plain(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, text))
}

/// Path of a request, with its connection token and the rest of its query.
fn target(uri: &Uri, query: &RequestQuery, rest: Option<&str>) -> Option<Uri> {
    // The token was decrypted, so it contains no characters that need escaping.
    let token = query.value(CONNECTION_TOKEN_PARAMETER)?;
    let rest = rest.and_then(|rest| rest.strip_prefix('?')).map(|rest| format!("&{rest}")).unwrap_or_default();
    format!("{}?{CONNECTION_TOKEN_PARAMETER}={token}{rest}", uri.path()).parse().ok()
}

/// Sends a POST with the connection token to the owner of a connection.
pub(crate) async fn ask(
    settings: &Settings,
    (nodes, owner): (&HttpClient, &Address),
    (path, token): (&str, &str),
    limit: Duration,
) -> Result<http::Response<Bytes>, HttpError> {
    let (mut question, ()) = http::Request::new(()).into_parts();
    question.method = Method::POST;
    // The token was decrypted, so it contains no characters that need escaping.
    question.uri = format!("{path}?{CONNECTION_TOKEN_PARAMETER}={token}").parse().unwrap_or_default();
    set_mark(settings, &mut question, None, None);
    nodes.fetch(owner, Request::from_parts(question, Body::empty()), ANSWER_MAX_BYTES, limit).await
}

pub(crate) fn boot_of(headers: &HeaderMap) -> Option<&str> {
    headers.get(BOOT_HEADER)?.to_str().ok()
}

/// Reduces the owner's response to headers set by our transports. Fails if it is not a response of an HTTP transport.
pub(super) fn prepare_answer(answer: &mut http::Response<Incoming>) -> Result<(), RelayFailure> {
    next_hop::prepare_answer(answer);
    retain_ours(answer.headers_mut())
}

fn retain_ours(headers: &mut HeaderMap) -> Result<(), RelayFailure> {
    let others: Vec<_> = headers.keys().filter(|name| !ANSWER_HEADERS.contains(name)).cloned().collect();
    for name in others {
        headers.remove(name);
    }
    let is_ours = headers.get(CONTENT_TYPE).is_none_or(|found| ANSWER_TYPES.iter().any(|ours| found == ours));
    if is_ours { Ok(()) } else { Err(RelayFailure::Broken) }
}

/// Accepts a valid mark: the request comes from the client that it names. An invalid mark is ignored.
pub(crate) fn accept_mark(endpoint: &Endpoint, request: &mut Request, context: &mut RequestContext) {
    let Some(sealed) = request.headers_mut().remove(FORWARD_HEADER) else { return };
    // Marks are valid only inside a node's channel.
    let is_of_fleet = matches!(context.source.channel, SourceChannel::Node);
    let mark = open_mark(&endpoint.shared.settings, &sealed, request.method(), request.uri());
    match mark.and_then(|mark| is_of_fleet.then_some(mark).ok_or(TokenError::Forged)) {
        Ok(mark) => {
            // The forwarding node must not be mistaken for the client.
            context.source.peer = mark.client;
            context.scheme = mark.scheme.as_deref().and_then(ForwardedScheme::parse_scheme);
            (context.is_forwarded, context.forwarded_user) = (true, mark.user.map(Box::new));
        }
        Err(error) => {
            tracing::debug!(%error, "forward mark refused");
            endpoint.counters.relay.marks_refused.increment();
        }
    }
}

fn open_mark(settings: &Settings, sealed: &HeaderValue, method: &Method, uri: &Uri) -> Result<ForwardMark, TokenError> {
    let sealed = sealed.to_str().map_err(|_| TokenError::Forged)?;
    ForwardMark::open(sealed, &settings.keys, method.as_str(), next_hop::target(uri).as_str(), unix_seconds())
}

/// Marks a request to another node: its own, or a client's, for the owner of its connection. `user` was authenticated
/// here.
pub(crate) fn set_mark(settings: &Settings, parts: &mut Parts, client: Option<&RequestContext>, user: Option<User>) {
    let target = next_hop::target(&parts.uri);
    let expires = unix_seconds() + FORWARD_MARK_LIFETIME_S;
    let scheme = client.and_then(|client| client.scheme).map(ForwardedScheme::name);
    let (method, peer) = (parts.method.as_str(), client.and_then(|client| client.source.peer));
    let mut mark = ForwardMark::new(&settings.node, peer, scheme, method, target.as_str(), expires);
    mark.user = user;
    if let Ok(sealed) = HeaderValue::from_str(&mark.seal(&settings.keys)) {
        parts.headers.insert(FORWARD_HEADER, sealed);
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;
    use trunkline_protocol::token::ConnectionToken;

    use super::*;

    fn client(is_fresh: bool) -> ConnectingClient {
        let token = ConnectionToken {
            connection_id: Some("id".into()),
            boot: "boot".into(),
            address: String::new(),
            hub: "/chat".into(),
            user: Some("ann".into()),
            claims: Vec::new(),
            expires_s: None,
            connect_before: 0,
            binding: UserBinding::AccessToken,
            is_stateful: false,
        };
        let user = User { id: Some("ann".into()), claims: vec![("role".into(), "cook".into())], expires_s: Some(7) };
        let token = Some(Box::new(token));
        ConnectingClient { connection_id: "id".into(), user, is_fresh, is_ours: false, token }
    }

    fn prepared(method: Method, is_fresh: bool) -> (String, Vec<String>, Option<User>) {
        let secret = [("authorization", "Bearer e.y.J"), ("cookie", "a=1"), ("origin", "https://a"), ("x-own", "1")];
        let usual = [("accept", "*/*"), ("content-length", "3"), ("connection", "close"), ("host", "a")];
        let request = Request::builder().method(method).uri("/chat?x=%201&access_token=e.y.J&%69d=TOKEN");
        let request = secret.iter().chain(&usual).fold(request, |request, (name, value)| request.header(*name, *value));
        let (mut parts, _) = request.body(Body::empty()).unwrap().into_parts();
        let query = RequestQuery::parse(&parts.uri);
        let user = prepare_request(&mut parts, &query, &client(is_fresh));
        let mut names: Vec<_> = parts.headers.keys().map(ToString::to_string).collect();
        names.sort_unstable();
        (parts.uri.to_string(), names, user)
    }

    #[test]
    fn the_owner_gets_no_secrets_and_only_the_first_get_describes_the_client() {
        let ann = User { id: Some("ann".into()), ..User::default() };
        for (method, is_fresh) in [(Method::POST, true), (Method::DELETE, true), (Method::GET, false)] {
            let (target, names, user) = prepared(method, is_fresh);
            assert_eq!((target.as_str(), user), ("/chat?id=TOKEN", Some(ann.clone())));
            assert_eq!(names, ["accept"]);
        }
        let (target, names, user) = prepared(Method::GET, true);
        assert_eq!((target.as_str(), user), ("/chat?id=TOKEN&x=%201", Some(client(true).user)));
        assert_eq!(names, ["accept", "cookie", "host", "origin", "x-own"], "as the hub shall see them");
    }

    #[test]
    fn the_client_gets_only_what_our_transports_set() {
        let mut headers = HeaderMap::new();
        for name in ["set-cookie", "location", "x-trunkline-boot", "access-control-allow-origin", "server", "x-other"] {
            headers.insert(name, "x".parse().unwrap());
        }
        headers.insert("content-type", "text/event-stream".parse().unwrap());
        headers.insert("x-trunkline-node", "n1".parse().unwrap());
        assert_eq!(boot_of(&headers), Some("x"));
        assert_eq!(retain_ours(&mut headers), Ok(()));
        assert_eq!(headers.len(), 2);
        headers.insert("content-type", "text/html".parse().unwrap());
        assert_eq!(retain_ours(&mut headers), Err(RelayFailure::Broken));
    }
}
