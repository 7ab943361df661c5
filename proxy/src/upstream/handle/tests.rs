//! What shards and writers rely on.

use tokio::task::yield_now;
use trunkline_protocol::service::{ACKNOWLEDGE_KEY, Capabilities, FrameBuffer, Role, SessionId, SessionSettings};

use super::*;

const RING_BYTES: usize = 1000;

fn link(outbox_max_bytes: usize) -> LinkHandle {
    let session = Session::new(SessionId::FIRST, Role::Proxy, SessionSettings::new(RING_BYTES, 1000), 0);
    LinkHandle::new(HubIndex::from(0), AppServerId::from(0), outbox_max_bytes, session)
}

fn open(link: &LinkHandle, received: u64) -> (Attachment, u64) {
    let capabilities = Capabilities { resume_ring_bytes: Some(RING_BYTES), ..Capabilities::default() };
    link.attach(&link.offer().unwrap(), &Answer { received, capabilities }, 0).unwrap().unwrap()
}

fn written(link: &LinkHandle, attachment: Attachment) -> Vec<ServiceMessage> {
    let mut frames = FrameBuffer::default();
    let mut messages = Vec::new();
    while let Outgoing::Piece(piece) = link.poll(attachment, 0) {
        frames.push(piece.bytes);
        while let Some(body) = frames.next_body().unwrap() {
            messages.extend(ServiceMessage::decode(&body).unwrap());
        }
    }
    messages
}

fn acknowledge(link: &LinkHandle, number: u64) {
    link.handle_ping(&Ping { pairs: vec![(ACKNOWLEDGE_KEY.into(), number.to_string().into())] }).unwrap();
}

#[test]
fn what_was_queued_leaves_in_one_piece_and_in_order_and_again_after_a_cut() {
    let link = link(1000);
    link.send_data("a", b"1", 0);
    let (first, _) = open(&link, 0);
    link.send_data("b", b"2", 0);
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
async fn what_waits_for_the_socket_stops_clients_until_it_was_written() {
    let link = link(1);
    let (attachment, _) = open(&link, 0);
    link.send_data("a", b"1", 0);
    assert!(link.is_full());
    let (_, messages) = tokio::join!(link.room(), async { written(&link, attachment) });
    assert!(messages.len() == 1 && !link.is_full());
}

#[tokio::test]
async fn what_is_not_acknowledged_stops_clients_when_the_ring_is_full() {
    let link = link(usize::MAX);
    let (attachment, _) = open(&link, 0);
    let mut frames = 0;
    while !link.is_full() {
        link.send_data("a", &[0; 100], 0);
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
async fn a_session_that_is_over_takes_nothing_and_lets_all_go() {
    let link = link(1);
    link.send_data("a", b"1", 0);
    assert!(link.is_full());
    assert_eq!(link.close().unsent.count, 1);
    link.room().await;
    link.send_data("a", b"1", 0);
    assert!(link.is_closed() && link.offer().is_none());
}

impl LinkHandle {
    /// A link that is open, for tests of those who write to it.
    pub(crate) fn opened(hub: HubIndex, app: AppServerId) -> Self {
        let link = Self { hub, app, ..link(usize::MAX) };
        open(&link, 0);
        link
    }
}
