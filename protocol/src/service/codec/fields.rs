//! Sequential reading of a message's fields, with errors that name the field.
//!
//! Claims are a map with repeatable names: a field of messages, and the payload of acks about claims.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use super::super::service_message::Payloads;
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

impl FieldError {
    pub(super) fn value(field: &'static str, value: i64) -> Self {
        Self { field, problem: Problem::Value(value) }
    }
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

    pub(super) fn text(&mut self, field: &'static str) -> FieldResult<ByteString> {
        self.next(field)?;
        self.read(field, Reader::shared_text)
    }

    pub(super) fn optional_text(&mut self, field: &'static str) -> FieldResult<Option<ByteString>> {
        self.next(field)?;
        self.read(field, Reader::optional_text)
    }

    pub(super) fn integer(&mut self, field: &'static str) -> FieldResult<i64> {
        self.next(field)?;
        self.read(field, Reader::integer)
    }

    pub(super) fn timestamp(&mut self, field: &'static str) -> FieldResult<i64> {
        self.next(field)?;
        self.read(field, Reader::timestamp)
    }

    pub(super) fn optional_integer(&mut self, field: &'static str) -> FieldResult<Option<i64>> {
        self.optional(field, Reader::integer)
    }

    pub(super) fn optional_binary(&mut self, field: &'static str) -> FieldResult<Option<Bytes>> {
        self.optional(field, Reader::binary)
    }

    pub(super) fn boolean(&mut self, field: &'static str) -> FieldResult<bool> {
        self.next(field)?;
        self.read(field, Reader::boolean)
    }

    pub(super) fn binary(&mut self, field: &'static str) -> FieldResult<Bytes> {
        self.next(field)?;
        self.read(field, Reader::binary)
    }

    pub(super) fn texts(&mut self, field: &'static str) -> FieldResult<Vec<ByteString>> {
        self.next(field)?;
        self.text_list(field)
    }

    pub(super) fn optional_texts(&mut self, field: &'static str) -> FieldResult<Option<Vec<ByteString>>> {
        self.next(field)?;
        if self.reader.take_nil() { Ok(None) } else { self.text_list(field).map(Some) }
    }

    /// Reads a list of lists with at least `items` items each; additional ones are skipped.
    pub(super) fn lists<T>(
        &mut self,
        field: &'static str,
        items: usize,
        mut read: impl FnMut(&mut Self) -> FieldResult<T>,
    ) -> FieldResult<Vec<T>> {
        self.next(field)?;
        let count = self.read(field, Reader::array_len)?;
        let count = check_count(field, count)?;
        collect(count, || {
            let given = self.read(field, Reader::array_len)?;
            let value = read(self)?;
            // If items are missing, `read` has consumed later data, so reading can't continue.
            for _ in items..given {
                self.read(field, Reader::skip)?;
            }
            if given < items { Err(FieldError { field, problem: Problem::Missing }) } else { Ok(value) }
        })
    }

    pub(super) fn claims(&mut self, field: &'static str) -> FieldResult<Vec<(ByteString, ByteString)>> {
        let count = self.map_len(field)?;
        collect(count, || Ok((self.read(field, Reader::shared_text)?, self.read(field, Reader::shared_text)?)))
    }

    pub(super) fn headers(&mut self, field: &'static str) -> FieldResult<Vec<(ByteString, Vec<ByteString>)>> {
        let count = self.map_len(field)?;
        collect(count, || Ok((self.read(field, Reader::shared_text)?, self.text_list(field)?)))
    }

    pub(super) fn payloads(&mut self, field: &'static str) -> FieldResult<Payloads> {
        let count = self.map_len(field)?;
        collect(count, || Ok((self.read(field, Reader::shared_text)?, self.read(field, Reader::binary)?))).map(Payloads)
    }

    /// Reads the remaining items as pairs. A trailing key without a value is ignored.
    pub(super) fn pairs(&mut self) -> FieldResult<Vec<(ByteString, ByteString)>> {
        let count = check_count("pairs", self.left / 2)?;
        collect(count, || Ok((self.text("key")?, self.text("value")?)))
    }

    /// Skips an extension map in the middle of a message.
    pub(super) fn skip_extension(&mut self) -> FieldResult<()> {
        self.next("extension")?;
        self.read("extension", Reader::skip)
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

    fn optional<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, ReadError>,
    ) -> FieldResult<Option<T>> {
        self.next(field)?;
        if self.reader.take_nil() { Ok(None) } else { self.read(field, read).map(Some) }
    }

    fn map_len(&mut self, field: &'static str) -> FieldResult<usize> {
        self.next(field)?;
        let count = self.read(field, Reader::map_len)?;
        check_count(field, count)
    }

    fn text_list(&mut self, field: &'static str) -> FieldResult<Vec<ByteString>> {
        let count = self.read(field, Reader::array_len)?;
        let count = check_count(field, count)?;
        collect(count, || self.read(field, Reader::shared_text))
    }

    fn next(&mut self, field: &'static str) -> FieldResult<()> {
        self.left = self.left.checked_sub(1).ok_or(FieldError { field, problem: Problem::Missing })?;
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_count_makes_no_room() {
        // Would panic if all capacity were allocated up front.
        let items: FieldResult<Vec<u64>> = collect(usize::MAX, || Err(FieldError::value("x", 1)));
        assert_eq!(items.unwrap_err().to_string(), "x: is 1, which has no meaning");
    }

    #[test]
    fn a_list_of_too_many_names_is_refused() {
        let error = check_count("groups", LIST_MAX_ITEMS + 1).unwrap_err();
        assert_eq!(error.to_string(), "groups: has 1048577 items, over 1048576");
    }
}
