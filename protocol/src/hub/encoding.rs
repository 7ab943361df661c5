//! Encoding and decoding of hub messages and payloads, in the hub protocol that a client chose.

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{
    CallScan, HubMessage, HubMessageError, HubProtocol, Payload, PayloadError, Scan, ScanError, call_scan,
    json_encoding, message_pack_encoding, scan,
};

impl HubProtocol {
    /// Appends the message with its framing: exactly what the official server would send.
    pub fn encode(self, message: &HubMessage, out: &mut BytesMut) {
        match self {
            HubProtocol::Json => json_encoding::encode(message, out),
            HubProtocol::MessagePack | HubProtocol::BlazorPack => message_pack_encoding::encode(message, out),
        }
    }

    /// Reads the body of one frame (see [`next_frame`](super::next_frame)); `None` for a type that is not
    /// known here and shall be skipped. Payloads and texts share the memory of `body`.
    ///
    /// # Errors
    /// When the body is no hub message; the text is fit for a log line and for detailed errors.
    pub fn decode(self, body: &Bytes) -> Result<Option<HubMessage>, HubMessageError> {
        match self {
            HubProtocol::Json => json_encoding::decode(body),
            HubProtocol::MessagePack | HubProtocol::BlazorPack => message_pack_encoding::decode(body),
        }
    }

    /// Scans a frame's body for the two facts that a proxy needs: kind and invocation id.
    ///
    /// # Errors
    /// When these can't be found because the body is malformed.
    pub fn scan(self, body: &[u8]) -> Result<Scan<'_>, ScanError> {
        match self {
            HubProtocol::Json => scan::json(body),
            HubProtocol::MessagePack | HubProtocol::BlazorPack => scan::message_pack(body),
        }
    }

    /// Scans a frame's body for what rules about calls need: method and streams, too.
    ///
    /// # Errors
    /// When these can't be found because the body is malformed. Some app servers may find a method in it still.
    pub fn scan_call(self, body: &[u8]) -> Result<CallScan<'_>, ScanError> {
        match self {
            HubProtocol::Json => call_scan::json(body),
            HubProtocol::MessagePack | HubProtocol::BlazorPack => call_scan::message_pack(body),
        }
    }

    /// Encodes a value: structs become maps with their fields' names.
    ///
    /// # Errors
    /// When the value can't be represented, such as a map whose keys are no texts in JSON.
    pub fn payload<T: Serialize + ?Sized>(self, value: &T) -> Result<Payload, PayloadError> {
        match self {
            HubProtocol::Json => json_encoding::payload(value),
            HubProtocol::MessagePack | HubProtocol::BlazorPack => message_pack_encoding::payload(value),
        }
    }

    /// Reads an encoded value.
    ///
    /// # Errors
    /// When it is of another type.
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

    #[test]
    fn null_and_unit_are_the_same_payload() {
        for protocol in HubProtocol::ALL {
            assert_eq!(protocol.payload(&()).unwrap(), protocol.payload(&None::<u8>).unwrap());
        }
    }
}
