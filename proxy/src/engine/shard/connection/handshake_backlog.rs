//! Data queued until a client's hub handshake response: errors of early calls, then early messages of the app
//! server.
//!
//! A client takes the first message for the response. Microsoft's SDK (dial-in) runs `OnConnectedAsync` concurrently
//! with the response, so its sends may arrive first, unlike on Kestrel.

use std::mem;

use bytes::Bytes;
use bytestring::ByteString;

/// Maximum number of early messages. The answer is in flight by then.
const FRAMES_MAX: usize = 256;

/// Maximum bytes of early messages; a first message may be larger.
const FRAME_BYTES_MAX: usize = 256 * 1024;

#[derive(Debug, Default)]
pub(crate) struct HandshakeBacklog {
    /// Invocation ids of failed calls, with their error texts.
    errors: Vec<(ByteString, ByteString)>,
    frames: Vec<Bytes>,
    frame_bytes: usize,
}

impl HandshakeBacklog {
    /// Adds failed calls and returns the total number.
    pub(crate) fn add_errors(&mut self, errors: impl IntoIterator<Item = (ByteString, ByteString)>) -> usize {
        self.errors.extend(errors);
        self.errors.len()
    }

    /// Adds an early message; `false` if there is no room. One of any size fits, as in an outbox.
    pub(crate) fn add_frame(&mut self, frame: &Bytes) -> bool {
        let bytes = self.frame_bytes + frame.len();
        let fits = self.frames.is_empty() || (bytes <= FRAME_BYTES_MAX && self.frames.len() < FRAMES_MAX);
        if fits {
            self.frame_bytes = bytes;
            self.frames.push(frame.clone());
        }
        fits
    }

    pub(crate) fn take_errors(&mut self) -> Vec<(ByteString, ByteString)> {
        mem::take(&mut self.errors)
    }

    /// Drops early messages: their app server has lost the client.
    pub(crate) fn clear_frames(&mut self) {
        (self.frames, self.frame_bytes) = (Vec::new(), 0);
    }

    pub(crate) fn into_frames(self) -> Vec<Bytes> {
        self.frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn early_messages_are_bounded_by_number_and_bytes_but_a_first_one_fits() {
        let mut backlog = HandshakeBacklog::default();
        assert!(backlog.add_frame(&Bytes::from(vec![0; FRAME_BYTES_MAX + 1])), "a first message of any size");
        assert!(!backlog.add_frame(&Bytes::from_static(b"x")));
        assert_eq!(backlog.into_frames().len(), 1);
        let mut backlog = HandshakeBacklog::default();
        let kept = (0..=FRAMES_MAX).filter(|_| backlog.add_frame(&Bytes::from_static(b"x"))).count();
        assert_eq!(kept, FRAMES_MAX);
    }
}
