//! Negotiate: hand out a connection id and a sealed token, and keep nothing.

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use trunkline_protocol::id::random_id;
use trunkline_protocol::limits::{CONNECT_TIMEOUT_S, TOKEN_CLAIMS_MAX_BYTES};
use trunkline_protocol::manifest::{Authentication, Transport};
use trunkline_protocol::negotiate::{NegotiateAnswer, NegotiateVersion};
use trunkline_protocol::token::{ConnectionToken, claims_fit};

use super::authenticate::{User, authenticate};
use super::request::query_value;
use super::{Endpoint, plain};
use crate::config::unix_seconds;
use crate::link::Hub;

/// Answers a negotiate request.
pub(super) fn answer(endpoint: &Endpoint, hub: &Hub, request: &Request) -> Response {
    let user = match who(endpoint, hub, request) {
        Ok(user) => user,
        Err(refusal) => return refusal,
    };
    let version = match NegotiateVersion::from_query(query_value(request.uri(), "negotiateVersion").as_deref()) {
        Ok(version) => version,
        Err(text) => return json(&NegotiateAnswer::error(text)),
    };
    if !claims_fit(&user.claims) {
        let text = format!("The claims of the access token are larger than {TOKEN_CLAIMS_MAX_BYTES} bytes.");
        return json(&NegotiateAnswer::error(text));
    }
    let settings = hub.settings();
    let id = random_id();
    let token = ConnectionToken {
        connection_id: (version == NegotiateVersion::One).then(|| id.clone()),
        node: endpoint.shared.settings.node.clone(),
        address: endpoint.shared.settings.advertise.clone(),
        hub: settings.path.to_ascii_lowercase(),
        user: user.id,
        claims: user.claims,
        connect_before: unix_seconds() + CONNECT_TIMEOUT_S,
    };
    endpoint.counters.negotiated.increment();
    let sealed = token.seal(&endpoint.shared.settings.keys);
    json(&NegotiateAnswer::connect(version, id, sealed, &offered(endpoint, &settings.transports)))
}

/// Without a way to the owner only that transport works which is served where it lands.
fn offered(endpoint: &Endpoint, transports: &[Transport]) -> Vec<Transport> {
    let can_hop = endpoint.shared.settings.relay.forward;
    transports.iter().copied().filter(|transport| can_hop || *transport == Transport::WebSockets).collect()
}

/// Who asks; else what to answer.
pub(super) fn who(endpoint: &Endpoint, hub: &Hub, request: &Request) -> Result<User, Response> {
    let user =
        authenticate(request, &endpoint.shared.settings.keys).map_err(|text| plain(StatusCode::UNAUTHORIZED, text))?;
    let is_needed = hub.settings().authentication == Authentication::Required;
    if is_needed && user.id.is_none() {
        return Err(plain(StatusCode::UNAUTHORIZED, ""));
    }
    Ok(user)
}

fn json(answer: &NegotiateAnswer) -> Response {
    let body = serde_json::to_string(answer).unwrap_or_default();
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], body).into_response()
}
