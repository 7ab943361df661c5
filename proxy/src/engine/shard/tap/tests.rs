//! Tests of the seam for taps, with a tap that counts.

use super::*;
use crate::engine::shard::command::Audience;
use crate::engine::shard::testbed::Testbed;

/// Tap that counts what it is shown.
#[derive(Debug, Default)]
struct CountingTap {
    is_active: bool,
    up: u64,
    down: usize,
    sets: usize,
    events: usize,
}

impl Tap for CountingTap {
    fn is_active(&self) -> bool {
        self.is_active
    }

    fn up(&mut self, _: &TapView<'_>, _: Slot, messages: &UpwardMessages<'_>) -> Option<i64> {
        self.up += messages.count;
        Some(7)
    }

    fn down(&mut self, _: Slot, _: &Client, _: &Bytes, _: Option<Instant>) {
        self.down += 1;
    }

    fn down_to_set(&mut self, recipients: &Recipients<'_>, _: Option<Instant>) {
        self.sets += recipients.iter().count();
    }

    fn event(&mut self, _: &TapView<'_>, _: Slot, _: &TapEvent<'_>) {
        self.events += 1;
    }

    fn tick(&mut self, _: &TapView<'_>) {
        self.is_active = false;
    }
}

fn seen(bed: &mut Testbed) -> (u64, usize, usize, usize) {
    bed.state.core.run_tap(|tap: &mut CountingTap, _| (tap.up, tap.down, tap.sets, tap.events)).unwrap()
}

fn send_all_ways(bed: &mut Testbed, slot: Slot) -> Option<i64> {
    bed.data("ann", slot, AppServerId::from(7), "{}\u{1e}");
    bed.send(Audience::Everyone, "{}\u{1e}");
    let messages = UpwardMessages { bytes: b"{}", count: 1, data_type: 0, read_at: None, to: None };
    bed.state.core.tap_up(slot, &messages)
}

#[test]
fn an_inactive_tap_sees_only_openings_and_an_active_one_everything() {
    let mut bed = Testbed::tapped(CountingTap::default());
    let ann = bed.client("ann");
    assert_eq!((send_all_ways(&mut bed, ann), seen(&mut bed)), (None, (0, 0, 0, 1)));
    bed.state.core.run_tap(|tap: &mut CountingTap, _| tap.is_active = true);
    bed.client("ben");
    // The events are the two openings.
    assert_eq!((send_all_ways(&mut bed, ann), seen(&mut bed)), (Some(7), (1, 1, 2, 2)));
    assert!(bed.state.core.time_for_taps().is_some());
    bed.advance();
    assert_eq!((send_all_ways(&mut bed, ann), seen(&mut bed)), (None, (1, 1, 2, 2)), "it has ended itself");
    assert!(bed.state.core.time_for_taps().is_none());
}
