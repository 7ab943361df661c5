//! Sending half of a receive-only transport: one POST at a time. Messages queued meanwhile share the next.
//!
//! ```text
//!  put ─► waiting ─► POST ─► answer ─┐      close: the last POST, then the close of the transport
//!            ▲───────────────────────┘
//! ```

use std::cell::RefCell;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use trunkline_protocol::hub::HubProtocol;

use super::taker::UNSENT_MAX_BYTES;
use crate::dial::ConnectError;
use crate::ended::{Ended, Ending};
use crate::exchange::{Ask, Exchange, ExchangeError, Scissors};

/// Time limit for an HTTP response, as in the official clients.
const ANSWER_PATIENCE: Duration = Duration::from_secs(100);

/// Sending half of a connection, and its end.
#[derive(Debug)]
pub(crate) struct Upward {
    path: String,
    content_type: &'static str,
    waiting: RefCell<Vec<u8>>,
    wake: Notify,
    is_closing: watch::Sender<bool>,
    scissors: Scissors,
    pub(super) ending: Ending,
}

#[derive(Debug)]
pub(super) enum PostError {
    Exchange(ExchangeError),
    Refused(StatusCode),
    TimedOut,
}

impl Upward {
    pub(super) fn new(path: String, protocol: HubProtocol, scissors: Scissors) -> Self {
        let content_type = match protocol {
            HubProtocol::Json => "text/plain;charset=UTF-8",
            HubProtocol::MessagePack | HubProtocol::BlazorPack => "application/octet-stream",
        };
        let is_closing = watch::Sender::new(false);
        let (waiting, wake, ending) = (RefCell::default(), Notify::new(), Ending::default());
        Self { path, content_type, waiting, wake, is_closing, scissors, ending }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Queues a hub message, to be sent after earlier ones.
    pub(super) fn put(&self, message: &[u8]) {
        let mut waiting = self.waiting.borrow_mut();
        waiting.extend_from_slice(message);
        if waiting.len() > UNSENT_MAX_BYTES {
            self.ending.notify(Ended::Slow);
        }
        self.wake.notify_one();
    }

    /// Closes the connection after all queued messages are sent.
    pub(super) fn close(&self) {
        self.is_closing.send_replace(true);
        self.wake.notify_one();
    }

    pub(super) fn is_closing(&self) -> bool {
        *self.is_closing.borrow()
    }

    /// Resets all sockets of the connection.
    pub(super) fn cut(&self) {
        self.scissors.cut();
        self.ending.notify(Ended::Closed);
    }

    /// Runs both directions until the end; after a close, until all queued messages are sent.
    pub(super) async fn serve(&self, up: &mut Exchange, mut down: Pin<&mut impl Future<Output = Ended>>) -> Ended {
        let downward = async {
            let mut is_closing = self.is_closing.subscribe();
            tokio::select! {
                biased;
                // After a close, received data is ignored, and the server's end of the connection is expected.
                _ = is_closing.wait_for(|is_closing| *is_closing) => std::future::pending().await,
                ended = &mut down => ended,
            }
        };
        tokio::select! {
            biased;
            ended = self.ending.wait() => ended,
            ended = self.run(up) => ended,
            ended = downward => ended,
        }
    }

    /// Posts queued messages in a loop.
    async fn run(&self, exchange: &mut Exchange) -> Ended {
        loop {
            let body = self.waiting.take();
            if body.is_empty() {
                if self.is_closing() {
                    return Ended::Closed;
                }
                self.wake.notified().await;
            } else if let Err(error) = self.post(exchange, body.into()).await {
                return error.into();
            }
        }
    }

    /// Posts these bytes and waits for the response.
    pub(super) async fn post(&self, exchange: &mut Exchange, body: Bytes) -> Result<(), PostError> {
        let ask = Ask::post(&self.path, self.content_type, body);
        match timeout(ANSWER_PATIENCE, exchange.ask(ask)).await {
            Ok(Ok((status, _))) if status.is_success() => Ok(()),
            Ok(Ok((status, _))) => Err(PostError::Refused(status)),
            Ok(Err(error)) => Err(PostError::Exchange(error)),
            Err(_) => Err(PostError::TimedOut),
        }
    }
}

impl From<PostError> for Ended {
    fn from(error: PostError) -> Self {
        match error {
            PostError::Exchange(error) => error.into(),
            PostError::Refused(status) => Self::ByServer(format!("POST answered {}", status.as_u16())),
            PostError::TimedOut => Self::Silent,
        }
    }
}

impl From<PostError> for ConnectError {
    fn from(error: PostError) -> Self {
        match error {
            PostError::Exchange(error) => error.into(),
            PostError::Refused(status) => Self::Request("POST", status.as_u16().to_string()),
            PostError::TimedOut => Self::TimedOut,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::task::{LocalSet, spawn_local};

    use super::*;
    use crate::exchange::tests::{answer, ends, request};

    fn upward(exchange: &Exchange) -> Upward {
        Upward::new("/hub?id=x".into(), HubProtocol::Json, exchange.scissors())
    }

    #[tokio::test]
    async fn what_waits_for_an_answer_goes_together_and_a_close_comes_last() {
        let local = LocalSet::new();
        let talking = async {
            let (listener, mut exchange) = ends().await;
            let upward = upward(&exchange);
            let server = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let first = request(&mut stream).await;
                assert!(first.starts_with("POST /hub?id=x ") && first.ends_with("\r\n\r\none "), "{first}");
                upward.put(b"two ");
                upward.put(b"three ");
                upward.close();
                answer(&mut stream).await;
                let second = request(&mut stream).await;
                assert!(second.ends_with("\r\n\r\ntwo three "), "{second}");
                answer(&mut stream).await;
            };
            upward.put(b"one ");
            let down = pin!(std::future::pending());
            let (ended, ()) = tokio::join!(upward.serve(&mut exchange, down), server);
            assert_eq!(ended, Ended::Closed);
        };
        local.run_until(talking).await;
    }

    #[tokio::test]
    async fn once_closed_the_servers_own_end_is_no_news() {
        let local = LocalSet::new();
        let leaving = async {
            let (listener, mut exchange) = ends().await;
            let upward = upward(&exchange);
            let server = spawn_local(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                request(&mut stream).await;
                answer(&mut stream).await;
            });
            upward.put(b"farewell");
            upward.close();
            let down = pin!(std::future::ready(Ended::without_a_word()));
            assert_eq!(upward.serve(&mut exchange, down).await, Ended::Closed);
            server.await.unwrap();
        };
        local.run_until(leaving).await;
    }

    #[tokio::test]
    async fn a_server_that_takes_nothing_is_too_slow() {
        let (_listener, exchange) = ends().await;
        let upward = upward(&exchange);
        upward.put(&vec![b'x'; UNSENT_MAX_BYTES]);
        assert_eq!(upward.ending.told(), None);
        upward.put(b"x");
        assert_eq!(upward.ending.told(), Some(Ended::Slow));
    }
}
