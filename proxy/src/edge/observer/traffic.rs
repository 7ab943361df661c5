//! Traffic of this node: counter totals, and rates between two readings.

use super::snapshot::Rates;
use crate::engine::shard::Shared;
use crate::ground::metrics::{Counters, Direction, FrameKind, HubCounters};

/// Totals since the node started, stored in the fields for rates.
#[expect(clippy::cast_precision_loss, reason = "rates fit into 52 bits")]
pub(super) fn totals(shared: &Shared) -> Rates {
    let sum = |of: &dyn Fn(&Counters) -> u64| shared.counters().iter().map(|counters| of(counters)).sum::<u64>() as f64;
    let hubs = |of: fn(&HubCounters) -> u64| sum(&|counters| counters.hubs().map(of).sum());
    let bytes = |direction| sum(&|counters| counters.traffic(direction, FrameKind::Message).bytes.get());
    Rates {
        messages_up: hubs(|hub| hub.messages_up.get()),
        deliveries: hubs(|hub| hub.deliveries.get()),
        bytes_up: bytes(Direction::Up),
        bytes_down: bytes(Direction::Down),
        opened: hubs(HubCounters::opened),
        closed: hubs(|hub| hub.closed.total()),
    }
}

/// Rates per second between two readings, rounded to a tenth.
pub(super) fn rates(now: &Rates, before: &Rates, seconds: f64) -> Rates {
    let per_second =
        |of: fn(&Rates) -> f64| ((of(now) - of(before)).max(0.0) / seconds.max(0.001) * 10.0).round() / 10.0;
    Rates {
        messages_up: per_second(|rates| rates.messages_up),
        deliveries: per_second(|rates| rates.deliveries),
        bytes_up: per_second(|rates| rates.bytes_up),
        bytes_down: per_second(|rates| rates.bytes_down),
        opened: per_second(|rates| rates.opened),
        closed: per_second(|rates| rates.closed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_per_second_rounded_and_never_negative() {
        let at = |deliveries, opened| Rates { deliveries, opened, ..Rates::default() };
        let now = rates(&at(130.0, 1.0), &at(100.0, 2.0), 0.9);
        assert_eq!((now.deliveries, now.opened), (33.3, 0.0));
    }

    #[test]
    fn two_simultaneous_snapshots_cause_no_infinite_rate() {
        let rate = rates(&Rates { closed: 1.0, ..Rates::default() }, &Rates::default(), 0.0);
        assert_eq!(rate.closed, 1000.0);
    }
}
