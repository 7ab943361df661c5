//! Brake on guesses of a secret, by address and overall.
//!
//! Beyond a limit a token is not even compared, so the right guess among thousands is no use either. One who has a
//! wrong token and shows it again and again is no guesser: repeats have a wider limit.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::address_limit::AddressKey;

/// Span in which wrong tokens are counted.
const SPAN: Duration = Duration::from_secs(60);

/// Different wrong tokens of one address in a span.
const GUESSES_PER_ADDRESS: u32 = 10;

/// Wrong tokens of one address in a span, repeats included: a misconfigured peer asks a few times a second.
const TRIES_PER_ADDRESS: u32 = 600;

/// Different wrong tokens of all addresses in a span. Beyond them only addresses that had the right one are heard.
const GUESSES_OVERALL: u32 = 100;

/// Time for which an address counts as one that had the right token.
const KNOWN_FOR: Duration = Duration::from_secs(3600);

/// Maximum number of addresses that are remembered. Beyond it only the overall limit holds for new ones.
const ADDRESSES_MAX: usize = 4 * 1024;

/// Brake on guesses of a secret. Time comes in as an argument, since any fixed moment.
#[derive(Debug, Default)]
pub(crate) struct GuessBrake {
    hasher: RandomState,
    guesses: Mutex<Guesses>,
}

#[derive(Debug, Default)]
struct Guesses {
    by_address: HashMap<AddressKey, AddressGuesses>,
    overall: SpanCount,
    /// Wrong tokens since the last report.
    unreported: u64,
    reported_in: Option<u64>,
}

#[derive(Debug, Default)]
struct AddressGuesses {
    guesses: SpanCount,
    tries: SpanCount,
    /// Hash of the last wrong token.
    last: Option<u64>,
    known_until: Duration,
}

/// Count within one span; a new span begins at zero.
#[derive(Debug, Default, Clone, Copy)]
struct SpanCount {
    span: u64,
    count: u32,
}

impl SpanCount {
    fn of(self, span: u64) -> u32 {
        if self.span == span { self.count } else { 0 }
    }

    fn add(&mut self, span: u64) {
        *self = Self { span, count: self.of(span).saturating_add(1) };
    }
}

impl GuessBrake {
    /// Checks that a token of this address may be compared.
    ///
    /// # Errors
    /// When too many were wrong: the time after which the next may be.
    pub(crate) fn check(&self, ip: Option<IpAddr>, now: Duration) -> Result<(), Duration> {
        let (span, guesses) = (span(now), self.guesses());
        let of_address = ip.and_then(|ip| guesses.by_address.get(&ip.into()));
        let is_known = of_address.is_some_and(|address| address.known_until > now);
        let is_full = of_address.is_some_and(|address| {
            address.guesses.of(span) >= GUESSES_PER_ADDRESS || address.tries.of(span) >= TRIES_PER_ADDRESS
        });
        if is_full || (guesses.overall.of(span) >= GUESSES_OVERALL && !is_known) {
            return Err(SPAN.saturating_sub(Duration::from_secs(now.as_secs() % SPAN.as_secs())));
        }
        Ok(())
    }

    /// Notes that a token was the right one.
    pub(crate) fn note_right(&self, ip: Option<IpAddr>, now: Duration) {
        if let Some(address) = self.guesses().of(ip, now) {
            address.known_until = now + KNOWN_FOR;
        }
    }

    /// Notes a wrong token, or one that was not compared. Once a span returns how many came since the last time, for
    /// the log.
    pub(crate) fn note_wrong(&self, ip: Option<IpAddr>, token: &str, now: Duration) -> Option<u64> {
        let (span, hash) = (span(now), self.hasher.hash_one(token));
        let mut guesses = self.guesses();
        let mut is_new = true;
        if let Some(address) = guesses.of(ip, now) {
            // What was not compared says nothing: else one address could use up what others may guess.
            let was_compared = address.guesses.of(span) < GUESSES_PER_ADDRESS;
            is_new = address.last.replace(hash) != Some(hash) && was_compared;
            address.tries.add(span);
            if is_new {
                address.guesses.add(span);
            }
        }
        if is_new {
            guesses.overall.add(span);
        }
        guesses.unreported += 1;
        if guesses.reported_in == Some(span) {
            return None;
        }
        guesses.reported_in = Some(span);
        Some(std::mem::take(&mut guesses.unreported))
    }

    fn guesses(&self) -> MutexGuard<'_, Guesses> {
        self.guesses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guesses {
    /// Returns the entry of an address; `None` when there is no room for it.
    fn of(&mut self, ip: Option<IpAddr>, now: Duration) -> Option<&mut AddressGuesses> {
        let key = AddressKey::from(ip?);
        if self.by_address.len() >= ADDRESSES_MAX && !self.by_address.contains_key(&key) {
            let span = span(now);
            self.by_address.retain(|_, address| address.known_until > now || address.tries.span == span);
            if self.by_address.len() >= ADDRESSES_MAX {
                return None;
            }
        }
        Some(self.by_address.entry(key).or_default())
    }
}

fn span(now: Duration) -> u64 {
    now.as_secs() / SPAN.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)));
    const BEN: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2)));

    /// Shows tokens within a second; returns how many are compared, and how many lines are logged.
    fn show(brake: &GuessBrake, from: impl Fn(u32) -> Option<IpAddr>, token: impl Fn(u32) -> String) -> (u32, u32) {
        let (mut compared, mut lines) = (0, 0);
        for number in 0..9_150 {
            let now = Duration::from_secs(7);
            compared += u32::from(brake.check(from(number), now).is_ok());
            lines += u32::from(brake.note_wrong(from(number), &token(number), now).is_some());
        }
        (compared, lines)
    }

    #[test]
    fn of_the_guesses_of_a_second_few_are_compared_and_one_line_is_logged() {
        let guess = |number: u32| format!("guess-{number}");
        assert_eq!(show(&GuessBrake::default(), |_| ANN, guess), (GUESSES_PER_ADDRESS, 1), "from one address");
        let many = |number: u32| Some(IpAddr::V4(number.into()));
        assert_eq!(show(&GuessBrake::default(), many, guess), (GUESSES_OVERALL, 1), "each from its own");
        assert_eq!(show(&GuessBrake::default(), |_| None, guess), (GUESSES_OVERALL, 1), "from nowhere");
        assert_eq!(show(&GuessBrake::default(), |_| ANN, |_| "old".into()), (TRIES_PER_ADDRESS, 1), "one and the same");
    }

    #[test]
    fn who_had_the_right_token_is_heard_while_others_guess_and_all_are_a_minute_later() {
        let (brake, now) = (GuessBrake::default(), Duration::from_secs(7));
        brake.note_right(BEN, now);
        show(&brake, |number| Some(IpAddr::V4((0x0b00_0000 + number).into())), |number| number.to_string());
        assert_eq!(brake.check(BEN, now), Ok(()));
        assert_eq!(brake.check(ANN, now), Err(Duration::from_secs(53)));
        assert_eq!(brake.check(ANN, Duration::from_secs(60)), Ok(()));
        assert_eq!(brake.note_wrong(ANN, "late", Duration::from_secs(60)), Some(9_150), "the line counts all");
    }

    #[test]
    fn the_table_is_bounded_and_forgets_old_addresses() {
        let brake = GuessBrake::default();
        for number in 0..100_000_u32 {
            brake.note_wrong(Some(IpAddr::V4(number.into())), "x", Duration::ZERO);
        }
        assert_eq!(brake.guesses().by_address.len(), ADDRESSES_MAX);
        brake.note_wrong(ANN, "x", SPAN);
        assert_eq!(brake.guesses().by_address.len(), 1);
    }
}
