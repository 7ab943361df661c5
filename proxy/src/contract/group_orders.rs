//! Group orders of operators: a client or a user joins and leaves a group at any node, and unknown ones are refused.

use axum::http::StatusCode;

use super::fixture::paused;
use super::fleet_nodes::{FleetNode, linked, nodes};
use crate::edge::observer::{Announcement, ApiError, GroupOrder, GroupReport, GroupStep};
use crate::edge::rest::Addressee;

fn order(step: GroupStep, subject: Addressee) -> GroupOrder {
    GroupOrder { hub: "chat".into(), group: "red".into(), subject, step }
}

fn done() -> GroupReport {
    GroupReport { hub: "chat".into(), group: "red".into(), missing: Vec::new() }
}

/// Number of members of the group at a node, by an announcement to them.
async fn members(node: &FleetNode) -> u64 {
    let to = Addressee::Group("red".into());
    let announcement = Announcement { hub: "chat".into(), to, target: "Count".into(), arguments: Vec::new() };
    node.observer().announcer.announce(announcement).await.unwrap().clients
}

#[tokio::test(crate = "paused")]
async fn a_client_and_the_connections_of_a_user_join_and_leave_at_another_node() {
    let (_network, mut nodes) = nodes(2).await;
    let [one, _other] = nodes[1].link.clients_of(["ann", "ann"]).await;
    linked(&nodes).await;
    let observer = nodes[0].observer();
    let client = || Addressee::Connection(one.id.clone());
    let user = || Addressee::User("ann".into());
    for (step, subject, expected) in [
        (GroupStep::Join, client(), 1),
        (GroupStep::Join, user(), 2),
        (GroupStep::Leave, client(), 1),
        (GroupStep::Leave, user(), 0),
    ] {
        let order = order(step, subject);
        let text = format!("{order:?}");
        assert_eq!(observer.groups.change(order).await.unwrap(), done(), "{text}");
        assert_eq!(members(&nodes[1]).await, expected, "{text}");
    }
}

#[tokio::test(crate = "paused")]
async fn an_unknown_client_and_user_and_too_long_a_name_are_refused() {
    let (_network, nodes) = nodes(2).await;
    linked(&nodes).await;
    let observer = nodes[0].observer();
    let stranger = Addressee::Connection("abcdefghijklmnopqrstuv".into());
    let refused = observer.groups.change(order(GroupStep::Join, stranger)).await;
    assert_eq!(refused, Err(ApiError::unknown_client("abcdefghijklmnopqrstuv")));
    let absent = || Addressee::User("absent".into());
    let refused = observer.groups.change(order(GroupStep::Join, absent())).await;
    let text = "no reachable node has a connection of this user at this hub";
    assert_eq!(refused, Err(ApiError::new(StatusCode::NOT_FOUND, text)));
    // It may have memberships for later connections.
    assert_eq!(observer.groups.change(order(GroupStep::Leave, absent())).await.unwrap(), done());
    let group = "x".repeat(nodes[0].fixture.shared.settings.groups.name_max_bytes + 1);
    let long = GroupOrder { group, ..order(GroupStep::Join, Addressee::User("ann".into())) };
    let refused = observer.groups.change(long).await;
    assert!(format!("{refused:?}").contains("see --group-name-max-bytes"), "{refused:?}");
}
