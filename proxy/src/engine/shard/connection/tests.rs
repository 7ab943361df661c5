//! Tests for connections with their sets and census.

use std::collections::{BTreeSet, HashMap};

use trunkline_protocol::hub::HubProtocol;

use super::*;
use crate::engine::shard::content::Content;
use crate::engine::upstream::{HubIdentity, LinkHandle};
use crate::ground::net::socket::Socket;

fn hub() -> HubIndex {
    HubIndex::from(0)
}

fn connections(clients: usize, user: Option<&str>) -> Connections {
    let mut connections = Connections::default();
    let home = Arc::new(LinkHandle::opened(&HubIdentity::detached(), AppServerId::from(0)));
    for serial in 0..clients {
        let socket = Socket::boxed(tokio::io::empty());
        let client = Client::new("id".into(), slot_at(serial), home.clone(), Content::Hub(HubProtocol::Json), socket);
        connections.insert(client, user);
    }
    connections
}

fn slot_at(place: usize) -> Slot {
    Slot::try_from(place).unwrap()
}

fn members(connections: &Connections, name: SetName<'_>) -> BTreeSet<Slot> {
    connections.members(hub(), name).iter().map(|member| member.slot).collect()
}

#[test]
fn a_new_connection_is_a_member_of_its_hub_and_its_user() {
    let connections = connections(2, Some("ann"));
    assert_eq!(members(&connections, SetName::Hub), BTreeSet::from([0, 1]));
    assert_eq!(members(&connections, SetName::User("ann")), BTreeSet::from([0, 1]));
    assert_eq!(members(&connections, SetName::User("bob")), BTreeSet::new());
}

#[test]
fn joining_twice_counts_once_and_an_empty_group_is_removed() {
    let mut connections = connections(1, None);
    connections.join(0, hub(), SetName::Group("g"));
    connections.join(0, hub(), SetName::Group("g"));
    assert_eq!(connections.members(hub(), SetName::Group("g")).len(), 1);
    connections.leave(0, hub(), SetName::Group("g"));
    connections.leave(0, hub(), SetName::Group("g"));
    assert_eq!(connections.sets().range(0..connections.sets().entries()).count(), 1, "only the hub's own set is left");
}

#[test]
fn leaving_all_groups_keeps_hub_and_user() {
    let mut connections = connections(1, Some("ann"));
    ["a", "b", "c"].iter().for_each(|group| connections.join(0, hub(), SetName::Group(group)));
    connections.leave_groups(0);
    assert!(["a", "b", "c"].iter().all(|group| members(&connections, SetName::Group(group)).is_empty()));
    assert_eq!(members(&connections, SetName::User("ann")), BTreeSet::from([0]));
    assert_eq!(members(&connections, SetName::Hub), BTreeSet::from([0]));
}

/// Random joins and leaves, compared with a plain map of sets.
#[test]
fn member_lists_and_back_references_agree_after_random_changes() {
    let mut connections = connections(8, None);
    let mut model: HashMap<String, BTreeSet<Slot>> = HashMap::new();
    let mut seed = 7u64;
    for _ in 0..20_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (slot, group, act) = ((seed >> 33) % 8, (seed >> 40) % 5, (seed >> 50) % 7);
        let (slot, group) = (slot_at(usize::try_from(slot).unwrap()), format!("g{group}"));
        match act {
            0..3 => {
                connections.join(slot, hub(), SetName::Group(&group));
                model.entry(group).or_default().insert(slot);
            }
            3..6 => {
                connections.leave(slot, hub(), SetName::Group(&group));
                model.entry(group).or_default().remove(&slot);
            }
            _ => {
                connections.leave_groups(slot);
                model.values_mut().for_each(|members| members.retain(|member| *member != slot));
            }
        }
        for (group, expected) in &model {
            assert_eq!(&members(&connections, SetName::Group(group)), expected);
        }
    }
}

#[test]
fn a_client_counts_once_where_it_is_at_home_until_it_closes() {
    let home = |app| Arc::new(LinkHandle::opened(&HubIdentity::detached(), AppServerId::from(app)));
    let socket = Socket::boxed(tokio::io::empty());
    let client = Client::new("id".into(), 0, home(1), Content::Hub(HubProtocol::Json), socket);
    let mut connections = Connections::default();
    let counts = |connections: &Connections| -> Vec<_> {
        connections.census().iter().map(|(kind, count)| (kind.app, count)).collect()
    };
    let slot = connections.insert(client, None);
    assert_eq!(counts(&connections), [(AppServerId::from(1), 1)]);
    connections.set_home(slot, &home(2));
    assert_eq!(counts(&connections), [(AppServerId::from(2), 1)]);
    connections.close_client(slot);
    assert_eq!(counts(&connections), []);
    connections.set_home(slot, &home(1));
    connections.remove(slot);
    assert_eq!(counts(&connections), [], "it counts no second time, and is not taken away twice");
}
