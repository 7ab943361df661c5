//! Input of one connection: unread bytes from the client, split into the hub handshake and messages. Pure logic.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use trunkline_protocol::hub::{FramingError, HandshakeError, HandshakeRequest, HubProtocol, next_frame};
use trunkline_protocol::limits::HANDSHAKE_MAX_BYTES;

/// Minimum length of bytes that remain slices: copying them would cost more than the memory pinned by the slice.
const SLICE_MIN_BYTES: usize = 4 * 1024;

#[derive(Debug, Default)]
pub(super) struct Input(VecDeque<Bytes>);

impl Input {
    pub(super) fn push(&mut self, bytes: Bytes) {
        self.0.push_back(bytes);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    pub(super) fn clear(&mut self) -> usize {
        std::mem::take(self).len()
    }

    /// Prepares for a long wait: the rest of a partial message may never arrive.
    pub(super) fn rest(&mut self) {
        if self.is_empty() {
            // An idle connection owns no buffer.
            self.0 = VecDeque::new();
        }
        self.0.iter_mut().for_each(|bytes| *bytes = detached(std::mem::take(bytes)));
    }

    /// Takes the hub handshake and its length; `None` while incomplete.
    pub(super) fn take_handshake(&mut self) -> Option<Result<(HandshakeRequest, usize), HandshakeError>> {
        self.take_front(|front| HandshakeRequest::read_request(front, HANDSHAKE_MAX_BYTES))
    }

    /// Takes the body of a hub message and the length of its frame; `None` while incomplete.
    pub(super) fn take_message(
        &mut self,
        protocol: HubProtocol,
        max_bytes: usize,
    ) -> Option<Result<(Bytes, usize), FramingError>> {
        self.take_front(|front| {
            let frame = next_frame(protocol, front, max_bytes)?;
            Ok(frame.map(|frame| (front.slice(frame.body), frame.length)))
        })
    }

    /// Takes the result of `cut` at the front, and joins pieces until it is complete.
    fn take_front<T, E>(
        &mut self,
        cut: impl Fn(&Bytes) -> Result<Option<(T, usize)>, E>,
    ) -> Option<Result<(T, usize), E>> {
        loop {
            match cut(self.0.front()?) {
                Ok(Some((taken, length))) => {
                    self.advance(length);
                    return Some(Ok((taken, length)));
                }
                Ok(None) if self.join_front() => {}
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn advance(&mut self, length: usize) {
        if let Some(front) = self.0.front_mut() {
            front.advance(length.min(front.len()));
            if front.is_empty() {
                self.0.pop_front();
            }
        }
    }

    /// Joins the first two pieces of a split message. Returns `false` if there is only one piece.
    fn join_front(&mut self) -> bool {
        if self.0.len() < 2 {
            return false;
        }
        let mut joined = BytesMut::new();
        for _ in 0..2 {
            joined.extend_from_slice(&self.0.pop_front().unwrap_or_default());
        }
        self.0.push_front(joined.freeze());
        true
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

/// Copies short, long-lived bytes out of their shared buffer, which would keep the link's whole message in memory.
pub(super) fn detached(bytes: Bytes) -> Bytes {
    if bytes.len() < SLICE_MIN_BYTES { Bytes::copy_from_slice(&bytes) } else { bytes }
}
