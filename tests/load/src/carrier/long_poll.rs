//! Long polling: sequential GETs, each answered when there is a message or after a while.
//!
//! ```text
//!  first GET: an empty 200 immediately ─► GET ─► 200: messages, or none ─┐      close: last POST, DELETE
//!                                          ▲─────────────────────────────┘
//!                                          └──► 204: the server has ended it
//! ```

use std::cell::RefCell;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use trunkline_protocol::hub::HubProtocol;

use super::taker::{Taker, deliver_whole};
use super::upward::Upward;
use crate::dial::ConnectError;
use crate::ended::Ended;
use crate::exchange::{Ask, Exchange, ExchangeError};
use crate::greeting;

/// Time limit of one poll, as in the official clients. Servers answer after 90 s, which serves as the keep-alive:
/// neither end pings.
pub(super) const POLL_MAX: Duration = Duration::from_secs(100);

#[derive(Debug)]
pub(crate) struct LongPoll {
    pub(super) upward: Upward,
    protocol: HubProtocol,
    /// State after the handshake, until the connection is served.
    begun: RefCell<Option<Box<BegunPoll>>>,
}

#[derive(Debug)]
struct BegunPoll {
    /// Hub messages after the handshake response.
    rest: Bytes,
    down: Exchange,
    up: Exchange,
}

#[derive(Debug, PartialEq, Eq)]
enum Polled {
    /// Hub messages, possibly none.
    Bytes(Bytes),
    /// The connection has ended.
    Over,
    /// Unexpected status of a poll's response.
    Refused(StatusCode),
}

impl LongPoll {
    /// Makes the first poll of a negotiated connection and performs the handshake.
    pub(crate) async fn open(mut down: Exchange, path: String, protocol: HubProtocol) -> Result<Self, ConnectError> {
        // Its body is ignored, as in the official clients, because it is empty.
        found(poll(&mut down, &path).await?)?;
        let mut up = down.another();
        let upward = Upward::new(path, protocol, down.scissors());
        let greet = async { upward.post(&mut up, greeting::request(protocol)).await.map_err(ConnectError::from) };
        let answer = async {
            loop {
                let bytes = found(poll(&mut down, upward.path()).await?)?;
                if !bytes.is_empty() {
                    return Ok(bytes);
                }
            }
        };
        let ((), mut rest) = tokio::try_join!(greet, answer)?;
        drop(rest.split_to(greeting::welcome(&rest)?));
        let begun = BegunPoll { rest, down, up };
        Ok(Self { upward, protocol, begun: RefCell::new(Some(begun.into())) })
    }

    pub(super) async fn serve(&self, taker: &impl Taker) -> Ended {
        let Some(begun) = self.begun.take() else { return Ended::Closed };
        let BegunPoll { rest, mut down, mut up } = *begun;
        if let Err(ended) = deliver_whole(self.protocol, &rest, taker) {
            return ended;
        }
        drop(rest);
        let ended = self.upward.serve(&mut up, pin!(self.read(&mut down, taker))).await;
        if !self.upward.is_closing() {
            return ended;
        }
        // The pending poll is cancelled first, as in the official clients.
        drop(down);
        tokio::select! {
            _ = self.upward.ending.wait() => {}
            // The answer does not matter, because the client is leaving.
            _ = up.ask(Ask::delete(self.upward.path())) => {}
        }
        Ended::Closed
    }

    /// Polls until the server ends the connection.
    async fn read(&self, down: &mut Exchange, taker: &impl Taker) -> Ended {
        loop {
            let bytes = match poll(down, self.upward.path()).await {
                Ok(Polled::Bytes(bytes)) => bytes,
                Ok(Polled::Over) => return Ended::without_a_word(),
                Ok(Polled::Refused(status)) => return Ended::ByServer(format!("GET answered {}", status.as_u16())),
                Err(error) => return error.into(),
            };
            taker.note_received();
            if let Err(ended) = deliver_whole(self.protocol, &bytes, taker) {
                return ended;
            }
        }
    }
}

async fn poll(down: &mut Exchange, path: &str) -> Result<Polled, ExchangeError> {
    let (status, bytes) = down.ask(Ask::get(path)).await?;
    Ok(match status {
        StatusCode::OK => Polled::Bytes(bytes),
        StatusCode::NO_CONTENT => Polled::Over,
        other => Polled::Refused(other),
    })
}

/// Result of a poll during the hub handshake.
fn found(polled: Polled) -> Result<Bytes, ConnectError> {
    match polled {
        Polled::Bytes(bytes) => Ok(bytes),
        Polled::Over => Err(ConnectError::Closed),
        Polled::Refused(status) => Err(ConnectError::Request("GET", status.as_u16().to_string())),
    }
}
