//! Schedule: offsets of ramps, roles in a chat. Pure.

use std::time::Duration;

use trunkline_generator::histogram::micros;

/// With fewer clients than this, all are chatty.
const ROLES_MIN: usize = 10;
/// Interval of chatty clients, in multiples of the base interval.
const CHATTY_INTERVALS: u64 = 11;
/// Interval of casual clients, in multiples of the base interval.
const CASUAL_INTERVALS: u64 = 59;
/// Offset between the first messages of two clients.
const STAGGER_US: u64 = 100_000;

/// Offset at which a client connects or leaves, out of `count` clients in this time.
pub(crate) fn offset_us(ramp: Duration, number: usize, count: usize) -> u64 {
    let whole = micros(ramp);
    let share = u128::from(whole) * number as u128 / (count.max(1) as u128);
    u64::try_from(share).unwrap_or(whole)
}

/// Send times of a client in a chat: the first, and the interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SendSchedule {
    pub(crate) first_us: u64,
    pub(crate) every_us: u64,
}

/// Send times of the client with this index in a chat; `None` for a pure listener.
///
/// With ten or more clients, a tenth is chatty and a fifth is casual. First messages are staggered as in the published
/// tests, but never by more than the interval: otherwise most clients of a large chat would be silent in a short run.
pub(crate) fn send_schedule(index: usize, clients: usize, interval: Duration) -> Option<SendSchedule> {
    let intervals = match index {
        _ if clients < ROLES_MIN || index < clients / 10 => CHATTY_INTERVALS,
        _ if index < clients / 10 + clients / 5 => CASUAL_INTERVALS,
        _ => return None,
    };
    let every_us = micros(interval).saturating_mul(intervals).max(1);
    Some(SendSchedule { first_us: (STAGGER_US * index as u64) % every_us, every_us })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_ramp_is_even() {
        let offsets: Vec<u64> = (0..4).map(|number| offset_us(SECOND, number, 4)).collect();
        assert_eq!(offsets, [0, 250_000, 500_000, 750_000]);
    }

    #[test]
    fn a_tenth_is_chatty_a_fifth_is_casual_and_the_rest_listens() {
        let speeches: Vec<_> = (0..500).map(|index| send_schedule(index, 500, SECOND)).collect();
        let every = |us| speeches.iter().flatten().filter(|send_schedule| send_schedule.every_us == us).count();
        assert_eq!((every(11_000_000), every(59_000_000)), (50, 100));
        assert_eq!(speeches.iter().filter(|send_schedule| send_schedule.is_none()).count(), 350);
    }

    #[test]
    fn of_a_few_all_are_chatty_and_staggered() {
        assert_eq!(send_schedule(8, 9, SECOND), Some(SendSchedule { first_us: 800_000, every_us: 11_000_000 }));
        assert_eq!(send_schedule(9, 10, SECOND), None);
    }

    #[test]
    fn nobody_waits_longer_for_the_first_word_than_for_the_second() {
        assert!(
            (0..5_000)
                .filter_map(|index| send_schedule(index, 5_000, SECOND))
                .all(|send_schedule| send_schedule.first_us < send_schedule.every_us)
        );
    }
}
