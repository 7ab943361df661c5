//! Export task of a node, and its shutdown.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::start_error::StartError;
use crate::edge::admin::{AdminCounters, families};
use crate::edge::observer::Readiness;
use crate::edge::otlp::{Exporter, MetricSource};
use crate::features::webhook::Webhooks;
use crate::fleet::Fleet;
use crate::ground::config::OtlpSettings;

/// Time for the collector to accept the last spans of a stopping node.
const LAST_SPANS_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Export {
    task: Option<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Export {
    /// Starts the export on this thread's runtime, if a collector is configured.
    pub(super) fn start(
        settings: Option<OtlpSettings>,
        readiness: &Readiness,
        (fleet, webhooks): (&Fleet, &Arc<Webhooks>),
        counters: &Arc<AdminCounters>,
    ) -> Result<Self, StartError> {
        let stop = CancellationToken::new();
        let Some(settings) = settings else { return Ok(Self { task: None, stop }) };
        let shared = Arc::clone(&readiness.shared);
        let (readiness, fleet, webhooks) = (readiness.clone(), fleet.clone(), Arc::clone(webhooks));
        let counters = Arc::clone(counters);
        let metrics: MetricSource = Box::new(move || families(&readiness, &fleet, &webhooks, &counters));
        let exporter = Exporter::new(settings, shared, metrics, stop.clone()).map_err(StartError::Otlp)?;
        Ok(Self { task: exporter.map(|exporter| tokio::spawn(exporter.run())), stop })
    }

    /// Sends the last spans, within a time limit.
    pub(super) async fn stop(&mut self) {
        self.stop.cancel();
        if let Some(mut task) = self.task.take()
            && timeout(LAST_SPANS_TIMEOUT, &mut task).await.is_err()
        {
            task.abort();
        }
    }
}
