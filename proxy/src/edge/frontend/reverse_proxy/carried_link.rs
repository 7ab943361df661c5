//! Links of app servers forwarded to another node that the load balancer does not route them to.
//!
//! The app server's token is forwarded, and verified again at the other node.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use http::request::Parts;
use hyper::upgrade::OnUpgrade;

use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::hop_header;
use crate::edge::frontend::plain_response::plain;
use crate::edge::frontend::reverse_proxy::relayed_body::SilenceTimer;
use crate::edge::frontend::reverse_proxy::{next_hop, silence_limit, tunnel};
use crate::ground::limits::LinkPermit;
use crate::ground::net::address::Address;

pub(crate) async fn carry(
    endpoint: &Endpoint,
    node: &Address,
    (mut parts, permit): (Parts, Arc<LinkPermit>),
) -> Result<Response, Response> {
    let app_server: Option<OnUpgrade> = parts.extensions.remove();
    let protocol = next_hop::prepare_request(&mut parts);
    parts.extensions.clear();
    let (Some(app_server), Some(protocol)) = (app_server, protocol) else {
        return Err(plain(StatusCode::BAD_REQUEST, "app servers dial in by a WebSocket upgrade"));
    };
    hop_header::set_upgrade(&mut parts.headers, protocol.clone());
    let (request, limit) = (next_hop::request(parts, Body::empty()), endpoint.shared.settings.relay.hop_timeout);
    let sent = silence_limit::send(&endpoint.proxy_client.nodes, node, request, &SilenceTimer::new(), limit).await;
    let mut answer = sent.map_err(|failure| {
        plain(StatusCode::BAD_GATEWAY, format!("the node of this connection does not answer: {failure}"))
    })?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let text = format!("the node of this connection answers {}", answer.status());
        return Err(plain(StatusCode::BAD_GATEWAY, text));
    }
    next_hop::prepare_answer(&mut answer);
    hop_header::drop_private(answer.headers_mut());
    tunnel::open(endpoint.counters.clone(), app_server, hyper::upgrade::on(&mut answer), permit);
    hop_header::set_upgrade(answer.headers_mut(), protocol);
    Ok(answer.map(|_| Body::empty()))
}
