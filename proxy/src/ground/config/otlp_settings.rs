//! Settings of the export to an OpenTelemetry collector.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::ground::net::address::Address;
#[cfg(feature = "tls")]
use crate::ground::net::tls::ClientTls;

/// Settings of the export to an OpenTelemetry collector.
#[derive(Debug, Clone)]
pub struct OtlpSettings {
    /// Collector that accepts OTLP over HTTP.
    pub address: Address,
    /// Path before `/v1/traces`, without a trailing slash; usually empty.
    pub path: String,
    /// Headers of each request, such as an API key of a hosted collector.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Interval between metric exports; `None` disables them.
    pub metrics_interval: Option<Duration>,
    /// TLS towards the collector.
    #[cfg(feature = "tls")]
    pub tls: ClientTls,
}
