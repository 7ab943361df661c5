//! Fields of messages: their encoding by type, and sequential reading with errors that name the field.
//!
//! Names and payloads share the memory of the frame. Allocations are bounded by the frame's length: each list item has
//! at least a byte there and takes at most about 64 bytes of memory.
//!
//! Claims are a map with repeatable names: a field of messages, and the payload of acks about claims.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use super::super::service_message::{
    AckStatus, FlowOperation, FlowSubject, GroupJoin, LinkKind, Payloads, PresencePhase,
};
use crate::limits::LIST_MAX_ITEMS;
use crate::message_pack::{ReadError, Reader, Writer};

/// Keys of the extension map. Tracing ids (1) are skipped on reading and never written.
///
/// New keys can't be added: older SDKs misread the rest of the frame after an unknown key.
pub(super) mod extension {
    pub(crate) const TTL: i64 = 2;
    pub(crate) const PROTOCOL: i64 = 3;
    pub(crate) const FILTER: i64 = 4;
    pub(crate) const DATA_TYPE: i64 = 5;
    pub(crate) const IS_PARTIAL: i64 = 6;
}

/// Maximum list capacity allocated before the first item is read.
const LIST_ROOM_ITEMS: usize = 1024;

#[derive(Debug, thiserror::Error)]
#[error("{field}: {problem}")]
pub(super) struct FieldError {
    field: &'static str,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("is missing")]
    Missing,
    #[error("{0}")]
    Read(ReadError),
    #[error("has {0} items, over {LIST_MAX_ITEMS}")]
    TooMany(usize),
    #[error("is {0}, which has no meaning")]
    Value(i64),
}

pub(super) type FieldResult<T> = Result<T, FieldError>;

/// Fields of a message after its number. Each method reads the next one; the name is for errors.
pub(super) struct Fields<'a> {
    reader: Reader<'a>,
    /// Length of the whole array, which distinguishes the layouts of older SDKs.
    items: usize,
    left: usize,
}

impl<'a> Fields<'a> {
    /// Reads the length and the number of a message.
    pub(super) fn new(body: &'a Bytes) -> Result<(i64, Self), ReadError> {
        let mut reader = Reader::new(body);
        let items = reader.array_len()?;
        let number = reader.integer()?;
        Ok((number, Self { reader, items, left: items.saturating_sub(1) }))
    }

    pub(super) fn has(&self, items: usize) -> bool {
        self.items >= items
    }

    pub(super) fn left(&self) -> usize {
        self.left
    }

    pub(super) fn value<T: Field>(&mut self, name: &'static str) -> FieldResult<T> {
        self.value_as::<Plain, T>(name)
    }

    pub(super) fn value_as<F: Form<T>, T: Field>(&mut self, name: &'static str) -> FieldResult<T> {
        self.next(name)?;
        F::read(self, name)
    }

    /// Reads the remaining items as pairs. A trailing key without a value is ignored.
    pub(super) fn pairs(&mut self) -> FieldResult<Vec<(ByteString, ByteString)>> {
        let count = check_count("pairs", self.left / 2)?;
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
                extension::FILTER => filter = self.read("filter", Reader::optional_text)?,
                _ => self.skip_extension_value()?,
            }
        }
        self.left = self.left.saturating_sub(1);
        Ok(filter)
    }

    /// Returns the number of members of the extension map; 0 if it is missing or nil.
    pub(super) fn extension_len(&mut self) -> FieldResult<usize> {
        if self.left == 0 || self.reader.take_nil() {
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

    /// Reads another part of the current field, for extension maps.
    pub(super) fn read<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, ReadError>,
    ) -> FieldResult<T> {
        read(&mut self.reader).map_err(|error| FieldError { field, problem: Problem::Read(error) })
    }

    fn next(&mut self, field: &'static str) -> FieldResult<()> {
        self.left = self.left.checked_sub(1).ok_or(FieldError { field, problem: Problem::Missing })?;
        Ok(())
    }

    /// Reads a list with at least `items` items; additional ones are skipped.
    fn list_of<T>(
        &mut self,
        field: &'static str,
        items: usize,
        read: impl FnOnce(&mut Self) -> FieldResult<T>,
    ) -> FieldResult<T> {
        let given = self.read(field, Reader::array_len)?;
        let value = read(self)?;
        // If items are missing, `read` has consumed later data, so reading can't continue.
        for _ in items..given {
            self.read(field, Reader::skip)?;
        }
        if given < items { Err(FieldError { field, problem: Problem::Missing }) } else { Ok(value) }
    }
}

fn check_count(field: &'static str, count: usize) -> FieldResult<usize> {
    if count > LIST_MAX_ITEMS {
        return Err(FieldError { field, problem: Problem::TooMany(count) });
    }
    Ok(count)
}

/// Limits the initial capacity, because the peer's item count can't be trusted.
fn collect<T>(count: usize, mut next: impl FnMut() -> FieldResult<T>) -> FieldResult<Vec<T>> {
    let mut items = Vec::with_capacity(count.min(LIST_ROOM_ITEMS));
    for _ in 0..count {
        items.push(next()?);
    }
    Ok(items)
}

/// Type of a field. Its encoding has no other information than the value.
pub(super) trait Field: Sized {
    /// Estimated encoded length. Zero for a small value: the envelope covers it.
    fn expected_bytes(&self) -> usize {
        0
    }

    fn write(&self, out: &mut Writer);

    fn read(fields: &mut Fields, name: &'static str) -> FieldResult<Self>;
}

impl Field for i64 {
    fn write(&self, out: &mut Writer) {
        out.integer(*self);
    }

    fn read(fields: &mut Fields, name: &'static str) -> FieldResult<Self> {
        fields.read(name, Reader::integer)
    }
}

impl Field for bool {
    fn write(&self, out: &mut Writer) {
        out.boolean(*self);
    }

    fn read(fields: &mut Fields, name: &'static str) -> FieldResult<Self> {
        fields.read(name, Reader::boolean)
    }
}

impl Field for ByteString {
    /// Assumes two bytes of header, as for ids and names of usual length.
    fn expected_bytes(&self) -> usize {
        self.len() + 2
    }

    fn write(&self, out: &mut Writer) {
        out.text(self);
    }

    fn read(fields: &mut Fields, name: &'static str) -> FieldResult<Self> {
        fields.read(name, Reader::shared_text)
    }
}

impl Field for Bytes {
    fn expected_bytes(&self) -> usize {
        self.len() + 4
    }

    fn write(&self, out: &mut Writer) {
        out.binary(self);
    }

    fn read(fields: &mut Fields, name: &'static str) -> FieldResult<Self> {
        fields.read(name, Reader::binary)
    }
}

impl<T: Field> Field for Option<T> {
    fn expected_bytes(&self) -> usize {
        self.as_ref().map_or(0, Field::expected_bytes)
    }

    fn write(&self, out: &mut Writer) {
        match self {
            Some(value) => value.write(out),
            None => out.nil(),
        }
    }

    fn read(fields: &mut Fields, name: &'static str) -> FieldResult<Self> {
        if fields.reader.take_nil() { Ok(None) } else { T::read(fields, name).map(Some) }
    }
}

impl<T: Field> Field for Vec<T> {
    fn expected_bytes(&self) -> usize {
        self.iter().map(Field::expected_bytes).sum()
    }

    fn write(&self, out: &mut Writer) {
        out.array_len(self.len());
        self.iter().for_each(|item| item.write(out));
    }

    fn read(fields: &mut Fields, name: &'static str) -> FieldResult<Self> {
        let count = fields.read(name, Reader::array_len)?;
        let count = check_count(name, count)?;
        collect(count, || T::read(fields, name))
    }
}

impl<A: Field, B: Field> Field for (A, B) {
    fn expected_bytes(&self) -> usize {
        self.0.expected_bytes() + self.1.expected_bytes()
    }

    fn write(&self, out: &mut Writer) {
        out.array_len(2);
        self.0.write(out);
        self.1.write(out);
    }

    fn read(fields: &mut Fields, name: &'static str) -> FieldResult<Self> {
        fields.list_of(name, 2, |fields| Ok((A::read(fields, name)?, B::read(fields, name)?)))
    }
}

impl Field for GroupJoin {
    fn expected_bytes(&self) -> usize {
        self.group.expected_bytes() + self.connection_id.expected_bytes() + self.user_id.expected_bytes()
    }

    fn write(&self, out: &mut Writer) {
        out.array_len(3);
        self.group.write(out);
        self.connection_id.write(out);
        self.user_id.write(out);
    }

    fn read(fields: &mut Fields, name: &'static str) -> FieldResult<Self> {
        fields.list_of(name, 3, |fields| {
            Ok(Self {
                group: Field::read(fields, "group")?,
                connection_id: Field::read(fields, "connectionId")?,
                user_id: Field::read(fields, "userId")?,
            })
        })
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

/// Implements [`Field`] for an enum with a number for each variant, and perhaps one for unknown numbers.
macro_rules! numbered {
    ($type:ident as $write:ident: $($number:literal $variant:ident),* $(, _ $unknown:ident)?) => {
        impl Field for $type {
            fn write(&self, out: &mut Writer) {
                out.$write(match self {
                    $(Self::$variant => $number,)*
                    $(Self::$unknown(number) => *number,)?
                });
            }

            fn read(fields: &mut Fields, name: &'static str) -> FieldResult<Self> {
                match fields.read(name, Reader::integer)? {
                    $($number => Ok(Self::$variant),)*
                    number => numbered!(@other name, number $(, $unknown)?),
                }
            }
        }
    };
    (@other $name:ident, $number:ident, $unknown:ident) => { Ok(Self::$unknown($number)) };
    (@other $name:ident, $number:ident) => { Err(FieldError { field: $name, problem: Problem::Value($number) }) };
}

numbered!(LinkKind as integer: 0 Default, 1 OnDemand, 2 Weak, _ Unknown);
numbered!(AckStatus as integer: 1 Ok, 2 NotFound, 3 Timeout, 4 InternalServerError, 5 Forbidden, _ Unknown);
numbered!(FlowSubject as int32: 1 Client, 2 Server);
numbered!(FlowOperation as int32: 1 Pause, 2 PauseAck, 3 Resume, 4 Offline, 5 ReadOn, 6 EndInput);
numbered!(PresencePhase as integer: 0 Changes, 1 Snapshot, 2 SnapshotEnd);

/// Encoding of a field: the one of its type, or another one.
pub(super) trait Form<T: Field> {
    fn write(value: &T, out: &mut Writer) {
        value.write(out);
    }

    fn read(fields: &mut Fields, name: &'static str) -> FieldResult<T>;
}

pub(super) enum Plain {}

impl<T: Field> Form<T> for Plain {
    fn read(fields: &mut Fields, name: &'static str) -> FieldResult<T> {
        T::read(fields, name)
    }
}

/// Optional value that this message always has.
pub(super) enum Required {}

impl<T: Field> Form<Option<T>> for Required {
    fn read(fields: &mut Fields, name: &'static str) -> FieldResult<Option<T>> {
        T::read(fields, name).map(Some)
    }
}

/// Optional text: nil and an empty one are equal.
pub(super) enum NonEmpty {}

impl Form<Option<ByteString>> for NonEmpty {
    fn read(fields: &mut Fields, name: &'static str) -> FieldResult<Option<ByteString>> {
        Ok(Option::<ByteString>::read(fields, name)?.filter(|text| !text.is_empty()))
    }
}

/// Seconds since 1970 as a MessagePack timestamp.
pub(super) enum Timestamp {}

impl Form<i64> for Timestamp {
    fn write(value: &i64, out: &mut Writer) {
        out.timestamp(*value);
    }

    fn read(fields: &mut Fields, name: &'static str) -> FieldResult<i64> {
        fields.read(name, Reader::timestamp)
    }
}

/// Map, in which names may repeat.
pub(super) enum Map {}

impl<T: Field> Form<Vec<(ByteString, T)>> for Map {
    fn write(value: &Vec<(ByteString, T)>, out: &mut Writer) {
        write_map(value, out);
    }

    fn read(fields: &mut Fields, name: &'static str) -> FieldResult<Vec<(ByteString, T)>> {
        let count = fields.read(name, Reader::map_len)?;
        let count = check_count(name, count)?;
        collect(count, || Ok((Field::read(fields, name)?, Field::read(fields, name)?)))
    }
}

fn write_map<T: Field>(entries: &[(ByteString, T)], out: &mut Writer) {
    out.map_len(entries.len());
    for (name, value) in entries {
        name.write(out);
        value.write(out);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_count_makes_no_room() {
        // Would panic if all capacity were allocated up front.
        let items: FieldResult<Vec<u64>> =
            collect(usize::MAX, || Err(FieldError { field: "x", problem: Problem::Value(1) }));
        assert_eq!(items.unwrap_err().to_string(), "x: is 1, which has no meaning");
    }

    #[test]
    fn a_list_of_too_many_names_is_refused() {
        let error = check_count("groups", LIST_MAX_ITEMS + 1).unwrap_err();
        assert_eq!(error.to_string(), "groups: has 1048577 items, over 1048576");
    }
}
