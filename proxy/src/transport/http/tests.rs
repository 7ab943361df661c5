//! Pipes without a proxy around them: who gets what, and who has to go.

use std::convert::Infallible;

use futures_util::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::transport::websocket::{CLOSE_NORMAL, Opcode, close, frame};

const LONG: Duration = Duration::from_secs(3600);

fn carried() -> (Registry, Arc<Carried>, Near) {
    let registry = Registry::default();
    let carried = registry.find_or_make("id", || Ok::<_, Infallible>(())).unwrap();
    let near = carried.begin().unwrap();
    (registry, carried, near)
}

fn text(text: &str) -> Bytes {
    frame(Opcode::Text, text.as_bytes())
}

fn messages(text: &'static str) -> Polled {
    Polled::Messages(Bytes::from_static(text.as_bytes()))
}

async fn send(carried: &Carried, body: &'static str) -> Result<(), SendError<Infallible>> {
    carried.send(stream::iter([Ok(Bytes::from_static(body.as_bytes()))])).await
}

#[tokio::test]
async fn a_poll_brings_all_whole_messages_that_are_there_and_leaves_the_begun_one() {
    let (_registry, carried, mut near) = carried();
    let (begun, rest) = (text("three"), b"ee");
    let bytes = [&text("one ")[..], &text("two ")[..], &begun[..begun.len() - rest.len()]].concat();
    near.write_all(&bytes).await.unwrap();
    assert_eq!(carried.poll(LONG).await, messages("one two "));
    let (polled, written) = tokio::join!(carried.poll(LONG), near.write_all(rest));
    written.unwrap();
    assert_eq!(polled, messages("three"));
}

#[tokio::test]
async fn of_two_polls_the_newer_one_stays_and_nothing_is_lost() {
    let (_registry, carried, mut near) = carried();
    let (older, newer, ()) = tokio::join!(carried.poll(LONG), carried.poll(LONG), async {
        near.write_all(&text("once")).await.unwrap();
    });
    assert_eq!((older, newer), (Polled::Replaced, messages("once")));
}

#[tokio::test]
async fn a_poll_without_messages_ends_by_itself() {
    let (_registry, carried, _near) = carried();
    assert_eq!(carried.poll(Duration::from_millis(1)).await, Polled::Nothing);
}

#[tokio::test]
async fn the_last_messages_come_before_the_end_and_the_client_room_sees_that_they_were_taken() {
    let (_registry, carried, mut near) = carried();
    near.write_all(&[text("farewell"), close(CLOSE_NORMAL)].concat()).await.unwrap();
    assert_eq!(carried.poll(LONG).await, messages("farewell"));
    assert_eq!(near.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(send(&carried, "late").await, Err(SendError::Over));
    assert_eq!(carried.poll(LONG).await, Polled::Over);
}

#[tokio::test]
async fn what_was_written_before_the_pipe_was_cut_still_comes() {
    let (_registry, carried, mut near) = carried();
    near.write_all(&text("last")).await.unwrap();
    assert!(!carried.over().is_cancelled());
    drop(near);
    assert!(carried.over().is_cancelled(), "that is known before anybody has read so far");
    assert_eq!(carried.poll(LONG).await, messages("last"));
    assert_eq!(carried.poll(LONG).await, Polled::Over);
}

#[tokio::test]
async fn posts_go_up_one_after_the_other_and_wait_for_room() {
    let (_registry, carried, mut near) = carried();
    let large: &'static str = "x".repeat(2 * PIPE_BYTES).leak();
    let mut taken = Vec::new();
    let (first, second, _) = tokio::join!(send(&carried, large), send(&carried, "end"), async {
        while !taken.ends_with(b"end") {
            near.read_buf(&mut taken).await.unwrap();
        }
    });
    assert_eq!((first, second), (Ok(()), Ok(())));
    assert_eq!(taken.len(), large.len() + "end".len());
}

#[tokio::test]
async fn removed_it_ends_the_poll_the_post_and_the_pipe() {
    let (registry, carried, mut near) = carried();
    let large: &'static str = "x".repeat(2 * PIPE_BYTES).leak();
    let (polled, sent, ()) = tokio::join!(carried.poll(LONG), send(&carried, large), async {
        registry.remove(&carried);
    });
    assert_eq!((polled, sent), (Polled::Over, Err(SendError::Over)));
    assert!(registry.find("id").is_none());
    drop(carried);
    assert_eq!(near.read_to_end(&mut Vec::new()).await.unwrap(), PIPE_BYTES);
}

#[tokio::test]
async fn who_is_absent_for_too_long_is_swept_out_and_who_polls_is_not() {
    let (registry, carried, _near) = carried();
    let present = carried.attend();
    assert!((0..5).all(|_| registry.sweep(2).is_empty()));
    drop(present);
    assert!(registry.sweep(2).is_empty() && registry.sweep(2).is_empty());
    assert_eq!(registry.sweep(2).iter().map(|swept| swept.id()).collect::<Vec<_>>(), ["id"]);
    assert_eq!(carried.poll(LONG).await, Polled::Over);
}

#[test]
fn the_first_transport_stays() {
    let (_registry, carried, _near) = carried();
    assert!(carried.bind(Transport::LongPolling) && carried.bind(Transport::LongPolling));
    assert!(!carried.bind(Transport::ServerSentEvents));
    assert!(carried.begin().is_none(), "the pipe is handed over once");
}
