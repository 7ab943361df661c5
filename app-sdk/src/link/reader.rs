//! The reading half of a link: frames become openings, data, leavings and acknowledgements. It never waits for
//! a method, a client or the other direction.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use trunkline_protocol::limits::LINK_TIMEOUT_MS;
use trunkline_protocol::service::{FrameBuffer, Ping, ServiceMessage};

use super::socket::LinkReader;
use super::{LinkEnd, Shared};
use crate::connection::LinkId;
use crate::endpoint::Endpoint;
use crate::node::Node;
use crate::sync::lock;

/// The pair of a ping that is to be sent straight back.
const ECHO: &str = "echo";

/// The reader of one link.
pub(super) struct Reader<'a> {
    pub(super) endpoint: &'a dyn Endpoint,
    pub(super) link: LinkId,
    pub(super) node: &'a Arc<Node>,
    pub(super) shared: &'a Shared,
}

impl Reader<'_> {
    /// Reads until the link ends.
    pub(super) async fn read(&self, mut frames: FrameBuffer, mut pieces: LinkReader) -> LinkEnd {
        let timeout = Duration::from_millis(LINK_TIMEOUT_MS);
        let silent = tokio::time::sleep(timeout);
        tokio::pin!(silent);
        let mut last_heard = Instant::now();
        loop {
            if let Err(end) = self.handle_frames(&mut frames) {
                return end;
            }
            let piece = tokio::select! {
                piece = pieces.next() => piece,
                () = self.shared.stop.cancelled() => return LinkEnd::Replaced,
                // Armed anew only when it fires: a busy link doesn't touch the timer for each message.
                () = &mut silent => {
                    if last_heard.elapsed() >= timeout {
                        return LinkEnd::Silent;
                    }
                    silent.as_mut().reset(last_heard + timeout);
                    continue;
                }
            };
            last_heard = Instant::now();
            match piece {
                Ok(piece) => frames.push(piece),
                Err(end) => return end,
            }
        }
    }

    fn handle_frames(&self, frames: &mut FrameBuffer) -> Result<(), LinkEnd> {
        let owed = lock(&self.shared.counters).poll_timeout();
        while let Some(body) = frames.next_body()? {
            match ServiceMessage::decode(&body)? {
                Some(ServiceMessage::Ping(ping)) => self.handle_ping(&ping)?,
                message => {
                    if let Some(message) = message {
                        self.handle(&body, message);
                    }
                    self.endpoint.down().metrics.frames_up.inc();
                    lock(&self.shared.counters).handle_received(self.shared.now_ms());
                }
            }
        }
        // The writer sleeps until its next ping is due, which may now be earlier.
        if lock(&self.shared.counters).poll_timeout() != owed {
            self.shared.outbox.wake();
        }
        Ok(())
    }

    fn handle_ping(&self, ping: &Ping) -> Result<(), LinkEnd> {
        lock(&self.shared.counters).handle_ping(ping)?;
        if ping.get(ECHO).is_some() {
            // A closed outbox means that the link is ending, and so is whoever measures it.
            let _ = self.shared.outbox.uncounted(&ServiceMessage::Ping(ping.clone()).to_frame());
        }
        Ok(())
    }

    fn handle(&self, body: &Bytes, message: ServiceMessage) {
        match message {
            ServiceMessage::OpenConnection(open) => self.endpoint.handle_open(self.link, self.node, body, open),
            ServiceMessage::ConnectionData(data) => self.endpoint.handle_data(data),
            ServiceMessage::CloseConnection(close) => self.endpoint.handle_left(close),
            ServiceMessage::Ack(ack) => self.endpoint.down().acks.handle(ack),
            ServiceMessage::ClientInvocation(question) => self.endpoint.handle_question(self.node, question),
            ServiceMessage::ClientCompletion(answer) => self.endpoint.handle_answer(answer),
            ServiceMessage::ErrorCompletion(refusal) => self.endpoint.handle_refusal(self.node, refusal),
            ServiceMessage::ServiceError(error) => {
                tracing::warn!(hub = %self.endpoint.down().hub, error = %error.error, "the proxy reports an error");
            }
            other => {
                tracing::debug!(hub = %self.endpoint.down().hub, kind = other.name(), "frame is ignored");
            }
        }
    }
}
