//! Replay buffer for proxies that connect late: after the first proxy is linked, others are still dialling.
//!
//! Their clients already exist, on another app server or waiting for this one, so new proxies first receive the recent
//! frames for every proxy. Pure logic.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use trunkline_protocol::limits::LINK_BACKOFF_MS;

/// Time limit for other proxies to connect: twice the longest pause between dial attempts.
const REPLAY_WINDOW: Duration = Duration::from_millis(2 * LINK_BACKOFF_MS.1);

/// Maximum size of the buffer. If it is exceeded, nothing is replayed.
const REPLAY_MAX_BYTES: usize = 1024 * 1024;

#[derive(Debug, Default)]
pub(super) struct ReplayBuffer {
    until: Option<Instant>,
    frames: Vec<Bytes>,
    bytes: usize,
    /// Name and boot ID of each proxy that was linked. A proxy that links again already has these frames.
    served: Vec<(Box<str>, Box<str>)>,
}

impl ReplayBuffer {
    pub(super) fn open(&mut self, now: Instant) {
        *self = Self { until: Some(now + REPLAY_WINDOW), ..Self::default() };
    }

    /// Whether frames must be recorded. [`push`](Self::push) detects the end of the window.
    pub(super) fn is_open(&self) -> bool {
        self.until.is_some()
    }

    pub(super) fn push(&mut self, frame: &Bytes, now: Instant) {
        if self.until.is_none_or(|until| until <= now) {
            *self = Self::default();
            return;
        }
        self.bytes += frame.len();
        if self.bytes > REPLAY_MAX_BYTES {
            tracing::debug!("replay buffer full: proxies that connect now do not receive the buffered sends");
            *self = Self::default();
            return;
        }
        self.frames.push(frame.clone());
    }

    /// Returns the frames to replay to a newly linked proxy; none if it was linked before.
    pub(super) fn replay(&mut self, name: &str, boot: &str, now: Instant) -> &[Bytes] {
        let is_known = self.served.iter().any(|(known, start)| (&**known, &**start) == (name, boot));
        if is_known || self.until.is_none_or(|until| until <= now) {
            return &[];
        }
        self.served.push((name.into(), boot.into()));
        &self.frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Bytes = Bytes::from_static(b"frame");

    #[test]
    fn frames_after_the_first_proxy_are_replayed_to_the_second_and_the_third() {
        let (mut buffer, now) = (ReplayBuffer::default(), Instant::now());
        buffer.push(&FRAME, now);
        buffer.open(now);
        assert!(buffer.replay("first", "boot", now).is_empty(), "before the first proxy there is nothing to replay");
        buffer.push(&FRAME, now);
        assert_eq!(buffer.replay("second", "boot", now), [FRAME]);
        assert_eq!(buffer.replay("third", "boot", now), [FRAME]);
    }

    #[test]
    fn a_returning_proxy_gets_no_replay_but_a_restarted_one_does() {
        let (mut buffer, now) = (ReplayBuffer::default(), Instant::now());
        buffer.open(now);
        buffer.replay("first", "boot", now);
        buffer.push(&FRAME, now);
        assert!(buffer.replay("first", "boot", now).is_empty());
        assert_eq!(buffer.replay("first", "another boot", now), [FRAME]);
    }

    #[test]
    fn after_the_window_nothing_is_kept_or_replayed() {
        let (mut buffer, now) = (ReplayBuffer::default(), Instant::now());
        buffer.open(now);
        buffer.push(&FRAME, now);
        assert!(buffer.replay("late", "boot", now + REPLAY_WINDOW).is_empty());
        buffer.push(&FRAME, now + REPLAY_WINDOW);
        assert!(!buffer.is_open() && buffer.frames.is_empty());
    }

    #[test]
    fn a_flood_is_not_replayed() {
        let (mut buffer, now) = (ReplayBuffer::default(), Instant::now());
        buffer.open(now);
        for _ in 0..=REPLAY_MAX_BYTES / 1024 {
            buffer.push(&vec![0; 1024].into(), now);
        }
        assert!(buffer.replay("late", "boot", now).is_empty() && !buffer.is_open());
    }
}
