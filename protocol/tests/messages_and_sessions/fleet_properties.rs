//! Properties of messages between nodes: round trips are lossless, garbage is rejected, and added interest is found.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use trunkline_protocol::fleet::{
    Greeting, InterestMap, InterestUpdate, NodeMessage, NodePhase, NodeState, PeerInterest, PresenceUpdate,
    PresentAppServer, RequestMethod, Wanted, WireVersions, encode_ask, encode_relay, view_of,
};
use trunkline_protocol::service::FrameBuffer;

const HUBS: [&str; 3] = ["chat", "news", "Chat"];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![8 => "\\PC{0,12}", 1 => "[a-z]{28,40}", 1 => "[a-z]{250,256}"]
}

fn hub() -> impl Strategy<Value = ByteString> {
    prop_oneof![select(HUBS.to_vec()).prop_map(ByteString::from), text().prop_map(ByteString::from)]
}

fn binary() -> impl Strategy<Value = Bytes> {
    let lengths = prop_oneof![16 => 0..200_usize, 2 => 16_300..16_400_usize, 1 => 65_500..65_600_usize];
    (lengths, any::<u8>()).prop_map(|(length, byte)| vec![byte; length].into())
}

/// Sets of all sizes, including the boundary between both encodings.
fn buckets() -> impl Strategy<Value = BTreeSet<u16>> {
    prop_oneof![
        8 => btree_set(any::<u16>(), 0..50),
        1 => (any::<u16>(), 4_090..4_100_u16).prop_map(|(first, many)| (0..many).map(|n| first.wrapping_add(n)).collect()),
    ]
}

fn update() -> impl Strategy<Value = InterestUpdate> {
    let whole = (hub(), buckets()).prop_map(|(hub, map)| InterestUpdate::Whole { hub, map: map.into_iter().collect() });
    let added = (hub(), vec(any::<u16>(), 0..50)).prop_map(|(hub, buckets)| InterestUpdate::Added { hub, buckets });
    prop_oneof![whole, added, Just(InterestUpdate::Complete)]
}

fn presence() -> impl Strategy<Value = PresenceUpdate> {
    let name = || text().prop_filter_map("a short one", |text| (text.len() <= 256).then(|| ByteString::from(text)));
    let server = (name(), name(), any::<u32>(), any::<u32>());
    let server =
        server.prop_map(|(instance, endpoint, links, carried)| PresentAppServer { instance, endpoint, links, carried });
    let whole = (hub(), vec(server, 0..20)).prop_map(|(hub, servers)| PresenceUpdate::Whole { hub, servers });
    prop_oneof![4 => whole, 1 => Just(PresenceUpdate::Complete)]
}

fn message() -> impl Strategy<Value = NodeMessage> {
    let phases = select(vec![NodePhase::Starting, NodePhase::Ready, NodePhase::Draining]);
    let methods = select(vec![RequestMethod::Get, RequestMethod::Post]);
    prop_oneof![
        (hub(), binary()).prop_map(|(hub, frame)| NodeMessage::Relay { hub, frame }),
        (any::<u64>(), hub(), binary()).prop_map(|(question, hub, frame)| NodeMessage::Ask { question, hub, frame }),
        (any::<u64>(), option::of(binary())).prop_map(|(question, frame)| NodeMessage::Answer { question, frame }),
        (any::<u64>(), methods, text(), binary()).prop_map(|(question, method, target, body)| NodeMessage::Request {
            question,
            method,
            target: target.into(),
            body
        }),
        (any::<u64>(), any::<u16>(), binary()).prop_map(|(question, status, body)| NodeMessage::Response {
            question,
            status,
            body
        }),
        (phases, any::<u32>(), any::<u64>()).prop_map(|(phase, members, view)| NodeMessage::State(NodeState {
            phase,
            members,
            view
        })),
        update().prop_map(NodeMessage::Interest),
        presence().prop_map(NodeMessage::Presence),
    ]
}

fn greeting() -> impl Strategy<Value = Greeting> {
    let wire = (any::<u32>(), any::<u32>()).prop_map(|(oldest, newest)| WireVersions { oldest, newest });
    let texts = (text(), "[0-9a-f]{1,32}", "\\PC{0,12}");
    (texts, wire, option::of(text()), option::of(text()), vec(text(), 0..20)).prop_map(
        |((name, boot, version), wire, address, advertised, known)| Greeting {
            name,
            boot,
            version,
            wire,
            address,
            advertised,
            known,
        },
    )
}

fn body_of(frame: Bytes) -> Bytes {
    let mut buffer = FrameBuffer::default();
    buffer.push(frame);
    let body = buffer.next_body().unwrap().expect("a whole frame");
    assert_eq!(buffer.next_body(), Ok(None), "nothing behind it");
    body
}

proptest! {
    #[test]
    fn every_node_message_round_trips(message in message()) {
        prop_assert_eq!(NodeMessage::decode(&body_of(message.to_frame())), Ok(Some(message)));
    }

    #[test]
    fn direct_encodings_equal_the_encodings_of_the_messages(question in any::<u64>(), hub in hub(), frame in binary()) {
        let (mut relay, mut ask) = (BytesMut::new(), BytesMut::new());
        encode_relay(&hub, &frame, &mut relay);
        encode_ask(question, &hub, &frame, &mut ask);
        prop_assert_eq!(relay, NodeMessage::Relay { hub: hub.clone(), frame: frame.clone() }.to_frame());
        prop_assert_eq!(ask, NodeMessage::Ask { question, hub, frame }.to_frame());
    }

    #[test]
    fn a_truncated_node_message_is_an_error(message in message(), cut in any::<Index>()) {
        let body = body_of(message.to_frame());
        let short = body.slice(..cut.index(body.len()));
        prop_assert!(NodeMessage::decode(&short).is_err());
    }

    #[test]
    fn garbage_never_panics(bytes in vec(any::<u8>(), 0..200)) {
        // Any result is fine, except a panic.
        drop(Greeting::from_json(&bytes));
        drop(InterestMap::from_bytes(&bytes));
        drop(NodeMessage::decode(&Bytes::from(bytes)));
    }

    #[test]
    fn a_greeting_round_trips(greeting in greeting()) {
        prop_assert_eq!(Greeting::from_json(&greeting.to_json()), Ok(greeting));
    }

    #[test]
    fn the_common_version_is_supported_by_both(ours in any::<(u8, u8)>(), theirs in any::<(u8, u8)>()) {
        let versions = |(oldest, newest): (u8, u8)| WireVersions { oldest: oldest.into(), newest: newest.into() };
        let speaks = |(oldest, newest): (u8, u8), version: u8| (oldest..=newest).contains(&version);
        let newest = (0..=u8::MAX).rev().find(|&version| speaks(ours, version) && speaks(theirs, version));
        prop_assert_eq!(versions(ours).common(versions(theirs)), newest.map(u32::from));
    }

    #[test]
    fn a_map_is_the_set_that_was_put_in_and_survives_the_wire(buckets in buckets(), probes in vec(any::<u16>(), 20)) {
        let map: InterestMap = buckets.iter().copied().collect();
        prop_assert_eq!(map.len(), buckets.len());
        prop_assert_eq!(map.is_empty(), buckets.is_empty());
        prop_assert!(buckets.iter().all(|bucket| map.contains(*bucket)));
        prop_assert!(probes.iter().all(|bucket| map.contains(*bucket) == buckets.contains(bucket)));
        prop_assert_eq!(InterestMap::from_bytes(&map.to_bytes()), Ok(map));
    }

    #[test]
    fn only_the_last_reported_buckets_are_wanted(updates in vec(update(), 0..20), bucket_of in vec(text(), 0..8)) {
        let mut told: Vec<(ByteString, BTreeSet<u16>)> = Vec::new();
        let mut interest = PeerInterest::default();
        interest.confirm(0);
        for update in updates.into_iter().chain([InterestUpdate::Complete]) {
            let of = |hub: &ByteString| told.iter().position(|(known, _)| known == hub);
            match &update {
                InterestUpdate::Whole { hub, map } => {
                    let at = of(hub);
                    at.map(|at| told.swap_remove(at));
                    told.push((hub.clone(), (0..=u16::MAX).filter(|bucket| map.contains(*bucket)).collect()));
                }
                InterestUpdate::Added { hub, buckets } => {
                    let at = of(hub).unwrap_or_else(|| {
                        told.push((hub.clone(), BTreeSet::new()));
                        told.len() - 1
                    });
                    told[at].1.extend(buckets);
                }
                InterestUpdate::Complete => {}
            }
            interest.apply(body_and_back(update));
        }
        for name in &bucket_of {
            for wanted in [Wanted::Everyone, Wanted::Group(name), Wanted::User(name)] {
                for hub in HUBS {
                    let is_announced = told.iter().any(|(known, map)| known == hub && map.contains(&wanted.bucket()));
                    prop_assert_eq!(interest.may_want(hub, &[wanted], 0), is_announced);
                }
            }
        }
    }

    #[test]
    fn added_buckets_are_wanted(names in vec(text(), 1..20), others in vec(any::<u16>(), 0..5_000), before in any::<bool>()) {
        let buckets = |names: &[String]| names.iter().map(|name| Wanted::User(name).bucket()).collect();
        let mut interest = PeerInterest::default();
        interest.confirm(0);
        interest.apply(InterestUpdate::Complete);
        let more = InterestUpdate::Added { hub: "chat".into(), buckets: others };
        let added = InterestUpdate::Added { hub: "chat".into(), buckets: buckets(&names) };
        for update in if before { [more, added] } else { [added, more] } {
            interest.apply(body_and_back(update));
        }
        for name in &names {
            prop_assert!(interest.may_want("chat", &[Wanted::Group("nobody's"), Wanted::User(name)], 0));
        }
    }

    #[test]
    fn a_view_is_that_of_a_set(boots in vec("[0-9a-f]{1,4}", 0..20), more in "[0-9a-f]{5,6}", turn in any::<Index>()) {
        let mut turned = boots.clone();
        if !boots.is_empty() {
            turned.rotate_left(turn.index(boots.len()));
        }
        let view = |boots: &[String]| view_of(boots.iter().map(String::as_str));
        prop_assert_eq!(view(&turned), view(&boots));
        turned.extend(boots.first().cloned());
        prop_assert_eq!(view(&turned), view(&boots));
        turned.push(more);
        prop_assert_ne!(view(&turned), view(&boots));
    }
}

/// Decodes the update like a peer.
fn body_and_back(update: InterestUpdate) -> InterestUpdate {
    let body = body_of(NodeMessage::Interest(update).to_frame());
    match NodeMessage::decode(&body) {
        Ok(Some(NodeMessage::Interest(update))) => update,
        other => panic!("{other:?} is no update"),
    }
}
