//! Properties of all hub messages and of arbitrary bytes.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "clippy knows tests, but not their helpers"
)]

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use proptest::prelude::*;
use serde_json::Value;
use trunkline_protocol::hub::{
    CancelInvocation, Close, Completion, FramingError, HandshakeRequest, HandshakeResponse, Headers, HubMessage,
    HubProtocol, Invocation, Outcome, Payload, StreamItem, next_frame,
};

const LIMIT: usize = 1024 * 1024;

fn protocol() -> impl Strategy<Value = HubProtocol> {
    prop_oneof![Just(HubProtocol::Json), Just(HubProtocol::MessagePack)]
}

fn text() -> impl Strategy<Value = ByteString> {
    prop_oneof![
        "[a-z0-9]{0,8}".prop_map(ByteString::from),
        any::<String>().prop_map(ByteString::from),
        "[\"\\\\\\u{1e}{}\\[\\]:,/é\u{1f600}\n]{0,6}".prop_map(ByteString::from),
    ]
}

/// Targets and most ids are never empty.
fn name() -> impl Strategy<Value = ByteString> {
    text().prop_filter("not empty", |text| !text.is_empty())
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        // Fractions with few digits: by default, serde_json may be off by the last bit for others.
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        text().prop_map(|text| Value::from(&*text)),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn payload(protocol: HubProtocol) -> impl Strategy<Value = Payload> {
    value().prop_map(move |value| protocol.payload(&value).unwrap())
}

fn headers() -> impl Strategy<Value = Headers> {
    prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec((text(), text()), 0..20)]
}

fn call(protocol: HubProtocol, id: BoxedStrategy<Option<ByteString>>) -> impl Strategy<Value = Invocation> {
    let arguments = prop::collection::vec(payload(protocol), 0..18);
    (headers(), id, name(), arguments, prop::collection::vec(text(), 0..4)).prop_map(
        |(headers, invocation_id, target, arguments, stream_ids)| Invocation {
            headers,
            invocation_id,
            target,
            arguments,
            stream_ids,
        },
    )
}

fn outcome(protocol: HubProtocol) -> impl Strategy<Value = Outcome> {
    prop_oneof![Just(Outcome::Void), payload(protocol).prop_map(Outcome::Value), text().prop_map(Outcome::Error),]
}

fn message(protocol: HubProtocol) -> impl Strategy<Value = HubMessage> {
    // Range supported by other implementations.
    let number = 0..=u64::try_from(i64::MAX).unwrap();
    prop_oneof![
        4 => call(protocol, prop::option::of(name()).boxed()).prop_map(HubMessage::Invocation),
        2 => call(protocol, name().prop_map(Some).boxed()).prop_map(HubMessage::StreamInvocation),
        2 => (headers(), name(), payload(protocol)).prop_map(|(headers, invocation_id, item)| {
            HubMessage::StreamItem(StreamItem { headers, invocation_id, item })
        }),
        3 => (headers(), name(), outcome(protocol)).prop_map(|(headers, invocation_id, outcome)| {
            HubMessage::Completion(Completion { headers, invocation_id, outcome })
        }),
        1 => (headers(), name()).prop_map(|(headers, invocation_id)| {
            HubMessage::CancelInvocation(CancelInvocation { headers, invocation_id })
        }),
        1 => Just(HubMessage::Ping),
        1 => (prop::option::of(text()), any::<bool>())
            .prop_map(|(error, allow_reconnect)| HubMessage::Close(Close { error, allow_reconnect })),
        1 => number.clone().prop_map(|sequence_id| HubMessage::Ack { sequence_id }),
        1 => number.prop_map(|sequence_id| HubMessage::Sequence { sequence_id }),
    ]
}

fn stream() -> impl Strategy<Value = (HubProtocol, Vec<HubMessage>)> {
    protocol().prop_flat_map(|protocol| (Just(protocol), prop::collection::vec(message(protocol), 0..8)))
}

fn encode(protocol: HubProtocol, messages: &[HubMessage]) -> BytesMut {
    let mut out = BytesMut::new();
    for message in messages {
        protocol.encode(message, &mut out);
    }
    out
}

/// The only message of a complete frame.
fn body_of(protocol: HubProtocol, frame: &Bytes) -> Bytes {
    let found = next_frame(protocol, frame, LIMIT).unwrap().expect("a whole frame");
    assert_eq!(found.length, frame.len());
    frame.slice(found.body)
}

/// Removes all complete messages from the front.
fn drain(protocol: HubProtocol, buffer: &mut BytesMut) -> Vec<HubMessage> {
    let mut messages = Vec::new();
    while let Some(frame) = next_frame(protocol, buffer, LIMIT).unwrap() {
        let body = buffer.split_to(frame.length).freeze().slice(frame.body);
        messages.push(protocol.decode(&body).unwrap().expect("a known type"));
    }
    messages
}

/// The call scan agrees with the decoder.
fn assert_same_call(protocol: HubProtocol, body: &Bytes, message: &HubMessage) {
    let scan = protocol.scan_call(body).expect("what can be decoded can be scanned for rules");
    assert_eq!(scan.kind, message.kind());
    assert_eq!(scan.invocation_id.as_deref(), message.invocation_id().map(|id| &**id));
    let (target, stream_ids) = match message {
        HubMessage::Invocation(call) | HubMessage::StreamInvocation(call) => {
            (Some(&*call.target), &call.stream_ids[..])
        }
        _ => (None, &[][..]),
    };
    assert_eq!(scan.target.as_deref(), target);
    assert!(scan.stream_ids.iter().eq(stream_ids.iter().map(|id| &**id)), "{scan:?}");
}

/// Reads arbitrary bytes in every way. If they decode, the scan must agree.
fn read_anyhow(protocol: HubProtocol, body: &Bytes) {
    let scan = protocol.scan(body);
    if let Ok(Some(message)) = protocol.decode(body) {
        let scan = scan.expect("what can be decoded can be scanned");
        assert_eq!(scan.kind, message.kind());
        assert_eq!(scan.invocation_id.as_deref(), message.invocation_id().map(|id| &**id));
        assert_same_call(protocol, body, &message);
        let again = encode(protocol, std::slice::from_ref(&message)).freeze();
        assert_eq!(protocol.decode(&body_of(protocol, &again)).unwrap(), Some(message));
    }
    let _ = HandshakeRequest::read_request(body, LIMIT);
    let _ = HandshakeResponse::read_response(body, LIMIT);
    let _ = next_frame(protocol, body, LIMIT);
}

/// Random changes that keep much of a message intact.
fn mutate(bytes: &mut Vec<u8>, changes: &[(prop::sample::Index, u8, u8)]) {
    for (at, byte, act) in changes {
        if bytes.is_empty() {
            return;
        }
        let at = at.index(bytes.len());
        match act % 5 {
            0 => bytes[at] = *byte,
            1 => bytes[at] ^= 1 << (byte % 8),
            2 => bytes.insert(at, *byte),
            3 => drop(bytes.remove(at)),
            _ => bytes.truncate(at),
        }
    }
}

proptest! {
    #[test]
    fn any_message_round_trips((protocol, messages) in stream()) {
        let mut buffer = encode(protocol, &messages);
        prop_assert_eq!(drain(protocol, &mut buffer), messages);
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn any_value_round_trips(protocol in protocol(), value in value()) {
        let payload = protocol.payload(&value).unwrap();
        prop_assert_eq!(protocol.value::<Value>(&payload).unwrap(), value);
    }

    #[test]
    fn the_scan_agrees_with_the_decoder((protocol, messages) in stream()) {
        for message in messages {
            let frame = encode(protocol, std::slice::from_ref(&message)).freeze();
            let body = body_of(protocol, &frame);
            let scan = protocol.scan(&body).unwrap();
            prop_assert_eq!(scan.kind, message.kind());
            prop_assert_eq!(scan.invocation_id.as_deref(), message.invocation_id().map(|id| &**id));
            assert_same_call(protocol, &body, &message);
        }
    }

    #[test]
    fn json_members_may_be_in_any_order(message in message(HubProtocol::Json), turn in 0_usize..8) {
        let frame = encode(HubProtocol::Json, std::slice::from_ref(&message)).freeze();
        let Value::Object(object) = serde_json::from_slice(&body_of(HubProtocol::Json, &frame)).unwrap() else {
            panic!("an object")
        };
        let mut members: Vec<_> = object.iter().map(|(key, value)| format!("\"{key}\" : {value}")).collect();
        let turn = turn % members.len();
        members.rotate_left(turn);
        let body = Bytes::from(format!(" {{ {} }} ", members.join("\t,\n")));
        let scan = HubProtocol::Json.scan(&body).unwrap();
        prop_assert_eq!(scan.kind, message.kind());
        prop_assert_eq!(scan.invocation_id.as_deref(), message.invocation_id().map(|id| &**id));
        assert_same_call(HubProtocol::Json, &body, &message);
        let decoded = HubProtocol::Json.decode(&body).unwrap().unwrap();
        prop_assert_eq!(decoded.kind(), message.kind());
        prop_assert_eq!(decoded.invocation_id(), message.invocation_id());
    }

    #[test]
    fn any_chunking_gives_the_same_messages(
        (protocol, messages) in stream(),
        cuts in prop::collection::vec(1_usize..40, 1..20),
    ) {
        let bytes = encode(protocol, &messages);
        let (mut buffer, mut found, mut sent) = (BytesMut::new(), Vec::new(), 0);
        for cut in cuts.iter().cycle() {
            let end = (sent + cut).min(bytes.len());
            buffer.extend_from_slice(&bytes[sent..end]);
            found.extend(drain(protocol, &mut buffer));
            sent = end;
            if sent == bytes.len() {
                break;
            }
        }
        prop_assert_eq!(found, messages);
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn the_limit_is_the_same_for_any_chunking((protocol, messages) in stream(), limit in 1_usize..200) {
        for message in messages {
            let bytes = encode(protocol, std::slice::from_ref(&message));
            let refused = (0..=bytes.len()).find_map(|end| next_frame(protocol, &bytes[..end], limit).err());
            let expected = (bytes.len() > limit).then_some(FramingError::TooLarge { limit });
            prop_assert_eq!(refused, expected);
        }
    }

    #[test]
    fn garbage_is_an_error_or_a_message(protocol in protocol(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read_anyhow(protocol, &bytes.into());
    }

    #[test]
    fn garbage_that_looks_like_json_is_an_error_or_a_message(
        text in r#"(\{|"|:|,|\}|\[|\]|\\|type|invocationId|target|arguments|item|null|true|[0-9]| |é){0,40}"#,
    ) {
        read_anyhow(HubProtocol::Json, &text.into());
    }

    #[test]
    fn garbage_that_looks_like_message_pack_is_an_error_or_a_message(
        head in prop::sample::select(vec![0x91_u8, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0xdc, 0xdd]),
        kind in 0_u8..12,
        bytes in prop::collection::vec(prop_oneof![0x80_u8..=0xdf, any::<u8>()], 0..60),
    ) {
        read_anyhow(HubProtocol::MessagePack, &[&[head, kind, 0x80], &bytes[..]].concat().into());
    }

    #[test]
    fn a_damaged_message_is_an_error_or_a_message(
        (protocol, message) in protocol().prop_flat_map(|protocol| (Just(protocol), message(protocol))),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<u8>()), 1..4),
    ) {
        let frame = encode(protocol, std::slice::from_ref(&message)).freeze();
        let mut bytes = body_of(protocol, &frame).to_vec();
        mutate(&mut bytes, &changes);
        read_anyhow(protocol, &bytes.into());
    }

    #[test]
    fn a_damaged_payload_is_an_error_or_a_value(
        protocol in protocol(),
        value in value(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = protocol.payload(&value).unwrap().as_bytes().to_vec();
        mutate(&mut bytes, &changes);
        let body: Bytes = match protocol {
            HubProtocol::Json => [b"{\"type\":2,\"invocationId\":\"1\",\"item\":", &bytes[..], b"}"].concat().into(),
            HubProtocol::MessagePack | HubProtocol::BlazorPack => [b"\x94\x02\x80\xa11", &bytes[..]].concat().into(),
        };
        if let Ok(Some(HubMessage::StreamItem(item))) = protocol.decode(&body) {
            let _ = protocol.value::<Value>(&item.item);
            let _ = protocol.value::<Vec<String>>(&item.item);
        }
    }
}
