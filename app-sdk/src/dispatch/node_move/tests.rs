//! Tests of moving connections and nodes that are lost during a move.

use tokio_util::task::TaskTracker;
use trunkline_protocol::service::{Capabilities, OpenConnection};
use trunkline_protocol::wire::MIGRATE_FROM_HEADER;

use super::super::Dispatcher;
use super::*;
use crate::Hub;
use crate::metrics::Metrics;
use crate::node::{NodeName, open_outbox};
use crate::outbound::{Endpoint, Outbound};

fn dispatcher() -> Arc<Dispatcher> {
    let hub = Hub::new("/test").stateful_reconnect(true).build().unwrap();
    let outbound = Outbound::new("test", Metrics::new().hub("test"));
    Dispatcher::new(hub, "me".into(), outbound, TaskTracker::new())
}

fn begin(hub: &Arc<Dispatcher>, name: &str) -> Arc<Node> {
    let outbox = Arc::new(open_outbox(1_000).0);
    hub.core.outbound.begin_session(NodeName::proxy(name, "boot"), Capabilities::plain(), 0, outbox)
}

fn open(hub: &Arc<Dispatcher>, link: LinkId, node: &Arc<Node>, header: Option<&'static str>) -> Arc<Connection> {
    let (connection_id, protocol) = ("c1".into(), Some("json".into()));
    let headers = header.map(|name| (name.into(), vec!["me".into()])).into_iter().collect();
    let open = OpenConnection { connection_id, protocol, headers, ..OpenConnection::default() };
    let body = ServiceMessage::OpenConnection(open).to_body();
    let Ok(Some(ServiceMessage::OpenConnection(open))) = ServiceMessage::decode(&body) else { panic!("{body:?}") };
    hub.handle_open(link, node, &body, open);
    hub.core.connections.get("c1").unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_moving_client_of_a_lost_node_ends_unless_another_node_resumes_it() {
    for is_taken_over in [true, false] {
        let hub = dispatcher();
        let [old, new] = ["old", "new"].map(|name| begin(&hub, name));
        let connection = open(&hub, LinkId(1), &old, None);
        hub.moves.pause(&old, "c1".into());
        hub.handle_link_ended(LinkId(1), &ConnectionClose::new(Cause::LinkLost));
        tokio::task::yield_now().await;
        assert!(hub.core.connections.contains(&connection));
        if is_taken_over {
            hub.moves.resume(LinkId(2), &new, "c1".into());
        }
        hub.tasks.close();
        hub.tasks.wait().await;
        assert_eq!(hub.core.connections.contains(&connection), is_taken_over);
        assert_eq!(connection.node().name(), if is_taken_over { "new" } else { "old" });
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_ends_if_its_new_node_is_lost_before_resuming_it() {
    for is_resumed in [true, false] {
        let hub = dispatcher();
        let old = begin(&hub, "old");
        let connection = open(&hub, LinkId(1), &old, None);
        hub.moves.pause(&old, "c1".into());
        tokio::task::yield_now().await;
        if is_resumed {
            hub.moves.resume(LinkId(1), &old, "c1".into());
        }
        hub.tasks.close();
        hub.tasks.wait().await;
        assert_eq!(hub.core.connections.contains(&connection), is_resumed);
    }
}

#[tokio::test]
async fn a_node_whose_resume_was_lost_reopens_the_client() {
    let hub = dispatcher();
    let [old, new] = ["old", "new"].map(|name| begin(&hub, name));
    let before = open(&hub, LinkId(1), &old, None);
    hub.moves.pause(&old, "c1".into());
    let after = open(&hub, LinkId(2), &new, Some(MIGRATE_FROM_HEADER));
    assert!(!Arc::ptr_eq(&before, &after));
    assert_eq!(after.node().name(), "new");
}
