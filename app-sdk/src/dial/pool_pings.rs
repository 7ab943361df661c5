//! Pings of a service: its requests to the app server, and client counts in return.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_link::LinkOutbox;
use trunkline_protocol::dial_in::{
    CLIENTS_IN_HUB_PING, CLIENTS_PING, FIN_ACK, INSTANCE_LOST_PING, SHUTDOWN_PING, TARGET_PING,
};
use trunkline_protocol::service::Ping;

use crate::connection::LinkId;
use crate::link::ServicePings;
use crate::outbound::Endpoint;
use crate::sync::lock;

/// Minimum interval between reports of client counts, as in Azure's SDK.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

pub(super) trait PoolRequests: Send + Sync {
    /// Opens a server connection to the service instance that requests one, up to the limit.
    fn open_on_demand(self: Arc<Self>, instance: &str);

    /// Records that the service has acknowledged the shutdown on this server connection.
    fn set_finished(&self, slot: u32);
}

pub(super) struct PoolPings {
    /// Weak, because the pool owns the sessions, and these own their handlers.
    pool: Weak<dyn PoolRequests>,
    endpoint: Arc<dyn Endpoint>,
    slot: u32,
    reported: Mutex<Instant>,
}

impl PoolPings {
    pub(super) fn new(pool: Weak<dyn PoolRequests>, endpoint: Arc<dyn Endpoint>, slot: u32) -> Self {
        Self { pool, endpoint, slot, reported: Mutex::new(Instant::now()) }
    }

    /// Returns whether a report is due, and if so restarts the interval.
    fn is_report_due(&self) -> bool {
        let mut reported = lock(&self.reported);
        let is_due = reported.elapsed() >= REPORT_INTERVAL;
        if is_due {
            *reported = Instant::now();
        }
        is_due
    }
}

impl ServicePings for PoolPings {
    fn handle_ping(&self, link: LinkId, outbox: &LinkOutbox, ping: &Ping) {
        let Some(pool) = self.pool.upgrade() else { return };
        if let Some(instance) = ping.get(TARGET_PING).filter(|instance| !instance.is_empty()) {
            Arc::clone(&pool).open_on_demand(instance);
        }
        if ping.get(SHUTDOWN_PING).is_some_and(|value| value == FIN_ACK) {
            pool.set_finished(self.slot);
        }
        if let Some(instance) = ping.get(INSTANCE_LOST_PING).filter(|instance| !instance.is_empty()) {
            self.endpoint.handle_instance_lost(instance);
        }
        if self.is_report_due() {
            let (in_hub, here) = self.endpoint.count_clients(link);
            let pairs = [(CLIENTS_IN_HUB_PING, in_hub), (CLIENTS_PING, here)];
            let pairs = pairs.map(|(key, count)| (key.into(), count.to_string().into())).to_vec();
            outbox.echo(&Ping { pairs });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use bytes::Bytes;
    use tokio::time::advance;
    use trunkline_protocol::service::{
        Attachment, CloseConnection, ConnectionData, FrameBuffer, OpenConnection, ServiceMessage,
    };

    use super::*;
    use crate::connection::{Connection, ConnectionClose};
    use crate::metrics::Metrics;
    use crate::node::{Node, next_piece, open_outbox};
    use crate::outbound::Outbound;

    /// Hub with seven clients, two with the given link as their home.
    struct SevenClients(Outbound);

    impl Endpoint for SevenClients {
        fn outbound(&self) -> &Outbound {
            &self.0
        }

        fn handle_open(&self, _: LinkId, _: &Arc<Node>, _: &Bytes, _: OpenConnection) {}
        fn handle_data(&self, _: ConnectionData, _: Option<i64>) -> Option<Arc<Connection>> {
            None
        }
        fn handle_close(&self, _: &Arc<Node>, _: CloseConnection) {}
        fn handle_link_ended(&self, _: LinkId, _: &ConnectionClose) {}

        fn count_clients(&self, _: LinkId) -> (usize, usize) {
            (7, 2)
        }
    }

    /// Counts the requests of a service.
    #[derive(Default)]
    struct Noted {
        wanted: AtomicU32,
        finished: AtomicU32,
    }

    impl PoolRequests for Noted {
        fn open_on_demand(self: Arc<Self>, _instance: &str) {
            self.wanted.fetch_add(1, Ordering::Relaxed);
        }

        fn set_finished(&self, slot: u32) {
            self.finished.fetch_add(slot, Ordering::Relaxed);
        }
    }

    fn ping(key: &'static str, value: &'static str) -> Ping {
        Ping { pairs: vec![(key.into(), value.into())] }
    }

    fn sent(outbox: &LinkOutbox, socket: Attachment) -> Vec<ServiceMessage> {
        let mut frames = FrameBuffer::default();
        std::iter::from_fn(|| next_piece(outbox, socket)).for_each(|piece| frames.push(piece.bytes));
        let bodies = std::iter::from_fn(|| frames.next_body().unwrap());
        bodies.map(|body| ServiceMessage::decode(&body).unwrap().unwrap()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_clients_is_reported_on_request_at_most_every_five_seconds() {
        let pool = Arc::new(Noted::default());
        let hub = Arc::new(SevenClients(Outbound::new("hub", Metrics::new().hub("hub"))));
        let weak: Weak<dyn PoolRequests> = Arc::<Noted>::downgrade(&pool);
        let pings = PoolPings::new(weak, hub, 3);
        let (outbox, socket) = open_outbox(1_000);
        let bare = Ping::default();
        pings.handle_ping(LinkId(1), &outbox, &bare);
        advance(REPORT_INTERVAL).await;
        assert!(sent(&outbox, socket).is_empty());
        pings.handle_ping(LinkId(1), &outbox, &bare);
        pings.handle_ping(LinkId(1), &outbox, &bare);
        let pairs = vec![("#clientInHub".into(), "7".into()), ("#client".into(), "2".into())];
        assert_eq!(sent(&outbox, socket), [ServiceMessage::Ping(Ping { pairs })]);
    }

    #[tokio::test]
    async fn requests_reach_the_pool() {
        let pool = Arc::new(Noted::default());
        let hub = Arc::new(SevenClients(Outbound::new("hub", Metrics::new().hub("hub"))));
        let weak: Weak<dyn PoolRequests> = Arc::<Noted>::downgrade(&pool);
        let pings = PoolPings::new(weak, hub, 3);
        let (outbox, _) = open_outbox(1_000);
        let all = [("target", "n1"), ("target", ""), ("shutdown", "finack"), ("shutdown", "fin:1"), ("status", "1")];
        for (key, value) in all {
            pings.handle_ping(LinkId(1), &outbox, &ping(key, value));
        }
        assert_eq!((pool.wanted.load(Ordering::Relaxed), pool.finished.load(Ordering::Relaxed)), (1, 3));
    }
}
