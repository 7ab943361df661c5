//! Recorder of a shard: copies of what passes for the clients of a hub, kept in bounded buffers until they are read.
//!
//! A [tap](super::tap) follows one client and sums its messages up; a recording follows all clients that match, from
//! their opening to their close, and keeps bytes as they are. Nothing is decoded here: a shard copies a message of a
//! client, and shares the frame of a send. What does not fit is left out and counted.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::id::ID_CHARS;
use trunkline_protocol::manifest::Transport;
use trunkline_protocol::service::{OpenConnection, RawKind};

use super::connection::{Client, Opening};
use super::content::Content;
use super::slot::Slot;
use crate::transport::websocket::{Unframed, is_text, unframe_whole};
use crate::upstream::HubIndex;

/// Reason why a recording does not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{RECORDINGS_MAX} recordings run already, and no more can: end one of them")]
pub(crate) struct RecordRefused;

/// Maximum number of recordings of one shard.
pub(crate) const RECORDINGS_MAX: usize = 4;

/// Maximum number of clients that a recording follows at a time in one shard: each send to many looks for all of them.
pub(crate) const FOLLOWED_MAX: usize = 2_048;

/// Limit of the bytes of one recording that were not read yet, in one shard.
pub(crate) const UNREAD_MAX_BYTES: usize = 8 * 1024 * 1024;

/// Bytes that a piece costs beside its payload.
const PIECE_BYTES: usize = 160;

/// Ticks after which a recording that is not read is forgotten: its reader is gone without a word.
const IDLE_TICKS: u32 = 10;

/// Conditions on the clients of a recording: all hold.
#[derive(Debug, Clone)]
pub(crate) struct RecordingFilter {
    pub hub: HubIndex,
    pub user: Option<String>,
    /// Beginning of the connection id, as people are shown it.
    pub connection: Option<String>,
}

/// Connection of a recording, as its pieces name it.
#[derive(Debug)]
pub(crate) struct RecordedConnection {
    /// First part of its id; the rest may be secret.
    pub id: Box<str>,
    pub content: Content,
}

/// Piece of a recording: one event of one connection.
#[derive(Debug)]
pub(crate) struct RecordedPiece {
    /// Time since the recording began.
    pub at: Duration,
    pub connection: Arc<RecordedConnection>,
    pub event: RecordedEvent,
}

/// Event of a recorded connection.
#[derive(Debug)]
pub(crate) enum RecordedEvent {
    Opened(Box<RecordedOpening>),
    /// Hub handshake of the client.
    HandshakeUp(Bytes),
    /// Answer of the app server to it.
    HandshakeDown(Bytes),
    /// Whole messages of the client.
    Up(Bytes, RawKind),
    /// Whole messages for the client.
    Down(Bytes, RawKind),
    /// The close, with its cause and its detail; no cause where another node has the connection from now on.
    Closed(Option<Cause>, Option<String>),
}

/// Opening of a recorded connection.
#[derive(Debug)]
pub(crate) struct RecordedOpening {
    pub open: OpenConnection,
    pub user: Option<String>,
    pub transport: Transport,
    /// It was open before the recording, or at another node.
    pub was_open: bool,
}

/// Pieces of a recording since it was read last.
#[derive(Debug, Default)]
pub(crate) struct RecordedBatch {
    /// Pieces in the order of time.
    pub pieces: Vec<RecordedPiece>,
    /// Messages that found no room since the last batch.
    pub lost_messages: u64,
    /// Connections that are not followed, because there are too many or no room was left, since the last batch.
    pub lost_connections: u64,
}

/// Recordings of one shard.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    next: u64,
    recordings: Vec<Recording>,
}

#[derive(Debug)]
struct Recording {
    number: u64,
    filter: RecordingFilter,
    started: Instant,
    idle_ticks: u32,
    followed: HashMap<Slot, Followed>,
    unread: RecordedBatch,
    unread_bytes: usize,
}

#[derive(Debug)]
struct Followed {
    connection: Arc<RecordedConnection>,
    /// The next bytes for the client are the answer to its hub handshake.
    awaits_handshake: bool,
}

impl Recorder {
    #[must_use]
    pub(super) fn is_running(&self) -> bool {
        !self.recordings.is_empty()
    }

    /// Begins a recording whose times count from `started`; the number names it.
    ///
    /// # Errors
    /// When too many run.
    pub(super) fn begin(&mut self, filter: RecordingFilter, started: Instant) -> Result<u64, RecordRefused> {
        if self.recordings.len() >= RECORDINGS_MAX {
            return Err(RecordRefused);
        }
        let number = self.next;
        self.next += 1;
        let (followed, unread) = (HashMap::new(), RecordedBatch::default());
        self.recordings.push(Recording { number, filter, started, idle_ticks: 0, followed, unread, unread_bytes: 0 });
        Ok(number)
    }

    /// Pieces since the last batch; `None` for a recording that has ended.
    #[must_use]
    pub(super) fn read(&mut self, number: u64) -> Option<RecordedBatch> {
        let recording = self.recordings.iter_mut().find(|recording| recording.number == number)?;
        recording.idle_ticks = 0;
        recording.unread_bytes = 0;
        Some(mem::take(&mut recording.unread))
    }

    pub(super) fn end(&mut self, number: u64) {
        self.recordings.retain(|recording| recording.number != number);
    }

    /// Advances by one second: forgets recordings that are not read.
    pub(super) fn tick(&mut self) {
        self.recordings.iter_mut().for_each(|recording| recording.idle_ticks += 1);
        self.recordings.retain(|recording| recording.idle_ticks <= IDLE_TICKS);
    }

    /// Slots of the clients that are followed.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.recordings.iter().flat_map(|recording| recording.followed.keys().copied())
    }

    /// Follows a client that opens, in each recording that it matches.
    pub(super) fn opened(&mut self, slot: Slot, client: &Client, user: Option<&str>, open: &OpenConnection) {
        for recording in &mut self.recordings {
            recording.follow(slot, client, user, Some(open));
        }
    }

    /// Follows a client that was open before, in one recording or in all.
    pub(super) fn found(&mut self, number: Option<u64>, slot: Slot, client: &Client, user: Option<&str>) {
        let wanted = |recording: &&mut Recording| number.is_none_or(|number| recording.number == number);
        for recording in self.recordings.iter_mut().filter(wanted) {
            recording.follow(slot, client, user, None);
        }
    }

    /// Records the hub handshake of a client.
    pub(super) fn handshake(&mut self, slot: Slot, bytes: &[u8]) {
        self.record(slot, |_| Some(RecordedEvent::HandshakeUp(Bytes::copy_from_slice(bytes))));
    }

    /// Records whole messages of a client.
    pub(super) fn up(&mut self, slot: Slot, messages: &Bytes, kind: RawKind) {
        self.record(slot, |_| Some(RecordedEvent::Up(messages.clone(), kind)));
    }

    /// Records a frame for a client.
    pub(super) fn down(&mut self, slot: Slot, frame: &Bytes) {
        self.record(slot, |followed| {
            let Some(Unframed::Payload(payload)) = unframe_whole(frame) else { return None };
            Some(match mem::take(&mut followed.awaits_handshake) {
                true => RecordedEvent::HandshakeDown(payload),
                false if is_text(frame) => RecordedEvent::Down(payload, RawKind::Text),
                false => RecordedEvent::Down(payload, RawKind::Binary),
            })
        });
    }

    /// Records the close of a client connection: its slot may be used again.
    pub(super) fn closed(&mut self, slot: Slot, cause: Option<Cause>, detail: Option<&str>) {
        for recording in &mut self.recordings {
            if let Some(Followed { connection, .. }) = recording.followed.remove(&slot) {
                // Always: there is one for each client that was followed.
                recording.push(connection, RecordedEvent::Closed(cause, detail.map(Into::into)), 0);
            }
        }
    }

    fn record(&mut self, slot: Slot, event: impl Fn(&mut Followed) -> Option<RecordedEvent>) {
        for recording in &mut self.recordings {
            if let Some(followed) = recording.followed.get_mut(&slot)
                && let Some(event) = event(followed)
            {
                let connection = followed.connection.clone();
                recording.keep(connection, event);
            }
        }
    }
}

impl Recording {
    /// Follows a client if it matches. One that was open before has only the frame that is kept, whose headers may stand
    /// in another order.
    fn follow(&mut self, slot: Slot, client: &Client, user: Option<&str>, opening: Option<&OpenConnection>) {
        let RecordingFilter { hub, user: wanted, connection } = &self.filter;
        let matches = client.home.hub() == *hub
            && wanted.as_deref().is_none_or(|wanted| user == Some(wanted))
            && connection.as_deref().is_none_or(|wanted| client.id.starts_with(wanted))
            && !self.followed.contains_key(&slot);
        if !matches {
            return;
        }
        let kept = || client.cold.opening.as_ref().and_then(Opening::read);
        let (was_open, Some(open)) = (opening.is_none(), opening.cloned().or_else(kept)) else { return };
        let bytes = opening_bytes(&open);
        if self.followed.len() >= FOLLOWED_MAX || !self.has_room(bytes) {
            self.unread.lost_connections += 1;
            return;
        }
        let id = client.id.get(..ID_CHARS).unwrap_or(&client.id).into();
        let connection = Arc::new(RecordedConnection { id, content: client.content });
        let awaits_handshake = matches!(client.content, Content::Hub(_)) && !client.is_open();
        self.followed.insert(slot, Followed { connection: connection.clone(), awaits_handshake });
        let opening = RecordedOpening { open, user: user.map(Into::into), transport: client.transport, was_open };
        self.push(connection, RecordedEvent::Opened(Box::new(opening)), bytes);
    }

    /// Keeps a message if there is room.
    fn keep(&mut self, connection: Arc<RecordedConnection>, event: RecordedEvent) {
        let bytes = event.bytes();
        if self.has_room(bytes) {
            self.push(connection, event, bytes);
        } else {
            self.unread.lost_messages += 1;
        }
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.unread_bytes.saturating_add(bytes).saturating_add(PIECE_BYTES) <= UNREAD_MAX_BYTES
    }

    fn push(&mut self, connection: Arc<RecordedConnection>, event: RecordedEvent, bytes: usize) {
        self.unread_bytes += bytes + PIECE_BYTES;
        self.unread.pieces.push(RecordedPiece { at: self.started.elapsed(), connection, event });
    }
}

impl RecordedEvent {
    fn bytes(&self) -> usize {
        match self {
            Self::Opened(opening) => opening_bytes(&opening.open),
            Self::HandshakeUp(bytes) | Self::HandshakeDown(bytes) | Self::Up(bytes, _) | Self::Down(bytes, _) => {
                bytes.len()
            }
            Self::Closed(..) => 0,
        }
    }
}

fn opening_bytes(open: &OpenConnection) -> usize {
    let claims: usize = open.claims.iter().map(|(name, value)| name.len() + value.len()).sum();
    let values = |values: &[bytestring::ByteString]| values.iter().map(|value| value.len()).sum::<usize>();
    let headers: usize = open.headers.iter().map(|(name, all)| name.len() + values(all)).sum();
    claims + headers + open.query.as_ref().map_or(0, |query| query.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::CloseReason;
    use crate::shard::command::{ConnectionCommand, ShardCommand};
    use crate::shard::slot::Slot;
    use crate::shard::testbed::{Testbed, whole_id};
    use crate::upstream::AppServerId;

    const OWN: u32 = 7;

    fn everyone(bed: &Testbed) -> RecordingFilter {
        RecordingFilter { hub: bed.hub.index(), user: None, connection: None }
    }

    fn begin(bed: &mut Testbed, filter: RecordingFilter) -> u64 {
        bed.state.record(filter, Instant::now()).unwrap()
    }

    /// Events since the last batch, each with the beginning of its connection's id.
    fn events(bed: &mut Testbed, number: u64) -> Vec<String> {
        let told = |piece: &RecordedPiece| {
            let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
            let event = match &piece.event {
                RecordedEvent::Opened(opening) if opening.was_open => "present".into(),
                RecordedEvent::Opened(_) => "opened".into(),
                RecordedEvent::HandshakeUp(bytes) | RecordedEvent::HandshakeDown(bytes) => text(bytes),
                RecordedEvent::Up(bytes, _) => format!("up {}", text(bytes)),
                RecordedEvent::Down(bytes, _) => format!("down {}", text(bytes)),
                RecordedEvent::Closed(cause, _) => cause.map_or("moved", Cause::label).into(),
            };
            format!("{} {event}", &piece.connection.id[..3])
        };
        bed.state.read_recording(number).unwrap().pieces.iter().map(told).collect()
    }

    fn data(bed: &mut Testbed, id: &str, slot: Slot, text: &'static str) {
        bed.data(id, slot, AppServerId::from(OWN), text);
    }

    #[test]
    fn those_who_open_while_it_runs_are_recorded_from_their_opening_to_their_close() {
        let mut bed = Testbed::new();
        let early = bed.client("ben");
        let filter = everyone(&bed);
        let number = begin(&mut bed, filter);
        let ann = bed.client("ann");
        bed.state.tap_up(ann, b"hello", 0, None);
        data(&mut bed, "ann", ann, "welcome");
        data(&mut bed, "ben", early, "not followed");
        bed.state.close(ann, &CloseReason::by_client(Cause::ClientClosed));
        bed.state.tap_up(ann, b"late", 0, None);
        let expected = ["ann opened", "ann up hello", "ann down welcome", "ann client_closed"];
        assert_eq!(events(&mut bed, number), expected);
        assert!(events(&mut bed, number).is_empty(), "each is told once");
    }

    #[test]
    fn those_who_were_there_before_are_followed_once_as_such() {
        let mut bed = Testbed::new();
        let ann = bed.client("ann");
        let filter = everyone(&bed);
        let number = begin(&mut bed, filter);
        assert_eq!(bed.state.record_present(number, 0), None, "one stretch is enough");
        let _: Option<Slot> = bed.state.record_present(number, 0);
        data(&mut bed, "ann", ann, "news");
        assert_eq!(events(&mut bed, number), ["ann present", "ann down news"]);
    }

    #[test]
    fn sends_to_many_are_recorded_for_each_recipient_that_is_followed() {
        let mut bed = Testbed::new();
        let filter = RecordingFilter { connection: Some(whole_id("ann")), ..everyone(&bed) };
        let number = begin(&mut bed, filter);
        let clients = [bed.client("ann"), bed.client("ben")];
        let payloads =
            trunkline_protocol::service::Payloads::single(trunkline_protocol::hub::HubProtocol::Json, "hi".into());
        let (hub, origin) = (bed.hub.index(), crate::shard::SendOrigin::Sender(AppServerId::from(OWN), 0));
        let (to, message) = (crate::shard::Audience::Everyone.into(), crate::shard::Framed::new(&payloads));
        bed.state.apply(vec![ShardCommand::Send { hub, to, message, origin }]);
        assert_eq!(events(&mut bed, number), ["ann opened", "ann down hi"]);
        assert_eq!(clients.map(|client| bed.received(client)), [["hi"], ["hi"]]);
    }

    #[test]
    fn only_clients_that_match_hub_user_and_connection_are_followed() {
        let mut bed = Testbed::new();
        let base = everyone(&bed);
        let filters = [
            (RecordingFilter { user: Some("ann".into()), ..base.clone() }, 2),
            (RecordingFilter { user: Some("eve".into()), ..base.clone() }, 0),
            (RecordingFilter { connection: Some(whole_id("two")), ..base.clone() }, 1),
            (RecordingFilter { hub: HubIndex::from(5), ..base }, 0),
        ];
        let numbers = filters.map(|(filter, expected)| (begin(&mut bed, filter), expected));
        // All clients of the test bed are those of the user ann.
        for id in ["one", "two"] {
            bed.client(id);
        }
        for (number, expected) in numbers {
            assert_eq!(events(&mut bed, number).len(), expected, "{number}");
        }
    }

    #[test]
    fn the_answer_to_a_hub_handshake_is_told_from_messages() {
        let mut bed = Testbed::new();
        let filter = everyone(&bed);
        let number = begin(&mut bed, filter);
        let ann = bed.client("ann");
        // As if its handshake were not answered yet.
        bed.state.connections.get_mut(ann).unwrap().status = crate::shard::Status::Opening { until: 99 };
        bed.state.end_recording(number);
        let filter = everyone(&bed);
        let number = begin(&mut bed, filter);
        let _: Option<Slot> = bed.state.record_present(number, 0);
        bed.state.delivery.taps.handshake(ann, b"request");
        data(&mut bed, "ann", ann, "{}");
        data(&mut bed, "ann", ann, "{}");
        assert_eq!(events(&mut bed, number), ["ann present", "ann request", "ann {}", "ann down {}"]);
    }

    #[test]
    fn what_finds_no_room_is_counted_and_the_close_is_told_all_the_same() {
        let mut bed = Testbed::new();
        let filter = everyone(&bed);
        let number = begin(&mut bed, filter);
        let ann = bed.client("ann");
        let large = vec![b'x'; UNREAD_MAX_BYTES / 2];
        (0..3).for_each(|_| drop(bed.state.tap_up(ann, &large, 0, None)));
        bed.state.close(ann, &CloseReason::by_client(Cause::SocketEnded));
        let batch = bed.state.read_recording(number).unwrap();
        assert_eq!((batch.pieces.len(), batch.lost_messages, batch.lost_connections), (3, 2, 0));
        assert!(matches!(batch.pieces[2].event, RecordedEvent::Closed(Some(Cause::SocketEnded), _)));
        bed.client("ben");
        let batch = bed.state.read_recording(number).unwrap();
        assert_eq!((batch.pieces.len(), batch.lost_messages), (1, 0), "there is room again, and losses are told once");
    }

    #[test]
    fn recordings_are_bounded_in_number_and_in_clients() {
        let mut bed = Testbed::new();
        let filter = everyone(&bed);
        let numbers: Vec<_> = (0..RECORDINGS_MAX).map(|_| begin(&mut bed, filter.clone())).collect();
        let refused = bed.state.record(filter, Instant::now()).unwrap_err();
        assert!(refused.to_string().contains("4 recordings run already"), "{refused}");
        for client in 0..FOLLOWED_MAX + 3 {
            bed.client(&format!("{client}"));
        }
        let batch = bed.state.read_recording(numbers[0]).unwrap();
        assert_eq!((batch.pieces.len(), batch.lost_connections), (FOLLOWED_MAX, 3));
        numbers.iter().for_each(|number| bed.state.end_recording(*number));
        assert!(!bed.state.delivery.taps.are_any() && bed.state.read_recording(numbers[0]).is_none());
    }

    #[test]
    fn a_recording_that_is_not_read_any_more_is_forgotten() {
        let mut bed = Testbed::new();
        let filter = everyone(&bed);
        let [asked, forgotten] = [begin(&mut bed, filter.clone()), begin(&mut bed, filter)];
        for _ in 0..=IDLE_TICKS {
            assert!(bed.state.read_recording(asked).is_some());
            bed.state.advance();
        }
        assert!(bed.state.read_recording(asked).is_some() && bed.state.read_recording(forgotten).is_none());
    }

    #[test]
    fn messages_of_raw_endpoints_keep_their_kind() {
        let mut bed = Testbed::new();
        let ann = bed.client("ann");
        bed.state.connections.get_mut(ann).unwrap().content = Content::Raw;
        let filter = everyone(&bed);
        let number = begin(&mut bed, filter);
        let _: Option<Slot> = bed.state.record_present(number, 0);
        for kind in [RawKind::Text, RawKind::Binary] {
            bed.state.tap_up(ann, b"x", kind.data_type(), None);
            let command = ConnectionCommand::Data { payload: "y".into(), kind };
            let (hub, app, connection_id) = (bed.hub.index(), AppServerId::from(OWN), whole_id("ann").into());
            bed.state.apply(vec![ShardCommand::One { hub, app, connection_id, slot: ann, command }]);
        }
        let kinds = |piece: &RecordedPiece| match piece.event {
            RecordedEvent::Up(_, kind) | RecordedEvent::Down(_, kind) => Some(kind),
            _ => None,
        };
        let kinds: Vec<_> = bed.state.read_recording(number).unwrap().pieces.iter().filter_map(kinds).collect();
        assert_eq!(kinds, [RawKind::Text, RawKind::Text, RawKind::Binary, RawKind::Binary]);
    }
}
