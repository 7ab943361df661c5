//! Exporter: sends batches of ended spans, and metrics periodically, until the node stops.

use std::sync::Arc;
use std::time::Duration;
use std::{io, mem};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prometheus::proto::MetricFamily;
use prost::Message;
use tokio::join;
use tokio::sync::mpsc::Receiver;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::collector::{Collector, CollectorError};
use super::export_request::{MetricPeriod, metric_request, span_request};
use crate::engine::shard::Shared;
use crate::ground::clock::unix_ns;
use crate::ground::condition::{ConditionKind, ConditionRegistry, Finding};
use crate::ground::config::OtlpSettings;
use crate::ground::telemetry::{ExportedSignal, SpanQueue, SpanRecord};

/// Maximum number of spans per request.
const BATCH_MAX: usize = 512;

/// Wait for further spans, so that not each one causes a request.
const BATCH_WAIT: Duration = Duration::from_secs(1);

/// Maximum number of attempts for a batch.
const TRIES: u32 = 3;

/// Wait before the second attempt; doubled for each further one.
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// Time for which a failure is reported. A quiet node sends no spans that show that the collector works again.
const REPORTED_FOR: Duration = Duration::from_secs(600);

pub(crate) type MetricSource = Box<dyn Fn() -> Vec<MetricFamily> + Send + Sync>;

type Batch = Vec<Box<SpanRecord>>;

pub(crate) struct Exporter {
    collector: Collector,
    metrics_interval: Option<Duration>,
    metrics: MetricSource,
    shared: Arc<Shared>,
    queue: Arc<SpanQueue>,
    stop: CancellationToken,
    begun_ns: u64,
}

impl Exporter {
    /// Creates the exporter of a node; `None` without tracing. Runs until `stop` is cancelled.
    pub(crate) fn new(
        settings: OtlpSettings,
        shared: Arc<Shared>,
        metrics: MetricSource,
        stop: CancellationToken,
    ) -> io::Result<Option<Self>> {
        let Some(queue) = shared.tracer.as_ref().map(|tracer| Arc::clone(&tracer.queue)) else { return Ok(None) };
        let metrics_interval = settings.metrics_interval;
        let (collector, begun_ns) = (Collector::new(settings)?, unix_ns());
        Ok(Some(Self { collector, metrics_interval, metrics, shared, queue, stop, begun_ns }))
    }

    /// Exports until the node stops, then sends the last spans.
    pub(crate) async fn run(self) {
        let Some(receiver) = self.queue.take_receiver() else { return };
        let metrics = async {
            if let Some(period) = self.metrics_interval {
                self.stop.run_until_cancelled(self.export_metrics(period)).await;
            }
        };
        join!(self.export_spans(receiver), metrics);
    }

    async fn export_spans(&self, mut receiver: Receiver<Box<SpanRecord>>) {
        let (mut batch, mut health) = (Batch::new(), self.health("--otlp spans"));
        while self.stop.run_until_cancelled(fill(&mut batch, &mut receiver)).await.is_some() {
            let count = batch.len() as u64;
            let message = self.message_of(mem::take(&mut batch));
            let taken = self.send_spans(&message, count, &mut health).await;
            self.queue.counters.exported.add(taken);
            self.queue.counters.undelivered.add(count.saturating_sub(taken));
        }
        // Sends the remaining spans once, because the shutdown waits for this.
        while !health.fails {
            while batch.len() < BATCH_MAX
                && let Ok(span) = receiver.try_recv()
            {
                batch.push(span);
            }
            if batch.is_empty() {
                return;
            }
            let posted = self.collector.post(ExportedSignal::Traces, self.message_of(mem::take(&mut batch))).await;
            health.note_outcome(posted.as_ref().err());
        }
    }

    fn message_of(&self, batch: Batch) -> Vec<u8> {
        span_request(&self.shared.settings.node, batch).encode_to_vec()
    }

    /// Sends a batch, with retries. Returns the number of accepted spans.
    async fn send_spans(&self, message: &[u8], count: u64, health: &mut CollectorHealth<'_>) -> u64 {
        let (signal, mut wait) = (ExportedSignal::Traces, RETRY_WAIT);
        for attempt in 1..=TRIES {
            let posted = self.collector.post(signal, message.to_vec()).await;
            self.count(signal, posted.is_ok());
            health.note_outcome(posted.as_ref().err());
            match posted {
                Ok(answer) => return count.saturating_sub(rejected(&answer)),
                Err(error) if error.may_pass() && attempt < TRIES => {
                    if self.stop.run_until_cancelled(sleep(wait)).await.is_none() {
                        return 0;
                    }
                    wait *= 2;
                }
                Err(_) => return 0,
            }
        }
        0
    }

    async fn export_metrics(&self, period: Duration) {
        let (mut ticks, mut health) = (interval(period), self.health("--otlp metrics"));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let period = MetricPeriod { begun_ns: self.begun_ns, now_ns: unix_ns() };
            let message = metric_request(&self.shared.settings.node, period, &(self.metrics)()).encode_to_vec();
            // Not retried: later exports include all values.
            let posted = self.collector.post(ExportedSignal::Metrics, message).await;
            self.count(ExportedSignal::Metrics, posted.is_ok());
            health.note_outcome(posted.as_ref().err());
        }
    }

    fn health(&self, subject: &'static str) -> CollectorHealth<'_> {
        CollectorHealth { conditions: &self.shared.reports.conditions, subject, fails: false }
    }

    fn count(&self, signal: ExportedSignal, is_taken: bool) {
        let counters = &self.queue.counters;
        if is_taken { counters.taken.of(signal).increment() } else { counters.failed.of(signal).increment() }
    }
}

/// Whether exports of one signal succeed; a failure is a condition.
struct CollectorHealth<'a> {
    conditions: &'a ConditionRegistry,
    /// Subject of the condition.
    subject: &'static str,
    fails: bool,
}

impl CollectorHealth<'_> {
    fn note_outcome(&mut self, error: Option<&CollectorError>) {
        let kind = ConditionKind::TelemetryFails;
        match error {
            Some(error) => {
                let finding = Finding::new(kind, self.subject, error.to_string());
                self.conditions.report(finding, Some(REPORTED_FOR));
            }
            None => self.conditions.clear(kind, self.subject),
        }
        self.fails = error.is_some();
    }
}

/// Waits for spans, then briefly for more.
async fn fill(batch: &mut Batch, receiver: &mut Receiver<Box<SpanRecord>>) {
    receiver.recv_many(batch, BATCH_MAX).await;
    let more = async {
        while batch.len() < BATCH_MAX {
            let room = BATCH_MAX - batch.len();
            receiver.recv_many(batch, room).await;
        }
    };
    drop(timeout(BATCH_WAIT, more).await);
}

/// Number of spans rejected in an accepted batch.
fn rejected(answer: &[u8]) -> u64 {
    let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
    answer.partial_success.and_then(|partial| u64::try_from(partial.rejected_spans).ok()).unwrap_or(0)
}
