//! Connect by WebSocket: checks the token, answers the upgrade, and hands the socket to this shard.

use axum::response::Response;
use http::header::{HeaderValue, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, StatusCode};
use tokio::time::sleep;
use trunkline_protocol::id::random_id;
use trunkline_protocol::manifest::{EndpointKind, Transport};
use trunkline_protocol::service::OpenConnection;

use crate::edge::frontend::connect::stateful_connect::{self, Claim, StatefulConnect};
use crate::edge::frontend::connect::{NewConnection, admit, changed_transport, may_use, not_supported, opening};
use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::hop_header::words;
use crate::edge::frontend::hub_request::{ConnectingClient, HubClient, HubRequest, NewClient};
use crate::edge::frontend::identify::UNKNOWN_ID;
use crate::edge::frontend::plain_response::plain;
use crate::edge::frontend::request_limit::{count_connected, take_head_room, take_permit};
use crate::edge::frontend::reservation;
use crate::edge::frontend::upgrade_answer::{accept_key, chosen_sub_protocol, switching_protocols, with_chosen};
use crate::engine::shard::{ClientStream, PendingConnection, ReserveError, ShardMessage};
use crate::ground::auth::ClientTerms;
use crate::ground::clock::unix_seconds;

pub(crate) async fn answer_upgrade(endpoint: &Endpoint, request: Box<HubRequest>, client: HubClient) -> Response {
    let accept = match accept_key(&request.parts.headers) {
        Ok(accept) => accept,
        Err(refusal) => return refusal,
    };
    let compression = compression(endpoint, &request);
    let sub_protocol = chosen_sub_protocol(&request.parts.headers, &request.hub.settings().sub_protocols);
    let client = match client {
        HubClient::New(client) => {
            let NewClient { user, connection_id, .. } = *client;
            // Routes were evaluated with this id.
            let connection_id = connection_id.unwrap_or_else(random_id);
            Box::new(ConnectingClient { connection_id, user, is_fresh: true, is_ours: true, token: None })
        }
        HubClient::Connecting(client) => client,
    };
    let token = client.token.as_ref();
    let may_return = token.is_some_and(|token| token.is_stateful && !token.is_too_old_to_carry(unix_seconds()));
    match attach(endpoint, request, (client, compression.is_some())).await {
        Ok(()) => {
            let chosen = [(SEC_WEBSOCKET_PROTOCOL, sub_protocol), (SEC_WEBSOCKET_EXTENSIONS, compression)];
            with_chosen(switching_protocols(&accept), chosen)
        }
        Err(refusal) => {
            if may_return && refusal.status() == StatusCode::NOT_FOUND {
                sleep(endpoint.shared.limits.refused_return_wait(endpoint.shared.uptime())).await;
            }
            refusal
        }
    }
}

/// Answer to the client's offer of compression, if node and hub permit it.
fn compression(endpoint: &Endpoint, request: &HubRequest) -> Option<HeaderValue> {
    let settings = request.hub.settings();
    let is_permitted = endpoint.shared.settings.outbox.compress && settings.compress;
    (is_permitted && settings.kind == EndpointKind::Hub).then(|| accepted_compression(&request.parts.headers)).flatten()
}

async fn attach(
    endpoint: &Endpoint,
    mut request: Box<HubRequest>,
    (mut client, is_compressed): (Box<ConnectingClient>, bool),
) -> Result<(), Response> {
    let (mut permit, mut asked) = (None, None);
    if client.token.as_ref().is_some_and(|token| token.is_stateful) {
        match Box::pin(stateful_connect::find(endpoint, &request, &client)).await? {
            StatefulConnect::Open(claim) => {
                resume(*request, claim, is_compressed);
                return Ok(());
            }
            StatefulConnect::New(terms) => (permit, asked) = (terms.permit, terms.asked),
        }
    }
    if request.dial_in.as_ref().is_some_and(|client| client.comes_back) {
        return Err(plain(
            StatusCode::UNAUTHORIZED,
            "the access token has expired, and there is no connection to resume",
        ));
    }
    if !client.is_fresh {
        return Err(plain(StatusCode::NOT_FOUND, UNKNOWN_ID));
    }
    if !may_use(&request.hub, &client.user, Transport::WebSockets) {
        return Err(not_supported(Transport::WebSockets));
    }
    endpoint.refuse_new_client(&request.hub, &request.routed).map_or(Ok(()), Err)?;
    // First, because the memory for a large head may be taken from other clients.
    let permit = permit.map_or_else(|| take_permit(endpoint, &request, 0), Ok)?;
    let kept = || opening(endpoint, &request, (&client, Transport::WebSockets));
    let head = take_head_room(endpoint, &request, kept)?;
    // Last, because it uses up the token.
    client.user = reservation::confirm(endpoint, &request, (&client, asked)).await?;
    let id = &client.connection_id;
    endpoint.shared.routes.reserve(id).map_err(|error| match error {
        ReserveError::Taken if endpoint.shared.http_transports.find(id).is_some() => changed_transport(),
        ReserveError::Taken => plain(StatusCode::CONFLICT, ""),
        ReserveError::Unknown => plain(StatusCode::NOT_FOUND, UNKNOWN_ID),
    })?;
    if client.token.is_some() {
        count_connected(endpoint, request.context.source.peer);
    }
    let socket = stream_below(&mut request);
    let (transport, client) = (Transport::WebSockets, *client);
    admit(endpoint, &request, NewConnection { socket, transport, client, permit, head, is_compressed });
    Ok(())
}

fn resume(mut request: HubRequest, claim: Claim, is_compressed: bool) {
    let stream = Some(stream_below(&mut request));
    let pending = PendingConnection {
        stream,
        transport: Transport::WebSockets,
        hub: request.hub,
        open: OpenConnection::default(),
        is_negotiated: true,
        user: None,
        permit: claim.permit,
        head: None,
        expires_s: None,
        terms: ClientTerms::default(),
        wants_stateful: true,
        is_compressed,
        verified_at: None,
        claimed: Some(claim.place),
        group: None,
        trace: None,
    };
    claim.shard.put(ShardMessage::Accept(Box::new(pending)));
}

/// Stream below an upgrade, available once the response is sent.
fn stream_below(request: &mut HubRequest) -> ClientStream {
    let direct = request.context.source.upgrade.take();
    direct.and_then(|direct| direct.take_stream()).unwrap_or_else(|| {
        let upgrade = request.parts.extensions.remove();
        // Without one, the upgrade fails.
        ClientStream::Upgrade(upgrade.unwrap_or_else(|| hyper::upgrade::on(http::Request::new(()))))
    })
}

const NAME: &str = "permessage-deflate";

/// Bits of the window of each sent message.
const WINDOW_BITS: &str = "15";

const ACCEPTED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
const ACCEPTED_WITH_WINDOW: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15";

/// Returns the answer to a client's first offer that can be accepted; `None` without one.
///
/// An offer (permessage-deflate, RFC 7692, 7.1) is accepted only without contexts, so that a compressed frame is the
/// same for all clients and neither end keeps data between messages. A client can't refuse this: it has offered to
/// decompress any window of up to 32 KiB.
pub(crate) fn accepted_compression(headers: &HeaderMap) -> Option<HeaderValue> {
    words(headers, &SEC_WEBSOCKET_EXTENSIONS).find_map(accepted).map(HeaderValue::from_static)
}

/// Answer to one offer. Unknown, repeated and malformed parameters decline it.
fn accepted(offer: &str) -> Option<&'static str> {
    let mut parameters = offer.split(';').map(str::trim);
    if !parameters.next()?.eq_ignore_ascii_case(NAME) {
        return None;
    }
    let (mut seen, mut answer) = (Vec::new(), ACCEPTED);
    for parameter in parameters {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name.trim(), Some(unquoted(value.trim()))),
            None => (parameter, None),
        };
        let name = name.to_ascii_lowercase();
        match (name.as_str(), value) {
            ("server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits", None) => {}
            ("client_max_window_bits", Some("8" | "9" | "10" | "11" | "12" | "13" | "14" | WINDOW_BITS)) => {}
            ("server_max_window_bits", Some(WINDOW_BITS)) => answer = ACCEPTED_WITH_WINDOW,
            _ => return None,
        }
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
    }
    Some(answer)
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(values: &[&str]) -> Option<String> {
        let headers = values.iter().map(|value| (SEC_WEBSOCKET_EXTENSIONS, value.parse().unwrap())).collect();
        accepted_compression(&headers).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn offers_are_accepted_without_contexts() {
        for offer in [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "Permessage-Deflate;client_max_window_bits=8",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; client_max_window_bits=\"12\"",
            "x-webkit-deflate-frame, permessage-deflate",
        ] {
            assert_eq!(accept(&[offer]).as_deref(), Some(ACCEPTED), "{offer}");
        }
        assert_eq!(accept(&["x", "permessage-deflate"]).as_deref(), Some(ACCEPTED), "in another header");
    }

    #[test]
    fn a_full_window_is_confirmed_and_a_smaller_one_is_declined() {
        let full = "permessage-deflate; server_max_window_bits=15";
        assert_eq!(accept(&[full]).as_deref(), Some(ACCEPTED_WITH_WINDOW));
        assert_eq!(accept(&["permessage-deflate; server_max_window_bits=10"]), None);
        let alternatives = "permessage-deflate; server_max_window_bits=10, permessage-deflate";
        assert_eq!(accept(&[alternatives]).as_deref(), Some(ACCEPTED), "the next offer");
    }

    #[test]
    fn other_offers_are_declined() {
        for offer in [
            "",
            "permessage-bzip2",
            "permessage-deflate-x",
            "permessage-deflate; unknown",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=015",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; client_max_window_bits; CLIENT_MAX_WINDOW_BITS=10",
            "permessage-deflate;",
        ] {
            assert_eq!(accept(&[offer]), None, "{offer}");
        }
        assert_eq!(accept(&[]), None);
    }
}
