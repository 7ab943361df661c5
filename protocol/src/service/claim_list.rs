//! Claims as a map with repeatable names: a field of messages, and the payload of acks about claims.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use crate::message_pack::{Reader, Writer};

pub(super) fn write_claims(out: &mut Writer, claims: &[(ByteString, ByteString)]) {
    out.map_len(claims.len());
    for (name, value) in claims {
        out.text(name);
        out.text(value);
    }
}

/// Encodes the claims of a connection as the payload of an ack.
#[must_use]
pub fn claims_to_payload(claims: &[(ByteString, ByteString)]) -> Bytes {
    let mut out = BytesMut::new();
    write_claims(&mut Writer(&mut out), claims);
    out.freeze()
}

/// Decodes the payload of an ack about claims. Returns `None` for other payloads.
#[must_use]
pub fn claims_from_payload(payload: &Bytes) -> Option<Vec<(ByteString, ByteString)>> {
    let mut reader = Reader::new(payload);
    let entries = reader.map_len().ok()?;
    (0..entries).map(|_| Some((reader.shared_text().ok()?, reader.shared_text().ok()?))).collect()
}
