//! MessagePack encoding of hub messages: an array each, starting with the type.
//!
//! Accepts longer arrays, because newer versions may append items, and the shorter ones of older clients. Writes
//! exactly as the official server.

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::framing::put_length;
use super::{
    CancelInvocation, Close, Completion, Headers, HubMessage, HubMessageError, Invocation, MessageKind, Outcome,
    Payload, PayloadError, StreamItem,
};
use crate::message_pack::{ReadError, Reader, Writer};

const KIND_ERROR: i64 = 1;
const KIND_VOID: i64 = 2;
const KIND_VALUE: i64 = 3;
const TRUE: u8 = 0xc3;

pub(super) fn encode(message: &HubMessage, out: &mut BytesMut) {
    // The prefix needs the length first. Copying a second buffer of a few hundred bytes is slower than computing the
    // length, but can't be wrong.
    let mut body = BytesMut::with_capacity(message.expected_bytes());
    put_message(message, &mut Writer(&mut body));
    put_length(body.len(), out);
    out.put_slice(&body);
}

pub(super) fn decode(body: &Bytes) -> Result<Option<HubMessage>, HubMessageError> {
    let mut items = Items::from_body(body)?;
    let message = match MessageKind::from(items.next("type", Reader::integer)?) {
        MessageKind::Invocation => HubMessage::Invocation(items.invocation()?),
        MessageKind::StreamItem => HubMessage::StreamItem(items.stream_item()?),
        MessageKind::Completion => HubMessage::Completion(items.completion()?),
        MessageKind::StreamInvocation => HubMessage::StreamInvocation(items.stream_invocation()?),
        MessageKind::CancelInvocation => HubMessage::CancelInvocation(CancelInvocation {
            headers: items.headers()?,
            invocation_id: items.required_id()?,
        }),
        MessageKind::Ping => HubMessage::Ping,
        MessageKind::Close => HubMessage::Close(items.close_message()?),
        MessageKind::Ack => HubMessage::Ack { sequence_id: items.sequence_id()? },
        MessageKind::Sequence => HubMessage::Sequence { sequence_id: items.sequence_id()? },
        MessageKind::Unknown(_) => return Ok(None),
    };
    items.end_items()?;
    Ok(Some(message))
}

pub(super) fn payload<T: Serialize + ?Sized>(value: &T) -> Result<Payload, PayloadError> {
    let mut bytes = Vec::new();
    let mut serializer = rmp_serde::Serializer::new(&mut bytes).with_struct_map();
    value.serialize(&mut serializer).map_err(|error| PayloadError(error.to_string()))?;
    Ok(Payload(bytes.into()))
}

pub(super) fn value<T: DeserializeOwned>(payload: &Payload) -> Result<T, PayloadError> {
    // rmp_serde ignores trailing bytes and has no nesting limit suitable for a small stack.
    let mut reader = Reader::new(&payload.0);
    reader.skip().map_err(|error| PayloadError(error.to_string()))?;
    if !reader.is_empty() {
        return Err(PayloadError("trailing bytes".into()));
    }
    rmp_serde::from_slice(&payload.0).map_err(|error| PayloadError(error.to_string()))
}

fn put_message(message: &HubMessage, out: &mut Writer<'_>) {
    out.array_len(item_count(message));
    out.integer(message.kind().number());
    match message {
        HubMessage::Invocation(call) | HubMessage::StreamInvocation(call) => {
            put_invocation(call, out);
        }
        HubMessage::StreamItem(item) => {
            put_headers(&item.headers, out);
            out.text(&item.invocation_id);
            put_payload(&item.item, out);
        }
        HubMessage::Completion(completion) => put_completion(completion, out),
        HubMessage::CancelInvocation(cancel) => {
            put_headers(&cancel.headers, out);
            out.text(&cancel.invocation_id);
        }
        HubMessage::Ping => {}
        HubMessage::Close(close) => {
            put_optional_text(close.error.as_ref(), out);
            out.boolean(close.allow_reconnect);
        }
        HubMessage::Ack { sequence_id } | HubMessage::Sequence { sequence_id } => {
            // A message count, far below the 63 bits that all implementations can read.
            out.integer(i64::try_from(*sequence_id).unwrap_or(i64::MAX));
        }
    }
}

fn item_count(message: &HubMessage) -> usize {
    match message {
        HubMessage::Invocation(_) | HubMessage::StreamInvocation(_) => 6,
        HubMessage::Completion(Completion { outcome: Outcome::Void, .. }) | HubMessage::StreamItem(_) => 4,
        HubMessage::Completion(_) => 5,
        HubMessage::CancelInvocation(_) | HubMessage::Close(_) => 3,
        HubMessage::Ack { .. } | HubMessage::Sequence { .. } => 2,
        HubMessage::Ping => 1,
    }
}

fn put_invocation(call: &Invocation, out: &mut Writer<'_>) {
    put_headers(&call.headers, out);
    put_optional_text(call.invocation_id.as_ref(), out);
    out.text(&call.target);
    out.array_len(call.arguments.len());
    for argument in &call.arguments {
        put_payload(argument, out);
    }
    out.array_len(call.stream_ids.len());
    for id in &call.stream_ids {
        out.text(id);
    }
}

fn put_completion(completion: &Completion, out: &mut Writer<'_>) {
    put_headers(&completion.headers, out);
    out.text(&completion.invocation_id);
    match &completion.outcome {
        Outcome::Error(error) => {
            out.integer(KIND_ERROR);
            out.text(error);
        }
        Outcome::Void => out.integer(KIND_VOID),
        Outcome::Value(result) => {
            out.integer(KIND_VALUE);
            put_payload(result, out);
        }
    }
}

fn put_headers(headers: &Headers, out: &mut Writer<'_>) {
    out.map_len(headers.len());
    for (key, value) in headers {
        out.text(key);
        out.text(value);
    }
}

fn put_optional_text(text: Option<&ByteString>, out: &mut Writer<'_>) {
    match text {
        Some(text) => out.text(text),
        None => out.nil(),
    }
}

fn put_payload(payload: &Payload, out: &mut Writer<'_>) {
    out.0.put_slice(&payload.0);
}

struct Items<'a> {
    reader: Reader<'a>,
    left: usize,
}

impl<'a> Items<'a> {
    fn from_body(body: &'a Bytes) -> Result<Self, HubMessageError> {
        let mut reader = Reader::new(body);
        let left = reader
            .array_len()
            .map_err(|error| HubMessageError::new(format!("Reading array length failed: {error}.")))?;
        Ok(Self { reader, left })
    }

    fn next<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, ReadError>,
    ) -> Result<T, HubMessageError> {
        self.left = self.left.checked_sub(1).ok_or_else(|| HubMessageError::new(format!("Missing item '{name}'.")))?;
        read(&mut self.reader).map_err(|error| HubMessageError::new(format!("Reading '{name}' failed: {error}.")))
    }

    /// Skips items appended by newer versions.
    fn end_items(mut self) -> Result<(), HubMessageError> {
        while self.left > 0 {
            self.next("item", Reader::skip)?;
        }
        if self.reader.is_empty() { Ok(()) } else { Err(HubMessageError::new("Bytes follow the message.")) }
    }

    fn invocation(&mut self) -> Result<Invocation, HubMessageError> {
        Ok(Invocation {
            headers: self.headers()?,
            invocation_id: self.id()?,
            target: self.target()?,
            arguments: self
                .next("arguments", |reader| list(reader, |reader| reader.value().map(Payload)))
                .map_err(|error| HubMessageError { is_of_arguments: true, ..error })?,
            stream_ids: self.stream_ids()?,
        })
    }

    fn stream_invocation(&mut self) -> Result<Invocation, HubMessageError> {
        let call = self.invocation()?;
        if call.invocation_id.is_some() { Ok(call) } else { Err(empty("invocationId")) }
    }

    fn stream_item(&mut self) -> Result<StreamItem, HubMessageError> {
        Ok(StreamItem {
            headers: self.headers()?,
            invocation_id: self.required_id()?,
            item: self.next("item", Reader::value).map(Payload)?,
        })
    }

    fn completion(&mut self) -> Result<Completion, HubMessageError> {
        let headers = self.headers()?;
        let invocation_id = self.required_id()?;
        let outcome = match self.next("resultKind", Reader::integer)? {
            KIND_ERROR => Outcome::Error(self.next("error", Reader::shared_text)?),
            KIND_VOID => Outcome::Void,
            KIND_VALUE => Outcome::Value(self.next("result", Reader::value).map(Payload)?),
            _ => return Err(HubMessageError::new("Invalid invocation result kind.")),
        };
        Ok(Completion { headers, invocation_id, outcome })
    }

    /// Fails only if it is not MessagePack: some clients omit items or send errors that are not strings.
    fn close_message(&mut self) -> Result<Close, HubMessageError> {
        let mut close = Close::default();
        if self.left > 0 {
            let error = self.next("error", Reader::value)?;
            close.error = Reader::new(&error).shared_text().ok();
        }
        if self.left > 0 {
            close.allow_reconnect = *self.next("allowReconnect", Reader::value)? == [TRUE];
        }
        Ok(close)
    }

    fn sequence_id(&mut self) -> Result<u64, HubMessageError> {
        let number = self.next("sequenceId", Reader::integer)?;
        u64::try_from(number).map_err(|_| HubMessageError::new("Reading 'sequenceId' failed: it is negative."))
    }

    fn headers(&mut self) -> Result<Headers, HubMessageError> {
        self.next("headers", |reader| {
            let entries = if reader.take_nil() { 0 } else { reader.map_len()? };
            (0..entries).map(|_| Ok((reader.shared_text()?, reader.shared_text()?))).collect()
        })
    }

    fn id(&mut self) -> Result<Option<ByteString>, HubMessageError> {
        let id = self
            .next("invocationId", |reader| if reader.take_nil() { Ok(None) } else { reader.shared_text().map(Some) })?;
        Ok(id.filter(|id| !id.is_empty()))
    }

    fn required_id(&mut self) -> Result<ByteString, HubMessageError> {
        self.id()?.ok_or_else(|| empty("invocationId"))
    }

    fn target(&mut self) -> Result<ByteString, HubMessageError> {
        let target = self.next("target", Reader::shared_text)?;
        if target.is_empty() { Err(empty("target")) } else { Ok(target) }
    }

    /// The JavaScript client omits the item if there are no streams.
    fn stream_ids(&mut self) -> Result<Vec<ByteString>, HubMessageError> {
        if self.left == 0 {
            return Ok(Vec::new());
        }
        self.next(
            "streamIds",
            |reader| {
                if reader.take_nil() { Ok(Vec::new()) } else { list(reader, Reader::shared_text) }
            },
        )
    }
}

/// Reads a list. Allocates per item read, not for the announced length.
fn list<'a, T>(
    reader: &mut Reader<'a>,
    mut read: impl FnMut(&mut Reader<'a>) -> Result<T, ReadError>,
) -> Result<Vec<T>, ReadError> {
    let items = reader.array_len()?;
    (0..items).map(|_| read(reader)).collect()
}

fn empty(name: &str) -> HubMessageError {
    HubMessageError::new(format!("Null or empty '{name}'."))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::limits::NESTING_MAX;

    fn read(body: &[u8]) -> Result<Option<HubMessage>, HubMessageError> {
        decode(&Bytes::copy_from_slice(body))
    }

    fn message(body: &[u8]) -> HubMessage {
        read(body).unwrap().unwrap()
    }

    fn refusal(body: &[u8]) -> String {
        read(body).unwrap_err().to_string()
    }

    fn invocation(id: Option<&'static str>) -> HubMessage {
        HubMessage::Invocation(Invocation {
            invocation_id: id.map(ByteString::from_static),
            target: "x".into(),
            arguments: vec![Payload(Bytes::from_static(&[5]))],
            ..Invocation::default()
        })
    }

    #[test]
    fn an_invocation_may_leave_out_its_streams_or_have_items_of_the_future() {
        let expected = invocation(Some("1"));
        assert_eq!(message(b"\x95\x01\x80\xa11\xa1x\x91\x05"), expected);
        assert_eq!(message(b"\x96\x01\x80\xa11\xa1x\x91\x05\x90"), expected);
        assert_eq!(message(b"\x96\x01\x80\xa11\xa1x\x91\x05\xc0"), expected);
        assert_eq!(message(b"\x98\x01\x80\xa11\xa1x\x91\x05\x90\x81\x01\x02\xc0"), expected);
    }

    #[test]
    fn nil_or_empty_ids_and_nil_headers_are_absent() {
        assert_eq!(message(b"\x95\x01\x80\xc0\xa1x\x91\x05"), invocation(None));
        assert_eq!(message(b"\x95\x01\x80\xa0\xa1x\x91\x05"), invocation(None));
        assert_eq!(message(b"\x95\x01\xc0\xc0\xa1x\x91\x05"), invocation(None));
    }

    #[test]
    fn integers_of_any_width_are_read() {
        let expected = HubMessage::Ack { sequence_id: 7 };
        assert_eq!(message(b"\x92\x08\x07"), expected);
        assert_eq!(message(b"\x92\xd1\x00\x08\xcf\x00\x00\x00\x00\x00\x00\x00\x07"), expected);
        assert_eq!(message(b"\x94\x03\x80\xa11\xcd\x00\x02"), message(b"\x94\x03\x80\xa11\x02"));
    }

    #[test]
    fn a_close_is_read_in_all_its_forms() {
        let none = HubMessage::Close(Close::default());
        for body in [b"\x91\x07".as_slice(), b"\x92\x07\xc0", b"\x92\x07\x80", b"\x93\x07\xc0\xc2", b"\x93\x07\x2a\xc0"]
        {
            assert_eq!(message(body), none, "{body:x?}");
        }
        let full = Close { error: Some("bye".into()), allow_reconnect: true };
        assert_eq!(message(b"\x93\x07\xa3bye\xc3"), HubMessage::Close(full));
    }

    #[test]
    fn texts_and_payloads_share_the_memory_of_the_body() {
        let body = Bytes::from_static(b"\x95\x03\x80\xa2s1\x03\x92\x01\x02");
        let Some(HubMessage::Completion(completion)) = decode(&body).unwrap() else { panic!("no completion") };
        let Outcome::Value(result) = completion.outcome else { panic!("no value") };
        assert_eq!(result.0, b"\x92\x01\x02".as_slice());
        assert!(body.as_ptr_range().contains(&result.0.as_ptr()));
        assert!(body.as_ptr_range().contains(&completion.invocation_id.as_bytes().as_ptr()));
    }

    #[test]
    fn an_unknown_type_is_skipped() {
        assert_eq!(read(b"\x92\x63\x80").unwrap(), None);
    }

    #[test]
    fn errors_name_missing_and_wrong_items() {
        let cases = [
            (b"".as_slice(), "Reading array length failed: the bytes end too early."),
            (b"\x90", "Missing item 'type'."),
            (b"\x95\x01\x80\xc0\xa0\x90", "Null or empty 'target'."),
            (b"\x95\x04\x80\xc0\xa1x\x90", "Null or empty 'invocationId'."),
            (b"\x93\x05\x80\xa0", "Null or empty 'invocationId'."),
            (b"\x94\x03\x80\xa11\x04", "Invalid invocation result kind."),
            (b"\x94\x03\x80\xa11\x03", "Missing item 'result'."),
            (b"\x92\x08\xff", "Reading 'sequenceId' failed: it is negative."),
            (b"\x91\x06\x00", "Bytes follow the message."),
        ];
        for (body, expected) in cases {
            assert_eq!(refusal(body), expected, "{body:x?}");
        }
        assert!(refusal(b"\x93\x05\x81\xa1x\x01\xa11").starts_with("Reading 'headers' failed: "));
    }

    #[test]
    fn announced_lengths_cost_nothing_until_their_bytes_are_there() {
        assert!(read(b"\xdd\xff\xff\xff\xff\x01").is_err());
        assert!(read(b"\x95\x01\xdf\xff\xff\xff\xff").is_err());
        assert!(read(b"\x95\x01\x80\xc0\xa1x\xdd\xff\xff\xff\xff\x01").is_err());
        assert!(read(b"\x95\x01\x80\xdb\xff\xff\xff\xff\xa1x").is_err());
    }

    #[test]
    fn structs_are_maps_with_the_names_of_their_fields() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Point {
            x: i32,
            label: Option<String>,
        }
        let point = Point { x: -1, label: None };
        let encoded = payload(&point).unwrap();
        assert_eq!(encoded.0, b"\x82\xa1x\xff\xa5label\xc0".as_slice());
        assert_eq!(value::<Point>(&encoded).unwrap(), point);
        // MessagePack counts as machine-readable, so compact forms are used.
        assert_eq!(payload(&std::net::Ipv4Addr::LOCALHOST).unwrap().0[0], 0x94);
    }

    #[test]
    fn a_value_with_a_tail_or_of_another_type_is_refused() {
        assert!(value::<u8>(&Payload(Bytes::from_static(&[1]))).is_ok());
        assert_eq!(value::<u8>(&Payload(Bytes::from_static(&[1, 2]))).unwrap_err().to_string(), "trailing bytes");
        assert!(value::<u8>(&Payload(Bytes::from_static(&[0xc0]))).is_err());
        assert!(value::<u8>(&Payload(Bytes::new())).is_err());
        assert!(value::<BTreeMap<String, u8>>(&Payload(Bytes::from_static(&[0x91, 1]))).is_err());
    }

    #[test]
    fn a_value_is_read_no_deeper_than_the_bound() {
        let nested = |levels: usize| {
            let mut bytes = vec![0x91; levels];
            bytes.push(0xc0);
            Payload(bytes.into())
        };
        assert!(value::<serde_json::Value>(&nested(NESTING_MAX)).is_ok());
        assert!(value::<serde_json::Value>(&nested(NESTING_MAX + 1)).is_err());
    }
}
