//! Forward marks of requests forwarded by another node through a channel: sealed, each valid for one request.

use axum::extract::Request;
use http::request::Parts;
use http::{HeaderValue, Method, Uri};
use trunkline_protocol::limits::FORWARD_MARK_LIFETIME_S;
use trunkline_protocol::manifest::FORWARD_HEADER;
use trunkline_protocol::token::{ForwardMark, TokenError};

use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::forwarded_header::ForwardedScheme;
use crate::edge::frontend::request_context::{RequestContext, SourceChannel};
use crate::edge::frontend::reverse_proxy::next_hop;
use crate::ground::auth::User;
use crate::ground::clock::unix_seconds;
use crate::ground::config::Settings;

/// Accepts a valid mark: the request comes from the client that it names. An invalid mark is ignored.
pub(crate) fn accept(endpoint: &Endpoint, request: &mut Request, context: &mut RequestContext) {
    let Some(sealed) = request.headers_mut().remove(FORWARD_HEADER) else { return };
    // Marks are valid only inside a node's channel.
    let is_of_fleet = matches!(context.source.channel, SourceChannel::Node);
    let mark = open(&endpoint.shared.settings, &sealed, request.method(), request.uri());
    match mark.and_then(|mark| is_of_fleet.then_some(mark).ok_or(TokenError::Forged)) {
        Ok(mark) => {
            // The forwarding node must not be mistaken for the client.
            context.source.peer = mark.client;
            context.scheme = mark.scheme.as_deref().and_then(ForwardedScheme::read);
            (context.is_forwarded, context.forwarded_user) = (true, mark.user.map(Box::new));
        }
        Err(error) => {
            tracing::debug!(%error, "forward mark refused");
            endpoint.counters.relay.marks_refused.increment();
        }
    }
}

fn open(settings: &Settings, sealed: &HeaderValue, method: &Method, uri: &Uri) -> Result<ForwardMark, TokenError> {
    let sealed = sealed.to_str().map_err(|_| TokenError::Forged)?;
    ForwardMark::open(sealed, &settings.keys, method.as_str(), next_hop::target(uri).as_str(), unix_seconds())
}

/// Marks a request to another node: its own, or a client's, for the owner of its connection. `user` was authenticated
/// here.
pub(crate) fn set(settings: &Settings, parts: &mut Parts, client: Option<&RequestContext>, user: Option<User>) {
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
