//! The calls of one connection: which run, which wait for a slot, and the streams between. A pure value.
//!
//! ```text
//!                     ┌─ a slot is free, or it takes none ─────────────────────────────┐
//!  admit ──► its turn?                                                                 ▼
//!                     └─ no, or an earlier call is held ──► held ──next_held──► running ──release──► over
//! ```
//!
//! Calls start in their order. A call that is held has its id and its streams already, so that what the client
//! sends for them behind it finds them: items wait in their streams, a cancellation is seen when the method starts.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use bytestring::ByteString;
use tokio::sync::Notify;
use trunkline_protocol::hub::Invocation;
use trunkline_protocol::limits::STREAMS_MAX;

use super::{Flow, Limits, Scope, Takes, UploadEnd, Uploads};

/// How a client invoked a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Result,
    Stream,
}

/// A call on its way to its method.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) scope: Arc<Scope>,
    pub(crate) invocation: Invocation,
    pub(crate) wanted: Wanted,
    /// What it weighs while it waits.
    pub(crate) bytes: usize,
}

/// What is to be done with a call.
#[derive(Debug)]
pub(crate) enum Admission {
    /// It is to start now.
    Start(Incoming),
    /// It waits for its turn.
    Held,
    /// It or a stream of it has an id that another one has.
    InUse(ByteString),
}

/// The calls of a connection.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    running: u32,
    slots: u32,
    background: u32,
    /// Only while there is something in it: a call that is answered at once needs none of it.
    table: Option<Box<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    /// Calls that can be cancelled, by their invocation ids.
    active: HashMap<ByteString, Arc<Scope>>,
    held: VecDeque<Incoming>,
    uploads: Uploads,
    /// Wakes the methods that wait for results of clients when that has become hopeless.
    hopeless: Option<Arc<Notify>>,
    result_waits: u32,
}

/// Who is to be told that waiting is in vain; outside the lock.
#[derive(Debug, Default)]
pub(crate) struct Hopeless {
    wakers: Vec<Waker>,
    notify: Option<Arc<Notify>>,
}

impl Calls {
    /// A call has come.
    pub(crate) fn admit(&mut self, call: Incoming, limits: &Limits, flow: &mut Flow) -> Admission {
        if call.scope.takes() != Takes::Nothing
            && let Some(id) = self.id_in_use(&call)
        {
            return Admission::InUse(id);
        }
        let is_first = self.held().is_none();
        if is_first && self.has_room_for(&call.scope, limits) {
            if call.scope.takes() == Takes::Background {
                self.register(&call);
            }
            self.begin(&call.scope);
            return Admission::Start(call);
        }
        if call.scope.takes() != Takes::Nothing {
            self.register(&call);
        }
        flow.add_bytes(call.bytes);
        self.table().held.push_back(call);
        Admission::Held
    }

    /// The next call that was held and may start now.
    pub(crate) fn next_held(&mut self, limits: &Limits, flow: &mut Flow) -> Option<Incoming> {
        if !self.has_startable(limits) {
            return None;
        }
        let call = self.table.as_mut()?.held.pop_front()?;
        flow.remove_bytes(call.bytes);
        self.begin(&call.scope);
        Some(call)
    }

    /// Whether a call that was held may start now.
    pub(crate) fn has_startable(&self, limits: &Limits) -> bool {
        self.held().is_some_and(|call| self.has_room_for(&call.scope, limits))
    }

    /// The call goes on for a while: it can be cancelled from now on.
    pub(crate) fn remember(&mut self, scope: &Arc<Scope>) {
        if let Some(id) = scope.invocation_id() {
            self.table().active.entry(id.clone()).or_insert_with(|| Arc::clone(scope));
        }
    }

    /// The call is about to be answered: its id and its streams are free again. Returns who waits for an item.
    pub(crate) fn forget(&mut self, scope: &Arc<Scope>, stream_ids: &[ByteString], flow: &mut Flow) -> Vec<Waker> {
        let Some(table) = &mut self.table else { return Vec::new() };
        if let Some(id) = scope.invocation_id()
            && table.active.get(id).is_some_and(|active| Arc::ptr_eq(active, scope))
        {
            table.active.remove(id);
        }
        let waiting = stream_ids.iter().filter_map(|id| table.uploads.close(id, scope, flow)).collect();
        self.tidy();
        waiting
    }

    /// The call is over.
    pub(crate) fn release(&mut self, scope: &Scope) {
        debug_assert!(self.running > 0, "only a call that began ends");
        self.running = self.running.saturating_sub(1);
        if scope.takes() == Takes::Background {
            self.background = self.background.saturating_sub(1);
        }
        self.release_slot(scope);
    }

    /// The call gives its slot back, if it still has one.
    pub(crate) fn release_slot(&mut self, scope: &Scope) {
        if scope.give_slot() {
            self.slots = self.slots.saturating_sub(1);
        }
    }

    /// The call of this id, to be cancelled.
    pub(crate) fn active(&self, invocation_id: &str) -> Option<Arc<Scope>> {
        self.table.as_ref()?.active.get(invocation_id).map(Arc::clone)
    }

    /// Nothing runs and nothing is held.
    pub(crate) fn are_over(&self) -> bool {
        self.running == 0 && self.held().is_none()
    }

    /// Drops what is held. Returns who waits for items of it; nobody does.
    pub(crate) fn drop_held(&mut self, flow: &mut Flow) {
        while let Some(call) = self.table.as_mut().and_then(|table| table.held.pop_front()) {
            flow.remove_bytes(call.bytes);
            let waiting = self.forget(&call.scope, &call.invocation.stream_ids, flow);
            debug_assert!(waiting.is_empty(), "a method that has not begun waits for nothing");
        }
        self.tidy();
    }

    /// The uploads, if there are any.
    pub(crate) fn uploads(&mut self) -> Option<&mut Uploads> {
        self.table.as_mut().map(|table| &mut table.uploads).filter(|uploads| !uploads.is_empty())
    }

    /// Ends all uploads: the connection is over. Returns who waits.
    pub(crate) fn end_uploads(&mut self, flow: &mut Flow) -> Vec<Waker> {
        self.uploads().map(|uploads| uploads.end_all(&UploadEnd::ConnectionEnded, flow)).unwrap_or_default()
    }

    /// A method waits for the result of a client; the answer fires when that has become hopeless.
    pub(crate) fn begin_result_wait(&mut self, flow: &mut Flow) -> Arc<Notify> {
        flow.begin_wait();
        let table = self.table();
        table.result_waits += 1;
        Arc::clone(table.hopeless.get_or_insert_default())
    }

    pub(crate) fn end_result_wait(&mut self, flow: &mut Flow) {
        flow.end_wait();
        if let Some(table) = &mut self.table {
            table.result_waits = table.result_waits.saturating_sub(1);
            if table.result_waits == 0 {
                table.hopeless = None;
            }
        }
        self.tidy();
    }

    /// Too much waits before what methods wait for.
    pub(crate) fn give_up_waits(&mut self, flow: &mut Flow) -> Hopeless {
        match &mut self.table {
            Some(table) => Hopeless { wakers: table.uploads.fail_waiting(flow), notify: table.hopeless.clone() },
            None => Hopeless::default(),
        }
    }

    /// Gives the memory back when there is nothing left.
    pub(crate) fn tidy(&mut self) {
        if self.table.as_ref().is_some_and(|table| table.is_empty()) {
            self.table = None;
        }
    }

    #[cfg(test)]
    pub(crate) fn left_over(&self) -> Vec<String> {
        let counts = [("running", self.running), ("slots", self.slots), ("background", self.background)];
        let mut left: Vec<_> = counts.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{n} {what}")).collect();
        if let Some(table) = &self.table {
            let Table { active, held, uploads, result_waits, .. } = &**table;
            left.push(format!(
                "{} active, {} held, {} uploads, {result_waits} waits",
                active.len(),
                held.len(),
                uploads.len()
            ));
        }
        left
    }

    fn held(&self) -> Option<&Incoming> {
        self.table.as_ref()?.held.front()
    }

    fn has_room_for(&self, scope: &Scope, limits: &Limits) -> bool {
        match scope.takes() {
            Takes::Slot => (self.slots as usize) < limits.parallel_invocations.max(1),
            Takes::Background => (self.background as usize) < STREAMS_MAX,
            Takes::Nothing => true,
        }
    }

    fn begin(&mut self, scope: &Scope) {
        self.running += 1;
        match scope.takes() {
            Takes::Slot => {
                self.slots += 1;
                scope.take_slot();
            }
            Takes::Background => self.background += 1,
            Takes::Nothing => {}
        }
    }

    fn id_in_use(&self, call: &Incoming) -> Option<ByteString> {
        let Invocation { invocation_id, stream_ids, .. } = &call.invocation;
        let doubled =
            stream_ids.iter().enumerate().find(|(at, id)| stream_ids.iter().take(*at).any(|other| other == *id));
        if let Some((_, id)) = doubled {
            return Some(id.clone());
        }
        let table = self.table.as_ref()?;
        let invocation_id = invocation_id.as_ref().filter(|id| table.active.contains_key(&***id));
        invocation_id.or_else(|| stream_ids.iter().find(|id| table.uploads.contains(id))).cloned()
    }

    fn register(&mut self, call: &Incoming) {
        self.remember(&call.scope);
        if !call.invocation.stream_ids.is_empty() {
            let uploads = &mut self.table().uploads;
            call.invocation.stream_ids.iter().for_each(|id| uploads.open(id.clone(), &call.scope));
        }
    }

    fn table(&mut self) -> &mut Table {
        self.table.get_or_insert_default()
    }
}

impl Table {
    fn is_empty(&self) -> bool {
        self.active.is_empty() && self.held.is_empty() && self.uploads.is_empty() && self.result_waits == 0
    }
}

impl Hopeless {
    /// Tells them.
    pub(crate) fn tell(self) {
        self.wakers.into_iter().for_each(Waker::wake);
        if let Some(notify) = self.notify {
            notify.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::hub::HubProtocol;
    use trunkline_protocol::service::OpenConnection;

    use super::super::opening::tests::opening;
    use super::super::{Connection, LinkId};
    use super::*;
    use crate::node::Node;

    fn connection() -> Arc<Connection> {
        let open = OpenConnection { protocol: Some("json".into()), ..OpenConnection::default() };
        Arc::new(Connection::new(
            opening(open),
            HubProtocol::Json,
            LinkId(0),
            Arc::new(Node::new("node", "boot", true)),
        ))
    }

    fn call(connection: &Arc<Connection>, id: &'static str, takes: Takes, streams: &[&'static str]) -> Incoming {
        let invocation = Invocation {
            invocation_id: Some(id.into()),
            stream_ids: streams.iter().map(|&id| id.into()).collect(),
            ..Invocation::default()
        };
        let scope = Scope::call(connection, takes, invocation.invocation_id.clone());
        Incoming { scope, invocation, wanted: Wanted::Result, bytes: 10 }
    }

    /// The calls of one connection with one slot.
    struct Table {
        calls: Calls,
        flow: Flow,
        limits: Limits,
        connection: Arc<Connection>,
    }

    impl Table {
        fn new() -> Self {
            let (calls, flow, limits) = (Calls::default(), Flow::default(), Limits::default());
            Self { calls, flow, limits, connection: connection() }
        }

        fn admit(&mut self, id: &'static str, takes: Takes, streams: &[&'static str]) -> Admission {
            self.calls.admit(call(&self.connection, id, takes, streams), &self.limits, &mut self.flow)
        }

        fn start(&mut self, id: &'static str, takes: Takes, streams: &[&'static str]) -> Incoming {
            match self.admit(id, takes, streams) {
                Admission::Start(call) => call,
                other => panic!("{other:?}"),
            }
        }

        fn next_held(&mut self) -> Option<ByteString> {
            self.calls.next_held(&self.limits, &mut self.flow)?.invocation.invocation_id
        }

        fn end(&mut self, call: &Incoming) {
            assert!(self.calls.forget(&call.scope, &call.invocation.stream_ids, &mut self.flow).is_empty());
            self.calls.release(&call.scope);
        }
    }

    #[test]
    fn with_one_slot_the_second_call_waits_and_everything_behind_it() {
        let mut table = Table::new();
        let first = table.start("1", Takes::Slot, &[]);
        assert!(matches!(table.admit("2", Takes::Slot, &[]), Admission::Held));
        assert!(matches!(table.admit("3", Takes::Background, &["s"]), Admission::Held));
        assert!(matches!(table.admit("4", Takes::Nothing, &[]), Admission::Held));
        assert_eq!(table.flow.waiting_bytes(), 30);
        assert_eq!(table.next_held(), None);
        table.end(&first);
        assert_eq!(table.next_held().as_deref(), Some("2"));
        assert_eq!(table.next_held().as_deref(), Some("3"));
        assert_eq!(table.next_held().as_deref(), Some("4"));
        assert_eq!(table.flow.waiting_bytes(), 0);
    }

    #[test]
    fn calls_with_streams_run_beside_a_call_that_has_the_slot() {
        let mut table = Table::new();
        let first = table.start("1", Takes::Slot, &[]);
        let second = table.start("2", Takes::Background, &["s"]);
        table.end(&first);
        assert!(!table.calls.are_over());
        table.end(&second);
        assert!(table.calls.are_over());
        assert_eq!(table.calls.left_over(), Vec::<String>::new());
    }

    #[test]
    fn a_slot_that_is_given_back_early_is_not_given_back_twice() {
        let mut table = Table::new();
        let first = table.start("1", Takes::Slot, &[]);
        assert!(matches!(table.admit("2", Takes::Slot, &[]), Admission::Held));
        table.calls.release_slot(&first.scope);
        table.calls.release_slot(&first.scope);
        assert_eq!(table.next_held().as_deref(), Some("2"));
        assert!(matches!(table.admit("3", Takes::Slot, &[]), Admission::Held));
        table.end(&first);
        assert_eq!(table.next_held(), None, "the second call still has the only slot");
    }

    #[test]
    fn an_id_is_in_use_until_its_call_is_forgotten() {
        let mut table = Table::new();
        let first = table.start("1", Takes::Background, &["s"]);
        assert!(matches!(table.admit("1", Takes::Slot, &[]), Admission::InUse(id) if id == "1"));
        assert!(matches!(table.admit("2", Takes::Background, &["s"]), Admission::InUse(id) if id == "s"));
        assert!(matches!(table.admit("2", Takes::Background, &["t", "t"]), Admission::InUse(id) if id == "t"));
        assert!(matches!(table.admit("1", Takes::Nothing, &["s"]), Admission::Start(_)), "it is refused anyway");
        table.end(&first);
        table.start("1", Takes::Background, &["s"]);
    }

    #[test]
    fn what_is_held_is_known_already() {
        let mut table = Table::new();
        table.start("1", Takes::Slot, &[]);
        assert!(matches!(table.admit("2", Takes::Slot, &[]), Admission::Held));
        assert!(matches!(table.admit("3", Takes::Background, &["s"]), Admission::Held));
        assert!(table.calls.active("2").is_some());
        assert!(table.calls.uploads().is_some_and(|uploads| uploads.contains("s")));
        assert!(table.calls.active("1").is_none(), "it has not waited for anything yet");
        table.calls.drop_held(&mut table.flow);
        assert!(table.calls.active("2").is_none());
        assert!(table.calls.uploads().is_none());
        assert_eq!(table.flow.waiting_bytes(), 0);
    }

    #[test]
    fn streams_are_bounded() {
        let mut table = Table::new();
        for _ in 0..STREAMS_MAX {
            let incoming = call(&table.connection, "", Takes::Background, &[]);
            let incoming = Incoming { scope: Scope::call(&table.connection, Takes::Background, None), ..incoming };
            let incoming = Incoming { invocation: Invocation::default(), ..incoming };
            assert!(matches!(table.calls.admit(incoming, &table.limits, &mut table.flow), Admission::Start(_)));
        }
        assert!(matches!(table.admit("1", Takes::Background, &[]), Admission::Held));
    }
}
