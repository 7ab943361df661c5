//! Workers: each takes what is in the inbox of one connection, message by message.
//!
//! ```text
//!  a read of a link ──► queue of the link ──task──► worker, worker, …: done at once
//!                                                      └─ one that waits goes on in a task of its own
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

use super::{Dispatcher, cause_of, framing_error};
use crate::connection::{CallKind, CallScope, Connection, DueQueue, MessageTrace, TURN, WorkItem, short};
use crate::error::HubError;
use crate::hub_core::HubCore;

/// Number of messages after which a worker lets others work: a busy client must not keep a thread for itself.
const MESSAGES_PER_TURN: u32 = 32;

/// Why a worker stops for now. The waits are boxed: few workers have one, and one is begun for each message that comes
/// alone.
enum WorkerPause {
    /// Nothing is left in the inbox.
    Done,
    /// It has had its turn.
    Unfinished,
    /// It goes on after this.
    Waits(BoxFuture<'static, ()>),
    /// It is done after this.
    Last(BoxFuture<'static, ()>),
}

impl Dispatcher {
    /// Starts the worker of one connection.
    pub(super) fn spawn_worker(self: &Arc<Self>, connection: &Arc<Connection>) {
        self.tasks.spawn(Arc::clone(self).work(Arc::clone(connection)));
    }

    /// Starts tasks for the workers that are due.
    pub(super) fn spawn_workers(self: &Arc<Self>, due: &Arc<DueQueue<Arc<Connection>>>, tasks: usize) {
        for _ in 0..tasks {
            self.tasks.spawn(Arc::clone(self).work_off(Arc::clone(due)));
        }
    }

    /// Works for one connection after the other until none is due, with another task's help where it takes long.
    async fn work_off(self: Arc<Self>, due: Arc<DueQueue<Arc<Connection>>>) {
        let mut since = Instant::now();
        let mut now = since;
        due.enter();
        while let Some(connection) = due.take(now) {
            match self.run(&connection) {
                WorkerPause::Done => {}
                WorkerPause::Unfinished => due.push_back(connection),
                WorkerPause::Waits(waiting) => drop(self.tasks.spawn(Arc::clone(&self).go_on(waiting, connection))),
                WorkerPause::Last(last) => drop(self.tasks.spawn(last)),
            }
            now = Instant::now();
            if now.saturating_duration_since(since) > TURN {
                self.spawn_workers(&due, due.begin_help(Handle::current().metrics().num_workers(), now));
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

    /// Works for one connection until nothing is left.
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

    /// Works for one connection as long as it needs not wait, and other connections have not waited for long. Code of
    /// the app is called where a panic becomes an answer; should one come from elsewhere, it takes its message with it,
    /// and not the worker.
    fn run(self: &Arc<Self>, connection: &Arc<Connection>) -> WorkerPause {
        let turn = || {
            for _ in 0..MESSAGES_PER_TURN {
                match self.take_step(connection) {
                    None => {}
                    // Most waits are over when they are polled for the first time; the others are polled again.
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
            tracing::error!(hub = %self.core.name(), connection = short(connection.id()), %error, "a message is lost");
            WorkerPause::Unfinished
        })
    }

    /// Takes one step. Returns how the worker must pause after it, if it must.
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
            WorkItem::InputEnded => self.results.end_input(connection),
            WorkItem::Close(close, must_run_hook) => {
                let (dispatcher, connection) = owned();
                return Some(WorkerPause::Last(Box::pin(async move {
                    if must_run_hook {
                        let context = dispatcher.context(&connection, CallKind::DisconnectHook);
                        dispatcher.hooks.disconnected(&connection, context, close).await;
                    }
                    dispatcher.restorations.keep_lost(&connection, must_run_hook);
                })));
            }
            WorkItem::HandOver => {
                let (dispatcher, connection) = owned();
                return Some(WorkerPause::Waits(Box::pin(async move { dispatcher.hand_over(&connection).await })));
            }
            WorkItem::Idle => {
                self.results.give_up_unread(connection);
                return Some(WorkerPause::Done);
            }
        }
        None
    }
}

/// Takes the next work of a connection, and the trace of its message.
fn next_work(core: &HubCore, connection: &Connection) -> (WorkItem<CallScope>, Option<Box<MessageTrace>>) {
    let mut inbox = connection.inbox();
    let is_asked = inbox.is_reassigning() && core.client_results.is_asked(connection.id());
    let next = inbox.next(connection.protocol(), &core.limits, is_asked);
    core.apply_flow_control(connection, &mut inbox);
    (next, inbox.take_trace())
}
