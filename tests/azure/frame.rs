//! Frames of the service protocol, written and read by test code that follows only the documented layouts.

use anyhow::{Context, Result, bail, ensure};

use crate::value::{Value, list, map};

/// Message types, the first element of each message.
pub(crate) mod kind {
    pub(crate) const HANDSHAKE_REQUEST: i64 = 1;
    pub(crate) const HANDSHAKE_RESPONSE: i64 = 2;
    pub(crate) const PING: i64 = 3;
    pub(crate) const OPEN_CONNECTION: i64 = 4;
    pub(crate) const CLOSE_CONNECTION: i64 = 5;
    pub(crate) const CONNECTION_DATA: i64 = 6;
    pub(crate) const MULTI_CONNECTION_DATA: i64 = 7;
    pub(crate) const USER_DATA: i64 = 8;
    pub(crate) const MULTI_USER_DATA: i64 = 9;
    pub(crate) const BROADCAST_DATA: i64 = 10;
    pub(crate) const GROUP_BROADCAST_DATA: i64 = 13;
    pub(crate) const MULTI_GROUP_BROADCAST_DATA: i64 = 14;
    pub(crate) const SERVICE_ERROR: i64 = 15;
    pub(crate) const JOIN_GROUP_WITH_ACK: i64 = 18;
    pub(crate) const LEAVE_GROUP_WITH_ACK: i64 = 19;
    pub(crate) const ACK: i64 = 20;
    pub(crate) const SERVICE_EVENT: i64 = 22;
    pub(crate) const CHECK_CONNECTION: i64 = 24;
    pub(crate) const ACCESS_KEY_RESPONSE: i64 = 29;
    pub(crate) const CLIENT_INVOCATION: i64 = 34;
    pub(crate) const CLIENT_COMPLETION: i64 = 35;
    pub(crate) const ERROR_COMPLETION: i64 = 36;
    pub(crate) const SERVICE_MAPPING: i64 = 37;
    pub(crate) const CONNECTION_RECONNECT: i64 = 38;
    pub(crate) const FLOW_CONTROL: i64 = 39;
    pub(crate) const REFRESH_AUTH: i64 = 41;
    pub(crate) const UPDATE_CONNECTION_CLAIMS: i64 = 43;
}

/// Kinds of hub messages in the extension of connection data.
pub(crate) mod data {
    pub(crate) const HANDSHAKE: i64 = 1;
    pub(crate) const INVOCATION: i64 = 2;
    pub(crate) const OTHER: i64 = 3;
    pub(crate) const CLOSE: i64 = 4;
}

/// Extension key for the kind of a hub message.
const DATA_KIND: i64 = 5;

/// Maximum length of a length prefix.
const PREFIX_MAX: usize = 5;

pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let mut rest = message.len();
    loop {
        let byte = u8::try_from(rest & 0x7f).expect("seven bits");
        rest >>= 7;
        frame.push(if rest == 0 { byte } else { byte | 0x80 });
        if rest == 0 {
            break;
        }
    }
    frame.extend_from_slice(message);
    frame
}

/// Encodes a message with its length.
pub(crate) fn frame(message: &Value) -> Vec<u8> {
    framed(&message.encode())
}

/// Takes the first whole message from the front, if any.
pub(crate) fn take_frame(bytes: &mut Vec<u8>) -> Result<Option<Vec<u8>>> {
    let mut length = 0_usize;
    for (place, byte) in bytes.iter().copied().enumerate() {
        ensure!(place < PREFIX_MAX, "the length has more than {PREFIX_MAX} bytes");
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            let (start, end) = (place + 1, place + 1 + length);
            if bytes.len() < end {
                return Ok(None);
            }
            let message = bytes.get(start..end).map(<[u8]>::to_vec);
            bytes.drain(..end);
            return Ok(message);
        }
    }
    Ok(None)
}

/// Reads a message that must span all bytes.
pub(crate) fn message(mut bytes: &[u8]) -> Result<Value> {
    let message = Value::decode(&mut bytes)?;
    ensure!(bytes.is_empty(), "{} bytes are left behind {message:?}", bytes.len());
    Ok(message)
}

pub(crate) fn from_hex(hex: &str) -> Result<Vec<u8>> {
    ensure!(hex.len().is_multiple_of(2), "half a byte");
    let digits = hex.as_bytes().chunks_exact(2);
    digits.map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?)).collect()
}

pub(crate) fn kind_of(message: &Value) -> i64 {
    message.at(0).as_int().unwrap_or_default()
}

/// Kind in connection data; 0 if absent.
pub(crate) fn data_kind(message: &Value) -> i64 {
    message.at(3).get(&Value::Int(DATA_KIND)).as_int().unwrap_or_default()
}

pub(crate) fn no_ext() -> Value {
    map! {}
}

pub(crate) fn ping(words: &[&str]) -> Value {
    let words = words.iter().map(|word| Value::from(*word));
    Value::List(std::iter::once(Value::Int(kind::PING)).chain(words).collect())
}

pub(crate) fn connection_data(id: &str, payload: &[u8], of_kind: i64) -> Value {
    list![kind::CONNECTION_DATA, id, payload, map! { DATA_KIND => of_kind }]
}

pub(crate) fn close_connection(id: &str, error: Value) -> Value {
    list![kind::CLOSE_CONNECTION, id, error, map! {}, no_ext()]
}

/// Invocation of `target` with this text, for each protocol.
pub(crate) fn payloads(target: &str, text: &str) -> Value {
    let json = format!("{{\"type\":1,\"target\":\"{target}\",\"arguments\":[\"{text}\"]}}\u{1e}");
    map! { "json" => json.as_bytes(), "messagepack" => packed_invocation(target, text).as_slice() }
}

/// MessagePack invocation of `target`, with its length.
pub(crate) fn packed_invocation(target: &str, text: &str) -> Vec<u8> {
    frame(&list![1, map! {}, Value::Nil, target, list![text], list![]])
}

/// Splits a client's data into hub messages, each with its terminator or length.
pub(crate) fn hub_messages(bytes: &[u8], protocol: &str) -> Result<Vec<Vec<u8>>> {
    if protocol == "json" {
        return Ok(bytes.split_inclusive(|byte| *byte == 0x1e).map(<[u8]>::to_vec).collect());
    }
    let mut rest = bytes.to_vec();
    let mut messages = Vec::new();
    while let Some(message) = take_frame(&mut rest)? {
        messages.push(framed(&message));
    }
    ensure!(rest.is_empty(), "a hub message is cut off: {rest:?}");
    Ok(messages)
}

pub(crate) fn hub_type(message: &[u8], protocol: &str) -> Result<i64> {
    if protocol == "json" {
        let text = message.strip_suffix(b"\x1e").context("a JSON message without its end")?;
        let parsed: serde_json::Value = serde_json::from_slice(text)?;
        return parsed.get("type").and_then(serde_json::Value::as_i64).context("a hub message without a type");
    }
    let mut rest = message.to_vec();
    let whole = take_frame(&mut rest)?.context("a whole message")?;
    let mut inner = whole.get(..).context("a body")?;
    rmp::decode::read_array_len(&mut inner)?;
    match Value::decode(&mut inner)? {
        Value::Int(number) => Ok(number),
        other => bail!("a hub message begins with {other:?}"),
    }
}

pub(crate) fn data_kind_of(hub_type: i64) -> i64 {
    match hub_type {
        6 | 8 | 9 => data::OTHER,
        7 => data::CLOSE,
        _ => data::INVOCATION,
    }
}

/// Whether connection data carries these hub messages of a client and no wrong kind.
pub(crate) fn brings(message: &Value, id: &str, payload: &[u8], of_kind: i64) -> bool {
    kind_of(message) == kind::CONNECTION_DATA
        && message.at(1).as_text() == Some(id)
        && message.at(2).as_bytes() == Some(payload)
        && [0, of_kind].contains(&data_kind(message))
}
