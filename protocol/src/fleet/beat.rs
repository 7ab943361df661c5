//! Beats: periodic pings on a node link that measure how far behind the peer is.
//!
//! The reply to a beat is queued behind the peer's earlier data. It measures the round trip and confirms the receipt of
//! everything sent before the beat.

use std::collections::VecDeque;

use crate::service::Ping;

/// Interval between beats of each end.
pub const BEAT_INTERVAL_MS: u64 = 1_000;

/// A node is late if its oldest beat is unanswered for this long.
pub const LATE_AFTER_MS: u64 = 3_000;

/// A node is overdue if its oldest beat is unanswered for this long. Requests no longer wait for overdue nodes.
pub const OVERDUE_AFTER_MS: u64 = 1_000;

/// Maximum number of unanswered beats to keep. Beyond it, the oldest (which measures the delay) and the newest stay;
/// those in between may have been lost with a socket.
const WAITING_MAX: usize = 16;

const BEAT_KEY: &str = "beat";
const HEARD_KEY: &str = "heard";

/// Meaning of a ping on a node link.
#[derive(Debug, PartialEq, Eq)]
pub enum BeatPing {
    /// Beat of the peer, with the reply to queue behind all pending data.
    Asked(Ping),
    /// Reply of the peer to the beat with this number.
    Answered(u64),
    /// Not a beat or its reply.
    Other,
}

impl BeatPing {
    /// Interprets a ping from the peer.
    #[must_use]
    pub fn from_ping(ping: &Ping) -> Self {
        if let Some(number) = ping.get(BEAT_KEY) {
            return Self::Asked(Ping { pairs: vec![(HEARD_KEY.into(), number.clone())] });
        }
        let answered = ping.get(HEARD_KEY).and_then(|number| number.parse().ok());
        answered.map_or(Self::Other, Self::Answered)
    }
}

/// Beats sent by one end of a node link.
#[derive(Debug, Default)]
pub struct Beats {
    next: u64,
    waiting: VecDeque<(u64, u64)>,
    round_trip_ms: u64,
}

impl Beats {
    /// Starts a beat and returns its ping.
    pub fn ask(&mut self, now_ms: u64) -> Ping {
        let number = self.next;
        self.next += 1;
        if self.waiting.len() == WAITING_MAX {
            self.waiting.remove(1);
        }
        self.waiting.push_back((number, now_ms));
        Ping { pairs: vec![(BEAT_KEY.into(), number.to_string().into())] }
    }

    /// Number of beats sent, which is also the number of the next one.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.next
    }

    /// Handles a reply. Returns the time at which the beat was sent.
    pub fn answered(&mut self, number: u64, now_ms: u64) -> Option<u64> {
        let at = self.waiting.iter().position(|&(waiting, _)| waiting == number)?;
        let (_, asked_ms) = *self.waiting.get(at)?;
        // Pings are ordered: earlier unanswered ones were lost with a socket.
        self.waiting.drain(..=at);
        self.round_trip_ms = now_ms.saturating_sub(asked_ms);
        Some(asked_ms)
    }

    /// Age of the oldest unanswered beat, or 0.
    #[must_use]
    pub fn owed_ms(&self, now_ms: u64) -> u64 {
        self.waiting.front().map_or(0, |&(_, asked_ms)| now_ms.saturating_sub(asked_ms))
    }

    /// Whether a beat is unanswered.
    #[must_use]
    pub fn is_owed(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Estimated lag of the peer: the last round trip, or the age of an overdue beat.
    #[must_use]
    pub fn lag_ms(&self, now_ms: u64) -> u64 {
        let owed = self.owed_ms(now_ms);
        // A reply within the interval is still in flight.
        if owed > BEAT_INTERVAL_MS { owed.max(self.round_trip_ms) } else { self.round_trip_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(ping: &Ping) -> u64 {
        let BeatPing::Asked(back) = BeatPing::from_ping(ping) else { panic!("{ping:?}") };
        let BeatPing::Answered(number) = BeatPing::from_ping(&back) else { panic!("{back:?}") };
        number
    }

    #[test]
    fn an_answer_returns_the_time_of_its_beat_and_ends_the_lag() {
        let mut beats = Beats::default();
        let first = number(&beats.ask(1_000));
        assert_eq!(beats.lag_ms(1_900), 0);
        let second = number(&beats.ask(2_000));
        assert_eq!(beats.lag_ms(5_000), 4_000);
        assert_eq!(beats.answered(second, 5_007), Some(2_000), "the first one was lost");
        assert_eq!((beats.lag_ms(5_500), beats.answered(first, 5_600)), (3_007, None));
    }

    #[test]
    fn waiting_beats_are_bounded_and_the_oldest_and_the_newest_stay() {
        let mut beats = Beats::default();
        for second in 0..100 {
            beats.ask(second * 1_000);
        }
        assert_eq!((beats.waiting.len(), beats.lag_ms(100_000)), (WAITING_MAX, 100_000));
        let newest = number(&beats.ask(100_000));
        assert_eq!(beats.answered(newest, 100_001), Some(100_000), "all before it were lost");
        assert_eq!(beats.lag_ms(100_500), 1);
    }

    #[test]
    fn other_pings_mean_nothing() {
        assert_eq!(BeatPing::from_ping(&Ping::default()), BeatPing::Other);
        let odd = Ping { pairs: vec![(HEARD_KEY.into(), "x".into())] };
        assert_eq!(BeatPing::from_ping(&odd), BeatPing::Other);
    }
}
