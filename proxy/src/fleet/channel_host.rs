//! Host of channels that other nodes open, and app servers that dial in.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{Extensions, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tower::ServiceExt;
use tracing::{debug, warn};
use trunkline_channel::{HandshakeError, HelloTable, NOT_FRESH, accept};
use trunkline_protocol::key::{AccessKeys, FarEnd};

use crate::config::HostRules;
use crate::net::address::Address;
use crate::net::socket::WriteStallLimit;

/// Time that the other node may be silent between two requests, and take for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Time after which a node that takes no byte of an answer loses the channel.
const STALLED_TIMEOUT: Duration = Duration::from_secs(60);

/// Reason why no channel is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChannelRefused {
    /// Too many wait for their first request.
    Busy,
    /// Its hello was not made in the last minutes.
    NotFresh,
    /// It is no upgrade, or not one of somebody with our key.
    Stranger,
    /// Somebody with our key has dialled another name than ours, and was led here.
    Misdirected {
        /// Option that names what this port answers for.
        option: &'static str,
    },
}

impl ChannelRefused {
    /// Status and text of the answer. Whoever has none of the keys learns that there is nothing.
    pub(crate) fn answer(self) -> (StatusCode, String) {
        match self {
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, HandshakeError::Busy.to_string()),
            Self::NotFresh => (NOT_FRESH, HandshakeError::NotFresh.to_string()),
            Self::Stranger => (StatusCode::NOT_FOUND, "not found".into()),
            Self::Misdirected { option } => {
                let text = format!("another name was dialled than this node answers for: see its {option}");
                (StatusCode::MISDIRECTED_REQUEST, text)
            }
        }
    }
}

/// Names by which a port is dialled, as far as this node knows them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum OwnNames<'a> {
    /// Any name: nodes are found by names of many nodes, and know each other by their boot ids.
    Any,
    /// The address that this node advertises: others have it from nowhere else.
    Advertised(&'a Address),
    /// Hosts that the operator has named, if any.
    Hosts(&'a HostRules),
}

impl<'a> OwnNames<'a> {
    /// Names of the client port of a node that advertises this.
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

/// Keys that open the channels of a port, its names, and the hellos that it has taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChannelLock<'a> {
    pub keys: &'a AccessKeys,
    /// Kind of far end that this one is to those who open them.
    pub far_end: FarEnd,
    pub names: OwnNames<'a>,
    pub hellos: &'a HelloTable,
}

/// Opens the channel that a request asks for. Requests inside it get these extensions.
///
/// # Errors
/// When it is not opened.
pub(crate) fn open_channel(
    request: &mut Request,
    lock: ChannelLock<'_>,
    inside: Router,
    extensions: Extensions,
) -> Result<Response, ChannelRefused> {
    let accepted = match accept(request, lock.keys, lock.far_end, lock.hellos) {
        Ok(Some(accepted)) => accepted,
        Err(HandshakeError::Busy) => return Err(ChannelRefused::Busy),
        Err(HandshakeError::NotFresh) => return Err(ChannelRefused::NotFresh),
        Ok(None) | Err(_) => return Err(ChannelRefused::Stranger),
    };
    if let Err(refused) = lock.names.check(&accepted.dialled) {
        warn!(dialled = &*accepted.dialled, "a holder of the key has dialled another name, which leads to this node");
        return Err(refused);
    }
    let (response, stream) = accepted.into_parts();
    tokio::spawn(async move {
        // It fails when the other node is gone, or when who sent the hello had only recorded it.
        if let Ok(stream) = stream.await {
            serve(stream, inside, extensions).await;
        }
    });
    let mut response = response.map(|()| Body::empty());
    response.extensions_mut().insert(WriteStallLimit::Idle(STALLED_TIMEOUT));
    Ok(response)
}

/// Serves the requests inside a channel, until it ends or becomes a node link.
async fn serve(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, inside: Router, extensions: Extensions) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().extend(extensions.clone());
        let inside = inside.clone();
        async move { Ok::<_, Infallible>(inside.oneshot(request).await.unwrap_or_else(|never| match never {})) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        debug!(%error, "a channel ended in the middle of a request");
    }
}
