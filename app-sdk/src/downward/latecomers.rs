//! Proxies that are about to come: right after the first one did, the others are still dialling.
//!
//! Their clients are here already, at another app server or waiting for this one. So for a short time what is sent to
//! every proxy is kept, and a proxy that comes gets it first. A pure value.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use trunkline_protocol::limits::LINK_BACKOFF_MS;

/// How long others are waited for: twice the longest pause between two attempts to dial.
const PATIENCE: Duration = Duration::from_millis(2 * LINK_BACKOFF_MS.1);

/// What is kept at most; whoever sends more in this time is not told apart from a flood, and nothing is kept.
const KEPT_MAX_BYTES: usize = 1024 * 1024;

/// What those will get who come late.
#[derive(Debug, Default)]
pub(super) struct Latecomers {
    until: Option<Instant>,
    kept: Vec<Bytes>,
    bytes: usize,
    /// Name and start of those who have come: who loses its links and is back has had what was sent before.
    met: Vec<(Box<str>, Box<str>)>,
}

impl Latecomers {
    /// The first proxy has come.
    pub(super) fn expect(&mut self, now: Instant) {
        *self = Self { until: Some(now + PATIENCE), ..Self::default() };
    }

    /// Whether what is sent now has to be kept, or what was kept may be forgotten.
    pub(super) fn are_expected(&self) -> bool {
        self.until.is_some()
    }

    /// Keeps a frame that goes to every proxy.
    pub(super) fn keep(&mut self, frame: &Bytes, now: Instant) {
        if self.until.is_none_or(|until| until <= now) {
            *self = Self::default();
            return;
        }
        self.bytes += frame.len();
        if self.bytes > KEPT_MAX_BYTES {
            tracing::debug!("too much was sent for proxies that may come: one that does gets nothing of it");
            *self = Self::default();
            return;
        }
        self.kept.push(frame.clone());
    }

    /// What a proxy gets that comes now: nothing if it was here before.
    pub(super) fn welcome(&mut self, name: &str, boot: &str, now: Instant) -> &[Bytes] {
        let is_known = self.met.iter().any(|(met, start)| (&**met, &**start) == (name, boot));
        if is_known || self.until.is_none_or(|until| until <= now) {
            return &[];
        }
        self.met.push((name.into(), boot.into()));
        &self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Bytes = Bytes::from_static(b"frame");

    #[test]
    fn what_is_sent_after_the_first_is_for_the_second_and_the_third() {
        let (mut latecomers, now) = (Latecomers::default(), Instant::now());
        latecomers.keep(&FRAME, now);
        latecomers.expect(now);
        assert!(latecomers.welcome("first", "boot", now).is_empty(), "nobody had come: it was for nobody");
        latecomers.keep(&FRAME, now);
        assert_eq!(latecomers.welcome("second", "boot", now), [FRAME]);
        assert_eq!(latecomers.welcome("third", "boot", now), [FRAME]);
    }

    #[test]
    fn who_comes_back_has_had_it_and_who_has_started_again_has_not() {
        let (mut latecomers, now) = (Latecomers::default(), Instant::now());
        latecomers.expect(now);
        latecomers.welcome("first", "boot", now);
        latecomers.keep(&FRAME, now);
        assert!(latecomers.welcome("first", "boot", now).is_empty());
        assert_eq!(latecomers.welcome("first", "another boot", now), [FRAME]);
    }

    #[test]
    fn after_a_while_nobody_is_expected_and_nothing_is_kept() {
        let (mut latecomers, now) = (Latecomers::default(), Instant::now());
        latecomers.expect(now);
        latecomers.keep(&FRAME, now);
        assert!(latecomers.welcome("late", "boot", now + PATIENCE).is_empty());
        latecomers.keep(&FRAME, now + PATIENCE);
        assert!(!latecomers.are_expected() && latecomers.kept.is_empty());
    }

    #[test]
    fn a_flood_is_not_kept() {
        let (mut latecomers, now) = (Latecomers::default(), Instant::now());
        latecomers.expect(now);
        for _ in 0..=KEPT_MAX_BYTES / 1024 {
            latecomers.keep(&vec![0; 1024].into(), now);
        }
        assert!(latecomers.welcome("late", "boot", now).is_empty() && !latecomers.are_expected());
    }
}
