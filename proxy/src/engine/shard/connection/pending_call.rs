//! Pending calls of one client, not yet answered by its app server. Pure.
//!
//! If the app server is lost, each call is answered with an error, once, and never sent to another app server. A client
//! without pending calls allocates no memory for them, and its incoming messages are not parsed.

use std::borrow::Cow;

use bytes::Bytes;
use bytestring::ByteString;
use indexmap::{IndexMap, IndexSet};
use trunkline_protocol::hub::{HubMessage, HubProtocol, MessageKind, Outcome, WholeMessage, whole_messages};

use crate::ground::telemetry::{OpenSpan, clipped};

/// Maximum bytes of ids per allowed pending call; ids are short.
const ID_BYTES_PER_CALL: usize = 64;

/// Span error of a call with a reply that did not pass here.
const UNANSWERED: &str = "The connection ended or went elsewhere before the call was answered.";

/// Span error of a call when the client reused its id.
const ID_USED_AGAIN: &str = "The client used the id of the call again before it was answered.";

/// Span error of a call with an undecodable completion.
const UNREADABLE_ANSWER: &str = "The answer can't be read.";

/// Span error of a call with a lost app server.
const APP_LOST: &str = "The app server was lost before it answered the call.";

/// Pending calls of one client; allocates nothing while empty.
#[derive(Debug, Default)]
pub(crate) struct PendingCalls(Option<Box<CallTable>>);

#[derive(Debug, Default)]
struct CallTable {
    pending: IndexMap<Box<str>, CallWait>,
    id_bytes: usize,
    /// Calls that this proxy answered with an error; later replies are dropped.
    failed: IndexSet<Box<str>>,
    /// Open spans of sampled pending calls, one per id.
    spans: IndexMap<Box<str>, OpenSpan>,
}

/// Wait of a call for its result.
#[derive(Debug, Clone, Copy)]
enum CallWait {
    /// A stream may take any time.
    Unlimited,
    Unseen,
    /// Tick of the first search that has seen the call.
    Since(u32),
}

impl PendingCalls {
    /// Records a call that is forwarded.
    pub(crate) fn begin_call(&mut self, id: &str, kind: MessageKind) {
        let table = self.0.get_or_insert_default();
        // The client reuses the id, so replies now belong to the new call.
        table.failed.swap_remove(id);
        let wait = if kind == MessageKind::Invocation { CallWait::Unseen } else { CallWait::Unlimited };
        if table.pending.insert(id.into(), wait).is_none() {
            table.id_bytes += id.len();
        }
    }

    /// Keeps the span of a pending call until the reply, and ends the span of an earlier call with this id. Returns the
    /// span if the call is not pending.
    pub(crate) fn keep_span(&mut self, id: &str, mut span: OpenSpan) -> Option<OpenSpan> {
        let table = self.0.as_mut().filter(|table| table.pending.contains_key(id));
        let Some(table) = table else { return Some(span) };
        span.fail(UNANSWERED);
        if let Some(mut earlier) = table.spans.insert(id.into(), span) {
            earlier.fail(ID_USED_AGAIN);
        }
        None
    }

    pub(crate) fn is_full(&self, most: usize) -> bool {
        self.0.as_ref().is_some_and(|table| {
            table.pending.len() >= most || table.id_bytes >= most.saturating_mul(ID_BYTES_PER_CALL)
        })
    }

    /// Whether messages to the client need no filter, because no call is pending and no failed one may still be
    /// answered.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn are_pending(&self) -> bool {
        self.count() > 0
    }

    pub(crate) fn count(&self) -> usize {
        self.0.as_ref().map_or(0, |table| table.pending.len())
    }

    /// Wait of each call since a search has first seen the call, in ticks.
    pub(crate) fn waits(&mut self, now: u32) -> impl Iterator<Item = u32> {
        let waits = self.0.iter_mut().flat_map(|table| table.pending.values_mut());
        waits.map(move |wait| wait.at(now))
    }

    pub(crate) fn is_pending(&self, id: &str) -> bool {
        self.0.as_ref().is_some_and(|table| table.pending.contains_key(id))
    }

    pub(crate) fn pending(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|table| table.pending.keys().map(|id| &**id))
    }

    /// Invocation ids of calls that failed here and may still be running.
    pub(crate) fn failed(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|table| table.failed.iter().map(|id| &**id))
    }

    /// Removes late replies from an app server's messages. Also returns the number of calls that ended with an error.
    pub(crate) fn filter<'a>(&mut self, protocol: HubProtocol, payload: &'a [u8]) -> (Cow<'a, [u8]>, u64) {
        let Some(table) = &mut self.0 else { return (Cow::Borrowed(payload), 0) };
        // Messages for the client so far; `None` before the first late reply.
        let (mut at, mut wanted, mut errors) = (0, None::<Vec<u8>>, 0);
        for WholeMessage { whole, body } in whole_messages(protocol, payload) {
            if !table.passes(protocol, body, &mut errors) {
                wanted.get_or_insert_with(|| payload.get(..at).unwrap_or_default().to_vec());
            } else if let Some(wanted) = &mut wanted {
                wanted.extend_from_slice(whole);
            }
            at += whole.len();
        }
        if table.pending.is_empty() && table.failed.is_empty() {
            self.0 = None;
        }
        let Some(mut wanted) = wanted else { return (Cow::Borrowed(payload), errors) };
        wanted.extend_from_slice(payload.get(at..).unwrap_or_default());
        (Cow::Owned(wanted), errors)
    }

    /// Drops the failed calls, since replies of their app server are no longer accepted.
    pub(crate) fn remove_failed(&mut self) {
        if let Some(table) = &mut self.0 {
            table.failed = IndexSet::new();
            if table.pending.is_empty() {
                self.0 = None;
            }
        }
    }

    /// Fails all pending calls and returns their ids, to be answered with an error. Late replies will be
    /// dropped.
    pub(crate) fn fail(&mut self) -> Vec<ByteString> {
        let Some(table) = &mut self.0 else { return Vec::new() };
        let pending = std::mem::take(&mut table.pending);
        table.id_bytes = 0;
        table.spans.drain(..).for_each(|(_, mut span)| span.fail(APP_LOST));
        let ids = pending.keys().map(|id| ByteString::from(&**id)).collect();
        table.failed.extend(pending.into_keys());
        ids
    }
}

impl CallWait {
    fn at(&mut self, now: u32) -> u32 {
        match *self {
            Self::Unlimited => 0,
            Self::Since(since) => now.saturating_sub(since),
            Self::Unseen => {
                *self = Self::Since(now);
                0
            }
        }
    }
}

impl CallTable {
    fn end_span(&mut self, id: &str, protocol: HubProtocol, completion: &[u8]) {
        let Some(mut span) = self.spans.swap_remove(id) else { return };
        match protocol.decode(&Bytes::copy_from_slice(completion)) {
            Ok(Some(HubMessage::Completion(completion))) => match completion.outcome {
                Outcome::Error(text) => span.fail(clipped(&text).to_owned()),
                Outcome::Void | Outcome::Value(_) => span.succeed(),
            },
            _ => span.fail(UNREADABLE_ANSWER),
        }
    }

    /// Whether the client receives this message. Counts calls that end with an error.
    fn passes(&mut self, protocol: HubProtocol, body: &[u8], errors: &mut u64) -> bool {
        let Ok(scan) = protocol.scan(body) else { return true };
        let Some(id) = scan.invocation_id else { return true };
        match scan.kind {
            MessageKind::Completion => {
                if self.pending.swap_remove(&*id).is_some() {
                    self.id_bytes -= id.len();
                    *errors += u64::from(scan.is_error);
                    if !self.spans.is_empty() {
                        self.end_span(&id, protocol, body);
                    }
                    return true;
                }
                !self.failed.swap_remove(&*id)
            }
            MessageKind::StreamItem => !self.failed.contains(&*id),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::telemetry::{SamplingTerms, SpanTracer};

    fn calls(ids: &[&str]) -> PendingCalls {
        let mut calls = PendingCalls::default();
        ids.iter().for_each(|id| calls.begin_call(id, MessageKind::Invocation));
        calls
    }

    fn pass(calls: &mut PendingCalls, payload: &str) -> String {
        let payload = payload.replace(';', "\u{1e}");
        let (seen, _) = calls.filter(HubProtocol::Json, payload.as_bytes());
        String::from_utf8(seen.into_owned()).unwrap().replace('\u{1e}', ";")
    }

    const ONE: &str = r#"{"type":3,"invocationId":"1","result":2};"#;
    const ITEM: &str = r#"{"type":2,"invocationId":"1","item":2};"#;
    const SEND: &str = r#"{"type":1,"target":"a","arguments":[]};"#;

    #[test]
    fn the_last_answer_frees_all_memory() {
        let mut calls = calls(&["1", "2"]);
        assert_eq!(pass(&mut calls, &format!("{SEND}{ITEM}{ONE}")), format!("{SEND}{ITEM}{ONE}"));
        assert_eq!(calls.count(), 1);
        pass(&mut calls, &ONE.replace('1', "2"));
        assert!(calls.is_empty());
    }

    #[test]
    fn pending_calls_fail_once() {
        let mut calls = calls(&["1", "2"]);
        assert_eq!(calls.fail(), ["1", "2"]);
        assert!(calls.fail().is_empty() && !calls.is_empty());
        calls.remove_failed();
        assert!(calls.is_empty());
    }

    #[test]
    fn only_late_answers_to_failed_calls_are_dropped() {
        let mut calls = calls(&["1"]);
        calls.fail();
        calls.begin_call("2", MessageKind::Invocation);
        let two = ONE.replace("\"1\"", "\"2\"");
        assert_eq!(pass(&mut calls, &format!("{SEND}{ITEM}{ONE}{two}")), format!("{SEND}{two}"));
        assert!(calls.is_empty());
    }

    #[test]
    fn an_id_that_is_used_again_belongs_to_the_new_call() {
        let mut calls = calls(&["1"]);
        calls.fail();
        calls.begin_call("1", MessageKind::Invocation);
        assert_eq!(pass(&mut calls, ONE), ONE);
        assert!(calls.is_empty());
    }

    #[test]
    fn a_call_under_the_id_of_a_pending_one_ends_the_span_of_that() {
        let tracer = SpanTracer::new(SamplingTerms { ratio: 1.0, trusts_clients: false, spans_per_second: 1_000 });
        let mut ended = tracer.queue.take_receiver().unwrap();
        let mut calls = calls(&["0"]);
        for _ in 0..100 {
            calls.begin_call("1", MessageKind::Invocation);
            assert!(calls.keep_span("1", tracer.begin("call", None, 0).unwrap()).is_none());
        }
        for _ in 0..99 {
            assert_eq!(ended.try_recv().unwrap().error.as_deref(), Some(ID_USED_AGAIN));
        }
        assert!(ended.try_recv().is_err(), "the last one is not over");
        pass(&mut calls, ONE);
        assert_eq!(ended.try_recv().unwrap().error, None);
        pass(&mut calls, ONE);
        drop(calls);
        assert!(ended.try_recv().is_err(), "nothing is left");
    }

    #[test]
    fn a_call_waits_from_the_first_search_on_and_a_stream_does_not() {
        let mut calls = calls(&["1"]);
        calls.begin_call("2", MessageKind::StreamInvocation);
        let longest_wait = |calls: &mut PendingCalls, now| calls.waits(now).max();
        assert_eq!((longest_wait(&mut calls, 100), longest_wait(&mut calls, 160)), (Some(0), Some(60)));
        pass(&mut calls, ONE);
        assert_eq!((calls.count(), longest_wait(&mut calls, 200)), (1, Some(0)));
    }

    #[test]
    fn pending_calls_are_bounded_in_number_and_in_bytes() {
        assert!(!calls(&["1", "2"]).is_full(3));
        assert!(calls(&["1", "2", "3"]).is_full(3));
        assert!(calls(&[&"x".repeat(3 * ID_BYTES_PER_CALL)]).is_full(3));
    }
}
