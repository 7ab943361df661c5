//! OpenTelemetry traces: each call is a span in its client's trace, exported to a collector.
//!
//! `cargo run --example traced --all-features -- --otlp http://127.0.0.1:4318`, behind a proxy with the same `--otlp`.

#[path = "common/serve.rs"]
#[expect(dead_code, reason = "this example configures its own logging")]
mod serve;

use std::time::Duration;

use axum::Router;
use clap::Parser;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::runtime::Tokio;
use opentelemetry_sdk::trace::span_processor_with_async_runtime::BatchSpanProcessor;
use opentelemetry_sdk::trace::{BatchConfigBuilder, SdkTracerProvider};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use trunkline::{Context, Hub, HubError, Server};

/// Maximum delay between the end of a span and its export.
const EXPORT_INTERVAL: Duration = Duration::from_millis(500);

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    serve: serve::ServeArguments,
    /// Collector that accepts OTLP over HTTP
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4318")]
    otlp: String,
}

async fn echo(text: String) -> String {
    text
}

/// Sends to everyone. Inside a call, the message carries the call's trace context to the clients.
async fn broadcast(ctx: Context, text: String) -> Result<(), HubError> {
    ctx.clients().all().send("message", (text,)).await?;
    Ok(())
}

async fn fail() -> Result<(), HubError> {
    Err(HubError::new("It always fails."))
}

/// Logs to stderr and exports spans. Call spans have level `debug`, so the export layer enables it for them.
fn start_telemetry(otlp: &str) -> anyhow::Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder().with_http().with_endpoint(format!("{otlp}/v1/traces")).build()?;
    let batches = BatchConfigBuilder::default().with_scheduled_delay(EXPORT_INTERVAL).build();
    let processor = BatchSpanProcessor::builder(exporter, Tokio).with_batch_config(batches).build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(processor)
        .with_resource(Resource::builder().with_service_name("traced").build())
        .build();
    let exported =
        Targets::new().with_target("trunkline::call", LevelFilter::DEBUG).with_target("traced", LevelFilter::INFO);
    let traces = tracing_opentelemetry::layer().with_tracer(provider.tracer("traced")).with_filter(exported);
    let log = serve::log();
    let lines = tracing_subscriber::fmt::layer().with_writer(log.writer()).with_ansi(log.has_colours());
    tracing_subscriber::registry().with(traces).with(lines.with_filter(serve::levels())).init();
    Ok(provider)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { serve, otlp } = Arguments::parse();
    let provider = start_telemetry(&otlp)?;
    let hub = Hub::new("/traced")
        .on_connected(async |_: Context| {})
        .method("Echo", echo)
        .method("Broadcast", broadcast)
        .method("Fail", fail);
    serve.serve(Server::new().hub(hub), Router::new()).await?;
    provider.shutdown()?;
    Ok(())
}
