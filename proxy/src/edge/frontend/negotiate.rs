//! Negotiate: issues a connection id and a sealed token, and stores nothing.

use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use trunkline_protocol::id::random_id;
use trunkline_protocol::limits::{CONNECT_TIMEOUT_S, TOKEN_CLAIMS_MAX_BYTES};
use trunkline_protocol::manifest::Transport;
use trunkline_protocol::negotiate::{NegotiateAnswer, NegotiateVersion};
use trunkline_protocol::token::{ConnectionToken, UserBinding, claims_fit};

use crate::edge::frontend::connect::terms;
use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::hub_request::{HubRequest, NewClient};
use crate::edge::frontend::request_trace;
use crate::ground::clock::unix_seconds;

/// Query parameter that requests stateful reconnect.
const STATEFUL_PARAMETER: &str = "useStatefulReconnect";

pub(crate) fn answer_negotiation(endpoint: &Endpoint, request: &HubRequest, mut client: NewClient) -> Response {
    // A stopping node negotiates for another one, which any node then relays to: the client may not be able to retry.
    let successor = endpoint.shared.refuses_clients().then(|| endpoint.shared.other_nodes().successor()).flatten();
    let refusal = match successor {
        Some(_) => request.routed.refusal(),
        None => endpoint.refuse_new_client(&request.hub, &request.routed),
    };
    if let Some(refusal) = refusal {
        return refusal;
    }
    let answer = match client.grant.decision.url.take() {
        Some(url) => {
            let access_token = client.grant.decision.access_token.take();
            json(&NegotiateAnswer::Redirect { url, access_token })
        }
        None => offer_connection(endpoint, request, &client, successor),
    };
    // Includes the app's own headers and cookies.
    (client.grant.headers, answer).into_response()
}

fn offer_connection(
    endpoint: &Endpoint,
    request: &HubRequest,
    client: &NewClient,
    successor: Option<(String, String)>,
) -> Response {
    let (hub, query) = (&*request.hub, &request.context.query);
    let NewClient { user, binding, grant, .. } = client;
    let version = match NegotiateVersion::from_query(query.value("negotiateVersion")) {
        Ok(version) => version,
        Err(text) => return json(&NegotiateAnswer::error(text)),
    };
    let settings = hub.settings();
    // Later requests carry the claims of the access token again, so only claims added by the app are stored.
    let is_shown = *binding == UserBinding::AccessToken;
    let mut claims = if is_shown { grant.decision.claims.clone() } else { user.claims.clone() };
    if !claims_fit(&claims) {
        let text =
            format!("The claims that the app names for the user are larger than {TOKEN_CLAIMS_MAX_BYTES} bytes.");
        return json(&NegotiateAnswer::error(text));
    }
    // The span ends with the response.
    let _span = request_trace::negotiate(endpoint, hub, (&request.parts.headers, request.arrived_ns), &mut claims);
    let is_wanted = query.value(STATEFUL_PARAMETER).is_some_and(|wanted| wanted.trim().eq_ignore_ascii_case("true"));
    let is_stateful = is_wanted && settings.stateful_reconnect_buffer_bytes.is_some();
    let id = random_id();
    let own = || {
        let address = endpoint.shared.settings.advertise.as_ref().map(ToString::to_string).unwrap_or_default();
        (endpoint.shared.boot.clone(), address)
    };
    let (boot, address) = successor.unwrap_or_else(own);
    let token = ConnectionToken {
        connection_id: (version == NegotiateVersion::One).then(|| id.clone()),
        boot,
        address,
        hub: settings.path.to_ascii_lowercase(),
        user: user.id.clone(),
        claims,
        expires_s: user.expires_s,
        connect_before: unix_seconds() + CONNECT_TIMEOUT_S,
        is_stateful,
        binding: *binding,
    };
    endpoint.counters.negotiated.increment();
    let sealed = token.seal(&endpoint.shared.settings.keys);
    let terms = terms(hub, user);
    let transports: Vec<_> = settings.transports.iter().copied().filter(|one| terms.allow(*one)).collect();
    let answer = NegotiateAnswer::connect(version, id, sealed, &offered_transports(endpoint, &transports));
    let lifetime_s = user.expires_s.filter(|_| settings.refreshes_authentication).map(lifetime_s);
    json(&answer.with_stateful_reconnect(is_stateful).with_token_lifetime(lifetime_s))
}

/// Remaining lifetime of an access token, in seconds.
pub(super) fn lifetime_s(expires_s: u64) -> u64 {
    expires_s.saturating_sub(unix_seconds())
}

/// Returns the transports to offer. Without owner hops only WebSockets work, served by the node they reach.
fn offered_transports(endpoint: &Endpoint, transports: &[Transport]) -> Vec<Transport> {
    let can_hop = endpoint.shared.settings.relay.forward;
    transports.iter().copied().filter(|transport| can_hop || *transport == Transport::WebSockets).collect()
}

fn json(answer: &NegotiateAnswer) -> Response {
    let body = serde_json::to_string(answer).unwrap_or_default();
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], body).into_response()
}
