//! Export task of a node, and its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::start_error::StartError;
use crate::admin::{AdminCounters, families};
use crate::config::OtlpSettings;
use crate::fleet::Fleet;
use crate::observer::Readiness;
use crate::otlp::{Exporter, MetricSource};

/// Time that a node which stops gives the collector for the last spans.
const LAST_SPANS_TIMEOUT: Duration = Duration::from_secs(2);

/// Export task of a node; none where nothing is exported.
#[derive(Debug)]
pub(crate) struct Export {
    task: Option<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Export {
    /// Starts the export on this thread's runtime, if there is a collector.
    ///
    /// # Errors
    /// When the files for TLS can't be used.
    pub(super) fn start(
        settings: Option<OtlpSettings>,
        readiness: &Readiness,
        fleet: &Fleet,
        counters: &Arc<AdminCounters>,
    ) -> Result<Self, StartError> {
        let stop = CancellationToken::new();
        let Some(settings) = settings else { return Ok(Self { task: None, stop }) };
        let shared = Arc::clone(readiness.shared());
        let (readiness, fleet, counters) = (readiness.clone(), fleet.clone(), Arc::clone(counters));
        let metrics: MetricSource = Box::new(move || families(&readiness, &fleet, &counters));
        let exporter = Exporter::new(settings, shared, metrics, stop.clone()).map_err(StartError::Otlp)?;
        Ok(Self { task: exporter.map(|exporter| tokio::spawn(exporter.run())), stop })
    }

    /// Sends the last spans, if the collector takes them in time.
    pub(super) async fn stop(&mut self) {
        self.stop.cancel();
        if let Some(mut task) = self.task.take()
            && timeout(LAST_SPANS_TIMEOUT, &mut task).await.is_err()
        {
            task.abort();
        }
    }
}
