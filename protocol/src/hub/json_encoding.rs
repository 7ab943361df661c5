//! JSON encoding of hub messages: an object each, written in the official server's member order and read in any order.
//!
//! Decoding first locates the members and reads only the ones for the message's type. Arguments, items and results are
//! validated and sliced from the body, not parsed.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::members::{self, Members, ObjectError};
use super::{
    CancelInvocation, Close, Completion, Headers, HubMessage, HubMessageError, Invocation, MessageKind, Outcome,
    Payload, PayloadError, RECORD_SEPARATOR, StreamItem,
};

pub(super) fn encode(message: &HubMessage, out: &mut BytesMut) {
    out.reserve(message.expected_bytes());
    out.put_slice(b"{\"type\":");
    put(&message.kind().number(), out);
    match message {
        HubMessage::Invocation(call) | HubMessage::StreamInvocation(call) => {
            put_invocation(call, out);
        }
        HubMessage::StreamItem(item) => put_stream_item(item, out),
        HubMessage::Completion(completion) => put_completion(completion, out),
        HubMessage::CancelInvocation(cancel) => {
            put_headers(&cancel.headers, out);
            put_member("invocationId", &*cancel.invocation_id, out);
        }
        HubMessage::Ping => {}
        HubMessage::Close(close) => put_close(close, out),
        HubMessage::Ack { sequence_id } | HubMessage::Sequence { sequence_id } => {
            put_member("sequenceId", sequence_id, out);
        }
    }
    out.put_slice(&[b'}', RECORD_SEPARATOR]);
}

pub(super) fn decode(body: &Bytes) -> Result<Option<HubMessage>, HubMessageError> {
    // Validated once, so that texts can be sliced without checking again.
    let body = ByteString::try_from(body.clone()).map_err(|_| ObjectError::Syntax)?;
    let envelope = Envelope::from_body(&body)?;
    Ok(Some(match envelope.kind()? {
        MessageKind::Invocation => HubMessage::Invocation(envelope.invocation()?),
        MessageKind::StreamItem => HubMessage::StreamItem(envelope.stream_item()?),
        MessageKind::Completion => HubMessage::Completion(envelope.completion()?),
        MessageKind::StreamInvocation => HubMessage::StreamInvocation(envelope.stream_invocation()?),
        MessageKind::CancelInvocation => HubMessage::CancelInvocation(CancelInvocation {
            headers: envelope.headers()?,
            invocation_id: envelope.required_id()?,
        }),
        MessageKind::Ping => HubMessage::Ping,
        MessageKind::Close => HubMessage::Close(envelope.close_message()),
        MessageKind::Ack => HubMessage::Ack { sequence_id: envelope.sequence_id()? },
        MessageKind::Sequence => HubMessage::Sequence { sequence_id: envelope.sequence_id()? },
        MessageKind::Unknown(_) => return Ok(None),
    }))
}

pub(super) fn payload<T: Serialize + ?Sized>(value: &T) -> Result<Payload, PayloadError> {
    serde_json::to_vec(value).map(|text| Payload(text.into())).map_err(|error| PayloadError(error.to_string()))
}

pub(super) fn value<T: DeserializeOwned>(payload: &Payload) -> Result<T, PayloadError> {
    serde_json::from_slice(&payload.0).map_err(|error| PayloadError(error.to_string()))
}

#[expect(clippy::expect_used, reason = "texts and numbers always have a JSON form, and a buffer refuses no bytes")]
pub(super) fn put<T: Serialize + ?Sized>(value: &T, out: &mut BytesMut) {
    serde_json::to_writer(out.writer(), value).expect("texts and numbers can be written to a buffer");
}

fn put_invocation(call: &Invocation, out: &mut BytesMut) {
    put_headers(&call.headers, out);
    if let Some(id) = &call.invocation_id {
        put_member("invocationId", &**id, out);
    }
    put_member("target", &*call.target, out);
    put_key("arguments", out);
    put_list(&call.arguments, out, |argument, out| {
        out.put_slice(&argument.0);
    });
    if !call.stream_ids.is_empty() {
        put_key("streamIds", out);
        put_list(&call.stream_ids, out, |id, out| put(&**id, out));
    }
}

fn put_stream_item(item: &StreamItem, out: &mut BytesMut) {
    put_headers(&item.headers, out);
    put_member("invocationId", &*item.invocation_id, out);
    put_key("item", out);
    out.put_slice(&item.item.0);
}

fn put_completion(completion: &Completion, out: &mut BytesMut) {
    put_headers(&completion.headers, out);
    put_member("invocationId", &*completion.invocation_id, out);
    match &completion.outcome {
        Outcome::Void => {}
        Outcome::Value(result) => {
            put_key("result", out);
            out.put_slice(&result.0);
        }
        Outcome::Error(error) => put_member("error", &**error, out),
    }
}

fn put_close(close: &Close, out: &mut BytesMut) {
    if let Some(error) = &close.error {
        put_member("error", &**error, out);
    }
    if close.allow_reconnect {
        put_member("allowReconnect", &true, out);
    }
}

fn put_headers(headers: &Headers, out: &mut BytesMut) {
    let Some(((key, value), others)) = headers.split_first() else {
        return;
    };
    put_key("headers", out);
    out.put_u8(b'{');
    put(&**key, out);
    out.put_u8(b':');
    put(&**value, out);
    for (key, value) in others {
        out.put_u8(b',');
        put(&**key, out);
        out.put_u8(b':');
        put(&**value, out);
    }
    out.put_u8(b'}');
}

fn put_list<T>(items: &[T], out: &mut BytesMut, put_item: impl Fn(&T, &mut BytesMut)) {
    out.put_u8(b'[');
    if let Some((first, others)) = items.split_first() {
        put_item(first, out);
        for other in others {
            out.put_u8(b',');
            put_item(other, out);
        }
    }
    out.put_u8(b']');
}

fn put_member<T: Serialize + ?Sized>(key: &str, value: &T, out: &mut BytesMut) {
    put_key(key, out);
    put(value, out);
}

/// Appends a key that needs no escaping and is not the first in its object.
fn put_key(key: &str, out: &mut BytesMut) {
    out.put_slice(b",\"");
    out.put_slice(key.as_bytes());
    out.put_slice(b"\":");
}

/// Unparsed members of any message type. The last of equal keys counts.
struct Envelope<'a> {
    body: &'a ByteString,
    kind: Option<&'a [u8]>,
    headers: Option<&'a [u8]>,
    invocation_id: Option<&'a [u8]>,
    target: Option<&'a [u8]>,
    arguments: Option<&'a [u8]>,
    stream_ids: Option<&'a [u8]>,
    item: Option<&'a [u8]>,
    result: Option<&'a [u8]>,
    error: Option<&'a [u8]>,
    allow_reconnect: Option<&'a [u8]>,
    sequence_id: Option<&'a [u8]>,
}

impl<'a> Envelope<'a> {
    fn from_body(body: &'a ByteString) -> Result<Self, HubMessageError> {
        let mut envelope = Self::empty(body);
        for member in Members::from_text(body.as_bytes())? {
            let member = member?;
            if let Some(place) = envelope.place_of(&member.key) {
                *place = Some(member.value);
            }
        }
        Ok(envelope)
    }

    fn empty(body: &'a ByteString) -> Self {
        Self {
            body,
            kind: None,
            headers: None,
            invocation_id: None,
            target: None,
            arguments: None,
            stream_ids: None,
            item: None,
            result: None,
            error: None,
            allow_reconnect: None,
            sequence_id: None,
        }
    }

    fn place_of(&mut self, key: &str) -> Option<&mut Option<&'a [u8]>> {
        Some(match key {
            "type" => &mut self.kind,
            "headers" => &mut self.headers,
            "invocationId" => &mut self.invocation_id,
            "target" => &mut self.target,
            "arguments" => &mut self.arguments,
            "streamIds" => &mut self.stream_ids,
            "item" => &mut self.item,
            "result" => &mut self.result,
            "error" => &mut self.error,
            "allowReconnect" => &mut self.allow_reconnect,
            "sequenceId" => &mut self.sequence_id,
            _ => return None,
        })
    }

    fn kind(&self) -> Result<MessageKind, HubMessageError> {
        let value = self.kind.ok_or_else(|| missing("type"))?;
        members::integer(value).map(MessageKind::from).ok_or_else(|| not_a("type", "Number"))
    }

    fn invocation(&self) -> Result<Invocation, HubMessageError> {
        Ok(Invocation {
            headers: self.headers()?,
            invocation_id: self.id()?,
            target: self.target()?,
            arguments: self.arguments()?,
            stream_ids: self.stream_ids()?,
        })
    }

    fn stream_invocation(&self) -> Result<Invocation, HubMessageError> {
        self.required_id()?;
        self.invocation()
    }

    fn stream_item(&self) -> Result<StreamItem, HubMessageError> {
        let item = self.item.ok_or_else(|| missing("item"))?;
        Ok(StreamItem {
            headers: self.headers()?,
            invocation_id: self.required_id()?,
            item: self.payload("item", item)?,
        })
    }

    fn completion(&self) -> Result<Completion, HubMessageError> {
        let error = self.optional_text("error", self.error)?;
        let outcome = match (error, self.result) {
            (Some(_), Some(_)) => {
                return Err(HubMessageError::new("The 'error' and 'result' properties are mutually exclusive."));
            }
            (Some(error), None) => Outcome::Error(error),
            (None, Some(result)) => Outcome::Value(self.payload("result", result)?),
            (None, None) => Outcome::Void,
        };
        Ok(Completion { headers: self.headers()?, invocation_id: self.required_id()?, outcome })
    }

    /// Never fails: the client wants to disconnect, and some clients send errors that are not strings.
    fn close_message(&self) -> Close {
        Close {
            error: self.error.and_then(members::text).map(|text| self.share(text)),
            allow_reconnect: self.allow_reconnect == Some(b"true"),
        }
    }

    fn sequence_id(&self) -> Result<u64, HubMessageError> {
        let value = self.sequence_id.ok_or_else(|| missing("sequenceId"))?;
        serde_json::from_slice(value).map_err(|_| not_a("sequenceId", "Number"))
    }

    fn headers(&self) -> Result<Headers, HubMessageError> {
        let Some(value) = present(self.headers) else {
            return Ok(Headers::new());
        };
        let mut headers = Headers::new();
        for member in Members::from_text(value).map_err(|_| not_a("headers", "Object"))? {
            let member = member?;
            let text = members::text(member.value).ok_or_else(|| {
                HubMessageError::new(format!("Expected header '{}' to be of type String.", member.key))
            })?;
            headers.push((self.share(member.key), self.share(text)));
        }
        Ok(headers)
    }

    fn id(&self) -> Result<Option<ByteString>, HubMessageError> {
        Ok(self.optional_text("invocationId", self.invocation_id)?.filter(|id| !id.is_empty()))
    }

    fn required_id(&self) -> Result<ByteString, HubMessageError> {
        self.id()?.ok_or_else(|| missing("invocationId"))
    }

    fn target(&self) -> Result<ByteString, HubMessageError> {
        let target = self.optional_text("target", self.target)?;
        target.filter(|target| !target.is_empty()).ok_or_else(|| missing("target"))
    }

    fn arguments(&self) -> Result<Vec<Payload>, HubMessageError> {
        let value = self.arguments.ok_or_else(|| missing("arguments"))?;
        let raw: Vec<&RawValue> = serde_json::from_slice(value).map_err(|_| not_a("arguments", "Array"))?;
        Ok(raw.into_iter().map(|argument| self.cut(argument)).collect())
    }

    fn stream_ids(&self) -> Result<Vec<ByteString>, HubMessageError> {
        let Some(value) = present(self.stream_ids) else {
            return Ok(Vec::new());
        };
        let raw: Vec<&RawValue> = serde_json::from_slice(value).map_err(|_| not_a("streamIds", "Array"))?;
        let texts = raw.into_iter().map(|id| members::text(id.get().as_bytes()).map(|text| self.share(text)));
        texts.collect::<Option<_>>().ok_or_else(|| not_a("streamIds", "Array of String"))
    }

    fn optional_text(&self, key: &str, value: Option<&'a [u8]>) -> Result<Option<ByteString>, HubMessageError> {
        let Some(value) = present(value) else {
            return Ok(None);
        };
        let text = members::text(value).ok_or_else(|| not_a(key, "String"))?;
        Ok(Some(self.share(text)))
    }

    fn payload(&self, key: &str, value: &'a [u8]) -> Result<Payload, HubMessageError> {
        let raw: &RawValue = serde_json::from_slice(value)
            .map_err(|_| HubMessageError::new(format!("Error reading JSON: '{key}' is malformed.")))?;
        Ok(self.cut(raw))
    }

    fn cut(&self, raw: &'a RawValue) -> Payload {
        Payload(self.body.as_bytes().slice_ref(raw.get().as_bytes()))
    }

    fn share(&self, text: Cow<'a, str>) -> ByteString {
        match text {
            Cow::Borrowed(text) => self.body.slice_ref(text),
            Cow::Owned(text) => text.into(),
        }
    }
}

impl From<ObjectError> for HubMessageError {
    fn from(error: ObjectError) -> Self {
        Self::new(error.to_string())
    }
}

/// Treats null as absent for optional members.
fn present(value: Option<&[u8]>) -> Option<&[u8]> {
    value.filter(|value| *value != b"null")
}

fn missing(key: &str) -> HubMessageError {
    HubMessageError::new(format!("Missing required property '{key}'."))
}

fn not_a(key: &str, wanted: &str) -> HubMessageError {
    HubMessageError::new(format!("Expected '{key}' to be of type {wanted}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<HubMessage>, HubMessageError> {
        decode(&Bytes::copy_from_slice(text.as_bytes()))
    }

    fn message(text: &str) -> HubMessage {
        read(text).unwrap().unwrap()
    }

    fn refusal(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    fn written(message: &HubMessage) -> String {
        let mut out = BytesMut::new();
        encode(message, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    fn call(text: &str) -> Invocation {
        match message(text) {
            HubMessage::Invocation(call) | HubMessage::StreamInvocation(call) => call,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn order_white_space_and_unknown_members_do_not_matter() {
        let plain = r#"{"type":1,"invocationId":"7","target":"Add","arguments":[40,"a b"]}"#;
        let odd = "\n{ \"more\":{\"type\":9}, \"arguments\":[ 40 , \"a b\" ],\"target\" : \"Add\",\
            \"type\": 1 ,\"invocationId\":\"7\" } ";
        assert_eq!(message(odd), message(plain));
    }

    #[test]
    fn empty_and_null_mean_absent() {
        let plain = message(r#"{"type":1,"target":"Add","arguments":[]}"#);
        for members in [
            r#""headers":{},"streamIds":[],"invocationId":"""#,
            r#""headers":null,"streamIds":null,"invocationId":null"#,
        ] {
            assert_eq!(message(&format!(r#"{{{members},"type":1,"target":"Add","arguments":[]}}"#)), plain);
        }
        let end = message(r#"{"type":3,"invocationId":"1"}"#);
        assert_eq!(message(r#"{"type":3,"invocationId":"1","error":null}"#), end);
    }

    #[test]
    fn a_null_result_is_a_value_and_a_null_item_too() {
        for text in [r#"{"type":3,"invocationId":"1","result":null}"#, r#"{"type":2,"invocationId":"1","item":null}"#] {
            assert_eq!(written(&message(text)), format!("{text}\u{1e}"));
        }
    }

    #[test]
    fn texts_and_payloads_share_the_memory_of_the_body() {
        let body = Bytes::from_static(br#"{"type":1,"target":"Send","arguments":[ {"a": [1]} ]}"#);
        let Some(HubMessage::Invocation(call)) = decode(&body).unwrap() else { panic!("no invocation") };
        let range = body.as_ptr_range();
        assert!(range.contains(&call.target.as_bytes().as_ptr()));
        assert!(range.contains(&call.arguments[0].0.as_ptr()));
        assert_eq!(call.arguments[0].0, br#"{"a": [1]}"#.as_slice());
    }

    #[test]
    fn escapes_are_read_in_every_text() {
        let call = call(
            r#"{"type":1,"h\u0065aders":{"\u006b":"\"v\\"},"invocationId":"\u0031","target":"T\t","arguments":["\u0041"],"streamIds":["\/"]}"#,
        );
        assert_eq!(call.headers, [("k".into(), "\"v\\".into())]);
        assert_eq!(call.invocation_id.unwrap(), "1");
        assert_eq!(call.target, "T\t");
        assert_eq!(call.arguments[0].0, br#""\u0041""#.as_slice());
        assert_eq!(call.stream_ids, ["/"]);
    }

    #[test]
    fn only_required_characters_are_escaped() {
        let close = Close { error: Some("'<é&\u{1f600}>\" \\ \n \u{1e}".into()), allow_reconnect: false };
        let expected = "{\"type\":7,\"error\":\"'<é&\u{1f600}>\\\" \\\\ \\n \\u001e\"}\u{1e}";
        assert_eq!(written(&HubMessage::Close(close)), expected);
    }

    #[test]
    fn an_unknown_type_is_skipped() {
        assert_eq!(read(r#"{"type":99,"target":5}"#).unwrap(), None);
    }

    #[test]
    fn a_missing_member_is_named() {
        let cases = [
            (r"{}", "type"),
            (r#"{"type":1,"arguments":[]}"#, "target"),
            (r#"{"type":1,"target":"","arguments":[]}"#, "target"),
            (r#"{"type":1,"target":"a"}"#, "arguments"),
            (r#"{"type":2,"invocationId":"1"}"#, "item"),
            (r#"{"type":2,"item":1}"#, "invocationId"),
            (r#"{"type":2,"item":1,"invocationId":""}"#, "invocationId"),
            (r#"{"type":3}"#, "invocationId"),
            (r#"{"type":4,"target":"a","arguments":[]}"#, "invocationId"),
            (r#"{"type":5,"invocationId":null}"#, "invocationId"),
            (r#"{"type":8}"#, "sequenceId"),
            (r#"{"type":9}"#, "sequenceId"),
        ];
        for (text, key) in cases {
            assert_eq!(refusal(text), format!("Missing required property '{key}'."), "{text}");
        }
    }

    #[test]
    fn a_member_of_the_wrong_type_is_named() {
        let cases = [
            (r#"{"type":"1"}"#, "Expected 'type' to be of type Number."),
            (r#"{"type":1,"target":1,"arguments":[]}"#, "Expected 'target' to be of type String."),
            (r#"{"type":1,"target":"a","arguments":{}}"#, "Expected 'arguments' to be of type Array."),
            (r#"{"type":1,"target":"a","arguments":[1,]}"#, "Expected 'arguments' to be of type Array."),
            (r#"{"type":5,"invocationId":1}"#, "Expected 'invocationId' to be of type String."),
            (r#"{"type":3,"invocationId":"1","error":{}}"#, "Expected 'error' to be of type String."),
            (r#"{"type":5,"invocationId":"1","headers":[]}"#, "Expected 'headers' to be of type Object."),
            (r#"{"type":5,"invocationId":"1","headers":{"a":1}}"#, "Expected header 'a' to be of type String."),
            (r#"{"type":8,"sequenceId":-1}"#, "Expected 'sequenceId' to be of type Number."),
            (
                r#"{"type":1,"target":"a","arguments":[],"streamIds":[null]}"#,
                "Expected 'streamIds' to be of type Array of String.",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(refusal(text), expected, "{text}");
        }
    }

    #[test]
    fn a_completion_with_both_result_and_error_is_refused() {
        let text = r#"{"type":3,"invocationId":"1","result":null,"error":"x"}"#;
        assert_eq!(refusal(text), "The 'error' and 'result' properties are mutually exclusive.");
    }

    #[test]
    fn a_close_with_any_members_is_accepted() {
        let none = HubMessage::Close(Close::default());
        assert_eq!(message(r#"{"error": null, "allow_reconnect": null, "type": 7}"#), none);
        assert_eq!(message(r#"{"type":7,"error":{"a":1},"allowReconnect":null}"#), none);
    }

    #[test]
    fn other_values_than_objects_are_refused() {
        assert_eq!(refusal("[]"), "Expected a JSON Object.");
        assert_eq!(refusal(""), "Expected a JSON Object.");
        assert_eq!(refusal(r#"{"type":6"#), "Error reading JSON.");
        assert!(decode(&Bytes::from_static(b"{\"type\":6,\"a\":\"\xff\"}")).is_err());
        let deep = format!(r#"{{"type":6,"a":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(refusal(&deep), "The JSON is nested over 64 deep.");
    }

    #[test]
    fn a_malformed_payload_is_refused_with_its_message() {
        for item in ["nul", "[1}", "\"\\x\"", "{\"a\"}", "01"] {
            let text = format!(r#"{{"type":2,"invocationId":"1","item":{item}}}"#);
            assert_eq!(refusal(&text), "Error reading JSON: 'item' is malformed.", "{text}");
        }
    }

    #[test]
    fn values_round_trip_or_fail_with_a_reason() {
        let encoded = payload(&("é", [1.5, -2.0], None::<u8>)).unwrap();
        assert_eq!(encoded.0, r#"["é",[1.5,-2.0],null]"#.as_bytes());
        assert_eq!(value::<(String, [f64; 2], Option<u8>)>(&encoded).unwrap(), ("é".into(), [1.5, -2.0], None));
        assert!(value::<String>(&encoded).unwrap_err().to_string().contains("expected a string"));
        assert!(value::<u8>(&Payload(Bytes::from_static(b"1 2"))).is_err());
        assert!(payload(&std::collections::BTreeMap::from([((1, 2), 3)])).is_err());
    }
}
