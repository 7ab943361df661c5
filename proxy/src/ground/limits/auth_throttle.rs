//! Throttle of secret guesses by address: above a limit, each answer to that address is delayed.
//!
//! Every token is still compared, so an attacker can't lock out the holder of the right token. Right and wrong tokens
//! are delayed equally, so disconnecting early gains nothing. Repeating one wrong token counts as a misconfiguration,
//! not as guessing.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::address_key::AddressKey;

/// Period for counting wrong tokens.
const SPAN: Duration = Duration::from_secs(60);

/// Number of different wrong tokens per address and period that are answered without delay.
const GUESSES_PER_ADDRESS: u32 = 10;

/// Number of different wrong tokens of all addresses per period. Above it, each address has one guess without delay.
const GUESSES_OVERALL: u32 = 100;

/// Delay before each further token of an address is compared. With at most 64 connections per address, this allows some
/// twenty guesses a second: hopeless against a random token, tolerable for an operator at that address.
const SLOW_ANSWER: Duration = Duration::from_secs(3);

/// Maximum number of tracked addresses. Above it, new addresses are delayed while the overall limit is exceeded.
const ADDRESSES_MAX: usize = 4 * 1024;

/// Throttle of secret guesses. Time is passed in, relative to any fixed start.
#[derive(Debug, Default)]
pub(crate) struct AuthThrottle {
    hasher: RandomState,
    guesses: Mutex<Guesses>,
}

#[derive(Debug, Default)]
struct Guesses {
    by_address: HashMap<AddressKey, AddressGuesses>,
    overall: SpanCount,
    unreported: u64,
    reported_in: Option<u64>,
}

#[derive(Debug, Default)]
struct AddressGuesses {
    guesses: SpanCount,
    /// Hash of the last wrong token.
    last: Option<u64>,
}

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

impl AuthThrottle {
    /// Delay before a token of this address is compared; zero for an address without recent guesses.
    pub(crate) fn wait(&self, ip: Option<IpAddr>, now: Duration) -> Duration {
        let (span, guesses) = (span(now), self.guesses());
        let is_remembered = ip.is_some_and(|ip| guesses.by_address.contains_key(&ip.into()));
        let of_address = ip.and_then(|ip| guesses.by_address.get(&ip.into())).map_or(0, |one| one.guesses.of(span));
        let is_room = guesses.by_address.len() < ADDRESSES_MAX && ip.is_some();
        let is_slow = match guesses.overall.of(span) >= GUESSES_OVERALL {
            true => of_address > 0 || !(is_remembered || is_room),
            false => of_address >= GUESSES_PER_ADDRESS,
        };
        if is_slow { SLOW_ANSWER } else { Duration::ZERO }
    }

    /// Records a wrong token. Once per period, returns the number since the last report, for the log.
    pub(crate) fn note_wrong(&self, ip: Option<IpAddr>, token: &str, now: Duration) -> Option<u64> {
        let (span, hash) = (span(now), self.hasher.hash_one(token));
        let mut guesses = self.guesses();
        let (mut is_new, mut was_fast) = (true, true);
        if let Some(address) = guesses.of(ip, now) {
            // Delayed guesses don't count towards the overall limit, or a single address could exhaust it for all.
            was_fast = address.guesses.of(span) < GUESSES_PER_ADDRESS;
            is_new = address.last.replace(hash) != Some(hash);
            if is_new {
                address.guesses.add(span);
            }
        }
        if is_new && was_fast {
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
    /// Returns the entry of an address; `None` if the table is full.
    fn of(&mut self, ip: Option<IpAddr>, now: Duration) -> Option<&mut AddressGuesses> {
        let key = AddressKey::from(ip?);
        if self.by_address.len() >= ADDRESSES_MAX && !self.by_address.contains_key(&key) {
            let span = span(now);
            self.by_address.retain(|_, address| address.guesses.span == span);
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

    /// Sends tokens within a second. Returns the number answered without delay, and the number of log lines.
    fn show(
        throttle: &AuthThrottle,
        from: impl Fn(u32) -> Option<IpAddr>,
        token: impl Fn(u32) -> String,
    ) -> (u32, u32) {
        let (mut fast, mut lines) = (0, 0);
        for number in 0..9_150 {
            let now = Duration::from_secs(7);
            fast += u32::from(throttle.wait(from(number), now).is_zero());
            lines += u32::from(throttle.note_wrong(from(number), &token(number), now).is_some());
        }
        (fast, lines)
    }

    #[test]
    fn few_guesses_per_second_are_answered_without_delay_and_one_line_is_logged() {
        let guess = |number: u32| format!("guess-{number}");
        assert_eq!(show(&AuthThrottle::default(), |_| ANN, guess), (GUESSES_PER_ADDRESS, 1), "from one address");
        let twelve = |number: u32| Some(IpAddr::V4((0x0b00_0000 + number % 12).into()));
        assert!(show(&AuthThrottle::default(), twelve, guess).0 <= GUESSES_OVERALL + 12, "from twelve");
        let many = |number: u32| Some(IpAddr::V4((number % 9_000).into()));
        let most = u32::try_from(ADDRESSES_MAX).unwrap();
        assert_eq!(show(&AuthThrottle::default(), many, guess), (most, 1), "each from its own");
        assert_eq!(show(&AuthThrottle::default(), |_| None, guess), (GUESSES_OVERALL, 1), "from nowhere");
        assert_eq!(show(&AuthThrottle::default(), |_| ANN, |_| "old".into()), (9_150, 1), "one and the same");
    }

    #[test]
    fn an_address_without_guesses_is_not_delayed_and_none_is_a_minute_later() {
        let (throttle, now) = (AuthThrottle::default(), Duration::from_secs(7));
        show(&throttle, |number| Some(IpAddr::V4((0x0b00_0000 + number % 12).into())), |number| number.to_string());
        show(&throttle, |_| ANN, |number| number.to_string());
        assert_eq!((throttle.wait(BEN, now), throttle.wait(ANN, now)), (Duration::ZERO, SLOW_ANSWER));
        assert_eq!(throttle.wait(ANN, Duration::from_secs(60)), Duration::ZERO);
        assert_eq!(throttle.note_wrong(ANN, "late", Duration::from_secs(60)), Some(2 * 9_150), "the line counts all");
    }

    #[test]
    fn the_table_is_bounded_and_forgets_old_addresses() {
        let throttle = AuthThrottle::default();
        for number in 0..100_000_u32 {
            throttle.note_wrong(Some(IpAddr::V4(number.into())), "x", Duration::ZERO);
        }
        assert_eq!(throttle.guesses().by_address.len(), ADDRESSES_MAX);
        assert_eq!(throttle.wait(ANN, Duration::ZERO), SLOW_ANSWER, "there is no room to remember it");
        throttle.note_wrong(ANN, "x", SPAN);
        assert_eq!(throttle.guesses().by_address.len(), 1);
    }
}
