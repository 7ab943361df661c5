//! Guarantees for senders, shards and writers.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use tokio::task::yield_now;
use trunkline_protocol::service::{
    ACKNOWLEDGE_KEY, Capabilities, FrameBuffer, Role, ServiceMessage, SessionSettings, encode_connection_data,
};

use super::*;

const RING_BYTES: usize = 1000;

/// Proxy outbox that allows this many unsent bytes.
fn proxy_outbox(unsent_max_bytes: usize) -> LinkOutbox {
    let session = Session::new(SessionId::FIRST, Role::Proxy, SessionSettings::new(RING_BYTES, 1000), 0);
    LinkOutbox::new(OutboxPolicy::pausing(unsent_max_bytes), Some(session))
}

fn open(link: &LinkOutbox, received: u64) -> (Attachment, u64) {
    let capabilities = Capabilities { resume_ring_bytes: Some(RING_BYTES), ..Capabilities::default() };
    link.attach_answer(&link.offer().unwrap(), &Answer { received, capabilities }, 0).unwrap().unwrap()
}

fn send_data(link: &LinkOutbox, connection_id: &str, payload: &[u8]) {
    let _ = link.push(Class::Ordinary, |out| encode_connection_data(connection_id, payload, 0, out));
}

fn written(link: &LinkOutbox, attachment: Attachment) -> Vec<ServiceMessage> {
    let mut frames = FrameBuffer::default();
    let mut messages = Vec::new();
    while let Some(piece) = take(link, attachment) {
        frames.push(piece.bytes);
        while let Some(body) = frames.next_body().unwrap() {
            messages.extend(ServiceMessage::decode(&body).unwrap());
        }
    }
    messages
}

fn acknowledge(link: &LinkOutbox, number: u64) {
    link.handle_ping(&Ping { pairs: vec![(ACKNOWLEDGE_KEY.into(), number.to_string().into())] }).unwrap();
}

/// App server outbox with this ring size, and its socket to a proxy that does not resume.
fn app_outbox(ring_max_bytes: usize) -> (LinkOutbox, Attachment) {
    let settings = SessionSettings::new(ring_max_bytes, 1_000);
    let session = Session::new(SessionId::FIRST, Role::AppServer, settings, 0);
    let outbox = LinkOutbox::new(OutboxPolicy::waiting(), Some(session));
    let offer = Offer { session: SessionId::FIRST, received: None, capabilities: Capabilities::default() };
    let (attachment, _) = outbox.attach_offer(&offer, 0).unwrap().unwrap();
    (outbox, attachment)
}

/// Next data to write.
fn take(outbox: &LinkOutbox, attachment: Attachment) -> Option<Transmit> {
    match outbox.poll(attachment, 0) {
        Outgoing::Piece(piece) => Some(piece),
        Outgoing::Idle(_) | Outgoing::Over => None,
    }
}

/// Frame with a body of this length.
fn frame(length: u8, fill: u8) -> Vec<u8> {
    let mut frame = vec![fill; usize::from(length) + 1];
    frame[0] = length;
    frame
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn queued_frames_leave_in_one_piece_in_order_and_again_after_a_cut() {
    let link = proxy_outbox(1000);
    send_data(&link, "a", b"1");
    let (first, _) = open(&link, 0);
    send_data(&link, "b", b"2");
    let Outgoing::Piece(piece) = link.poll(first, 0) else { panic!() };
    assert_eq!(piece.frames, 2);
    assert!(link.is_open());
    assert_eq!(link.detach(first, 0), None);
    assert!(!link.is_open() && !link.is_closed());
    let (second, replayed) = open(&link, 1);
    assert_eq!(replayed, 1);
    assert!(matches!(link.poll(first, 0), Outgoing::Idle(_)), "the old socket gets nothing more");
    let messages = written(&link, second);
    assert!(matches!(&messages[..], [ServiceMessage::ConnectionData(data)] if data.connection_id == "b"));
}

#[tokio::test]
async fn unsent_data_pauses_clients_until_it_is_written() {
    let link = proxy_outbox(1);
    let (attachment, _) = open(&link, 0);
    send_data(&link, "a", b"1");
    assert!(link.is_full());
    let (_, messages) = tokio::join!(link.room(), async { written(&link, attachment) });
    assert!(messages.len() == 1 && !link.is_full());
}

#[tokio::test]
async fn unacknowledged_data_pauses_clients_when_the_ring_is_full() {
    let link = proxy_outbox(usize::MAX);
    let (attachment, _) = open(&link, 0);
    let mut frames = 0;
    while !link.is_full() {
        send_data(&link, "a", &[0; 100]);
        frames += 1;
    }
    written(&link, attachment);
    assert!(link.is_full(), "written is not enough");
    let (_, ()) = tokio::join!(link.room(), async {
        yield_now().await;
        acknowledge(&link, frames);
    });
    assert!(!link.is_full());
}

#[tokio::test]
async fn an_ended_session_accepts_nothing_and_pauses_no_client() {
    let link = proxy_outbox(1);
    send_data(&link, "a", b"1");
    assert!(link.is_full());
    assert_eq!(link.close_outbox().unsent.count, 1);
    link.room().await;
    send_data(&link, "a", b"1");
    assert!(link.is_closed() && link.offer().is_none());
}

#[test]
fn frames_leave_in_order_and_in_batches() {
    let (outbox, socket) = app_outbox(1024);
    outbox.try_send(&frame(1, 7)).unwrap();
    outbox.control(&frame(1, 8)).unwrap();
    let piece = take(&outbox, socket).unwrap();
    assert_eq!((&piece.bytes[..], piece.frames), (&[1, 7, 1, 8][..], 2));
    assert!(take(&outbox, socket).is_none());
}

#[test]
fn a_send_waits_for_room_while_completions_and_control_frames_pass() {
    let (outbox, socket) = app_outbox(100);
    outbox.try_send(&frame(99, 0)).unwrap();
    let next = frame(20, 1);
    assert_eq!(outbox.try_send(&next), Err(TrySendError::Full));
    let mut waiting = pin!(outbox.send(&next));
    assert!(poll(waiting.as_mut()).is_pending());
    let completion = frame(24, 2);
    assert!(poll(pin!(outbox.complete(&completion))).is_ready());
    assert!(poll(pin!(outbox.complete(&completion))).is_pending(), "the reserve has an end too");
    outbox.control(&frame(1, 3)).unwrap();
    while take(&outbox, socket).is_some() {}
    assert_eq!(poll(waiting.as_mut()), Poll::Ready(Ok(())));
}

#[test]
fn waiting_senders_are_served_in_order() {
    let (outbox, socket) = app_outbox(10);
    let filling = frame(9, 0);
    outbox.try_send(&filling).unwrap();
    let mut first = pin!(outbox.send(&filling));
    let mut second = pin!(outbox.send(&filling));
    assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
    take(&outbox, socket).unwrap();
    assert_eq!(outbox.try_send(&filling), Err(TrySendError::Full), "others wait");
    assert!(poll(second.as_mut()).is_pending());
    assert!(poll(first.as_mut()).is_ready());
    assert!(poll(second.as_mut()).is_pending());
    take(&outbox, socket).unwrap();
    assert!(poll(second.as_mut()).is_ready());
}

#[test]
fn a_frame_larger_than_the_limit_passes_alone() {
    let (outbox, socket) = app_outbox(10);
    outbox.try_send(&frame(100, 0)).unwrap();
    assert_eq!(outbox.try_send(&frame(1, 0)), Err(TrySendError::Full));
    take(&outbox, socket).unwrap();
    outbox.try_send(&frame(1, 0)).unwrap();
}

#[test]
fn the_end_sends_all_waiting_senders_away_and_hands_over_the_rest() {
    let ((old, _), (new, socket)) = (app_outbox(10), app_outbox(10));
    old.try_send(&frame(9, 7)).unwrap();
    let next = frame(9, 8);
    let mut first = pin!(old.send(&next));
    let mut second = pin!(old.send(&next));
    assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
    new.inherit(old.close_outbox().unsent);
    assert_eq!(poll(first.as_mut()), Poll::Ready(Err(OutboxClosed)));
    assert_eq!(poll(second.as_mut()), Poll::Ready(Err(OutboxClosed)));
    assert_eq!(old.control(&next), Err(OutboxClosed));
    assert_eq!(new.try_send(&next), Err(TrySendError::Full));
    new.control(&next).unwrap();
    let written: Vec<_> = std::iter::from_fn(|| take(&new, socket)).map(|piece| piece.bytes[1]).collect();
    assert_eq!(written, [7, 8]);
}

#[test]
fn threads_that_send_at_one_moment_are_all_served_while_there_is_room() {
    const THREADS: usize = 4;
    const FRAMES: usize = 20_000;
    let (outbox, _) = app_outbox(THREADS * FRAMES * 64);
    let send = || (0..FRAMES).filter(|_| outbox.push_if_room(Class::Ordinary, b"\x01a").is_err()).count();
    let refused: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(send)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(refused, 0);
}
