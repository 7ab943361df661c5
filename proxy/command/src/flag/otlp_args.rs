//! Flags of the export to an OpenTelemetry collector.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use http::{HeaderName, HeaderValue, Uri};
use trunkline_proxy::parts::{Address, ClientTls, OtlpSettings, SamplingTerms, shown_url};

use super::value_parser::seconds;

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct OtlpArgs {
    /// OpenTelemetry collector for OTLP over HTTP with protobuf, such as `http://127.0.0.1:4318`; spans go to
    /// /v1/traces below it, metrics to /v1/metrics. If the collector hangs or is gone, only spans are lost, and
    /// counted. [default: nothing is traced or exported]
    #[arg(long, env = "TRUNKLINE_OTLP", value_name = "URL")]
    pub otlp: Option<String>,

    /// Share of connections that are traced, from 0 to 1: their negotiation, connect request, hub handshake and calls.
    /// Untraced connections cost nothing.
    #[arg(long, env = "TRUNKLINE_OTLP_SAMPLE", value_name = "RATIO", default_value_t = 0.01)]
    pub otlp_sample: f64,

    /// Follow the sampling decision in the `traceparent` of clients' requests and messages; --otlp-sample applies to
    /// clients without one. Any client can then cause exported spans, as many as --otlp-max-spans allows.
    #[arg(long, env = "TRUNKLINE_OTLP_TRUST_CLIENTS")]
    pub otlp_trust_clients: bool,

    /// Maximum number of spans that this node begins per second. Further calls and connections are served untraced.
    #[arg(long, env = "TRUNKLINE_OTLP_MAX_SPANS", value_name = "N", default_value_t = 500,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub otlp_max_spans: u32,

    /// Interval at which the metrics of the admin port are sent to the collector; 0 for never.
    #[arg(long, env = "TRUNKLINE_OTLP_METRICS_INTERVAL", value_name = "SECONDS", default_value = "15s",
          value_parser = seconds(0..=3600))]
    pub otlp_metrics_interval: Duration,

    /// Header of each request to the collector, such as `api-key=...`. May be given several times.
    #[arg(
        long = "otlp-header",
        env = "TRUNKLINE_OTLP_HEADERS",
        value_name = "NAME=VALUE",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub otlp_headers: Vec<String>,

    /// PEM file with CA certificates for an https:// collector. May be given several times. [default: those that the
    /// system trusts]
    #[arg(long = "otlp-ca", env = "TRUNKLINE_OTLP_CA", value_name = "FILE", value_delimiter = ',')]
    pub otlp_cas: Vec<PathBuf>,
}

impl OtlpArgs {
    /// Returns the sampling settings; `None` without a collector.
    pub(super) fn sampling(&self) -> anyhow::Result<Option<SamplingTerms>> {
        if self.otlp.is_none() {
            return Ok(None);
        }
        let (ratio, trusts_clients) = (self.otlp_sample, self.otlp_trust_clients);
        if !(0.0..=1.0).contains(&ratio) {
            bail!("--otlp-sample is {ratio}, but must be from 0 to 1");
        }
        Ok(Some(SamplingTerms { ratio, trusts_clients, spans_per_second: self.otlp_max_spans }))
    }

    /// Returns the settings of the export; `None` without a collector.
    pub(super) fn settings(&self) -> anyhow::Result<Option<OtlpSettings>> {
        let Some(url) = &self.otlp else { return Ok(None) };
        let (address, path) = collector(url).map_err(|problem| anyhow!("--otlp {:?} {problem}", shown_url(url)))?;
        // The error names the header by number, because its text may be a secret.
        let headers = (1..).zip(&self.otlp_headers).map(|(number, text): (usize, _)| {
            header(text)
                .with_context(|| format!("--otlp-header number {number} is not a header such as api-key=secret"))
        });
        let interval = self.otlp_metrics_interval;
        Ok(Some(OtlpSettings {
            address,
            path,
            headers: headers.collect::<anyhow::Result<_>>()?,
            metrics_interval: Some(interval).filter(|interval| !interval.is_zero()),
            tls: ClientTls { roots: self.otlp_cas.clone(), identity: None },
        }))
    }
}

/// Parses address and path of a collector. The error text continues a sentence that begins with the URL.
fn collector(url: &str) -> Result<(Address, String), &'static str> {
    let uri: Uri = url.parse().map_err(|_| "is not a URL such as http://127.0.0.1:4318")?;
    if uri.query().is_some() {
        return Err("has a query: give only scheme, host, port and the path before /v1/traces");
    }
    Ok((Address::try_from(&uri)?, uri.path().trim_end_matches('/').to_owned()))
}

fn header(text: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once('=')?;
    let mut value = HeaderValue::from_str(value.trim()).ok()?;
    value.set_sensitive(true);
    Some((name.trim().parse().ok()?, value))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct OtlpCli {
        #[command(flatten)]
        otlp: OtlpArgs,
    }

    fn args(args: &[&str]) -> OtlpArgs {
        OtlpCli::parse_from([&["trunkline"], args].concat()).otlp
    }

    #[test]
    fn without_a_collector_nothing_is_traced_or_exported() {
        let args = args(&["--otlp-sample", "1"]);
        assert!(args.sampling().unwrap().is_none() && args.settings().unwrap().is_none());
    }

    #[test]
    fn a_collector_has_a_path_and_headers() {
        let args = args(&["--otlp", "http://collector:4318/otlp/", "--otlp-header", "api-key=a=b, X-Org = 1 "]);
        let settings = args.settings().unwrap().unwrap();
        assert_eq!((settings.address.authority(), &*settings.path), ("collector:4318", "/otlp"));
        let headers: Vec<_> = settings.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(headers, [("api-key", &b"a=b"[..]), ("x-org", b"1")]);
        assert_eq!(settings.metrics_interval, Some(Duration::from_secs(15)));
        let terms = args.sampling().unwrap().unwrap();
        assert_eq!(terms, SamplingTerms { ratio: 0.01, trusts_clients: false, spans_per_second: 500 });
    }

    #[test]
    fn a_wrong_value_is_named_with_its_flag() {
        let problem = |given: &[&str]| {
            let args = args(given);
            let problem = args.settings().map(drop).and_then(|()| args.sampling().map(drop));
            problem.unwrap_err().to_string()
        };
        assert!(problem(&["--otlp", "ftp://x"]).starts_with("--otlp \"ftp://x\" is not a URL"));
        assert!(problem(&["--otlp", "http://x?y"]).contains("has a query"));
        assert!(problem(&["--otlp", "http://x", "--otlp-sample", "1.5"]).starts_with("--otlp-sample is 1.5"));
        assert!(problem(&["--otlp", "http://x", "--otlp-sample", "NaN"]).starts_with("--otlp-sample is NaN"));
        let text = problem(&["--otlp", "http://x", "--otlp-header", "a=b,secret"]);
        assert_eq!(text, "--otlp-header number 2 is not a header such as api-key=secret");
    }
}
