//! Encoding and decoding of hub messages and payloads in the client's hub protocol.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{
    CallScan, HubMessage, HubMessageError, HubProtocol, Payload, PayloadError, Scan, ScanError, call_scan,
    json_encoding, message_pack_encoding, scan,
};

impl HubProtocol {
    /// Appends the framed message, exactly as the official server would send it.
    pub fn encode(self, message: &HubMessage, out: &mut BytesMut) {
        match self {
            HubProtocol::Json => json_encoding::encode(message, out),
            HubProtocol::MessagePack | HubProtocol::BlazorPack => message_pack_encoding::encode(message, out),
        }
    }

    /// Decodes the body of one frame (see [`next_frame`](super::next_frame)). Returns `None` for unknown types, which
    /// are skipped. Payloads and texts share the memory of `body`. Fails if the body is not a hub message. The text is
    /// suitable for logs and detailed errors.
    pub fn decode(self, body: &Bytes) -> Result<Option<HubMessage>, HubMessageError> {
        let decoded = match self {
            HubProtocol::Json => json_encoding::decode(body),
            HubProtocol::MessagePack | HubProtocol::BlazorPack => message_pack_encoding::decode(body),
        };
        decoded.map_err(|error| self.with_head(error, body))
    }

    /// Adds the readable parts of an undecodable message.
    #[cold]
    fn with_head(self, error: HubMessageError, body: &[u8]) -> HubMessageError {
        let Ok(Scan { kind, invocation_id, .. }) = self.scan(body) else { return error };
        let target = self.scan_call(body).ok().and_then(|call| call.target);
        let shared = |text: Cow<'_, str>| ByteString::from(&*text);
        HubMessageError {
            kind: Some(kind),
            invocation_id: invocation_id.map(shared),
            target: target.map(shared),
            ..error
        }
    }

    /// Scans a frame body for the kind and invocation id, all that a proxy needs. Fails if the body is malformed.
    pub fn scan(self, body: &[u8]) -> Result<Scan<'_>, ScanError> {
        match self {
            HubProtocol::Json => scan::json(body),
            HubProtocol::MessagePack | HubProtocol::BlazorPack => scan::message_pack(body),
        }
    }

    /// Scans a frame body for call rules, including method and streams. Fails if the body is malformed. Some app
    /// servers may still find a method in it.
    pub fn scan_call(self, body: &[u8]) -> Result<CallScan<'_>, ScanError> {
        match self {
            HubProtocol::Json => call_scan::json(body),
            HubProtocol::MessagePack | HubProtocol::BlazorPack => call_scan::message_pack(body),
        }
    }

    /// Encodes a value. Structs become maps of their fields. Fails if the value can't be represented, such as a map
    /// with non-string keys in JSON.
    pub fn payload<T: Serialize + ?Sized>(self, value: &T) -> Result<Payload, PayloadError> {
        match self {
            HubProtocol::Json => json_encoding::payload(value),
            HubProtocol::MessagePack | HubProtocol::BlazorPack => message_pack_encoding::payload(value),
        }
    }

    /// Decodes an encoded value. Fails if it has another type.
    pub fn value<T: DeserializeOwned>(self, payload: &Payload) -> Result<T, PayloadError> {
        match self {
            HubProtocol::Json => json_encoding::value(payload),
            HubProtocol::MessagePack | HubProtocol::BlazorPack => message_pack_encoding::value(payload),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::MessageKind;

    #[test]
    fn an_error_has_the_known_kind_id_and_target_of_its_message() {
        use MessageKind::{Completion as End, Invocation as Call, StreamInvocation as Stream, StreamItem as Item};
        let deep = format!("{}{}", "[".repeat(600), "]".repeat(600));
        let deep = format!(r#"{{"invocationId":"1","target":"Echo","arguments":{deep},"type":1}}"#);
        let nested = [b"\x96\x01\x80\xa11\xa4Echo\x91".as_slice(), &[0x91; 600], b"\xc0\x90"].concat();
        let (json, pack, echo) = (HubProtocol::Json, HubProtocol::MessagePack, Some("Echo"));
        type Case<'a> = (HubProtocol, &'a [u8], Option<MessageKind>, Option<&'a str>, Option<&'a str>);
        let cases: [Case<'_>; 15] = [
            (json, br#"{"type":1,"invocationId":"1","target":"","arguments":[]}"#, Some(Call), Some("1"), None),
            (json, br#"{"type":1,"invocationId":"1","target":"Echo"}"#, Some(Call), Some("1"), echo),
            (json, br#"{"type":4,"invocationId":"1","target":"Echo","arguments":[x]}"#, Some(Stream), Some("1"), echo),
            (json, deep.as_bytes(), Some(Call), Some("1"), echo),
            (json, br#"{"type":1,"target":"Echo","arguments":null}"#, Some(Call), None, echo),
            (json, br#"{"type":3,"invocationId":"1","result":1,"error":"x"}"#, Some(End), Some("1"), None),
            (json, br#"{"type":2,"invocationId":"1"}"#, Some(Item), Some("1"), None),
            (json, br#"{"type":1,"invocationId":7,"target":"Echo"}"#, None, None, None),
            (json, br#"{"type":1,"invocationId":"1""#, None, None, None),
            (pack, b"\x96\x01\x80\xa11\xa4Echo\xc0\x90", Some(Call), Some("1"), echo),
            (pack, b"\x94\x04\x80\xa11\xa4Echo", Some(Stream), Some("1"), echo),
            (pack, b"\x96\x01\x80\xa11\xa4Echo\x91\xc1\x90", Some(Call), Some("1"), echo),
            (pack, &nested, Some(Call), Some("1"), echo),
            (pack, b"\x95\x03\x80\xa11\x09\x01", Some(End), Some("1"), None),
            (pack, b"\x96\x01\x80\xc0\xa4Echo\xc0\x90", Some(Call), None, echo),
        ];
        for (protocol, body, kind, id, target) in cases {
            let error = protocol.decode(&Bytes::copy_from_slice(body)).unwrap_err();
            let seen = (error.kind, error.invocation_id.as_deref(), error.target.as_deref());
            assert_eq!(seen, (kind, id, target), "{}", String::from_utf8_lossy(body));
            let is_call = kind.is_some_and(MessageKind::is_call);
            assert_eq!(error.call_id().map(|id| &**id), id.filter(|_| is_call));
            assert_eq!(error.is_dropped_call(), protocol == pack && is_call && id.is_none());
            assert_eq!(error.failed_end().map(|end| end.invocation_id.to_string()).as_deref(), id.filter(|_| !is_call));
        }
    }

    #[test]
    fn null_and_unit_are_the_same_payload() {
        for protocol in HubProtocol::ALL {
            assert_eq!(protocol.payload(&()).unwrap(), protocol.payload(&None::<u8>).unwrap());
        }
    }
}
