//! Items for clients that follow a record: a recorded call with its position.
//!
//! ```text
//!  { position, target, arguments }       a recorded call; the arguments keep their bytes
//!  { reset, oldest }                     messages before the next item may be missing
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;

use super::{HubMessage, HubProtocol, Payload, PayloadError, whole_messages};
use crate::message_pack::Writer;

/// First item after a loss of messages.
#[derive(Serialize)]
struct ResetItem<'a> {
    reset: &'a str,
    oldest: Option<&'a str>,
}

impl HubProtocol {
    /// Encodes a recorded call, given with its framing, as the item of a follower. Fails if the bytes are not a single
    /// call.
    pub fn followed_item(self, position: &str, framed: &Bytes) -> Result<Payload, PayloadError> {
        let mut messages = whole_messages(self, framed);
        let (Some(message), None) = (messages.next(), messages.next()) else {
            return Err(PayloadError("not a single message".into()));
        };
        let body = framed.slice_ref(message.body);
        let call = match self.decode(&body).map_err(|error| PayloadError(error.to_string()))? {
            Some(HubMessage::Invocation(call)) => call,
            _ => return Err(PayloadError("not a call".into())),
        };
        let mut out = BytesMut::with_capacity(framed.len() + position.len() + 64);
        if self.is_binary() {
            let mut writer = Writer(&mut out);
            writer.map_len(3);
            ["position", position, "target", &call.target, "arguments"].iter().for_each(|text| writer.text(text));
            writer.array_len(call.arguments.len());
            call.arguments.iter().for_each(|argument| out.put_slice(argument.as_bytes()));
        } else {
            let text = |text: &str| self.payload(text);
            for (name, value) in [("{\"position\":", position), (",\"target\":", &*call.target)] {
                out.put_slice(name.as_bytes());
                out.put_slice(text(value)?.as_bytes());
            }
            out.put_slice(b",\"arguments\":[");
            for (at, argument) in call.arguments.iter().enumerate() {
                out.put_slice(if at == 0 { b"" } else { b"," });
                out.put_slice(argument.as_bytes());
            }
            out.put_slice(b"]}");
        }
        Ok(Payload::new(out.freeze()))
    }

    /// Encodes the item that reports a loss of messages.
    pub fn reset_item(self, reset: &str, oldest: Option<&str>) -> Result<Payload, PayloadError> {
        self.payload(&ResetItem { reset, oldest })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::hub::Invocation;

    #[test]
    fn an_item_has_the_position_and_the_call_in_each_protocol() {
        for protocol in HubProtocol::ALL {
            let arguments = [json!({"a": [1]}), json!("b")].iter().map(|it| protocol.payload(it).unwrap()).collect();
            let call = Invocation { target: "Say\"".into(), arguments, ..Invocation::default() };
            let mut framed = BytesMut::new();
            protocol.encode(&HubMessage::Invocation(call), &mut framed);
            let item = protocol.followed_item("0-1", &framed.freeze()).unwrap();
            let expected = json!({"position": "0-1", "target": "Say\"", "arguments": [{"a": [1]}, "b"]});
            assert_eq!(protocol.value::<Value>(&item).unwrap(), expected);
            let reset = protocol.reset_item("lost", None).unwrap();
            assert_eq!(protocol.value::<Value>(&reset).unwrap(), json!({"reset": "lost", "oldest": null}));
        }
    }

    #[test]
    fn bytes_that_are_no_single_call_are_refused() {
        for bytes in [
            &b""[..],
            b"{}\x1e",
            b"{\"type\":6}\x1e",
            b"{\"type\":1,\"target\":\"a\",\"arguments\":[]}\x1e{\"type\":6}\x1e",
        ] {
            assert!(HubProtocol::Json.followed_item("0-1", &Bytes::copy_from_slice(bytes)).is_err());
        }
    }
}
