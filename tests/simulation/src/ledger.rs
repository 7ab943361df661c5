//! Ledger of frames queued and delivered in each session: the reference for checking the state machine.

use bytes::{Buf, BufMut, BytesMut};
use trunkline_protocol::service::{FrameBuffer, ServiceMessage, UndeliveredFrames, encode_connection_data};

/// Violation of a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

pub(crate) type Check<T = ()> = Result<T, Violation>;

pub(crate) fn broken<T>(text: impl Into<String>) -> Check<T> {
    Err(Violation(text.into()))
}

/// Session in both directions.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Frames sent by end 0 and end 1.
    pub(crate) flows: [Flow; 2],
    pub(crate) was_begun: bool,
    /// Whether each end has ended it.
    pub(crate) is_ended: [bool; 2],
}

/// One direction of a session.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    pub(crate) queued: u64,
    pub(crate) delivered: u64,
    /// Maximum number of frames deliverable after the sender ended the session.
    at_most: Option<u64>,
}

/// Content that identifies a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) ledger: usize,
    pub(crate) sender: usize,
    pub(crate) number: u64,
}

impl Content {
    pub(crate) fn encode(self, padding: usize, out: &mut BytesMut) {
        let mut payload = [0_u8; 96];
        let mut rest = &mut payload[..];
        rest.put_u64(self.ledger as u64);
        rest.put_u64(self.sender as u64);
        rest.put_u64(self.number);
        encode_connection_data("c", &payload[..24 + padding.min(72)], 0, out);
    }

    pub(crate) fn decode(mut payload: &[u8]) -> Option<Self> {
        let mut number = || payload.try_get_u64().ok();
        let (ledger, sender, number) = (number()?, number()?, number()?);
        Some(Self { ledger: usize::try_from(ledger).ok()?, sender: usize::try_from(sender).ok()?, number })
    }
}

impl Flow {
    pub(crate) fn deliver(&mut self, number: u64) -> Check {
        if number != self.delivered + 1 {
            return broken(format!("frame {number} came after frame {}", self.delivered));
        }
        self.delivered = number;
        self.check_end()
    }

    /// Records that the sender has ended the session.
    pub(crate) fn end(&mut self, content: Content, acknowledged: u64, leftover: &UndeliveredFrames) -> Check {
        let (uncertain, unsent) = (leftover.uncertain.count, leftover.unsent.count);
        if acknowledged + uncertain + unsent != self.queued {
            return broken(format!(
                "{} frames were queued, {acknowledged} acknowledged, {uncertain} uncertain, {unsent} unsent",
                self.queued
            ));
        }
        let mut number = acknowledged;
        for chunk in leftover.uncertain.chunks.iter().chain(&leftover.unsent.chunks) {
            let mut frames = FrameBuffer::default();
            frames.push(chunk.clone());
            while let Ok(Some(body)) = frames.next_body() {
                number += 1;
                if read(&body) != Some(Content { number, ..content }) {
                    return broken(format!("what is left over as frame {number} is another"));
                }
            }
        }
        if number != self.queued {
            return broken(format!("frame {number} is the last that is left over, of {}", self.queued));
        }
        if self.delivered < acknowledged {
            return broken(format!("{acknowledged} were acknowledged, {} delivered", self.delivered));
        }
        self.at_most = Some(self.queued - unsent);
        self.check_end()
    }

    fn check_end(&self) -> Check {
        match self.at_most.filter(|&at_most| self.delivered > at_most) {
            Some(at_most) => broken(format!("frame {} came, only {at_most} were sent", self.delivered)),
            None => Ok(()),
        }
    }
}

/// Content of a body, if it is a frame of the simulation.
pub(crate) fn read(body: &bytes::Bytes) -> Option<Content> {
    match ServiceMessage::decode(body) {
        Ok(Some(ServiceMessage::ConnectionData(data))) => Content::decode(&data.payload),
        _ => None,
    }
}
