//! Accepts channels opened by other nodes and by app servers that dial in.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::AddExtension;
use axum::response::Response;
use axum::{Extension, Router};
use http::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::Layer;
use tracing::{debug, warn};
use trunkline_channel::{HandshakeError, HelloTable, NOT_FRESH, accept};
use trunkline_protocol::key::{AccessKeys, PeerKind};

use crate::ground::config::HostRules;
use crate::ground::limits::LinkRefusal;
use crate::ground::net::address::Address;
use crate::ground::net::socket::WriteStallLimit;

/// Maximum idle time between two requests, and time limit for a request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Time after which the channel is closed if the peer reads nothing of a response.
const STALLED_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChannelRefused {
    /// Too many channels wait for their first request.
    Busy,
    /// The holder of the key, or its address, has no link left.
    Full(LinkRefusal),
    /// The clocks differ by more than a few minutes.
    NotFresh {
        /// Minutes by which the sender's clock is ahead.
        ahead_min: i64,
    },
    /// Not an upgrade, or not from a holder of our key.
    Stranger,
    /// The key matches, but the peer dialled a name that is not ours.
    Misdirected {
        /// Option that sets the names of this port.
        option: &'static str,
    },
}

impl ChannelRefused {
    /// Status and text of the response. Peers without a key get a plain 404.
    pub(crate) fn status_and_text(self) -> (StatusCode, String) {
        match self {
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, HandshakeError::Busy.to_string()),
            Self::Full(refusal @ LinkRefusal::Address { .. }) => (StatusCode::TOO_MANY_REQUESTS, refusal.to_string()),
            Self::Full(refusal) => (StatusCode::SERVICE_UNAVAILABLE, refusal.to_string()),
            Self::NotFresh { ahead_min } => (NOT_FRESH, HandshakeError::NotFresh { ahead_min }.to_string()),
            Self::Stranger => (StatusCode::NOT_FOUND, "not found".into()),
            Self::Misdirected { option } => {
                let text = format!("the dialled name is not a name of this node: see its {option}");
                (StatusCode::MISDIRECTED_REQUEST, text)
            }
        }
    }
}

/// Names by which a port may be dialled.
#[derive(Debug, Clone, Copy)]
pub(crate) enum OwnNames<'a> {
    /// Any name. Nodes are found under many names and identify each other by boot id.
    Any,
    /// The advertised address, which peers get only from this node.
    Advertised(&'a Address),
    /// Host names configured by the operator, if any.
    Hosts(&'a HostRules),
}

impl<'a> OwnNames<'a> {
    /// Names of the client port of a node with this advertised address.
    pub(crate) fn advertised(address: Option<&'a Address>) -> Self {
        address.map_or(Self::Any, Self::Advertised)
    }

    fn check(self, dialled: &str) -> Result<(), ChannelRefused> {
        let (is_own, option) = match self {
            Self::Any => return Ok(()),
            Self::Advertised(address) => (address.authority().eq_ignore_ascii_case(dialled), "--advertise"),
            Self::Hosts(hosts) => (hosts.allow(dialled), "--allow-host"),
        };
        if is_own { Ok(()) } else { Err(ChannelRefused::Misdirected { option }) }
    }
}

/// Access check of a port's channels: keys, names and hellos already seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChannelLock<'a> {
    pub keys: &'a AccessKeys,
    /// Kind of peer that this port is to its callers.
    pub peer_kind: PeerKind,
    pub names: OwnNames<'a>,
    pub hellos: &'a HelloTable,
}

/// Opens the requested channel. Requests inside carry their source as an extension. It is made after the hello was
/// checked. Fails if the channel is refused.
pub(crate) fn open_channel<T: Clone + Send + Sync + 'static>(
    request: &Request,
    lock: ChannelLock<'_>,
    inside: Router,
    source: impl FnOnce() -> Result<T, ChannelRefused>,
) -> Result<Response, ChannelRefused> {
    let accepted = match accept(request, lock.keys, lock.peer_kind, lock.hellos) {
        Ok(Some(accepted)) => accepted,
        Err(HandshakeError::Busy) => return Err(ChannelRefused::Busy),
        Err(HandshakeError::NotFresh { ahead_min }) => return Err(ChannelRefused::NotFresh { ahead_min }),
        Ok(None) | Err(_) => return Err(ChannelRefused::Stranger),
    };
    if let Err(refused) = lock.names.check(&accepted.dialled) {
        warn!(dialled = &*accepted.dialled, "channel refused: the dialled name is not a name of this node");
        return Err(refused);
    }
    let inside = Extension(source()?).layer(inside);
    let (response, stream) = accepted.into_parts();
    tokio::spawn(async move {
        // Fails if the peer is gone, or if its hello was a replay.
        if let Ok(stream) = stream.await {
            serve(stream, inside).await;
        }
    });
    let mut response = response.map(|()| Body::empty());
    WriteStallLimit::Idle(STALLED_TIMEOUT).attach(&mut response);
    Ok(response)
}

/// Serves requests inside a channel until it closes or becomes a node link.
async fn serve<T: Clone + Send + Sync + 'static>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    inside: AddExtension<Router, T>,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(inside))
        .with_upgrades();
    if let Err(error) = connection.await {
        debug!(%error, "channel closed in the middle of a request");
    }
}
