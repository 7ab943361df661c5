//! Reading at an end: bytes become frames and deliveries, which a slow consumer takes.

use bytes::Bytes;
use trunkline_protocol::service::ServiceMessage;

use super::{Around, Held};
use crate::ledger::{Check, broken, read};
use crate::mutant::Mutant;

impl Held {
    pub(crate) fn receive(&mut self, socket: usize, bytes: Vec<u8>, around: &mut Around<'_>) -> Check {
        let mut frames = match (&mut self.link, &mut self.leaked) {
            (Some(link), _) if link.socket == socket => std::mem::take(&mut link.frames),
            (_, Some((leaked, frames))) if *leaked == socket => std::mem::take(frames),
            _ => return Ok(()),
        };
        (self.heard_ms, self.heard_frozen) = (around.now_ms, around.frozen);
        self.session.handle_received(around.now_ms);
        frames.push(bytes.into());
        while let Some(body) = frames.next_body().or_else(|error| broken(format!("a frame: {error}")))? {
            self.handle_frame(&body, around)?;
        }
        match (&mut self.link, &mut self.leaked) {
            (Some(link), _) if link.socket == socket => link.frames = frames,
            (_, Some((_, kept))) => *kept = frames,
            _ => {}
        }
        Ok(())
    }

    /// Leaked socket, if any.
    pub(crate) fn leaked(&self) -> Option<usize> {
        self.leaked.as_ref().map(|(socket, _)| *socket)
    }

    fn handle_frame(&mut self, body: &Bytes, around: &mut Around<'_>) -> Check {
        let message = ServiceMessage::decode(body).or_else(|error| broken(format!("a message: {error}")))?;
        match message {
            Some(ServiceMessage::Ping(ping)) => {
                if around.is(Mutant::CountsPings) {
                    self.incoming.next();
                }
                if !around.is(Mutant::NeverTrims) {
                    self.session.handle_ping(&ping).or_else(|error| broken(format!("a ping: {error}")))?;
                }
                Ok(())
            }
            Some(ServiceMessage::HandshakeRequest(_) | ServiceMessage::HandshakeResponse(_)) => {
                if around.is(Mutant::CountsHandshakes) {
                    self.incoming.next();
                }
                Ok(())
            }
            _ => self.handle_data(body, around),
        }
    }

    fn handle_data(&mut self, body: &Bytes, around: &mut Around<'_>) -> Check {
        let number = match self.incoming.next() {
            Some(number) => number,
            None if around.is(Mutant::HandsOutDuplicates) => self.incoming.handed_out(),
            None => return Ok(()),
        };
        let sender = 1 - around.end;
        match read(body) {
            Some(content) if content.ledger == self.ledger && content.sender == sender => {
                around.ledgers[self.ledger].flows[sender].deliver(content.number)?;
                if content.number != number {
                    return broken(format!("frame {} was counted as {number}", content.number));
                }
            }
            other => return broken(format!("{other:?} came in session {} of end {}", self.ledger, around.end)),
        }
        self.handed.push_back((number, body.len()));
        if around.is(Mutant::AcknowledgesBeforeTaken) {
            self.session.handle_taken(number, body.len(), around.now_ms);
        }
        Ok(())
    }

    /// The consumer takes some delivered frames.
    pub(crate) fn take(&mut self, count: usize, now_ms: u64) {
        let count = count.min(self.handed.len());
        let bytes = self.handed.iter().take(count).map(|(_, bytes)| bytes).sum();
        if let Some((number, _)) = self.handed.drain(..count).next_back() {
            self.taken = number;
            self.owing_ms.get_or_insert(now_ms);
            self.session.handle_taken(number, bytes, now_ms);
        }
    }
}
