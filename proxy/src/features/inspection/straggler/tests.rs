//! Tests for stragglers of a drain.

use super::*;
use crate::engine::shard::testbed::Testbed;

#[test]
fn remaining_clients_are_reported_by_hub_and_transport_with_some_ids() {
    let mut bed = Testbed::new();
    for number in 0..30 {
        bed.client(&format!("c{number}"));
    }
    let mut stragglers = Stragglers::at_shard(&bed.state);
    stragglers.merge(Stragglers::at_shard(&bed.state));
    assert_eq!(stragglers.kinds(), "chat: 60 WebSockets");
    assert_eq!(stragglers.ids().split(' ').count(), IDS_MAX);
}

#[test]
fn many_kinds_are_cut_short() {
    let by_kind = (0..100).map(|number| ((format!("hub{number:02}"), "LongPolling"), 1)).collect();
    let kinds = Stragglers { by_kind, ids: Vec::new() }.kinds();
    assert!(kinds.starts_with("hub00: 1 LongPolling, ") && kinds.ends_with("hub19: 1 LongPolling, …"), "{kinds}");
}
