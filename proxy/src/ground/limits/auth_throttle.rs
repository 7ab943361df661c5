//! Throttle of secret guesses by address: above a limit, each answer to that address is delayed.
//!
//! Every token is still compared, so an attacker can't lock out the holder of the right token. Right and wrong tokens
//! are delayed equally, so disconnecting early gains nothing. Repeating one wrong token counts as a misconfiguration,
//! not as guessing.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::address_key::AddressKey;
use super::span_table::SpanTable;

/// Period for counting wrong tokens.
const SPAN: Duration = Duration::from_secs(60);

/// Number of different wrong tokens per address and period that are answered without delay.
const GUESSES_PER_ADDRESS: u32 = 10;

/// Number of different wrong tokens of all addresses per period. Above it, each address has one guess without delay.
const GUESSES_OVERALL: u32 = 100;

/// Delay before each further token of an address is compared. With at most 64 connections per address, this allows some
/// twenty guesses a second: hopeless against a random token, tolerable for an operator at that address.
const SLOW_ANSWER: Duration = Duration::from_secs(3);

/// Maximum number of tracked addresses per period. Above it, new addresses are delayed while the overall limit is
/// exceeded.
const ADDRESSES_MAX: usize = 4 * 1024;

/// Throttle of secret guesses. Time is passed in, relative to any fixed start.
#[derive(Debug, Default)]
pub(crate) struct AuthThrottle {
    hasher: RandomState,
    guesses: Mutex<Guesses>,
}

#[derive(Debug, Default)]
struct Guesses {
    by_address: SpanTable<AddressGuesses>,
    /// Guesses of all addresses in this period.
    overall: u32,
    unreported: u64,
    is_reported: bool,
}

#[derive(Debug, Default)]
struct AddressGuesses {
    count: u32,
    /// Hash of the last wrong token.
    last: Option<u64>,
}

impl AuthThrottle {
    /// Delay before a token of this address is compared; zero for an address without recent guesses.
    pub(crate) fn wait(&self, ip: Option<IpAddr>, now: Duration) -> Duration {
        let (guesses, key) = (self.guesses(now), ip.map(AddressKey::from));
        let of_address = key.and_then(|key| guesses.by_address.now.get(&key)).map_or(0, |address| address.count);
        let has_room = key.is_some_and(|key| guesses.by_address.has_room(key, ADDRESSES_MAX));
        let is_slow = match guesses.overall >= GUESSES_OVERALL {
            true => of_address > 0 || !has_room,
            false => of_address >= GUESSES_PER_ADDRESS,
        };
        if is_slow { SLOW_ANSWER } else { Duration::ZERO }
    }

    /// Records a wrong token. Once per period, returns the number since the last report, for the log.
    pub(crate) fn note_wrong(&self, ip: Option<IpAddr>, token: &str, now: Duration) -> Option<u64> {
        let (hash, mut guesses) = (self.hasher.hash_one(token), self.guesses(now));
        let Guesses { by_address, overall, unreported, is_reported } = &mut *guesses;
        let (mut is_new, mut was_fast) = (true, true);
        if let Some(key) = ip.map(AddressKey::from) {
            let earlier = by_address.before.get(&key).and_then(|address| address.last);
            if let Some(address) = by_address.entry(key, ADDRESSES_MAX) {
                // Delayed guesses don't count towards the overall limit, or a single address could exhaust it for all.
                was_fast = address.count < GUESSES_PER_ADDRESS;
                is_new = address.last.replace(hash).or(earlier) != Some(hash);
                address.count += u32::from(is_new);
            }
        }
        *overall += u32::from(is_new && was_fast);
        *unreported += 1;
        let is_due = !std::mem::replace(is_reported, true);
        is_due.then(|| std::mem::take(unreported))
    }

    /// Drops the guesses of earlier periods.
    pub(super) fn sweep(&self, now: Duration) {
        drop(self.guesses(now));
    }

    /// Number of tracked addresses.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        let SpanTable { now, before, .. } = &self.guesses.lock().unwrap().by_address;
        now.len() + before.len()
    }

    fn guesses(&self, now: Duration) -> MutexGuard<'_, Guesses> {
        let mut guesses = self.guesses.lock().unwrap_or_else(PoisonError::into_inner);
        if guesses.by_address.advance(now.as_secs() / SPAN.as_secs()) {
            (guesses.overall, guesses.is_reported) = (0, false);
        }
        guesses
    }
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
        assert_eq!(throttle.kept(), ADDRESSES_MAX);
        assert_eq!(throttle.wait(ANN, Duration::ZERO), SLOW_ANSWER, "there is no room to remember it");
        throttle.note_wrong(ANN, "x", SPAN);
        throttle.sweep(2 * SPAN);
        assert_eq!(throttle.kept(), 1, "only the address of the last period");
        throttle.sweep(3 * SPAN);
        assert_eq!(throttle.kept(), 0);
    }
}
