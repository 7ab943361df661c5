//! Connect by WebSocket: checks the token, answers the upgrade, and hands the socket to this shard.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use tokio::time::sleep;
use trunkline_protocol::id::random_id;
use trunkline_protocol::manifest::Transport;
use trunkline_protocol::service::OpenConnection;

use crate::auth::ClientTerms;
use crate::clock::unix_seconds;
use crate::frontend::bearer::user_of;
use crate::frontend::connect::stateful_connect::{self, Claim, StatefulConnect};
use crate::frontend::connect::{NewConnection, admit, changed_transport, may_use, not_supported, opening};
use crate::frontend::endpoint::Endpoint;
use crate::frontend::identify::{ConnectingClient, UNKNOWN_ID};
use crate::frontend::plain_response::plain;
use crate::frontend::request_extension::{ChosenConnectionId, peer_address};
use crate::frontend::request_limit::{count_connected, take_head_room, take_permit};
use crate::frontend::upgrade_answer::{accept_key, chosen_sub_protocol, switching_protocols, with_sub_protocol};
use crate::frontend::visitor::ComesBack;
use crate::frontend::{reservation, restore};
use crate::shard::{ClientStream, DirectUpgrade, PendingConnection, ReserveError, ShardMessage};
use crate::upstream::Hub;

pub(crate) async fn answer(endpoint: &Endpoint, hub: &Arc<Hub>, request: Request) -> Response {
    let accept = match accept_key(request.headers()) {
        Ok(accept) => accept,
        Err(refusal) => return refusal,
    };
    let sub_protocol = chosen_sub_protocol(request.headers(), &hub.settings().sub_protocols);
    let client = request.extensions().get::<ConnectingClient>();
    let token = client.and_then(|client| client.token.as_ref());
    let may_return = token.is_some_and(|token| token.is_stateful && !token.is_too_old_to_carry(unix_seconds()));
    match attach(endpoint, hub, request).await {
        Ok(()) => with_sub_protocol(switching_protocols(&accept), sub_protocol),
        Err(refusal) => {
            if may_return && refusal.status() == StatusCode::NOT_FOUND {
                sleep(endpoint.shared.limits.refused_return_wait(endpoint.shared.uptime())).await;
            }
            refusal
        }
    }
}

async fn attach(endpoint: &Endpoint, hub: &Arc<Hub>, mut request: Request) -> Result<(), Response> {
    let (mut client, is_negotiated) = match request.extensions().get::<ConnectingClient>() {
        None => {
            let user = user_of(&request);
            let restores = restore::claim(endpoint, hub, &request, &user);
            // Routes were evaluated with this id.
            let chosen = request.extensions_mut().remove::<ChosenConnectionId>();
            let id = chosen.map_or_else(random_id, |ChosenConnectionId(id)| id);
            (ConnectingClient { restores, ..ConnectingClient::without_negotiation(id, user) }, false)
        }
        Some(client) => (client.clone(), true),
    };
    let (mut permit, mut asked) = (None, None);
    if client.token.as_ref().is_some_and(|token| token.is_stateful) {
        match Box::pin(stateful_connect::find(endpoint, hub, &mut request, &client)).await? {
            StatefulConnect::Open(claim) => {
                resume(hub, request, claim);
                return Ok(());
            }
            StatefulConnect::New(terms) => (permit, asked) = (terms.permit, terms.asked),
        }
    }
    if request.extensions().get::<ComesBack>().is_some() {
        return Err(plain(
            StatusCode::UNAUTHORIZED,
            "the access token has expired, and there is no connection to resume",
        ));
    }
    if !client.is_fresh {
        return Err(plain(StatusCode::NOT_FOUND, UNKNOWN_ID));
    }
    if !may_use(hub, &client.user, Transport::WebSockets) {
        return Err(not_supported(Transport::WebSockets));
    }
    endpoint.refuse_new_client(hub, request.extensions()).map_or(Ok(()), Err)?;
    // First, because the memory for a large head may be taken from other clients.
    let permit = permit.map_or_else(|| take_permit(endpoint, &request), Ok)?;
    let (parts, body) = request.into_parts();
    let kept = || opening(endpoint, hub, &parts, (&client, Transport::WebSockets));
    let head = take_head_room(endpoint, hub, &parts, kept)?;
    let mut request = Request::from_parts(parts, body);
    // Last, because it uses up the token.
    client.user = reservation::confirm(endpoint, hub, &mut request, (&client, asked)).await?;
    let id = &client.connection_id;
    endpoint.shared.routes.reserve(id).map_err(|error| match error {
        ReserveError::Taken if endpoint.shared.admission.http_transports.find(id).is_some() => changed_transport(),
        ReserveError::Taken => plain(StatusCode::CONFLICT, ""),
        ReserveError::Unknown => plain(StatusCode::NOT_FOUND, UNKNOWN_ID),
    })?;
    if is_negotiated {
        count_connected(endpoint, peer_address(request.extensions()));
    }
    let socket = stream_below(&mut request);
    let (parts, _) = request.into_parts();
    let transport = Transport::WebSockets;
    admit(endpoint, hub, &parts, NewConnection { socket, transport, client, is_negotiated, permit, head });
    Ok(())
}

fn resume(hub: &Arc<Hub>, mut request: Request, claim: Claim) {
    let stream = Some(stream_below(&mut request));
    let pending = PendingConnection {
        stream,
        transport: Transport::WebSockets,
        hub: hub.clone(),
        open: OpenConnection::default(),
        is_negotiated: true,
        user: None,
        permit: claim.permit,
        head: None,
        expires_s: None,
        terms: ClientTerms::default(),
        wants_stateful: true,
        verified_at: None,
        restores: None,
        claimed: Some(claim.place),
        group: None,
        trace: None,
    };
    claim.shard.put(ShardMessage::Accept(Box::new(pending)));
}

/// Stream below an upgrade, available once the response is sent.
fn stream_below(request: &mut Request) -> ClientStream {
    let direct = request.extensions_mut().remove::<DirectUpgrade>();
    direct.and_then(|direct| direct.take()).unwrap_or_else(|| ClientStream::Upgrade(hyper::upgrade::on(request)))
}
