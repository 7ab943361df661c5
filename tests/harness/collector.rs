//! Scripted OpenTelemetry collector that stores data received by OTLP over HTTP.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::harness::scenario::until;

/// Behaviour of the collector towards requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Accepts all requests normally.
    Takes,
    /// Answers with this status.
    Refuses(u16),
    /// Reads requests but never answers.
    Hangs,
}

/// Span received by a collector.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectedSpan {
    /// `service.name` of the sending process.
    pub service: String,
    /// Name of the step.
    pub name: String,
    /// Span kind: 2 for a server, 3 for a client.
    pub kind: i32,
    /// Trace id in hexadecimal.
    pub trace_id: String,
    /// Id of the span itself.
    pub span_id: String,
    /// Parent span id; empty without one.
    pub parent_id: String,
    /// Ids of linked traces.
    pub links: Vec<String>,
    /// Attributes with text values.
    pub attributes: HashMap<String, String>,
    /// Error text, if it failed.
    pub error: Option<String>,
}

#[derive(Debug)]
struct Collected {
    mood: Mood,
    spans: Vec<CollectedSpan>,
    /// Sum of the newest values of each metric, by name.
    metrics: HashMap<String, f64>,
    headers: HeaderMap,
    requests: usize,
}

/// Scripted collector, stopped on drop.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    collected: Arc<Mutex<Collected>>,
    _tasks: JoinSet<()>,
}

impl Collector {
    /// Starts a collector that accepts all requests.
    pub async fn start() -> Result<Self> {
        let collected = Arc::new(Mutex::new(Collected {
            mood: Mood::Takes,
            spans: Vec::new(),
            metrics: HashMap::new(),
            headers: HeaderMap::new(),
            requests: 0,
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new()
            .route("/v1/traces", post(take_traces))
            .route("/v1/metrics", post(take_metrics))
            .with_state(Arc::clone(&collected));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { drop(axum::serve(listener, router).await) });
        Ok(Self { address, collected, _tasks: tasks })
    }

    /// Listen address as `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// URL for the flag `--otlp`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes the behaviour from now on.
    pub fn set_mood(&self, mood: Mood) {
        lock(&self.collected).mood = mood;
    }

    /// Number of requests so far, including rejected ones.
    #[must_use]
    pub fn requests(&self) -> usize {
        lock(&self.collected).requests
    }

    /// Header of the last request.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        lock(&self.collected).headers.get(name)?.to_str().ok().map(str::to_owned)
    }

    /// Waits for a matching span.
    pub async fn span(&self, is_wanted: impl Fn(&CollectedSpan) -> bool) -> Result<CollectedSpan> {
        until(async || Ok(self.spans().into_iter().find(|span| is_wanted(span)))).await
    }

    /// Returns all spans so far.
    #[must_use]
    pub fn spans(&self) -> Vec<CollectedSpan> {
        lock(&self.collected).spans.clone()
    }

    /// Newest value of a metric, summed over its labels.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<f64> {
        lock(&self.collected).metrics.get(name).copied()
    }
}

type Shared = State<Arc<Mutex<Collected>>>;

async fn take_traces(State(collected): Shared, headers: HeaderMap, body: Bytes) -> StatusCode {
    let status = admit(&collected, headers).await;
    if status != StatusCode::OK {
        return status;
    }
    let Ok(request) = ExportTraceServiceRequest::decode(body) else { return StatusCode::BAD_REQUEST };
    let mut collected = lock(&collected);
    for of_process in request.resource_spans {
        let service = service_of(of_process.resource.as_ref());
        for span in of_process.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            collected.spans.push(CollectedSpan {
                service: service.clone(),
                kind: span.kind,
                trace_id: hex(&span.trace_id),
                span_id: hex(&span.span_id),
                parent_id: hex(&span.parent_span_id),
                links: span.links.iter().map(|link| hex(&link.trace_id)).collect(),
                attributes: span.attributes.iter().filter_map(text_of).collect(),
                error: span.status.filter(|status| status.code == 2).map(|status| status.message),
                name: span.name,
            });
        }
    }
    StatusCode::OK
}

async fn take_metrics(State(collected): Shared, headers: HeaderMap, body: Bytes) -> StatusCode {
    let status = admit(&collected, headers).await;
    if status != StatusCode::OK {
        return status;
    }
    let Ok(request) = ExportMetricsServiceRequest::decode(body) else { return StatusCode::BAD_REQUEST };
    let scopes = request.resource_metrics.into_iter().flat_map(|of_process| of_process.scope_metrics);
    for metric in scopes.flat_map(|scope| scope.metrics) {
        let points = match metric.data {
            Some(Data::Sum(sum)) => sum.data_points,
            Some(Data::Gauge(gauge)) => gauge.data_points,
            _ => continue,
        };
        let sum = points.iter().map(|point| match point.value {
            Some(number_data_point::Value::AsDouble(value)) => value,
            _ => f64::NAN,
        });
        lock(&collected).metrics.insert(metric.name, sum.sum());
    }
    StatusCode::OK
}

/// Counts a request and behaves as scripted.
async fn admit(collected: &Mutex<Collected>, headers: HeaderMap) -> StatusCode {
    let mood = {
        let mut collected = lock(collected);
        (collected.headers, collected.requests) = (headers, collected.requests + 1);
        collected.mood
    };
    match mood {
        Mood::Takes => StatusCode::OK,
        Mood::Refuses(status) => StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        Mood::Hangs => std::future::pending().await,
    }
}

fn service_of(resource: Option<&Resource>) -> String {
    let attributes = resource.into_iter().flat_map(|resource| &resource.attributes);
    let mut service = attributes.filter_map(text_of).filter(|(key, _)| key == "service.name");
    service.next().map(|(_, value)| value).unwrap_or_default()
}

fn text_of(attribute: &KeyValue) -> Option<(String, String)> {
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some((attribute.key.clone(), text.clone())),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn lock(collected: &Mutex<Collected>) -> MutexGuard<'_, Collected> {
    collected.lock().unwrap_or_else(PoisonError::into_inner)
}
