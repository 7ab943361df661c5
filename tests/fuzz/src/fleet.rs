//! Messages on node links, and greetings of nodes.

use bytes::Bytes;
use trunkline_protocol::fleet::{
    Greeting, InterestUpdate, NodeMessage, PeerInterest, PeerPresence, PresenceUpdate, Wanted, WireVersions,
    encode_ask, encode_relay,
};
use trunkline_protocol::limits::{GREETING_MEMBERS_MAX, GREETING_TEXT_MAX_BYTES};
use trunkline_protocol::service::FrameBuffer;

/// Reads the body of a node message; an accepted one must survive a round trip.
pub fn node_messages(data: &[u8]) {
    let Ok(Some(message)) = NodeMessage::decode(&Bytes::copy_from_slice(data)) else { return };
    assert_ne!(message.name(), "Unknown", "a message that is known has a name");
    let frame = message.to_frame();
    let mut buffer = FrameBuffer::default();
    buffer.push(frame.clone());
    let body = buffer.next_body().expect("an encoded message is framed").expect("its frame is whole");
    assert_eq!(NodeMessage::decode(&body).expect("an encoded message can be decoded").as_ref(), Some(&message));
    let mut quick = bytes::BytesMut::new();
    match message {
        NodeMessage::Relay { hub, frame } => encode_relay(&hub, &frame, &mut quick),
        NodeMessage::Ask { question, hub, frame } => encode_ask(question, &hub, &frame, &mut quick),
        NodeMessage::Interest(update) => return interest(update),
        NodeMessage::Presence(update) => return presence(&update),
        _ => return,
    }
    assert_eq!(quick, frame, "the quick way writes what the message does");
}

/// Reads a greeting; an accepted one must respect its limits and survive a round trip.
pub fn greetings(data: &[u8]) {
    let Ok(greeting) = Greeting::from_json(data) else { return };
    assert!(!greeting.boot.is_empty(), "a greeting says whose it is");
    assert!(greeting.name.len() <= GREETING_TEXT_MAX_BYTES && greeting.known.len() <= GREETING_MEMBERS_MAX);
    let common = greeting.wire.common(WireVersions::CURRENT);
    assert_eq!(common, WireVersions::CURRENT.common(greeting.wire), "both ends find the same version");
    assert_eq!(Greeting::from_json(&greeting.to_json()), Ok(greeting));
}

/// Applies an update of a peer with complete interest: afterwards, the peer must be interested in the additions.
fn interest(update: InterestUpdate) {
    let mut peer = PeerInterest::default();
    peer.apply(InterestUpdate::Complete);
    peer.confirm(0);
    let everyone = Wanted::Everyone.bucket();
    let (hub, is_wanted) = match &update {
        InterestUpdate::Whole { hub, map } => (hub.clone(), map.contains(everyone)),
        InterestUpdate::Added { hub, buckets } => (hub.clone(), buckets.contains(&everyone)),
        InterestUpdate::Complete => return,
    };
    peer.apply(update);
    assert_eq!(peer.may_want(&hub, &[Wanted::Everyone], 0), is_wanted, "what is told is wanted");
}

/// Applies a list of app servers, which must replace any earlier list for its hub.
fn presence(update: &PresenceUpdate) {
    let mut peer = PeerPresence::default();
    peer.apply(update.clone());
    match update {
        PresenceUpdate::Whole { hub, servers } => assert_eq!(peer.servers(hub), servers),
        PresenceUpdate::Complete => assert!(peer.is_complete()),
    }
}
