//! Both halves of an HTTP transport, without a proxy.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use trunkline_protocol::manifest::Transport;

use super::outer_half::PIPE_BYTES;
use super::*;
use crate::engine::transport::websocket::{CLOSE_NORMAL, Opcode, close_frame, frame};

const LONG: Duration = Duration::from_secs(3600);

fn halves() -> (HttpTransports, Arc<OuterHalf>, InnerHalf) {
    let registry = HttpTransports::default();
    let outer = registry.find_or_insert("id", || Ok::<_, Infallible>(TransportPermits::default())).unwrap();
    let inner = outer.take_inner_half().unwrap();
    (registry, outer, inner)
}

fn text(text: &str) -> Bytes {
    frame(Opcode::Text, text.as_bytes())
}

fn messages(text: &'static str) -> PollOutcome {
    PollOutcome::Messages(Bytes::from_static(text.as_bytes()))
}

async fn send(outer: &OuterHalf, body: &'static str) -> Result<(), SendError<Infallible>> {
    outer.send(stream::iter([Ok(Bytes::from_static(body.as_bytes()))])).await
}

#[tokio::test]
async fn a_poll_brings_all_whole_messages_and_leaves_the_partial_one() {
    let (_registry, outer, mut inner) = halves();
    let (begun, rest) = (text("three"), b"ee");
    let bytes = [&text("one ")[..], &text("two ")[..], &begun[..begun.len() - rest.len()]].concat();
    inner.write_all(&bytes).await.unwrap();
    assert_eq!(outer.poll(LONG).await, messages("one two "));
    let (polled, written) = tokio::join!(outer.poll(LONG), inner.write_all(rest));
    written.unwrap();
    assert_eq!(polled, messages("three"));
}

#[tokio::test]
async fn a_poll_that_is_released_is_empty_unless_something_is_there() {
    let (_registry, outer, mut inner) = halves();
    let (released, ()) = tokio::join!(outer.poll(LONG), async { outer.release_poll() });
    assert_eq!(released, PollOutcome::Empty);
    // Without a waiting poll, the next one is not affected.
    outer.release_poll();
    let (polled, ()) = tokio::join!(outer.poll(LONG), async {
        inner.write_all(&text("once")).await.unwrap();
        outer.release_poll();
    });
    assert_eq!(polled, messages("once"));
}

#[tokio::test]
async fn a_newer_poll_replaces_the_waiting_one_and_loses_nothing() {
    let (_registry, outer, mut inner) = halves();
    let (older, newer, ()) = tokio::join!(outer.poll(LONG), outer.poll(LONG), async {
        inner.write_all(&text("once")).await.unwrap();
    });
    assert_eq!((older, newer), (PollOutcome::Replaced, messages("once")));
}

#[tokio::test]
async fn a_poll_without_messages_times_out() {
    let (_registry, outer, _inner) = halves();
    assert_eq!(outer.poll(Duration::from_millis(1)).await, PollOutcome::Empty);
}

#[tokio::test]
async fn the_last_messages_come_before_the_end_and_the_inner_half_sees_that_they_were_taken() {
    let (_registry, outer, mut inner) = halves();
    inner.write_all(&[text("farewell"), close_frame(CLOSE_NORMAL)].concat()).await.unwrap();
    assert_eq!(outer.poll(LONG).await, messages("farewell"));
    assert_eq!(inner.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(send(&outer, "late").await, Err(SendError::Closed));
    assert_eq!(outer.poll(LONG).await, PollOutcome::Closed);
}

#[tokio::test]
async fn messages_written_before_the_inner_half_closed_still_come() {
    let (_registry, outer, mut inner) = halves();
    inner.write_all(&text("last")).await.unwrap();
    assert!(!outer.inner_closed().is_cancelled());
    drop(inner);
    assert!(outer.inner_closed().is_cancelled(), "known before anybody has read so far");
    assert_eq!(outer.poll(LONG).await, messages("last"));
    assert_eq!(outer.poll(LONG).await, PollOutcome::Closed);
}

#[tokio::test]
async fn posts_go_up_one_after_the_other_and_wait_for_room() {
    let (_registry, outer, mut inner) = halves();
    let large: &'static str = "x".repeat(2 * PIPE_BYTES).leak();
    let mut taken = Vec::new();
    let (first, second, _) = tokio::join!(send(&outer, large), send(&outer, "end"), async {
        while !taken.ends_with(b"end") {
            inner.read_buf(&mut taken).await.unwrap();
        }
    });
    assert_eq!((first, second), (Ok(()), Ok(())));
    assert_eq!(taken.len(), large.len() + "end".len());
}

#[tokio::test]
async fn removal_ends_the_poll_the_post_and_the_pipe() {
    let (registry, outer, mut inner) = halves();
    let large: &'static str = "x".repeat(2 * PIPE_BYTES).leak();
    let (polled, sent, ()) = tokio::join!(outer.poll(LONG), send(&outer, large), async {
        registry.remove(&outer);
    });
    assert_eq!((polled, sent), (PollOutcome::Closed, Err(SendError::Closed)));
    assert!(registry.find("id").is_none());
    drop(outer);
    assert_eq!(inner.read_to_end(&mut Vec::new()).await.unwrap(), PIPE_BYTES);
}

#[tokio::test]
async fn a_connection_without_a_get_is_swept_out_and_one_with_a_get_is_not() {
    let (registry, outer, _inner) = halves();
    let get = outer.begin_get();
    assert!((0..5).all(|_| registry.sweep(2).is_empty()));
    drop(get);
    assert!(registry.sweep(2).is_empty() && registry.sweep(2).is_empty());
    assert_eq!(registry.sweep(2).iter().map(|swept| swept.id.as_ref()).collect::<Vec<_>>(), ["id"]);
    assert_eq!(outer.poll(LONG).await, PollOutcome::Closed);
}

#[test]
fn the_first_transport_stays() {
    let (_registry, outer, _inner) = halves();
    assert!(outer.bind(Transport::LongPolling) && outer.bind(Transport::LongPolling));
    assert!(!outer.bind(Transport::ServerSentEvents));
    assert!(outer.take_inner_half().is_none(), "the inner half is handed over once");
}
