//! Table of one connection's calls: running, queued for a slot, and their uploads. Pure logic.
//!
//! ```text
//!                     ┌─ a slot is free or not needed ─────────────────────────────────┐
//!  admit ──► its turn?                                                                 ▼
//!                     └─ no, or an earlier call is queued ─► queued ──next_queued──► running ──release──► done
//! ```
//!
//! Calls start in order. A queued call already owns its ID and uploads: items are queued in the uploads, and a
//! cancellation takes effect when the method starts.
//!
//! Generic over the handle `C` of a call: only its [`CallState`] matters.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use bytestring::ByteString;
use tokio::sync::Notify;
use trunkline_protocol::hub::Invocation;
use trunkline_protocol::limits::STREAMS_MAX;

use super::call_state::{CallState, Concurrency};
use super::flow_control::{FlowControl, Limits};
use super::upload_table::{UploadEnd, UploadTable};
use crate::telemetry;

/// Kind of reply that the client expects: `Invocation` or `StreamInvocation` in the hub protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyKind {
    Result,
    Stream,
}

#[derive(Debug)]
pub(crate) struct IncomingCall<C> {
    pub(crate) call: Arc<C>,
    /// The message. For a call that matches no method, without stream IDs, because no method reads these streams.
    pub(crate) invocation: Invocation,
    pub(crate) stream_count: usize,
    pub(crate) reply_kind: ReplyKind,
    pub(crate) bytes: usize,
}

#[derive(Debug)]
pub(crate) enum Admission<C> {
    Start(IncomingCall<C>),
    Queued,
    IdInUse(ByteString),
    /// The call has this number of streams, more than any method may have.
    TooManyStreams(usize),
}

#[derive(Debug)]
pub(crate) struct CallTable<C> {
    running: u32,
    slots: u32,
    background: u32,
    /// Allocated only while non-empty. A call that completes immediately does not need it.
    pending: Option<Box<PendingCalls<C>>>,
}

#[derive(Debug)]
struct PendingCalls<C> {
    active: HashMap<ByteString, Arc<C>>,
    /// Waiting calls without an invocation ID.
    unanswered: Vec<Arc<C>>,
    queued: VecDeque<IncomingCall<C>>,
    uploads: UploadTable<C>,
    /// Wakes methods that wait for client results when the inbox is overfull.
    overfull: Option<Arc<Notify>>,
    result_waits: u32,
}

/// Waiting methods to wake after unlocking, because the inbox is overfull.
#[derive(Debug, Default)]
pub(crate) struct OverfullWaits {
    wakers: Vec<Waker>,
    notify: Option<Arc<Notify>>,
}

impl<C: AsRef<CallState>> CallTable<C> {
    pub(crate) fn admit(&mut self, mut call: IncomingCall<C>, limits: &Limits, flow: &mut FlowControl) -> Admission<C> {
        let concurrency = (*call.call).as_ref().concurrency();
        if concurrency != Concurrency::Rejected {
            if call.stream_count > STREAMS_MAX {
                return Admission::TooManyStreams(call.stream_count);
            }
            if let Some(id) = self.id_in_use(&call) {
                return Admission::IdInUse(id);
            }
        }
        let is_first = self.first_queued().is_none();
        if is_first && self.has_room_for(concurrency, limits) {
            if concurrency == Concurrency::Background {
                self.register(&call);
            }
            self.begin_call((*call.call).as_ref());
            return Admission::Start(call);
        }
        if concurrency != Concurrency::Rejected {
            self.register(&call);
        }
        if !telemetry::READS_HEADERS {
            call.invocation.headers = Vec::new();
        }
        flow.add_bytes(call.bytes);
        self.pending().queued.push_back(call);
        Admission::Queued
    }

    pub(crate) fn next_queued(&mut self, limits: &Limits, flow: &mut FlowControl) -> Option<IncomingCall<C>> {
        if !self.has_startable(limits) {
            return None;
        }
        let call = self.pending.as_mut()?.queued.pop_front()?;
        flow.remove_bytes(call.bytes);
        self.begin_call((*call.call).as_ref());
        Some(call)
    }

    pub(crate) fn has_startable(&self, limits: &Limits) -> bool {
        let first = self.first_queued();
        first.is_some_and(|call| self.has_room_for((*call.call).as_ref().concurrency(), limits))
    }

    /// Registers a call that did not complete immediately, so that it can be cancelled and named.
    pub(crate) fn note_waiting(&mut self, call: &Arc<C>, method: ByteString) {
        (**call).as_ref().note_method(method);
        match &(**call).as_ref().invocation_id {
            Some(_) => self.remember(call),
            None => self.pending().unanswered.push(Arc::clone(call)),
        }
    }

    pub(crate) fn waiting_methods(&self) -> BTreeSet<ByteString> {
        let pending = self.pending.iter();
        let calls = pending.flat_map(|pending| pending.active.values().chain(&pending.unanswered));
        calls.filter_map(|call| (**call).as_ref().method().cloned()).collect()
    }

    fn remember(&mut self, call: &Arc<C>) {
        if let Some(id) = &(**call).as_ref().invocation_id {
            self.pending().active.entry(id.clone()).or_insert_with(|| Arc::clone(call));
        }
    }

    /// Releases the ID and the uploads of a call that is about to be answered. Returns the wakers of waiting readers.
    pub(crate) fn forget(&mut self, call: &Arc<C>, stream_ids: &[ByteString], flow: &mut FlowControl) -> Vec<Waker> {
        let Some(pending) = &mut self.pending else { return Vec::new() };
        if let Some(id) = &(**call).as_ref().invocation_id
            && pending.active.get(id).is_some_and(|active| Arc::ptr_eq(active, call))
        {
            pending.active.remove(id);
        }
        pending.unanswered.retain(|waiting| !Arc::ptr_eq(waiting, call));
        let wakers = stream_ids.iter().filter_map(|id| pending.uploads.close_upload(id, call, flow)).collect();
        self.shrink();
        wakers
    }

    pub(crate) fn release(&mut self, call: &CallState) {
        debug_assert!(self.running > 0, "only a call that began ends");
        self.running = self.running.saturating_sub(1);
        if call.concurrency() == Concurrency::Background {
            self.background = self.background.saturating_sub(1);
        }
        self.release_slot(call);
    }

    pub(crate) fn release_slot(&mut self, call: &CallState) {
        if call.give_slot() {
            self.slots = self.slots.saturating_sub(1);
        }
    }

    pub(crate) fn active(&self, invocation_id: &str) -> Option<Arc<C>> {
        self.pending.as_ref()?.active.get(invocation_id).map(Arc::clone)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.running == 0 && self.first_queued().is_none()
    }

    pub(crate) fn drop_queued(&mut self, flow: &mut FlowControl) {
        while let Some(call) = self.pending.as_mut().and_then(|pending| pending.queued.pop_front()) {
            flow.remove_bytes(call.bytes);
            let wakers = self.forget(&call.call, &call.invocation.stream_ids, flow);
            debug_assert!(wakers.is_empty(), "a method that has not begun waits for nothing");
        }
        self.shrink();
    }

    pub(crate) fn uploads(&mut self) -> Option<&mut UploadTable<C>> {
        self.pending.as_mut().map(|pending| &mut pending.uploads).filter(|uploads| !uploads.is_empty())
    }

    pub(crate) fn has_open_uploads(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.uploads.has_open())
    }

    /// Ends all uploads when no further items can arrive. Returns the wakers of waiting readers.
    pub(crate) fn end_uploads(&mut self, end: &UploadEnd, flow: &mut FlowControl) -> Vec<Waker> {
        self.uploads().map(|uploads| uploads.end_all(end, flow)).unwrap_or_default()
    }

    /// Counts a method that waits for a client result. Returns the notification of an overfull inbox.
    pub(crate) fn begin_result_wait(&mut self, flow: &mut FlowControl) -> Arc<Notify> {
        flow.begin_wait();
        let pending = self.pending();
        pending.result_waits += 1;
        Arc::clone(pending.overfull.get_or_insert_default())
    }

    pub(crate) fn end_result_wait(&mut self, flow: &mut FlowControl) {
        flow.end_wait();
        if let Some(pending) = &mut self.pending {
            pending.result_waits = pending.result_waits.saturating_sub(1);
            if pending.result_waits == 0 {
                pending.overfull = None;
            }
        }
        self.shrink();
    }

    /// Fails the methods that wait for the client, because too much is queued before what they wait for.
    pub(crate) fn fail_waits(&mut self, flow: &mut FlowControl) -> OverfullWaits {
        match &mut self.pending {
            Some(pending) => {
                OverfullWaits { wakers: pending.uploads.fail_waiting(flow), notify: pending.overfull.clone() }
            }
            None => OverfullWaits::default(),
        }
    }

    pub(crate) fn shrink(&mut self) {
        if self.pending.as_ref().is_some_and(|pending| pending.is_empty()) {
            self.pending = None;
        }
    }

    #[cfg(test)]
    pub(crate) fn left_over(&self) -> Vec<String> {
        let counts = [("running", self.running), ("slots", self.slots), ("background", self.background)];
        let mut left: Vec<_> = counts.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{n} {name}")).collect();
        if let Some(pending) = &self.pending {
            let PendingCalls { active, unanswered, queued, uploads, result_waits, .. } = &**pending;
            left.push(format!(
                "{} active, {} queued, {} uploads, {result_waits} waits",
                active.len() + unanswered.len(),
                queued.len(),
                uploads.len()
            ));
        }
        left
    }

    fn first_queued(&self) -> Option<&IncomingCall<C>> {
        self.pending.as_ref()?.queued.front()
    }

    fn has_room_for(&self, concurrency: Concurrency, limits: &Limits) -> bool {
        match concurrency {
            Concurrency::Slot => (self.slots as usize) < limits.parallel_invocations.max(1),
            Concurrency::Background => (self.background as usize) < STREAMS_MAX,
            Concurrency::Rejected => true,
        }
    }

    fn begin_call(&mut self, call: &CallState) {
        self.running += 1;
        match call.concurrency() {
            Concurrency::Slot => {
                self.slots += 1;
                call.take_slot();
            }
            Concurrency::Background => self.background += 1,
            Concurrency::Rejected => {}
        }
    }

    fn id_in_use(&self, call: &IncomingCall<C>) -> Option<ByteString> {
        let Invocation { invocation_id, stream_ids, .. } = &call.invocation;
        let mut seen = HashSet::new();
        if let Some(doubled) = stream_ids.iter().find(|id| !seen.insert(&***id)) {
            return Some(doubled.clone());
        }
        let pending = self.pending.as_ref()?;
        let invocation_id = invocation_id.as_ref().filter(|id| pending.active.contains_key(&***id));
        invocation_id.or_else(|| stream_ids.iter().find(|id| pending.uploads.contains(id))).cloned()
    }

    fn register(&mut self, call: &IncomingCall<C>) {
        self.remember(&call.call);
        if !call.invocation.stream_ids.is_empty() {
            let uploads = &mut self.pending().uploads;
            call.invocation.stream_ids.iter().for_each(|id| uploads.open_upload(id.clone(), &call.call));
        }
    }

    fn pending(&mut self) -> &mut PendingCalls<C> {
        self.pending.get_or_insert_default()
    }
}

impl<C> PendingCalls<C> {
    fn is_empty(&self) -> bool {
        self.active.is_empty()
            && self.unanswered.is_empty()
            && self.queued.is_empty()
            && self.uploads.is_empty()
            && self.result_waits == 0
    }
}

impl<C> Default for CallTable<C> {
    fn default() -> Self {
        Self { running: 0, slots: 0, background: 0, pending: None }
    }
}

impl<C> Default for PendingCalls<C> {
    fn default() -> Self {
        let (active, queued, uploads) = (HashMap::new(), VecDeque::new(), UploadTable::default());
        Self { active, unanswered: Vec::new(), queued, uploads, overfull: None, result_waits: 0 }
    }
}

impl OverfullWaits {
    pub(crate) fn wake(self) {
        self.wakers.into_iter().for_each(Waker::wake);
        if let Some(notify) = self.notify {
            notify.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::call_state::CallKind;
    use super::*;

    fn incoming(
        id: Option<&'static str>,
        concurrency: Concurrency,
        streams: &[&'static str],
    ) -> IncomingCall<CallState> {
        let invocation = Invocation {
            invocation_id: id.map(ByteString::from_static),
            stream_ids: streams.iter().map(|&id| id.into()).collect(),
            ..Invocation::default()
        };
        let call = Arc::new(CallState::new(CallKind::Method(concurrency), invocation.invocation_id.clone()));
        IncomingCall { call, invocation, stream_count: streams.len(), reply_kind: ReplyKind::Result, bytes: 10 }
    }

    #[derive(Default)]
    struct OneSlot {
        calls: CallTable<CallState>,
        flow: FlowControl,
        limits: Limits,
    }

    impl OneSlot {
        fn admit(
            &mut self,
            id: &'static str,
            concurrency: Concurrency,
            streams: &[&'static str],
        ) -> Admission<CallState> {
            self.calls.admit(incoming(Some(id), concurrency, streams), &self.limits, &mut self.flow)
        }

        fn start(
            &mut self,
            id: &'static str,
            concurrency: Concurrency,
            streams: &[&'static str],
        ) -> IncomingCall<CallState> {
            match self.admit(id, concurrency, streams) {
                Admission::Start(call) => call,
                other => panic!("{other:?}"),
            }
        }

        fn next_queued(&mut self) -> Option<ByteString> {
            self.calls.next_queued(&self.limits, &mut self.flow)?.invocation.invocation_id
        }

        fn end(&mut self, call: &IncomingCall<CallState>) {
            assert!(self.calls.forget(&call.call, &call.invocation.stream_ids, &mut self.flow).is_empty());
            self.calls.release(&call.call);
        }
    }

    #[test]
    fn with_one_slot_the_second_call_waits_and_everything_behind_it() {
        let mut table = OneSlot::default();
        let first = table.start("1", Concurrency::Slot, &[]);
        assert!(matches!(table.admit("2", Concurrency::Slot, &[]), Admission::Queued));
        assert!(matches!(table.admit("3", Concurrency::Background, &["s"]), Admission::Queued));
        assert!(matches!(table.admit("4", Concurrency::Rejected, &[]), Admission::Queued));
        assert_eq!(table.flow.waiting_bytes(), 30);
        assert_eq!(table.next_queued(), None);
        table.end(&first);
        assert_eq!(table.next_queued().as_deref(), Some("2"));
        assert_eq!(table.next_queued().as_deref(), Some("3"));
        assert_eq!(table.next_queued().as_deref(), Some("4"));
        assert_eq!(table.flow.waiting_bytes(), 0);
    }

    #[test]
    fn a_call_with_more_streams_than_may_run_is_refused() {
        let with_streams = |count: usize| {
            let mut call = incoming(Some("1"), Concurrency::Background, &[]);
            call.invocation.stream_ids = (0..count).map(|id| id.to_string().into()).collect();
            call.stream_count = count;
            call
        };
        let mut table = OneSlot::default();
        let refused = table.calls.admit(with_streams(STREAMS_MAX + 1), &table.limits, &mut table.flow);
        assert!(matches!(refused, Admission::TooManyStreams(1001)));
        assert_eq!(table.calls.left_over(), Vec::<String>::new());
        let admitted = table.calls.admit(with_streams(STREAMS_MAX), &table.limits, &mut table.flow);
        assert!(matches!(admitted, Admission::Start(_)));
    }

    #[test]
    fn calls_with_streams_run_beside_a_call_that_has_the_slot() {
        let mut table = OneSlot::default();
        let first = table.start("1", Concurrency::Slot, &[]);
        let second = table.start("2", Concurrency::Background, &["s"]);
        table.end(&first);
        assert!(!table.calls.is_idle());
        table.end(&second);
        assert!(table.calls.is_idle());
        assert_eq!(table.calls.left_over(), Vec::<String>::new());
    }

    #[test]
    fn a_slot_released_early_is_not_released_twice() {
        let mut table = OneSlot::default();
        let first = table.start("1", Concurrency::Slot, &[]);
        assert!(matches!(table.admit("2", Concurrency::Slot, &[]), Admission::Queued));
        table.calls.release_slot(&first.call);
        table.calls.release_slot(&first.call);
        assert_eq!(table.next_queued().as_deref(), Some("2"));
        assert!(matches!(table.admit("3", Concurrency::Slot, &[]), Admission::Queued));
        table.end(&first);
        assert_eq!(table.next_queued(), None, "the second call still has the only slot");
    }

    #[test]
    fn an_id_is_in_use_until_its_call_is_removed() {
        let mut table = OneSlot::default();
        let first = table.start("1", Concurrency::Background, &["s"]);
        assert!(matches!(table.admit("1", Concurrency::Slot, &[]), Admission::IdInUse(id) if id == "1"));
        assert!(matches!(table.admit("2", Concurrency::Background, &["s"]), Admission::IdInUse(id) if id == "s"));
        assert!(matches!(table.admit("2", Concurrency::Background, &["t", "t"]), Admission::IdInUse(id) if id == "t"));
        assert!(matches!(table.admit("1", Concurrency::Rejected, &["s"]), Admission::Start(_)), "it is refused anyway");
        table.end(&first);
        table.start("1", Concurrency::Background, &["s"]);
    }

    #[test]
    fn a_queued_call_can_be_cancelled_already() {
        let mut table = OneSlot::default();
        table.start("1", Concurrency::Slot, &[]);
        assert!(matches!(table.admit("2", Concurrency::Slot, &[]), Admission::Queued));
        assert!(matches!(table.admit("3", Concurrency::Background, &["s"]), Admission::Queued));
        assert!(table.calls.active("2").is_some());
        assert!(table.calls.uploads().is_some_and(|uploads| uploads.contains("s")));
        assert!(table.calls.active("1").is_none(), "it has not waited for anything yet");
        table.calls.drop_queued(&mut table.flow);
        assert!(table.calls.active("2").is_none());
        assert!(table.calls.uploads().is_none());
        assert_eq!(table.flow.waiting_bytes(), 0);
    }

    #[test]
    fn streams_are_bounded() {
        let mut table = OneSlot::default();
        for _ in 0..STREAMS_MAX {
            let incoming = incoming(None, Concurrency::Background, &[]);
            assert!(matches!(table.calls.admit(incoming, &table.limits, &mut table.flow), Admission::Start(_)));
        }
        assert!(matches!(table.admit("1", Concurrency::Background, &[]), Admission::Queued));
    }
}
