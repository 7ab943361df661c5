//! Golden vectors: bytes of the official packages and of two other clients, decoded and encoded.
//!
//! Each vector is tested in every direction it supports. A final count ensures that none is omitted.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "clippy knows tests, but not their helpers")]

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::{Value, json};
use trunkline_protocol::hub::{
    CancelInvocation, Close, Completion, HandshakeRequest, HandshakeResponse, HubMessage, HubProtocol, Invocation,
    MessageKind, Outcome, Payload, StreamItem, next_frame,
};

const VECTORS: &str = include_str!("../vectors/hub-protocol-vectors.json");
const LIMIT: usize = 32 * 1024;

#[derive(Deserialize)]
struct File {
    count: usize,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    id: String,
    #[serde(default)]
    json_hex: Option<Value>,
    #[serde(default)]
    msgpack_hex: Option<Value>,
    #[serde(default)]
    hex: Vec<String>,
    #[serde(default)]
    input: Value,
}

impl Vector {
    /// Bytes of all its sends, concatenated; `None` if it has no such form.
    fn bytes(&self, protocol: HubProtocol) -> Option<Bytes> {
        let field = match protocol {
            HubProtocol::Json => self.json_hex.as_ref(),
            HubProtocol::MessagePack | HubProtocol::BlazorPack => self.msgpack_hex.as_ref(),
        };
        match field? {
            Value::String(hex) => Some(unhex(hex)),
            Value::Array(sends) => Some(unhex(&sends.iter().map(|hex| hex.as_str().unwrap()).collect::<String>())),
            other => panic!("{}: {other}", self.id),
        }
    }
}

fn file() -> File {
    serde_json::from_str(VECTORS).unwrap()
}

fn vectors(ids: &[&str]) -> Vec<Vector> {
    let found: Vec<_> = file().vectors.into_iter().filter(|vector| ids.contains(&vector.id.as_str())).collect();
    assert_eq!(found.len(), ids.len());
    found
}

fn unhex(hex: &str) -> Bytes {
    assert!(hex.len().is_multiple_of(2));
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Decodes all known messages. The scan must agree with each.
fn decode_all(protocol: HubProtocol, bytes: &Bytes) -> Vec<HubMessage> {
    let (mut rest, mut messages) = (bytes.clone(), Vec::new());
    while !rest.is_empty() {
        let frame = next_frame(protocol, &rest, LIMIT).unwrap().expect("whole frames");
        let body = rest.split_to(frame.length).slice(frame.body);
        let scan = protocol.scan(&body).unwrap();
        let Some(message) = protocol.decode(&body).unwrap() else {
            assert!(matches!(scan.kind, MessageKind::Unknown(_)));
            continue;
        };
        assert_eq!(scan.kind, message.kind());
        assert_eq!(scan.invocation_id.as_deref(), message.invocation_id().map(|id| &**id));
        messages.push(message);
    }
    messages
}

fn encode_all(protocol: HubProtocol, messages: &[HubMessage]) -> Bytes {
    let mut out = BytesMut::new();
    for message in messages {
        protocol.encode(message, &mut out);
    }
    out.freeze()
}

/// Builder of a vector's messages in one protocol.
struct Words(HubProtocol);

impl Words {
    fn payload(&self, value: &Value) -> Payload {
        self.0.payload(value).unwrap()
    }

    fn call(
        &self,
        id: &'static str,
        target: &'static str,
        arguments: &[Value],
        streams: &[&'static str],
    ) -> Invocation {
        Invocation {
            headers: Vec::new(),
            invocation_id: Some(id).filter(|id| !id.is_empty()).map(Into::into),
            target: target.into(),
            arguments: arguments.iter().map(|argument| self.payload(argument)).collect(),
            stream_ids: streams.iter().map(|&id| id.into()).collect(),
        }
    }

    fn invoke(&self, id: &'static str, target: &'static str, arguments: &[Value]) -> HubMessage {
        HubMessage::Invocation(self.call(id, target, arguments, &[]))
    }

    fn upload(&self, id: &'static str, arguments: &[Value], stream: &'static str) -> HubMessage {
        HubMessage::Invocation(self.call(id, "UploadStream", arguments, &[stream]))
    }

    fn stream(&self, id: &'static str, target: &'static str, arguments: &[Value]) -> HubMessage {
        HubMessage::StreamInvocation(self.call(id, target, arguments, &[]))
    }

    fn item(&self, id: &'static str, item: &Value) -> HubMessage {
        let item = self.payload(item);
        HubMessage::StreamItem(StreamItem { headers: Vec::new(), invocation_id: id.into(), item })
    }

    fn result(&self, id: &'static str, result: &Value) -> HubMessage {
        completion(id, Outcome::Value(self.payload(result)))
    }

    /// Messages sent by client packages and servers, by vector.
    fn of_vector(&self, id: &str) -> Vec<HubMessage> {
        match id {
            "V06" => vec![self.invoke("0", "Add", &[json!(40), json!(2)])],
            "V07" => vec![self.invoke("", "Send", &[json!(42), json!("Test Message")])],
            "V08" => vec![self.invoke("0", "Echo", &[json!("你好，世界！"), json!(null)])],
            "V10" => vec![self.stream("0", "Counter", &[json!(5)]), cancel("0")],
            "V11" => vec![
                self.upload("1", &[json!("prefix")], "0"),
                self.item("0", &json!("a")),
                self.item("0", &json!("b")),
                completion("0", Outcome::Void),
            ],
            "V12" => vec![self.upload("", &[], "0"), failure("0", "boom")],
            "V13" | "V34" | "V58" => vec![close(None, false)],
            "V14" => vec![self.result("s1", &json!(6))],
            "V15" => vec![failure("s2", "Client didn't provide a result.")],
            "V16" => vec![failure("s3", "Error: nope")],
            "V17" => vec![self.result("s4", &json!(null))],
            "V18" | "V38" => vec![HubMessage::Ping],
            "V19" => vec![HubMessage::Ack { sequence_id: 36 }],
            "V20" => vec![HubMessage::Ack { sequence_id: 1394 }],
            "V21" => vec![HubMessage::Sequence { sequence_id: 19 }],
            "V22" => vec![HubMessage::Sequence { sequence_id: 70_000 }],
            "V23" => vec![self.with_headers()],
            "V24" => vec![cancel("xyz")],
            "V25" => vec![self.invoke("", "Send", &[json!("Hello")])],
            "V26" => vec![self.invoke("s1", "GetResult", &[json!(5)])],
            "V27" | "V33" => vec![completion("0", Outcome::Void)],
            "V28" => vec![self.result("0", &json!(null))],
            "V29" => vec![self.result("0", &json!(42))],
            "V30" => vec![failure("0", "Unknown hub method 'Foo'")],
            "V31" => vec![self.item("0", &json!(0))],
            "V32" => vec![self.item("0", &json!(null))],
            "V35" => vec![close(Some("Connection closed with an error."), false)],
            "V36" => vec![close(None, true)],
            "V37" => vec![close(Some("Connection closed with an error."), true)],
            "V39" => vec![HubMessage::Ack { sequence_id: 1 }],
            "V40" => vec![HubMessage::Sequence { sequence_id: 1 }],
            "V46" => vec![self.result("1", &json!(1.5))],
            "V47" => vec![self.result(
                "1",
                &json!([-1, -33, -32769, 4_294_967_295_u64, 4_294_967_296_u64, 9_007_199_254_740_991_u64]),
            )],
            "V48" => vec![self.result("1", &json!("x".repeat(200)))],
            "V49" | "V50" => vec![HubMessage::Ping, self.result("1", &json!(42))],
            "V55" | "V59" => vec![self.invoke("7", "Add", &[json!(40), json!(2)])],
            "V56" => vec![self.invoke("", "Send", &[json!("a")])],
            "V57" | "V60" => vec![self.stream("8", "Count", &[json!(3)])],
            other => panic!("no words for {other}"),
        }
    }

    fn with_headers(&self) -> HubMessage {
        let headers = vec![("x".into(), "y".into()), ("z".into(), "z".into())];
        HubMessage::Invocation(Invocation { headers, ..self.call("xyz", "method", &[json!(42)], &[]) })
    }
}

fn completion(id: &'static str, outcome: Outcome) -> HubMessage {
    HubMessage::Completion(Completion { headers: Vec::new(), invocation_id: id.into(), outcome })
}

fn failure(id: &'static str, error: &'static str) -> HubMessage {
    completion(id, Outcome::Error(error.into()))
}

fn cancel(id: &'static str) -> HubMessage {
    HubMessage::CancelInvocation(CancelInvocation { headers: Vec::new(), invocation_id: id.into() })
}

fn close(error: Option<&'static str>, allow_reconnect: bool) -> HubMessage {
    HubMessage::Close(Close { error: error.map(Into::into), allow_reconnect })
}

/// Handshake requests: V53 and V54 come from another client, V53 with spaces.
const REQUESTS: [&str; 5] = ["V01", "V02", "V03", "V53", "V54"];
const RESPONSES: [&str; 2] = ["V04", "V05"];
/// Messages of clients, which differ from ours in order, spaces and omitted items.
const CLIENT_FORMS: [&str; 24] = [
    "V06", "V07", "V08", "V10", "V11", "V12", "V13", "V14", "V15", "V16", "V17", "V18", "V19", "V20", "V21", "V22",
    "V23", "V24", "V55", "V56", "V57", "V58", "V59", "V60",
];
/// An object as argument: its keys are in the client's order, which a `serde_json::Value` does not keep.
const OBJECT_ARGUMENT: &str = "V09";
/// Messages that are encoded byte for byte like this; V49 and V50 are two messages in one frame.
const SERVER_FORMS: [&str; 21] = [
    "V25", "V26", "V27", "V28", "V29", "V30", "V31", "V32", "V33", "V34", "V35", "V36", "V37", "V38", "V39", "V40",
    "V46", "V47", "V48", "V49", "V50",
];
const UNKNOWN_TYPE: &str = "V41";
/// Binary values and timestamps, which have no JSON form: bytes, and their MessagePack value.
const RAW_RESULTS: [(&str, &str); 4] = [
    ("V42", "c403010203"),
    ("V43", "d6ff386d4380"),
    ("V44", "d7ff1d535300386d4380"),
    ("V45", "c70cff00000000fffffff1886e0900"),
];
const PREFIXES: &str = "V51";
/// The proxy frames server-sent events.
const NOT_OURS: [&str; 1] = ["V52"];

#[test]
fn every_vector_is_covered_exactly_once() {
    let mut covered: Vec<&str> = [REQUESTS.as_slice(), &RESPONSES, &CLIENT_FORMS, &SERVER_FORMS, &NOT_OURS].concat();
    covered.extend([OBJECT_ARGUMENT, UNKNOWN_TYPE, PREFIXES]);
    covered.extend(RAW_RESULTS.map(|(id, _)| id));
    let file = file();
    let all: BTreeSet<&str> = file.vectors.iter().map(|vector| vector.id.as_str()).collect();
    assert_eq!(covered.len(), 60);
    assert_eq!((file.count, file.vectors.len()), (60, 60));
    assert_eq!(covered.into_iter().collect::<BTreeSet<_>>(), all);
}

#[test]
fn handshake_requests_are_read_and_those_of_the_official_client_written() {
    for vector in vectors(&REQUESTS) {
        let bytes = vector.bytes(HubProtocol::Json).unwrap();
        let (request, length) = HandshakeRequest::read_request(&bytes, LIMIT).unwrap().unwrap();
        let (protocol, version) = match vector.id.as_str() {
            "V01" | "V53" => (HubProtocol::Json, 1),
            "V02" => (HubProtocol::Json, 2),
            _ => (HubProtocol::MessagePack, 1),
        };
        assert_eq!((request.protocol, request.version, length), (protocol, version, bytes.len()), "{}", vector.id);
        if vector.id != "V53" {
            assert_eq!(request.encode(), bytes, "{}", vector.id);
        }
    }
}

#[test]
fn handshake_responses_are_read_and_written() {
    for vector in vectors(&RESPONSES) {
        let bytes = vector.bytes(HubProtocol::Json).unwrap();
        let (response, length) = HandshakeResponse::read_response(&bytes, LIMIT).unwrap().unwrap();
        assert_eq!(length, bytes.len());
        assert_eq!(response.error.as_deref(), vector.input["error"].as_str());
        assert_eq!(response.encode(), bytes, "{}", vector.id);
    }
}

#[test]
fn client_forms_are_read_and_written_in_the_official_form() {
    for vector in vectors(&CLIENT_FORMS) {
        for protocol in HubProtocol::ALL {
            let bytes = vector.bytes(protocol).expect("both forms");
            let expected = Words(protocol).of_vector(&vector.id);
            assert_eq!(decode_all(protocol, &bytes), expected, "{} {}", vector.id, protocol.name());
            assert_eq!(decode_all(protocol, &encode_all(protocol, &expected)), expected, "{}", vector.id);
        }
    }
}

#[test]
fn client_forms_that_the_official_server_shares_are_written_byte_for_byte() {
    // JSON from `writeMessage` has the server's order; also MessagePack with six items or without payload.
    for vector in vectors(&["V18", "V19", "V20", "V21", "V22", "V24"]) {
        for protocol in HubProtocol::ALL {
            let bytes = vector.bytes(protocol).unwrap();
            assert_eq!(encode_all(protocol, &Words(protocol).of_vector(&vector.id)), bytes, "{}", vector.id);
        }
    }
    for vector in vectors(&["V14", "V15", "V16", "V17", "V23", "V55", "V56", "V57"]) {
        let protocol = HubProtocol::MessagePack;
        let bytes = vector.bytes(protocol).unwrap();
        assert_eq!(encode_all(protocol, &Words(protocol).of_vector(&vector.id)), bytes, "{}", vector.id);
    }
}

#[test]
fn an_object_as_argument_keeps_its_bytes() {
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase", deny_unknown_fields)]
    struct Argument {
        name: String,
        value: u32,
    }
    for protocol in HubProtocol::ALL {
        let messages = decode_all(protocol, &vectors(&[OBJECT_ARGUMENT])[0].bytes(protocol).unwrap());
        let [HubMessage::Invocation(call)] = messages.as_slice() else { panic!("{messages:?}") };
        assert_eq!((&*call.target, call.arguments.len()), ("SendObj", 1));
        let argument: Argument = protocol.value(&call.arguments[0]).unwrap();
        assert_eq!(argument, Argument { name: "test".into(), value: 42 });
        assert_eq!(decode_all(protocol, &encode_all(protocol, &messages)), messages);
    }
}

#[test]
fn server_forms_are_read_and_written_byte_for_byte() {
    let mut forms = 0;
    for vector in vectors(&SERVER_FORMS) {
        for protocol in HubProtocol::ALL {
            let Some(bytes) = vector.bytes(protocol) else {
                continue;
            };
            let expected = Words(protocol).of_vector(&vector.id);
            assert_eq!(decode_all(protocol, &bytes), expected, "{} {}", vector.id, protocol.name());
            assert_eq!(encode_all(protocol, &expected), bytes, "{} {}", vector.id, protocol.name());
            forms += 1;
        }
    }
    // Sixteen in both protocols; V46 to V49 are MessagePack only, V50 is JSON only.
    assert_eq!(forms, 2 * 16 + 4 + 1);
}

#[test]
fn a_type_of_the_future_is_skipped() {
    for protocol in HubProtocol::ALL {
        let bytes = vectors(&[UNKNOWN_TYPE])[0].bytes(protocol).unwrap();
        assert_eq!(decode_all(protocol, &bytes), []);
        let frame = next_frame(protocol, &bytes, LIMIT).unwrap().unwrap();
        assert_eq!(protocol.scan(&bytes[frame.body]).unwrap().kind, MessageKind::Unknown(99));
    }
}

#[test]
fn results_without_a_json_form_keep_their_bytes() {
    for (id, raw) in RAW_RESULTS {
        let bytes = vectors(&[id])[0].bytes(HubProtocol::MessagePack).unwrap();
        let messages = decode_all(HubProtocol::MessagePack, &bytes);
        let [HubMessage::Completion(Completion { outcome: Outcome::Value(result), .. })] = messages.as_slice() else {
            panic!("{id}: {messages:?}")
        };
        assert_eq!(*result.as_bytes(), unhex(raw), "{id}");
        assert_eq!(encode_all(HubProtocol::MessagePack, &messages), bytes, "{id}");
    }
}

#[test]
fn length_prefixes_of_all_sizes_are_read() {
    let vector = &vectors(&[PREFIXES])[0];
    let lengths: Vec<usize> = serde_json::from_value(vector.input.clone()).unwrap();
    assert_eq!((lengths.len(), vector.hex.len()), (13, 13));
    for (length, hex) in lengths.into_iter().zip(&vector.hex) {
        let prefix = unhex(hex);
        let whole = prefix.len() + length;
        // The limit reveals the announced length without a body of 2 GiB.
        assert!(next_frame(HubProtocol::MessagePack, &prefix, whole).is_ok(), "{length}");
        assert!(next_frame(HubProtocol::MessagePack, &prefix, whole - 1).is_err(), "{length}");
        if length < LIMIT {
            let frame = next_frame(HubProtocol::MessagePack, &[&prefix[..], &vec![0; length]].concat(), whole);
            let frame = frame.unwrap().unwrap();
            assert_eq!((frame.body, frame.length), (prefix.len()..whole, whole));
        }
    }
}
