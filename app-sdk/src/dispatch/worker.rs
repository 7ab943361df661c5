//! Workers: each processes the inbox of one connection, message by message.
//!
//! ```text
//!  a read of a link ──► queue of the link ──task──► worker, worker, …: done immediately
//!                                                      └─ a worker that waits continues in its own task
//! ```

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytestring::ByteString;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, OptionFuture, join_all};
use tokio::runtime::Handle;
use tokio::time::timeout;
use trunkline_process::LinePermit;

use super::{Dispatcher, cause_of, framing_error};
use crate::connection::{CallKind, CallScope, Connection, MessageTrace, RunQueue, TIME_SLICE, WorkItem, short};
use crate::error::HubError;
use crate::hub_core::HubCore;
use crate::outbound::Endpoint;

/// Number of messages after which a worker yields, so that a busy client does not occupy a thread.
const MESSAGES_PER_TURN: u32 = 32;

/// Maximum wait of a disconnected client's `on_disconnected` for the client's methods.
const LAST_CALLS_TIMEOUT: Duration = Duration::from_secs(30);

/// Reason why a worker stops for now. Futures are boxed, because few workers have one, while each message that arrives
/// alone starts a worker.
enum WorkerPause {
    Done,
    /// Its time slice is used up.
    Unfinished,
    /// It continues after this future.
    Waits(BoxFuture<'static, ()>),
    /// It is done after this future.
    Last(BoxFuture<'static, ()>),
}

impl Dispatcher {
    pub(super) fn spawn_worker(self: &Arc<Self>, connection: &Arc<Connection>) {
        self.tasks.spawn(Arc::clone(self).work(Arc::clone(connection)));
    }

    /// Processes connections from the queue until it is empty. Starts another task if this takes long.
    pub(super) async fn work_off(self: Arc<Self>, due: Arc<RunQueue<Arc<Connection>>>) {
        let mut since = Instant::now();
        let mut now = since;
        due.enter();
        while let Some(connection) = due.take_ready(now) {
            match self.run(&connection) {
                WorkerPause::Done => {}
                WorkerPause::Unfinished => due.push_back(connection),
                WorkerPause::Waits(waiting) => drop(self.tasks.spawn(Arc::clone(&self).go_on(waiting, connection))),
                WorkerPause::Last(last) => drop(self.tasks.spawn(last)),
            }
            now = Instant::now();
            if now.saturating_duration_since(since) > TIME_SLICE {
                self.start_workers(&due, due.begin_help(Handle::current().metrics().num_workers(), now));
                tokio::task::yield_now().await;
                since = Instant::now();
                now = since;
            }
        }
    }

    async fn go_on(self: Arc<Self>, waiting: BoxFuture<'static, ()>, connection: Arc<Connection>) {
        waiting.await;
        self.work(connection).await;
    }

    async fn work(self: Arc<Self>, connection: Arc<Connection>) {
        loop {
            match self.run(&connection) {
                WorkerPause::Done => return,
                WorkerPause::Unfinished => tokio::task::yield_now().await,
                WorkerPause::Waits(waiting) => waiting.await,
                WorkerPause::Last(last) => return last.await,
            }
        }
    }

    /// Processes one connection until it must wait or has used its time slice. App code is called with panics caught;
    /// any other panic loses its message but not the worker.
    fn run(self: &Arc<Self>, connection: &Arc<Connection>) -> WorkerPause {
        let turn = || {
            for _ in 0..MESSAGES_PER_TURN {
                match self.take_step(connection) {
                    None => {}
                    // Most futures complete on the first poll; the others are polled again.
                    Some(WorkerPause::Waits(mut waiting)) => match (&mut waiting).now_or_never() {
                        Some(()) => {}
                        None => return WorkerPause::Waits(waiting),
                    },
                    Some(WorkerPause::Last(mut last)) => {
                        return (&mut last).now_or_never().map_or(WorkerPause::Last(last), |()| WorkerPause::Done);
                    }
                    Some(pause) => return pause,
                }
            }
            WorkerPause::Unfinished
        };
        catch_unwind(AssertUnwindSafe(turn)).unwrap_or_else(|panic| {
            let error = HubError::from_panic(&*panic);
            tracing::error!(hub = %self.core.name(), connection = short(connection.id()), %error, "message lost");
            WorkerPause::Unfinished
        })
    }

    /// Takes one step. Returns the pause that must follow it, if any.
    fn take_step(self: &Arc<Self>, connection: &Arc<Connection>) -> Option<WorkerPause> {
        let (next, trace) = next_work(&self.core, connection);
        let owned = || (Arc::clone(self), Arc::clone(connection));
        match next {
            WorkItem::Handshake(Ok(request)) => {
                let (dispatcher, connection) = owned();
                let shaking = async move { dispatcher.handle_handshake(&connection, request).await };
                return Some(WorkerPause::Waits(Box::pin(shaking)));
            }
            WorkItem::Handshake(Err(error)) => self.ends.refuse_handshake(connection, &error),
            WorkItem::Message(body, bytes) => {
                return self.dispatch(connection, &body, bytes, trace).map(WorkerPause::Waits);
            }
            WorkItem::StartCall(call) => return self.calls.start_queued(call).map(WorkerPause::Waits),
            WorkItem::Unframed(error) => {
                self.ends.close_with_error(connection, cause_of(&error), &framing_error(&error))
            }
            WorkItem::InputEnded => {
                self.results.end_input(connection);
                self.limit_calls(connection);
            }
            WorkItem::Close(close, must_run_hook) => {
                let (dispatcher, connection) = owned();
                return Some(WorkerPause::Last(Box::pin(async move {
                    if must_run_hook {
                        let context = dispatcher.context(&connection, CallKind::DisconnectHook);
                        dispatcher.hooks.disconnected(&connection, context, close).await;
                    }
                })));
            }
            WorkItem::Reassign => {
                let (dispatcher, connection) = owned();
                return Some(WorkerPause::Waits(Box::pin(async move { dispatcher.reassign(&connection).await })));
            }
            WorkItem::Idle => {
                self.results.give_up_unread(connection);
                return Some(WorkerPause::Done);
            }
        }
        None
    }
}

fn listed(names: &BTreeSet<ByteString>) -> String {
    names.iter().map(|name| &**name).collect::<Vec<_>>().join(", ")
}

fn next_work(core: &HubCore, connection: &Connection) -> (WorkItem<CallScope>, Option<Box<MessageTrace>>) {
    let mut inbox = connection.inbox();
    let has_pending_result = inbox.reassignment.has_begun() && core.has_pending_result(connection.id());
    let next = inbox.next(connection.protocol, &core.limits, has_pending_result);
    core.apply_flow_control(connection, &mut inbox);
    (next, inbox.take_trace())
}

impl Dispatcher {
    /// Drops a connection without notification or hook, like a crash. For the test kit.
    pub(crate) fn forget(self: &Arc<Self>, id: &str) {
        if let Some(connection) = self.core.connections.get(id) {
            self.ends.let_go(&connection);
        }
    }

    /// Limits the time that `on_disconnected` of a disconnected client waits for the client's calls.
    fn limit_calls(self: &Arc<Self>, connection: &Arc<Connection>) {
        {
            let inbox = connection.inbox();
            if !inbox.has_calls() || !inbox.is_connected() {
                return;
            }
        }
        let (hub, connection) = (Arc::clone(self), Arc::downgrade(connection));
        // Shutdown does not wait for this task.
        tokio::spawn(async move {
            drop(timeout(LAST_CALLS_TIMEOUT, hub.calls_given_up.cancelled()).await);
            if let Some(connection) = connection.upgrade() {
                hub.give_up_calls(&connection);
            }
        });
    }

    /// Runs `on_disconnected` of a disconnected client although some of its calls are still running.
    fn give_up_calls(self: &Arc<Self>, connection: &Arc<Connection>) {
        let Some((methods, needs_worker)) = connection.inbox().give_up_calls() else { return };
        let (hub, connection_id, methods) = (self.core.name(), short(connection.id()), listed(&methods));
        if let Some(LinePermit { left_out }) = self.core.outbound.failure_limit.take_line() {
            let text = "client disconnected, but its methods still run: on_disconnected does not wait for them";
            tracing::warn!(hub, connection = connection_id, methods, left_out, "{text}");
        }
        if needs_worker {
            self.spawn_worker(connection);
        }
    }

    pub(crate) fn running_methods(&self) -> String {
        let mut methods = BTreeSet::new();
        for connection in self.core.connections.all() {
            let mut inbox = connection.inbox();
            if inbox.reassignment.has_begun() {
                methods.append(&mut inbox.calls().0.waiting_methods());
            }
        }
        listed(&methods)
    }

    /// Hands a connection without running calls to another app server. If a client result was requested during
    /// `on_leaving`, the connection stays until the client has answered.
    pub(super) async fn reassign(self: &Arc<Self>, connection: &Arc<Connection>) {
        let context = || self.context(connection, CallKind::DisconnectHook);
        let items = tokio::select! {
            items = self.hooks.leaving(connection, context) => items,
            () = self.given_away(connection) => return,
        };
        if self.core.has_pending_result(connection.id()) {
            connection.inbox().reassignment.end_leaving();
        } else {
            self.reassignments.give_away(connection, items).await;
        }
    }

    /// Waits until a connection is handed over without its `on_leaving`, because the time limit has passed.
    async fn given_away(&self, connection: &Connection) {
        connection.cancellation().cancelled().await;
        if !connection.inbox().reassignment.is_elsewhere() {
            std::future::pending::<()>().await;
        }
    }

    /// Hands the remaining connections to other app servers, because the time limit of their calls has passed. Moving
    /// connections are left to their nodes. `on_leaving` hooks that have not begun get `leaving_timeout`; if a hook
    /// does not return, the connection goes without items. Raw connections end with their links instead.
    pub(crate) async fn reassign_remaining(self: &Arc<Self>, leaving_timeout: Duration) {
        if self.raw.is_some() {
            return;
        }
        let remaining = self
            .core
            .connections
            .all()
            .into_iter()
            .filter(|connection| connection.inbox().reassignment.has_begun() && !connection.home.is_paused());
        let late = AtomicUsize::new(0);
        let late = &late;
        join_all(remaining.map(|connection| async move {
            let is_first = connection.inbox().reassignment.begin_leaving();
            let context = || self.context(&connection, CallKind::DisconnectHook);
            let leaving = OptionFuture::from(is_first.then(|| self.hooks.leaving(&connection, context)));
            let items = timeout(leaving_timeout, leaving).await.ok().flatten();
            if items.is_none() {
                late.fetch_add(1, Ordering::Relaxed);
            }
            self.reassignments.give_away(&connection, items.flatten()).await;
        }))
        .await;
        let connections = late.load(Ordering::Relaxed);
        if connections > 0 {
            let hub = self.core.name();
            tracing::warn!(
                hub,
                hook = "on_leaving",
                connections,
                "hook did not return in time: clients are handed over without items"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;
    use trunkline_protocol::service::{
        Attachment, Capabilities, CloseConnection, ConnectionData, ConnectionFlowControl, FlowOperation, FrameBuffer,
        OpenConnection, ServiceMessage,
    };
    use trunkline_protocol::wire::{IF_IDLE_HEADER, ITEMS_HEADER, MIGRATE_FROM_HEADER, MIGRATE_TO_HEADER};

    use trunkline_link::LinkOutbox;

    use super::*;
    use crate::Hub;
    use crate::connection::LinkId;
    use crate::metrics::Metrics;
    use crate::node::{Node, NodeName, next_piece, open_outbox};
    use crate::outbound::{Endpoint, Outbound};

    /// A hub with one idle client, and its link to the proxy.
    struct Scene {
        hub: Arc<Dispatcher>,
        node: Arc<Node>,
        outbox: Arc<LinkOutbox>,
        socket: Attachment,
    }

    impl Scene {
        async fn new() -> Self {
            Self::of(Hub::new("/test").on_leaving(async || "items")).await
        }

        async fn of(hub: Hub) -> Self {
            let hub = hub.method("Wait", std::future::pending::<()>).build().unwrap();
            let outbound = Outbound::new("test", Metrics::new().hub("test"));
            let hub = Dispatcher::new(hub, "me".into(), outbound, TaskTracker::new());
            let (outbox, socket) = open_outbox(10_000);
            let outbox = Arc::new(outbox);
            let name = NodeName::proxy("proxy", "boot");
            let node = hub.core.outbound.begin_session(name, Capabilities::plain(), 0, Arc::clone(&outbox));
            let scene = Self { hub, node, outbox, socket };
            let headers = vec![(MIGRATE_FROM_HEADER.into(), vec!["other".into()])];
            let (connection_id, protocol) = ("c1".into(), Some("json".into()));
            let open = OpenConnection { connection_id, protocol, headers, ..OpenConnection::default() };
            let body = ServiceMessage::OpenConnection(open).to_body();
            let Ok(Some(ServiceMessage::OpenConnection(open))) = ServiceMessage::decode(&body) else { panic!() };
            scene.hub.handle_open(LinkId(1), &scene.node, &body, open);
            scene.data("{\"protocol\":\"json\",\"version\":1}\u{1e}").await;
            scene
        }

        /// Handles bytes from the client and runs the resulting work.
        async fn data(&self, payload: &'static str) {
            let data =
                ConnectionData { connection_id: "c1".into(), payload: payload.into(), ..ConnectionData::default() };
            if let Some(connection) = self.hub.handle_data(data, None) {
                self.hub.spawn_worker(&connection);
            }
            self.settle().await;
        }

        async fn settle(&self) {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }

        /// Requests the client if it is idle. Returns the frames that the proxy receives.
        async fn ask(&self) -> Vec<ServiceMessage> {
            self.told();
            let headers = [(MIGRATE_TO_HEADER, ""), (IF_IDLE_HEADER, "1")];
            let headers = headers.map(|(name, value)| (name.into(), vec![value.into()])).into();
            self.hub.handle_close(&self.node, CloseConnection { connection_id: "c1".into(), error: None, headers });
            self.settle().await;
            self.told()
        }

        fn told(&self) -> Vec<ServiceMessage> {
            let mut frames = FrameBuffer::default();
            std::iter::from_fn(|| next_piece(&self.outbox, self.socket)).for_each(|piece| frames.push(piece.bytes));
            let bodies = std::iter::from_fn(|| frames.next_body().unwrap());
            bodies.map(|body| ServiceMessage::decode(&body).unwrap().unwrap()).collect()
        }
    }

    #[tokio::test]
    async fn an_idle_connection_is_handed_to_a_new_app_server_with_its_items() {
        let scene = Scene::new().await;
        let told = scene.ask().await;
        let [ServiceMessage::CloseConnection(close)] = &told[..] else { panic!("{told:?}") };
        assert_eq!(close.reason().next_home, Some(""));
        assert!(close.headers.iter().any(|(name, _)| name == ITEMS_HEADER));
        assert!(scene.hub.core.connections.get("c1").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn on_leaving_that_does_not_return_begins_once_and_its_client_goes_on_elsewhere() {
        for has_call in [false, true] {
            let begun = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&begun);
            let leaving = move || {
                count.fetch_add(1, Ordering::Relaxed);
                std::future::pending::<()>()
            };
            let scene = Scene::of(Hub::new("/test").on_leaving(leaving)).await;
            if has_call {
                scene.data("{\"type\":1,\"target\":\"Wait\",\"arguments\":[]}\u{1e}").await;
            }
            let connection = scene.hub.core.connections.get("c1").unwrap();
            scene.hub.reassignments.begin_reassignment(&connection);
            scene.settle().await;
            assert_eq!(begun.load(Ordering::Relaxed), usize::from(!has_call));
            assert_eq!(scene.hub.running_methods(), if has_call { "Wait" } else { "" });
            scene.told();
            let since = tokio::time::Instant::now();
            scene.hub.reassign_remaining(Duration::from_secs(1)).await;
            scene.settle().await;
            assert_eq!(since.elapsed().as_secs(), u64::from(has_call), "one that has begun has had its time");
            assert_eq!(begun.load(Ordering::Relaxed), 1);
            let told = scene.told();
            let [ServiceMessage::CloseConnection(close)] = &told[..] else { panic!("{told:?}") };
            assert_eq!(close.reason().next_home, Some(""));
            assert!(!close.headers.iter().any(|(name, _)| name == ITEMS_HEADER));
        }
    }

    #[tokio::test]
    async fn a_connection_of_which_a_call_runs_stays_and_is_read_on_and_a_stop_takes_it_all_the_same() {
        let scene = Scene::new().await;
        // The proxy cannot see the running call, because no answer is expected.
        scene.data("{\"type\":1,\"target\":\"Wait\",\"arguments\":[]}\u{1e}").await;
        let told = scene.ask().await;
        let [ServiceMessage::ConnectionFlowControl(ConnectionFlowControl { connection_id, operation, .. })] = &told[..]
        else {
            panic!("{told:?}")
        };
        assert_eq!((&**connection_id, *operation), ("c1", FlowOperation::ReadOn));
        let connection = scene.hub.core.connections.get("c1").unwrap();
        assert!(!connection.inbox().reassignment.has_begun());
        scene.hub.reassignments.begin_reassignment(&connection);
        assert!(connection.inbox().reassignment.has_begun());
    }
}
