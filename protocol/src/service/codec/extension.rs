//! Extension maps of service messages, and the fields that only service messages have.
//!
//! Claims are a map with repeatable names: a field of messages, and the payload of acks about claims.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use super::super::service_message::{
    AckStatus, FlowOperation, FlowSubject, GroupJoin, LinkKind, Payloads, PresencePhase,
};
use crate::fields::{Field, FieldResult, Fields, Form, Map, check_count, collect, numbered, record, write_map};
use crate::limits::LIST_MAX_ITEMS;
use crate::message_pack::{Reader, Writer};

// Keys of the extension map. Tracing ids (1) are skipped on reading and never written. New keys can't be added: older
// SDKs misread the rest of the frame after an unknown key.

pub(super) const TTL: i64 = 2;
pub(super) const PROTOCOL: i64 = 3;
const FILTER: i64 = 4;
pub(super) const DATA_TYPE: i64 = 5;
pub(super) const IS_PARTIAL: i64 = 6;

impl Fields<'_> {
    /// Reads the remaining items as pairs. A trailing key without a value is ignored.
    pub(super) fn pairs(&mut self) -> FieldResult<Vec<(ByteString, ByteString)>> {
        let count = check_count("pairs", self.left / 2, LIST_MAX_ITEMS)?;
        collect(count, || Ok((self.value("key")?, self.value("value")?)))
    }

    /// Skips an extension map in the middle of a message.
    pub(super) fn skip_extension(&mut self) -> FieldResult<()> {
        self.next("extension")?;
        self.skip_extension_value()
    }

    /// Reads the filter of a send from the following extension map, if present.
    pub(super) fn filter(&mut self) -> FieldResult<Option<ByteString>> {
        let mut filter = None;
        for _ in 0..self.extension_len()? {
            match self.extension_key()? {
                FILTER => filter = self.read("filter", Reader::optional_text)?,
                _ => self.skip_extension_value()?,
            }
        }
        self.left = self.left.saturating_sub(1);
        Ok(filter)
    }

    /// Returns the number of members of the extension map; 0 if it is missing or nil.
    pub(super) fn extension_len(&mut self) -> FieldResult<usize> {
        if self.left == 0 || self.take_nil() {
            return Ok(0);
        }
        self.read("extension", Reader::map_len)
    }

    pub(super) fn extension_key(&mut self) -> FieldResult<i64> {
        self.read("extension", Reader::integer)
    }

    pub(super) fn skip_extension_value(&mut self) -> FieldResult<()> {
        self.read("extension", Reader::skip)
    }
}

impl Field for Payloads {
    fn expected_bytes(&self) -> usize {
        self.0.expected_bytes()
    }

    fn write(&self, out: &mut Writer) {
        Map::write(&self.0, out);
    }

    fn read(fields: &mut Fields, name: &'static str) -> FieldResult<Self> {
        Map::read(fields, name).map(Payloads)
    }
}

record!(GroupJoin [group, connection_id "connectionId", user_id "userId"]);

numbered!(LinkKind as integer: 0 Default, 1 OnDemand, 2 Weak, _ Unknown);
numbered!(AckStatus as integer: 1 Ok, 2 NotFound, 3 Timeout, 4 InternalServerError, 5 Forbidden, _ Unknown);
numbered!(FlowSubject as int32: 1 Client, 2 Server);
numbered!(FlowOperation as int32: 1 Pause, 2 PauseAck, 3 Resume, 4 Offline, 5 ReadOn, 6 EndInput);
numbered!(PresencePhase as integer: 0 Changes, 1 Snapshot, 2 SnapshotEnd);

/// Optional text: nil and an empty one are equal.
pub(super) enum NonEmpty {}

impl Form<Option<ByteString>> for NonEmpty {
    fn read(fields: &mut Fields, name: &'static str) -> FieldResult<Option<ByteString>> {
        Ok(Option::<ByteString>::read(fields, name)?.filter(|text| !text.is_empty()))
    }
}

/// Encodes the claims of a connection as the payload of an ack.
#[must_use]
pub fn claims_to_payload(claims: &[(ByteString, ByteString)]) -> Bytes {
    let mut out = BytesMut::new();
    write_map(claims, &mut Writer(&mut out));
    out.freeze()
}

/// Decodes the payload of an ack about claims. Returns `None` for other payloads.
#[must_use]
pub fn claims_from_payload(payload: &Bytes) -> Option<Vec<(ByteString, ByteString)>> {
    let mut reader = Reader::new(payload);
    let entries = reader.map_len().ok()?;
    (0..entries).map(|_| Some((reader.shared_text().ok()?, reader.shared_text().ok()?))).collect()
}
