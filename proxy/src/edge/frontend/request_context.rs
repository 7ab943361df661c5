//! Context of a request: facts about its client that the listener and normalisation have found.
//!
//! ```text
//!  listener, channel ─► RequestSource ─► normalise ─► RequestContext ─► router ─► stages of a hub's request
//! ```
//!
//! Both are extensions only within hyper and axum's router. All stages get the context as an argument.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request};
use http::request::Parts;

use super::forwarded_header::ForwardedScheme;
use super::request_query::RequestQuery;
use crate::engine::shard::DirectUpgrade;
use crate::ground::auth::User;
use crate::ground::config::Settings;
use crate::ground::limits::{LinkPermit, RelayConnection};
use crate::ground::net::socket::SocketHandover;

pub(crate) type RequestHead = (Parts, Box<RequestContext>);

/// Socket or channel of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestSource {
    /// Address of the peer; after normalisation, the client's.
    pub peer: Option<SocketAddr>,
    pub is_tls: bool,
    /// Set for a request at the listener of an app with an embedded node.
    pub is_of_app: bool,
    pub channel: SourceChannel,
    /// Connection with limits of its own for requests to the app.
    pub relays: Option<RelayConnection>,
    /// Takes over the socket of an event stream.
    pub handover: Option<SocketHandover>,
    /// Upgrade of a socket that is answered without an HTTP server.
    pub upgrade: Option<DirectUpgrade>,
}

/// Channel that contains a request.
#[derive(Debug, Clone, Default)]
pub(crate) enum SourceChannel {
    #[default]
    None,
    /// From a node of the fleet.
    Node,
    /// From an app server that dials in. Holds the permit of the channel.
    AppServer(Arc<LinkPermit>),
}

/// Facts about a request and its client.
#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    pub source: RequestSource,
    /// Scheme used by the client, if known.
    pub scheme: Option<ForwardedScheme>,
    pub query: RequestQuery,
    /// Set for a request forwarded by another node; it is not forwarded again.
    pub is_forwarded: bool,
    /// User authenticated by that node, if the connection requires one.
    pub forwarded_user: Option<Box<User>>,
}

impl RequestSource {
    pub(crate) fn from_peer(peer: SocketAddr) -> Self {
        Self { peer: Some(peer), ..Self::default() }
    }

    pub(crate) fn attach<B>(self, request: &mut http::Request<B>) {
        request.extensions_mut().insert(self);
    }

    /// Takes the source of a request. In an embedded node, the app's server provides the address.
    pub(crate) fn take_source(request: &mut Request) -> Self {
        let extensions = request.extensions_mut();
        extensions.remove().unwrap_or_else(|| {
            let peer = extensions.get().map(|ConnectInfo(peer)| *peer);
            Self { peer, is_of_app: true, ..Self::default() }
        })
    }

    /// Address for counting a client. A trusted address without a named client represents many.
    pub(crate) fn counted_ip(&self, settings: &Settings) -> Option<IpAddr> {
        let ip = self.peer?.ip();
        (!settings.trusted.contains(ip)).then_some(ip)
    }
}

impl RequestContext {
    pub(crate) fn new(source: RequestSource, query: RequestQuery) -> Self {
        Self { source, scheme: None, query, is_forwarded: false, forwarded_user: None }
    }

    /// Adds it to a request for axum's router.
    pub(crate) fn attach(self: Box<Self>, mut request: Request) -> Request {
        request.extensions_mut().insert(self);
        request
    }

    /// Scheme used by the client of a request in axum's router.
    pub(crate) fn scheme_in(parts: &Parts) -> Option<ForwardedScheme> {
        parts.extensions.get::<Box<Self>>().and_then(|context| context.scheme)
    }

    /// Takes the context of a request from axum's router, where every request has one.
    pub(crate) fn take_context(parts: &mut Parts) -> Box<Self> {
        let found = parts.extensions.remove();
        found.unwrap_or_else(|| Box::new(Self::new(RequestSource::default(), RequestQuery::parse(&parts.uri))))
    }

    /// Scheme used by the client; http if unknown.
    pub(crate) fn scheme_name(&self) -> &'static str {
        self.scheme.map_or("http", ForwardedScheme::name)
    }
}
