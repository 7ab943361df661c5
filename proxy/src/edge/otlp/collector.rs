//! OTLP collector over HTTP: one request at a time per signal, with a deadline.

use std::io;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};

use crate::ground::config::OtlpSettings;
use crate::ground::net::connector::Connector;
use crate::ground::net::http_client::{HttpClient, HttpError};
use crate::ground::telemetry::ExportedSignal;

/// Timeout of a request, including connecting.
const DEADLINE: Duration = Duration::from_secs(10);

/// Maximum response body; usually empty.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum CollectorError {
    #[error("{0}")]
    Http(#[from] HttpError),
    #[error("the collector answered {0}")]
    Status(StatusCode),
}

impl CollectorError {
    /// Whether a retry may succeed; the statuses are defined by the standard.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Http(error) => !matches!(error, HttpError::Request(_)),
            Self::Status(status) => matches!(status.as_u16(), 429 | 502 | 503 | 504),
        }
    }
}

#[derive(Debug)]
pub(super) struct Collector {
    client: HttpClient,
    settings: OtlpSettings,
}

impl Collector {
    /// Creates a collector. TLS files are read only for an https URL.
    pub(super) fn new(settings: OtlpSettings) -> io::Result<Self> {
        Ok(Self { client: HttpClient::new(connector(&settings)?, DEADLINE), settings })
    }

    /// Fails if the collector did not accept the message in time.
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
pub(crate) fn check(settings: OtlpSettings) -> io::Result<()> {
    Collector::new(settings).map(drop)
}
