//! Individual rules of a session. `tests/simulation` tests their interaction.

mod upgrades;

use bytes::BytesMut;

use super::*;
use crate::limits::{ACKNOWLEDGE_DELAY_MS, LINK_PING_INTERVAL_MS, LINK_TIMEOUT_MS};
use crate::service::{FrameBuffer, Ping, ServiceMessage, encode_connection_data};

const WINDOW_MS: u64 = 1_000;
const RING_BYTES: usize = 1_000;

fn settings() -> SessionSettings {
    SessionSettings::new(RING_BYTES, WINDOW_MS)
}

fn session(role: Role) -> Session {
    Session::new(SessionId::FIRST, role, settings(), 0)
}

fn capable() -> Capabilities {
    Capabilities {
        resume_ring_bytes: Some(RING_BYTES),
        lists_members: false,
        tells_presence: false,
        ..Capabilities::plain()
    }
}

/// Attached at time 0, to a peer that has nothing.
fn attached(role: Role) -> (Session, Attachment) {
    let mut session = session(role);
    let attachment = session.attach(0, 0, capable(), 0).unwrap();
    (session, attachment)
}

fn push(session: &mut Session, text: &str) -> u64 {
    session.push(Class::Ordinary, |out| encode_connection_data("c", text.as_bytes(), 0, out))
}

fn acknowledge(session: &mut Session, number: u64) -> Result<Load, SessionError> {
    session.handle_ping(&Ping { pairs: vec![(ACKNOWLEDGE_KEY.into(), number.to_string().into())] })
}

fn messages(bytes: &[Bytes]) -> Vec<ServiceMessage> {
    let mut frames = FrameBuffer::default();
    bytes.iter().for_each(|piece| frames.push(piece.clone()));
    std::iter::from_fn(|| frames.next_body().unwrap())
        .map(|body| ServiceMessage::decode(&body).unwrap().unwrap())
        .collect()
}

fn texts(bytes: &[Bytes]) -> Vec<String> {
    let text = |message| match message {
        ServiceMessage::ConnectionData(data) => String::from_utf8(data.payload.to_vec()).unwrap(),
        other => other.name().to_owned(),
    };
    messages(bytes).into_iter().map(text).collect()
}

fn written(session: &mut Session, attachment: Attachment, now_ms: u64) -> Vec<Bytes> {
    std::iter::from_fn(|| session.poll_transmit(attachment, now_ms)).map(|piece| piece.bytes).collect()
}

#[test]
fn frames_that_were_queued_leave_in_one_piece_and_are_kept_in_the_same_memory() {
    let (mut session, attachment) = attached(Role::Proxy);
    assert_eq!((push(&mut session, "a"), push(&mut session, "b")), (1, 2));
    let piece = session.poll_transmit(attachment, 0).unwrap();
    assert_eq!(piece.frames, 2);
    assert!(session.poll_transmit(attachment, 0).is_none());
    session.detach(attachment, 0);
    let again = session.attach(0, 0, capable(), 0).unwrap();
    let replayed = session.poll_transmit(again, 0).unwrap();
    assert_eq!(replayed.bytes.as_ptr(), piece.bytes.as_ptr(), "a copy was made");
    assert_eq!(replayed, piece);
}

#[test]
fn a_replay_begins_after_received_frames_even_within_a_chunk() {
    let (mut session, attachment) = attached(Role::Proxy);
    for text in ["a", "b", "c"] {
        push(&mut session, text);
    }
    written(&mut session, attachment, 0);
    push(&mut session, "d");
    session.detach(attachment, 0);
    let again = session.attach(0, 2, capable(), 0).unwrap();
    let pieces = written(&mut session, again, 0);
    assert_eq!(texts(&pieces), ["c", "d"]);
    assert_eq!(session.counters().acknowledged(), 2);
}

#[test]
fn acknowledged_frames_make_room_by_whole_chunks() {
    let (mut session, attachment) = attached(Role::Proxy);
    push(&mut session, "a");
    push(&mut session, "b");
    written(&mut session, attachment, 0);
    let load = session.load();
    assert_eq!(acknowledge(&mut session, 1), Ok(Load::default()));
    assert_eq!(acknowledge(&mut session, 2), Ok(load));
    assert_eq!(session.load(), Load::default());
}

#[test]
fn frames_taken_before_the_cut_are_still_replayed_to_keep_the_count() {
    let (mut session, attachment) = attached(Role::Proxy);
    push(&mut session, "a");
    written(&mut session, attachment, 0);
    session.detach(attachment, 0);
    let again = session.attach(0, 0, capable(), 0).unwrap();
    // The consumer took the old socket's frame only now.
    acknowledge(&mut session, 1).unwrap();
    push(&mut session, "b");
    let pieces = written(&mut session, again, 0);
    assert_eq!(texts(&pieces), ["a", "b"]);
    assert!(session.load().bytes() < pieces.iter().map(Bytes::len).sum(), "a was kept though it is acknowledged");
}

#[test]
fn a_full_ring_refuses_ordinary_frames_and_has_a_reserve_for_others() {
    let (mut session, _) = attached(Role::AppServer);
    let frame = |out: &mut BytesMut| out.extend_from_slice(&[99; 100]);
    let taken = std::iter::from_fn(|| session.try_push(Class::Ordinary, frame).ok()).count();
    assert_eq!(taken, RING_BYTES / 100);
    let reserved = std::iter::from_fn(|| session.try_push(Class::Reserved, frame).ok()).count();
    assert_eq!(reserved, 3, "a quarter, and what reaches over it");
    assert_eq!(session.load(), Load { room: RING_BYTES, reserve: 300 });
    assert_eq!(session.try_push(Class::Reserved, frame), Err(RingFull));
}

#[test]
fn pings_pass_a_full_ring_and_are_not_counted() {
    let (mut session, attachment) = attached(Role::AppServer);
    while session.has_place(Class::Ordinary) {
        push(&mut session, "full");
    }
    written(&mut session, attachment, 0);
    session.handle_taken(1, 10, 0);
    session.push_echo(&Ping { pairs: vec![("echo".into(), "7".into())] });
    let sent = session.counters().sent();
    let due_ms = ACKNOWLEDGE_DELAY_MS;
    assert_eq!(texts(&written(&mut session, attachment, due_ms)), ["Ping", "Ping"]);
    assert_eq!(session.counters().sent(), sent);
}

#[test]
fn an_echo_follows_the_frames_replayed_on_a_resumed_socket() {
    let (mut session, attachment) = attached(Role::Proxy);
    push(&mut session, "a");
    written(&mut session, attachment, 0);
    session.detach(attachment, 0);
    let again = session.attach(0, 0, capable(), 0).unwrap();
    session.push_echo(&Ping { pairs: vec![("echo".into(), "7".into())] });
    assert_eq!(texts(&written(&mut session, again, 0)), ["a", "Ping"]);
}

#[test]
fn an_echo_follows_earlier_queued_frames() {
    let (mut session, attachment) = attached(Role::AppServer);
    push(&mut session, "a");
    session.push_echo(&Ping { pairs: vec![("echo".into(), "7".into())] });
    assert_eq!(texts(&written(&mut session, attachment, 0)), ["a", "Ping"]);
}

#[test]
fn a_quarter_of_the_peers_ring_is_acknowledged_immediately() {
    let (mut session, attachment) = attached(Role::AppServer);
    session.handle_taken(3, RING_BYTES / 4 - 1, 5);
    assert_eq!(session.poll_transmit(attachment, 5), None);
    session.handle_taken(4, 1, 6);
    assert_eq!(session.poll_timeout(), Some(6));
    assert_eq!(texts(&written(&mut session, attachment, 6)), ["Ping"]);
}

#[test]
fn the_upgrade_acknowledges_too() {
    let mut session = session(Role::Proxy);
    assert_eq!(session.offer().received, None);
    let offer = session.offer();
    let attachment =
        session.handle_answer(&offer, &Answer { received: 0, capabilities: capable() }, 0).unwrap().unwrap();
    session.handle_taken(5, 10, 0);
    session.detach(attachment, 10);
    let offer = session.offer();
    assert_eq!(offer.received, Some(5));
    let again = session.handle_answer(&offer, &Answer { received: 0, capabilities: capable() }, 20).unwrap().unwrap();
    assert_eq!(session.poll_transmit(again, ACKNOWLEDGE_DELAY_MS * 2), None);
}

#[test]
fn an_older_socket_is_not_listened_to() {
    let (mut session, old) = attached(Role::AppServer);
    session.detach(old, 0);
    let new = session.attach(0, 0, capable(), 0).unwrap();
    push(&mut session, "a");
    assert_eq!(session.poll_transmit(old, 0), None);
    assert_eq!(session.detach(old, 0), None);
    assert!(session.is_attached() && session.poll_transmit(new, 0).is_some());
}

#[test]
fn the_proxy_ends_sessions_not_resumed_within_the_window() {
    let (mut session, attachment) = attached(Role::Proxy);
    session.detach(attachment, 300);
    assert_eq!(session.poll_timeout(), Some(300 + WINDOW_MS));
    assert_eq!(session.handle_timeout(299 + WINDOW_MS), None);
    assert_eq!(session.handle_timeout(300 + WINDOW_MS), Some(SessionEvent::End(SessionEndReason::WindowPassed)));
}

/// Advances the session's own timer until an event occurs.
fn event(session: &mut Session) -> (u64, SessionEvent) {
    loop {
        let now_ms = session.poll_timeout().unwrap();
        if let Some(event) = session.handle_timeout(now_ms) {
            return (now_ms, event);
        }
    }
}

#[test]
fn the_app_server_gives_up_a_silent_session_when_it_is_full_or_after_two_windows() {
    let (mut idle, attachment) = attached(Role::AppServer);
    idle.detach(attachment, 0);
    assert_eq!(event(&mut idle), (2 * WINDOW_MS, SessionEvent::End(SessionEndReason::Forgotten)));
    let (mut full, attachment) = attached(Role::AppServer);
    full.detach(attachment, 0);
    while full.has_place(Class::Ordinary) {
        push(&mut full, "full");
    }
    assert_eq!(event(&mut full), (WINDOW_MS, SessionEvent::End(SessionEndReason::GivenUp)));
}

#[test]
fn a_silent_socket_is_dead_and_a_quiet_end_pings() {
    let (mut session, attachment) = attached(Role::Proxy);
    let ping_ms = settings().ping_interval_ms;
    assert_eq!(session.poll_transmit(attachment, ping_ms - 1), None);
    assert_eq!(messages(&written(&mut session, attachment, ping_ms)), [ServiceMessage::Ping(Ping::default())]);
    let mut now_ms = 0;
    while session.handle_timeout(now_ms).is_none() {
        now_ms += settings().tick_ms();
    }
    assert_eq!(now_ms, settings().dead_after_ms);
    session.handle_received(now_ms);
    assert_eq!(session.handle_timeout(now_ms + 1), None);
}

#[test]
fn without_the_capability_a_session_ends_with_its_socket_and_nothing_is_kept() {
    let mut session = session(Role::Proxy);
    let attachment = session.attach(0, 0, Capabilities::default(), 0).unwrap();
    push(&mut session, "a");
    written(&mut session, attachment, 0);
    assert_eq!(session.load(), Load::default());
    push(&mut session, "b");
    assert_eq!(session.detach(attachment, 0), Some(SessionEvent::End(SessionEndReason::NotResumable)));
    let leftover = session.end();
    assert_eq!((leftover.uncertain.count, texts(&leftover.unsent.chunks)), (0, vec!["b".to_owned()]));
}

#[test]
fn a_peer_without_the_capability_is_given_azures_time() {
    let mut session = session(Role::AppServer);
    let attachment = session.attach(0, 0, Capabilities::default(), 0).unwrap();
    assert_eq!(session.poll_ping_timeout(), Some(LINK_PING_INTERVAL_MS));
    let tick_ms = usize::try_from(session.tick_ms()).unwrap();
    let events = (0..=LINK_TIMEOUT_MS).step_by(tick_ms).map(|now_ms| (now_ms, session.handle_timeout(now_ms)));
    let first = events.into_iter().find(|(_, event)| event.is_some());
    assert_eq!(first, Some((LINK_TIMEOUT_MS, Some(SessionEvent::PeerSilent))));
    session.detach(attachment, LINK_TIMEOUT_MS);
    assert_eq!(session.poll_ping_timeout(), None);
}

#[test]
fn unsent_frames_are_distinguished_from_unacknowledged_ones() {
    let (mut session, attachment) = attached(Role::Proxy);
    push(&mut session, "a");
    push(&mut session, "b");
    let load = session.load();
    assert_eq!(session.unsent(), load);
    written(&mut session, attachment, 0);
    assert_eq!((session.load(), session.unsent()), (load, Load::default()));
    push(&mut session, "c");
    session.detach(attachment, 0);
    session.attach(0, 1, capable(), 0).unwrap();
    assert_eq!(session.unsent(), session.load(), "all of it goes to the new socket");
}

#[test]
fn undelivered_frames_are_split_by_whether_the_peer_may_have_them() {
    let (mut session, attachment) = attached(Role::Proxy);
    for text in ["a", "b", "c"] {
        push(&mut session, text);
    }
    written(&mut session, attachment, 0);
    acknowledge(&mut session, 1).unwrap();
    push(&mut session, "d");
    let leftover = session.end();
    assert_eq!(
        (leftover.uncertain.count, texts(&leftover.uncertain.chunks)),
        (2, vec!["b".to_owned(), "c".to_owned()])
    );
    assert_eq!((leftover.unsent.count, texts(&leftover.unsent.chunks)), (1, vec!["d".to_owned()]));
}

#[test]
fn unsent_frames_leave_first_in_the_next_session() {
    let mut old = session(Role::AppServer);
    push(&mut old, "a");
    push(&mut old, "b");
    let (mut next, attachment) = attached(Role::AppServer);
    next.inherit(old.end().unsent);
    assert_eq!((next.queued(), push(&mut next, "c")), (2, 3));
    assert_eq!(texts(&written(&mut next, attachment, 0)), ["a", "b", "c"]);
    acknowledge(&mut next, 3).unwrap();
    assert_eq!(next.load(), Load::default());
}

#[test]
fn a_peer_that_claims_unsent_frames_is_not_attached() {
    let mut session = session(Role::Proxy);
    push(&mut session, "a");
    assert_eq!(session.attach(0, 1, capable(), 0), Err(SessionError::AheadOfUs { acknowledged: 1, sent: 0 }));
    assert!(!session.is_attached());
}

#[test]
fn a_peer_may_not_lose_the_capability() {
    let (mut session, attachment) = attached(Role::Proxy);
    session.detach(attachment, 0);
    assert_eq!(session.attach(0, 0, Capabilities::default(), 0), Err(SessionError::CapabilityLost));
}

#[test]
fn a_peer_without_resumption_gets_no_acknowledgement() {
    let mut session = session(Role::Proxy);
    let attachment = session.attach(0, 0, Capabilities::default(), 0).unwrap();
    session.handle_taken(7, 700, 0);
    assert_eq!(session.poll_transmit(attachment, 1_000), None);
    let keep_alive = session.poll_transmit(attachment, 5_000).unwrap();
    assert_eq!(keep_alive.bytes, ServiceMessage::Ping(Ping::default()).to_frame());
}

#[test]
fn a_late_tick_counts_as_one() {
    let mut silence = Silence::new(500, 0);
    silence.handle_timeout(499);
    assert_eq!(silence.lasted_ms(), 0);
    silence.handle_timeout(60_000);
    assert_eq!((silence.lasted_ms(), silence.poll_timeout()), (500, 60_500));
    silence.handle_timeout(60_500);
    assert_eq!(silence.lasted_ms(), 1_000);
    silence.note_received(60_501);
    assert_eq!((silence.lasted_ms(), silence.poll_timeout()), (0, 61_001));
}
