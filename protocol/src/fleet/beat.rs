//! Beats: questions that a node link asks again and again, by which each end knows how far behind the other one is.
//!
//! A beat is a ping that comes back behind all that the other end had queued. So it tells two things: how long the way
//! there and back takes, and that all that was said before the question was asked has been heard.

use std::collections::VecDeque;

use crate::service::Ping;

/// Interval at which each end of a node link asks.
pub const BEAT_INTERVAL_MS: u64 = 1_000;

/// A node whose oldest beat is unanswered for this long is late.
pub const LATE_AFTER_MS: u64 = 3_000;

/// A node whose oldest beat is unanswered for this long is not waited for: whoever asks it something goes on without
/// it.
pub const OVERDUE_AFTER_MS: u64 = 1_000;

/// Beats that are remembered. With more unanswered ones the oldest stays, for it tells how late the node is, and the
/// newest, for those between may have been lost with a socket.
const WAITING_MAX: usize = 16;

const BEAT_KEY: &str = "beat";
const HEARD_KEY: &str = "heard";

/// Ping of a node link, by its meaning.
#[derive(Debug, PartialEq, Eq)]
pub enum BeatPing {
    /// The far end asks; this is to go back, behind all that is queued.
    Asked(Ping),
    /// The far end answers the beat of this number.
    Answered(u64),
    /// The ping is no beat.
    Other,
}

impl BeatPing {
    /// Reads a ping that came from the far end.
    #[must_use]
    pub fn read(ping: &Ping) -> Self {
        if let Some(number) = ping.get(BEAT_KEY) {
            return Self::Asked(Ping { pairs: vec![(HEARD_KEY.into(), number.clone())] });
        }
        let answered = ping.get(HEARD_KEY).and_then(|number| number.parse().ok());
        answered.map_or(Self::Other, Self::Answered)
    }
}

/// Beats of one end of a node link.
#[derive(Debug, Default)]
pub struct Beats {
    next: u64,
    /// Numbers without an answer, with the times at which they were asked.
    waiting: VecDeque<(u64, u64)>,
    round_trip_ms: u64,
}

impl Beats {
    /// Begins another beat, and returns the ping that asks.
    pub fn ask(&mut self, now_ms: u64) -> Ping {
        let number = self.next;
        self.next += 1;
        if self.waiting.len() == WAITING_MAX {
            self.waiting.remove(1);
        }
        self.waiting.push_back((number, now_ms));
        Ping { pairs: vec![(BEAT_KEY.into(), number.to_string().into())] }
    }

    /// Number of beats so far, which is the number of the next one.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.next
    }

    /// Takes an answer; returns the time at which that beat was asked.
    pub fn answered(&mut self, number: u64, now_ms: u64) -> Option<u64> {
        let at = self.waiting.iter().position(|&(waiting, _)| waiting == number)?;
        let (_, asked_ms) = *self.waiting.get(at)?;
        // Pings keep their order: those before it were lost with a socket.
        self.waiting.drain(..=at);
        self.round_trip_ms = now_ms.saturating_sub(asked_ms);
        Some(asked_ms)
    }

    /// Time for which the far end has owed its oldest answer; 0 if it owes none.
    #[must_use]
    pub fn owed_ms(&self, now_ms: u64) -> u64 {
        self.waiting.front().map_or(0, |&(_, asked_ms)| now_ms.saturating_sub(asked_ms))
    }

    /// Whether the far end owes an answer.
    #[must_use]
    pub fn is_owed(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Time by which the far end is behind: the last round trip, or how long it owes an answer.
    #[must_use]
    pub fn lag_ms(&self, now_ms: u64) -> u64 {
        let owed = self.owed_ms(now_ms);
        // An answer that is on its way is no lag.
        if owed > BEAT_INTERVAL_MS { owed.max(self.round_trip_ms) } else { self.round_trip_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(ping: &Ping) -> u64 {
        let BeatPing::Asked(back) = BeatPing::read(ping) else { panic!("{ping:?}") };
        let BeatPing::Answered(number) = BeatPing::read(&back) else { panic!("{back:?}") };
        number
    }

    #[test]
    fn an_answer_tells_when_it_was_asked_for_and_ends_the_lag() {
        let mut beats = Beats::default();
        let first = number(&beats.ask(1_000));
        assert_eq!(beats.lag_ms(1_900), 0);
        let second = number(&beats.ask(2_000));
        assert_eq!(beats.lag_ms(5_000), 4_000);
        assert_eq!(beats.answered(second, 5_007), Some(2_000), "the first one was lost");
        assert_eq!((beats.lag_ms(5_500), beats.answered(first, 5_600)), (3_007, None));
    }

    #[test]
    fn what_waits_is_bounded_and_the_oldest_and_the_newest_stay() {
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
        assert_eq!(BeatPing::read(&Ping::default()), BeatPing::Other);
        let odd = Ping { pairs: vec![(HEARD_KEY.into(), "x".into())] };
        assert_eq!(BeatPing::read(&odd), BeatPing::Other);
    }
}
