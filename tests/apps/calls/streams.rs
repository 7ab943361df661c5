//! Methods that stream in either direction or both.

use futures_util::{Stream, StreamExt, stream};
use trunkline::{Context, Hub, HubError, UploadStream};

use super::gate::Gate;

async fn count_to(end: u64) -> impl Stream<Item = u64> {
    stream::iter(1..=end)
}

/// Yields numbers, each with a text of this length.
async fn count_padded(end: u64, length: usize) -> impl Stream<Item = (u64, String)> {
    stream::iter(1..=end).map(move |number| (number, "x".repeat(length)))
}

/// Sends the same to the caller, one message after the other.
async fn send_padded(ctx: Context, end: u64, length: usize) -> Result<(), HubError> {
    for number in 1..=end {
        ctx.clients().caller().send("Announced", ((number, "x".repeat(length)),)).await?;
    }
    Ok(())
}

/// Yields numbers, then fails with a text that the caller may see.
async fn count_and_refuse(end: u64, reason: String) -> impl Stream<Item = Result<u64, HubError>> {
    stream::iter((1..=end).map(Ok)).chain(stream::once(async { Err(HubError::new(reason)) }))
}

async fn add_up(mut numbers: UploadStream<i64>, start: i64) -> Result<i64, HubError> {
    let mut sum = start;
    while let Some(number) = numbers.next().await {
        sum += number?;
    }
    Ok(sum)
}

async fn double(numbers: UploadStream<i64>) -> impl Stream<Item = Result<i64, HubError>> {
    numbers.map(|number| Ok(number? * 2))
}

pub(crate) fn methods(hub: Hub<Gate>) -> Hub<Gate> {
    hub.method("CountTo", count_to)
        .method("CountPadded", count_padded)
        .method("SendPadded", send_padded)
        .method("CountAndRefuse", count_and_refuse)
        .method("AddUp", add_up)
        .method("Double", double)
}
