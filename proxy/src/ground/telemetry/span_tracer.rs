//! Tracer of a node: samples within a rate limit, and begins spans.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use trunkline_protocol::id::random_bytes;
use trunkline_protocol::trace_context::TraceContext;

use super::span_queue::{SpanKind, SpanQueue, SpanRecord, clipped};
use super::{ConnectionTrace, OpenSpan};
use crate::ground::clock::unix_ns;

const SECOND_NS: u64 = 1_000_000_000;

/// Bits of the span count in the combined second and count.
const COUNT_BITS: u32 = 24;

/// Sampling settings of a node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingTerms {
    /// Fraction of connections to trace, from 0 to 1.
    pub ratio: f64,
    /// Whether the client's sampling decision is respected.
    pub trusts_clients: bool,
    /// Maximum number of spans begun per second, from all sources.
    pub spans_per_second: u32,
}

#[derive(Debug)]
pub(crate) struct SpanTracer {
    terms: SamplingTerms,
    /// Threshold for sampling among all 64-bit numbers.
    sampled_below: u64,
    /// State of a non-cryptographic random generator.
    random: AtomicU64,
    /// Current second in the upper bits, and the number of spans begun in it.
    begun: AtomicU64,
    pub(crate) queue: Arc<SpanQueue>,
}

impl SpanTracer {
    pub(crate) fn new(terms: SamplingTerms) -> Self {
        let random = AtomicU64::new(u64::from_ne_bytes(random_bytes()));
        let sampled_below = threshold(terms.ratio);
        Self { terms, sampled_below, random, begun: AtomicU64::new(0), queue: Arc::default() }
    }

    /// Whether messages are checked for sampling decisions by clients.
    pub(crate) fn trusts_clients(&self) -> bool {
        self.terms.trusts_clients
    }

    /// Whether a connection is traced: the client's decision if it is respected, or else random.
    pub(crate) fn samples(&self, client: Option<&TraceContext>) -> bool {
        match client {
            Some(client) if self.terms.trusts_clients => client.is_sampled,
            _ => self.sampled_below > 0 && self.next_random() <= self.sampled_below,
        }
    }

    /// Begins a span of a sampled connection; `None` at the rate limit.
    #[must_use]
    pub(crate) fn begin(&self, name: &str, parent: Option<TraceContext>, begun_ns: u64) -> Option<OpenSpan> {
        self.begin_linked(name, SpanKind::Server, (parent, None), begun_ns)
    }

    /// Begins the span of a call, if its connection is sampled, or its client requests it and is trusted.
    #[must_use]
    pub(crate) fn begin_call(
        &self,
        name: &str,
        connection: Option<&ConnectionTrace>,
        message: Option<TraceContext>,
    ) -> Option<OpenSpan> {
        let is_wanted = match message {
            Some(message) if self.terms.trusts_clients => message.is_sampled,
            _ => connection.is_some(),
        };
        let parent = message.or_else(|| connection.filter(|trace| trace.is_of_client).map(|trace| trace.context));
        let link = connection.map(|trace| trace.context);
        let link = link.filter(|link| parent.is_none_or(|parent| parent.trace_id != link.trace_id));
        is_wanted.then(|| self.begin_linked(name, SpanKind::Client, (parent, link), unix_ns())).flatten()
    }

    fn begin_linked(
        &self,
        name: &str,
        kind: SpanKind,
        (parent, link): (Option<TraceContext>, Option<TraceContext>),
        begun_ns: u64,
    ) -> Option<OpenSpan> {
        if !self.takes_one(unix_ns() / SECOND_NS) {
            self.queue.counters.over_rate.increment();
            return None;
        }
        let context = parent.as_ref().map_or_else(TraceContext::root, TraceContext::child);
        let span = SpanRecord {
            context,
            parent: parent.map(|parent| parent.span_id),
            link,
            name: clipped(name).to_owned(),
            kind,
            begun_ns,
            ended_ns: begun_ns,
            attributes: Vec::new(),
            error: None,
        };
        Some(OpenSpan::new(span, Arc::clone(&self.queue)))
    }

    /// Counts a span in this second; `false` at the limit.
    fn takes_one(&self, second: u64) -> bool {
        let most = u64::from(self.terms.spans_per_second);
        let step = |begun: u64| {
            let count = if begun >> COUNT_BITS == second { begun & ((1 << COUNT_BITS) - 1) } else { 0 };
            (count < most).then_some(second << COUNT_BITS | (count + 1))
        };
        self.begun.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).is_ok()
    }

    /// Next number of a SplitMix64 generator shared by all shards.
    fn next_random(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mixed = self.random.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Largest 64-bit number within a ratio.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the ratio is from 0 to 1, and the conversion saturates"
)]
fn threshold(ratio: f64) -> u64 {
    (ratio * u64::MAX as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracer(ratio: f64, trusts_clients: bool, spans_per_second: u32) -> SpanTracer {
        SpanTracer::new(SamplingTerms { ratio, trusts_clients, spans_per_second })
    }

    fn context(is_sampled: bool) -> TraceContext {
        TraceContext { is_sampled, ..TraceContext::root() }
    }

    fn ended(tracer: &SpanTracer) -> SpanRecord {
        let mut receiver = tracer.queue.take_receiver().unwrap();
        *receiver.try_recv().unwrap()
    }

    #[test]
    fn the_ratio_decides_unless_the_word_of_clients_counts() {
        let sampled =
            |tracer: &SpanTracer, client: Option<&TraceContext>| (0..10_000).filter(|_| tracer.samples(client)).count();
        assert_eq!(sampled(&tracer(0.0, false, 1), Some(&context(true))), 0);
        assert_eq!(sampled(&tracer(1.0, false, 1), Some(&context(false))), 10_000);
        let tenth = sampled(&tracer(0.1, false, 1), None);
        assert!((800..1_200).contains(&tenth), "{tenth} of 10 000");
        assert_eq!(sampled(&tracer(0.0, true, 1), Some(&context(true))), 10_000);
        assert_eq!(sampled(&tracer(1.0, true, 1), Some(&context(false))), 0);
        assert_eq!(sampled(&tracer(1.0, true, 1), None), 10_000);
    }

    #[test]
    fn spans_per_second_are_limited_by_the_rate() {
        let tracer = tracer(1.0, true, 3);
        let taken = |second| (0..10).filter(|_| tracer.takes_one(second)).count();
        assert_eq!((taken(7), taken(8), taken(8)), (3, 3, 0));
        // The clock may have been set back.
        assert_eq!(taken(7), 3);
    }

    #[test]
    fn spans_that_do_not_begin_or_find_no_room_are_counted() {
        let tracer = tracer(1.0, false, 5_000);
        let begun = (0..6_000).filter(|_| tracer.begin("x", None, 0).is_some()).count();
        let counters = &tracer.queue.counters;
        // The next second may have begun.
        assert!(begun >= 5_000 && counters.over_rate.get() == 6_000 - begun as u64);
        assert_eq!(counters.queue_full.get(), begun as u64 - 4_096);
    }

    #[test]
    fn a_call_belongs_to_the_trace_of_its_message_or_of_its_client() {
        let (of_client, message) = (context(true), context(false));
        let connection = ConnectionTrace { context: of_client, is_of_client: true };
        let first = tracer(1.0, false, 10);
        drop(first.begin_call("a", Some(&connection), Some(message)));
        let span = ended(&first);
        assert_eq!((span.context.trace_id, span.parent), (message.trace_id, Some(message.span_id)));
        assert_eq!((span.link, span.context.is_sampled), (Some(of_client), true));
        let second = tracer(1.0, false, 10);
        drop(second.begin_call("a", Some(&connection), None));
        let span = ended(&second);
        assert_eq!(
            (span.context.trace_id, span.parent, span.link),
            (of_client.trace_id, Some(of_client.span_id), None)
        );
    }

    #[test]
    fn a_call_of_a_connection_that_the_node_has_chosen_has_a_trace_of_its_own() {
        let chosen = ConnectionTrace { context: context(true), is_of_client: false };
        let tracer = tracer(0.0, false, 10);
        drop(tracer.begin_call("a", Some(&chosen), None));
        let span = ended(&tracer);
        assert_ne!(span.context.trace_id, chosen.context.trace_id);
        assert_eq!((span.parent, span.link), (None, Some(chosen.context)));
    }

    #[test]
    fn an_untrusted_client_can_not_request_tracing() {
        let begins = |trusts, message| tracer(0.0, trusts, 10).begin_call("a", None, Some(message)).is_some();
        assert!(!begins(false, context(true)) && begins(true, context(true)) && !begins(true, context(false)));
    }
}
