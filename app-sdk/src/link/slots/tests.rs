//! Tests of sessions of proxies that are reported as crashed, or that have given up their pool.

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::attached::{Attached, Link};
use super::*;
use crate::Hub;
use crate::dispatch::Dispatcher;
use crate::metrics::Metrics;
use crate::outbound::Outbound;

/// An app server with links of a proxy.
struct Scene {
    slots: Arc<Slots>,
    hub: Arc<Dispatcher>,
}

impl Scene {
    fn new() -> Self {
        let hub = Hub::new("/test").build().unwrap();
        let outbound = Outbound::new("test", Metrics::new().hub("test"));
        Self { slots: Arc::default(), hub: Dispatcher::new(hub, "me".into(), outbound, TaskTracker::new()) }
    }

    /// Attaches a socket to the session of a slot, until the value is dropped.
    async fn attach(&self, boot: &str, slot: u32, received: Option<u64>) -> Attached {
        self.attach_session(boot, slot, (SessionId::FIRST, received)).await.unwrap()
    }

    async fn attach_session(
        &self,
        boot: &str,
        slot: u32,
        (session, received): (SessionId, Option<u64>),
    ) -> Result<Attached, Refused> {
        let (hub, node) = ("test".into(), "proxy".into());
        let resuming =
            Capabilities { resume_ring_bytes: Some(10_000), window_ms: Some(10_000), ..Capabilities::plain() };
        let terms = SessionTerms {
            endpoint: Arc::new(Arc::clone(&self.hub)) as _,
            key: SlotKey { hub, node, boot: boot.into(), slot },
            service: None,
            ring_max_bytes: 10_000,
            capabilities: resuming,
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let link = Link { terms, slots: Arc::clone(&self.slots) };
        let offer = Offer { session, received, capabilities: resuming };
        link.attach(Some(offer)).await.map(|(attached, _)| attached)
    }

    fn sessions(&self, boot: &str) -> Vec<Arc<LinkSession>> {
        sessions_of(&lock(&self.slots.slots), boot)
    }

    /// Number of remaining sessions of a proxy process some seconds after another proxy reported its crash.
    async fn left_when_doubted(&self, boot: &str) -> usize {
        self.slots.suspect_node(boot);
        // sleep: time is virtual, and the test shows that nothing happens
        sleep(Duration::from_secs(5)).await;
        self.sessions(boot).len()
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_sessions_of_a_crashed_proxy_end_immediately() {
    let scene = Scene::new();
    let other = scene.attach("other", 2, None).await;
    for slot in [0, 1] {
        drop(scene.attach("boot", slot, None).await);
    }
    drop(other);
    assert_eq!(scene.left_when_doubted("boot").await, 0);
    assert_eq!(scene.sessions("other").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_proxy_with_a_socket_is_alive_despite_crash_reports() {
    let scene = Scene::new();
    drop(scene.attach("boot", 0, None).await);
    let _socket = scene.attach("boot", 1, None).await;
    assert_eq!(scene.left_when_doubted("boot").await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_suspected_proxy_that_returns_in_time_has_lost_nothing() {
    let scene = Scene::new();
    for slot in [0, 1] {
        drop(scene.attach("boot", slot, None).await);
    }
    scene.slots.suspect_node("boot");
    tokio::task::yield_now().await;
    let _socket = scene.attach("boot", 0, Some(0)).await;
    // sleep: as above
    sleep(Duration::from_secs(5)).await;
    assert_eq!(scene.sessions("boot").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_first_link_of_a_new_pool_ends_the_former_pool_and_takes_over_its_unsent_frames() {
    let (scene, next_pool) = (Scene::new(), (SessionId::first_of(1), None));
    for slot in [0, 1, 2] {
        drop(scene.attach("boot", slot, None).await);
    }
    let node = scene.sessions("boot")[0].node.clone();
    assert!(node.control(b"\x01a"), "it waits for a socket of the former pool");
    let _link = scene.attach_session("boot", 1, next_pool).await.unwrap();
    let [session] = <[_; 1]>::try_from(scene.sessions("boot")).unwrap_or_else(|left| panic!("{} are left", left.len()));
    assert_eq!(session.key.slot, 1);
    assert!(session.outbox.is_open() && session.outbox.queued() == Some(1), "{:?}", session.outbox.queued());
}

#[tokio::test(start_paused = true)]
async fn a_late_upgrade_of_a_former_pool_is_refused_in_every_slot() {
    let (scene, next_pool) = (Scene::new(), (SessionId::first_of(1), None));
    drop(scene.attach("boot", 0, None).await);
    let _link = scene.attach_session("boot", 0, next_pool).await.unwrap();
    for (slot, late) in [(0, Some(0)), (0, None), (1, None)] {
        let refused = scene.attach_session("boot", slot, (SessionId::FIRST, late)).await.err();
        assert!(matches!(refused, Some(Refused::Judged(UpgradeRefusal::Unknown))), "{slot}: {refused:?}");
    }
    assert_eq!(scene.sessions("boot").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_next_session_of_a_lone_slot_takes_over_the_unsent_frames() {
    let scene = Scene::new();
    drop(scene.attach("boot", 0, None).await);
    let node = scene.sessions("boot")[0].node.clone();
    assert!(node.control(b"\x01a"), "it waits for a socket of the former session");
    let _link = scene.attach_session("boot", 0, (SessionId::FIRST.next(), None)).await.unwrap();
    let session = scene.sessions("boot").remove(0);
    assert!(Arc::ptr_eq(&session.node, &node), "the node was never without a link");
    assert_eq!(session.outbox.queued(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn an_open_link_of_a_former_pool_ends_with_its_socket() {
    let scene = Scene::new();
    let former = scene.attach("boot", 0, None).await;
    let _link = scene.attach_session("boot", 1, (SessionId::first_of(1), None)).await.unwrap();
    assert_eq!(scene.sessions("boot").len(), 2, "its socket may still be applying a batch");
    drop(former);
    let [session] = <[_; 1]>::try_from(scene.sessions("boot")).unwrap_or_else(|left| panic!("{} are left", left.len()));
    assert_eq!(session.key.slot, 1);
}
