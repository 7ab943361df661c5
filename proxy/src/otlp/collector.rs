//! Collector of OTLP over HTTP: one request at a time for each signal, with a deadline.

use std::io;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};

use crate::config::OtlpSettings;
use crate::net::connector::Connector;
use crate::net::http_client::{HttpClient, HttpError};
use crate::telemetry::ExportedSignal;

/// Time for one request, connecting included.
const DEADLINE: Duration = Duration::from_secs(10);

/// Largest answer that is read. Most are empty.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// Error of a request to the collector.
#[derive(Debug, thiserror::Error)]
pub(super) enum CollectorError {
    #[error("{0}")]
    Http(#[from] HttpError),
    #[error("the collector answered {0}")]
    Status(StatusCode),
}

impl CollectorError {
    /// Whether the same request may succeed a little later: the statuses are those that the standard names.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Http(error) => !matches!(error, HttpError::Request(_)),
            Self::Status(status) => matches!(status.as_u16(), 429 | 502 | 503 | 504),
        }
    }
}

/// Collector that takes the spans and metrics of this node.
#[derive(Debug)]
pub(super) struct Collector {
    client: HttpClient,
    settings: OtlpSettings,
}

impl Collector {
    /// Collector of these settings. Files for TLS are read only if it speaks TLS.
    ///
    /// # Errors
    /// When these can't be used.
    pub(super) fn new(settings: OtlpSettings) -> io::Result<Self> {
        Ok(Self { client: HttpClient::new(connector(&settings)?, DEADLINE), settings })
    }

    /// Sends one message, and returns the answer to it.
    ///
    /// # Errors
    /// When the collector did not take it in time.
    pub(super) async fn post(&self, signal: ExportedSignal, message: Vec<u8>) -> Result<Bytes, CollectorError> {
        let place = match signal {
            ExportedSignal::Traces => "/v1/traces",
            ExportedSignal::Metrics => "/v1/metrics",
        };
        let mut request = Request::post(format!("{}{place}", self.settings.path))
            .header(CONTENT_TYPE, "application/x-protobuf")
            .body(Body::from(message))
            .map_err(HttpError::from)?;
        request.headers_mut().extend(self.settings.headers.iter().cloned());
        let answer = self.client.fetch(&self.settings.address, request, ANSWER_MAX_BYTES, DEADLINE).await?;
        let status = answer.status();
        if status.is_success() { Ok(answer.into_body()) } else { Err(CollectorError::Status(status)) }
    }
}

#[cfg(feature = "tls")]
fn connector(settings: &OtlpSettings) -> io::Result<Connector> {
    match settings.address.is_tls() {
        true => Connector::with_tls(settings.tls.clone()).map_err(io::Error::other),
        false => Ok(Connector::default()),
    }
}

#[cfg(not(feature = "tls"))]
fn connector(_settings: &OtlpSettings) -> io::Result<Connector> {
    Ok(Connector::default())
}
/// Checks that the settings of a collector can be used.
///
/// # Errors
/// When these can't be used.
pub(crate) fn check(settings: OtlpSettings) -> io::Result<()> {
    Collector::new(settings).map(drop)
}
