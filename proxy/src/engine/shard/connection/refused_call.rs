//! Refused calls of one client, used to drop their remaining messages. Pure.
//!
//! Until it receives the refusal, a client may send stream items, stream ends and a cancellation. A client without
//! refused calls allocates no memory for them.

use std::collections::VecDeque;

use indexmap::IndexSet;
use trunkline_protocol::hub::{CallScan, MessageKind};

/// Maximum number of open uploads of refused calls. A client above it ignores the refusals.
pub(crate) const REFUSED_UPLOADS_MAX: usize = 256;

/// Maximum bytes of all ids of such uploads; ids are short.
const ID_BYTES_MAX: usize = 64 * REFUSED_UPLOADS_MAX;

/// Maximum number of refused calls with dropped cancellations. Older ones are evicted; app servers ignore
/// cancellations of unknown calls.
const CALLS_KEPT_MAX: usize = 32;

/// Maximum bytes of a call id that is kept.
const CALL_ID_MAX_BYTES: usize = 128;

/// Refused calls of one client; allocates nothing while empty.
#[derive(Debug, Default)]
pub(crate) struct RefusedCalls(Option<Box<RefusedTable>>);

#[derive(Debug, Default)]
struct RefusedTable {
    uploads: IndexSet<Box<str>>,
    upload_bytes: usize,
    /// Ids of refused calls that may be cancelled, oldest first.
    calls: VecDeque<Box<str>>,
}

impl RefusedCalls {
    /// Records a refused call. Returns `false` if the client has too many open uploads for refused calls.
    #[must_use]
    pub(crate) fn add_call(&mut self, call: &CallScan<'_>) -> bool {
        let id = call.invocation_id.as_deref();
        let id = id.filter(|id| call.kind == MessageKind::StreamInvocation && id.len() <= CALL_ID_MAX_BYTES);
        if id.is_none() && call.stream_ids.is_empty() {
            return true;
        }
        let table = self.0.get_or_insert_default();
        if let Some(id) = id {
            if table.calls.len() >= CALLS_KEPT_MAX {
                table.calls.pop_front();
            }
            table.calls.push_back(id.into());
        }
        for stream in &call.stream_ids {
            if table.uploads.insert((**stream).into()) {
                table.upload_bytes += stream.len();
            }
            if table.uploads.len() > REFUSED_UPLOADS_MAX || table.upload_bytes > ID_BYTES_MAX {
                return false;
            }
        }
        true
    }

    /// Whether to drop this message, as part of a refused call. An id reused by an allowed call is no longer refused.
    #[must_use]
    pub(crate) fn claim(&mut self, message: &CallScan<'_>) -> bool {
        let (Some(table), Some(id)) = (&mut self.0, message.invocation_id.as_deref()) else { return false };
        let is_refused = match message.kind {
            MessageKind::StreamItem => return table.uploads.contains(id),
            MessageKind::Completion => table.end_upload(id),
            MessageKind::CancelInvocation => table.remove_call(id),
            _ => return false,
        };
        self.shrink();
        is_refused
    }

    /// Removes ids that an allowed call reuses.
    pub(crate) fn allow(&mut self, call: &CallScan<'_>) {
        let Some(table) = &mut self.0 else { return };
        for stream in &call.stream_ids {
            table.end_upload(stream);
        }
        if let Some(id) = &call.invocation_id {
            table.remove_call(id);
        }
        self.shrink();
    }

    fn shrink(&mut self) {
        if self.0.as_ref().is_some_and(|table| table.uploads.is_empty() && table.calls.is_empty()) {
            self.0 = None;
        }
    }
}

impl RefusedTable {
    fn end_upload(&mut self, id: &str) -> bool {
        let is_known = self.uploads.swap_remove(id);
        if is_known {
            self.upload_bytes -= id.len();
        }
        is_known
    }

    fn remove_call(&mut self, id: &str) -> bool {
        let place = self.calls.iter().position(|known| **known == *id);
        place.and_then(|place| self.calls.remove(place)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn message<'a>(kind: MessageKind, id: &'a str, streams: &[&'a str]) -> CallScan<'a> {
        let stream_ids = streams.iter().copied().map(Cow::Borrowed).collect();
        CallScan { kind, invocation_id: Some(id.into()), target: Some("x".into()), stream_ids }
    }

    #[test]
    fn uploads_of_a_refused_call_are_dropped_until_their_end() {
        let mut refused = RefusedCalls::default();
        assert!(refused.add_call(&message(MessageKind::Invocation, "1", &["s1", "s2"])));
        let item = |id| message(MessageKind::StreamItem, id, &[]);
        let end = |id| message(MessageKind::Completion, id, &[]);
        assert!(refused.claim(&item("s1")) && refused.claim(&item("s1")) && !refused.claim(&item("s3")));
        assert!(refused.claim(&end("s1")) && !refused.claim(&end("s1")) && !refused.claim(&item("s1")));
        assert!(refused.claim(&end("s2")));
        assert!(refused.0.is_none(), "the last end frees all memory");
    }

    #[test]
    fn the_cancellation_of_a_refused_stream_is_dropped_once() {
        let mut refused = RefusedCalls::default();
        let cancel = message(MessageKind::CancelInvocation, "1", &[]);
        assert!(refused.add_call(&message(MessageKind::Invocation, "1", &[])) && !refused.claim(&cancel));
        assert!(refused.add_call(&message(MessageKind::StreamInvocation, "1", &[])) && refused.claim(&cancel));
        assert!(!refused.claim(&cancel) && refused.0.is_none());
    }

    #[test]
    fn an_id_that_is_used_again_belongs_to_the_new_call() {
        let mut refused = RefusedCalls::default();
        assert!(refused.add_call(&message(MessageKind::StreamInvocation, "1", &["s"])));
        refused.allow(&message(MessageKind::StreamInvocation, "1", &["s"]));
        assert!(!refused.claim(&message(MessageKind::StreamItem, "s", &[])) && refused.0.is_none());
    }

    #[test]
    fn uploads_are_bounded_in_number_and_bytes_and_calls_by_forgetting_the_oldest() {
        let mut refused = RefusedCalls::default();
        for number in 0..REFUSED_UPLOADS_MAX {
            assert!(refused.add_call(&message(MessageKind::Invocation, "1", &[&number.to_string()])));
        }
        assert!(!refused.add_call(&message(MessageKind::Invocation, "1", &["one more"])));
        let long = "x".repeat(ID_BYTES_MAX + 1);
        assert!(!RefusedCalls::default().add_call(&message(MessageKind::Invocation, "1", &[&long])));
        let mut refused = RefusedCalls::default();
        for number in 0..=CALLS_KEPT_MAX {
            assert!(refused.add_call(&message(MessageKind::StreamInvocation, &number.to_string(), &[])));
        }
        let cancel = |id| message(MessageKind::CancelInvocation, id, &[]);
        assert!(!refused.claim(&cancel("0")) && refused.claim(&cancel("1")));
    }
}
