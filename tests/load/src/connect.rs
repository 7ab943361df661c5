//! Opens one client connection: optional negotiation, transport setup, hub handshake.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use trunkline_protocol::hub::HubProtocol;

use crate::carrier::Carrier;
use crate::carrier::event_stream::EventStream;
use crate::carrier::long_poll::LongPoll;
use crate::carrier::web_socket::WebSocket;
use crate::cli::{Protocol, RunArguments, Transport};
use crate::dial::{self, ConnectError};
use crate::exchange::{Caller, Exchange};
use crate::negotiate::{connection_path, negotiate};
use crate::target::Target;

/// Connection settings, equal for all clients of a run.
#[derive(Debug, Clone)]
pub(crate) struct How {
    pub(crate) protocol: HubProtocol,
    pub(crate) transport: Transport,
    pub(crate) start: Start,
    patience: Duration,
}

/// First step of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Requests a connection token first.
    Negotiate,
    Skip,
}

impl How {
    /// Validates the command line's settings.
    pub(crate) fn of(arguments: &RunArguments) -> Result<Self> {
        let (transport, protocol) = (arguments.transport, arguments.protocol);
        ensure!(
            (transport, protocol) != (Transport::ServerSentEvents, Protocol::Messagepack),
            "--transport sse carries text only: use --protocol json with it, or --protocol messagepack with \
             --transport websockets or long-polling"
        );
        let start = match transport {
            Transport::Websockets if arguments.negotiate => Start::Negotiate,
            Transport::Websockets => Start::Skip,
            Transport::ServerSentEvents | Transport::LongPolling if arguments.skip => {
                bail!("--skip: only --transport websockets connects without negotiation")
            }
            Transport::ServerSentEvents | Transport::LongPolling => Start::Negotiate,
        };
        Ok(Self { protocol: protocol.into(), transport, start, patience: arguments.connect_timeout })
    }
}

/// Connects a client from `source` with an optional access token.
pub(crate) async fn connect(
    target: &Target,
    source: Option<IpAddr>,
    token: Option<&str>,
    how: &How,
) -> Result<Carrier, ConnectError> {
    let opening = async {
        match how.start {
            Start::Skip => upgrade(target, source, token, &target.path, how.protocol).await,
            // Boxed, because it is much larger, and a client's task keeps room for its first step.
            Start::Negotiate => Box::pin(negotiated(target, source, token, how)).await,
        }
    };
    tokio::time::timeout(how.patience, opening).await.unwrap_or(Err(ConnectError::TimedOut))
}

async fn negotiated(
    target: &Target,
    source: Option<IpAddr>,
    token: Option<&str>,
    how: &How,
) -> Result<Carrier, ConnectError> {
    let mut exchange = Exchange::new(Caller::new(target, source, token)?);
    let id = negotiate(&mut exchange, &target.path, how.transport).await?;
    let path = connection_path(&target.path, &id);
    match how.transport {
        Transport::Websockets => {
            drop(exchange);
            upgrade(target, source, token, &path, how.protocol).await
        }
        // The connection used for negotiation then receives the messages.
        Transport::ServerSentEvents => EventStream::open(exchange, path).await.map(Carrier::EventStream),
        Transport::LongPolling => LongPoll::open(exchange, path, how.protocol).await.map(Carrier::LongPoll),
    }
}

async fn upgrade(
    target: &Target,
    source: Option<IpAddr>,
    token: Option<&str>,
    path: &str,
    protocol: HubProtocol,
) -> Result<Carrier, ConnectError> {
    let stream = dial::open(target.address, source).await?;
    WebSocket::open(stream, &target.authority, path, token, protocol).await.map(Carrier::WebSocket)
}
