#![forbid(unsafe_code)]
//! Streams in both directions: run `cargo run --example streaming -- --listen 127.0.0.1:5000` behind a proxy.
//!
//! Hub `/streams`: `Counter(count, delayMs)` streams numbers; `Average(numbers)` reads a stream; `Smooth(numbers,
//! window)` reads a stream and returns one.

#[path = "common/serve.rs"]
mod serve;

use std::time::Duration;

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use futures_util::{Stream, StreamExt, stream};
use trunkline::{Hub, HubError, Server, UploadStream};

/// Streams numbers. If the client cancels, the stream is dropped.
async fn counter(count: u32, delay_ms: u64) -> Result<impl Stream<Item = u32>, HubError> {
    if delay_ms > 60_000 {
        return Err(HubError::new("a minute is the longest delay"));
    }
    Ok(stream::iter(0..count).then(move |number| async move {
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        number
    }))
}

/// Reads the whole upload, then returns the result.
async fn average(mut numbers: UploadStream<f64>) -> Result<f64, HubError> {
    let (mut sum, mut count) = (0.0, 0.0);
    while let Some(number) = numbers.next().await {
        sum += number?;
        count += 1.0;
    }
    if count == 0.0 { Err(HubError::new("no numbers, no average")) } else { Ok(sum / count) }
}

/// Streams a moving average while it reads the upload. An error from the client is passed through.
async fn smooth(numbers: UploadStream<f64>, window: u32) -> impl Stream<Item = Result<f64, HubError>> {
    let weight = 1.0 / f64::from(window.max(1));
    numbers.scan(None, move |mean, number| {
        let smoothed = number.map(|number| {
            let before = mean.unwrap_or(number);
            *mean.insert(before + (number - before) * weight)
        });
        std::future::ready(Some(smoothed))
    })
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let hub = Hub::new("/streams").method("Counter", counter).method("Average", average).method("Smooth", smooth);
    let page = Router::new().route("/", get(async || Html(include_str!("pages/streaming.html"))));
    serve::read::<serve::ServeArguments>().serve(Server::new().hub(hub), page).await
}
