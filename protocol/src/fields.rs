//! Fields of MessagePack arrays: their encoding by type, and sequential reading with errors that name the field.
//!
//! Names and payloads share the memory of the frame. Allocations are bounded by the frame's length: each list item has
//! at least a byte there and takes at most about 64 bytes of memory.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use crate::limits::LIST_MAX_ITEMS;
use crate::message_pack::{ReadError, Reader, Writer};

/// Maximum list capacity allocated before the first item is read.
const LIST_ROOM_ITEMS: usize = 1024;

#[derive(Debug, thiserror::Error)]
#[error("{field}: {problem}")]
pub(crate) struct FieldError {
    field: &'static str,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("is missing")]
    Missing,
    #[error("{0}")]
    Read(ReadError),
    #[error("has {0} items, over {1}")]
    TooMany(usize, usize),
    #[error("is {0}, which has no meaning")]
    Number(i64),
    #[error("is {0}, out of its range")]
    Range(i64),
    #[error("{0}")]
    Value(String),
}

impl FieldError {
    pub(crate) fn number(field: &'static str, number: i64) -> Self {
        Self { field, problem: Problem::Number(number) }
    }

    pub(crate) fn value(field: &'static str, problem: String) -> Self {
        Self { field, problem: Problem::Value(problem) }
    }

    /// Whether a number has no meaning: a later version may give it one.
    pub(crate) fn is_unknown_number(&self) -> bool {
        matches!(self.problem, Problem::Number(_))
    }
}

pub(crate) type FieldResult<T> = Result<T, FieldError>;

/// Remaining fields of an array. Each method reads the next one; the name is for errors.
pub(crate) struct Fields<'a> {
    reader: Reader<'a>,
    /// Length of the whole array, which distinguishes the layouts of older SDKs.
    items: usize,
    pub(crate) left: usize,
}

impl<'a> Fields<'a> {
    /// Reads the length of an array.
    pub(crate) fn new(body: &'a Bytes) -> Result<Self, ReadError> {
        let mut reader = Reader::new(body);
        let items = reader.array_len()?;
        Ok(Self { reader, items, left: items })
    }

    /// Reads the length and the number of a message.
    pub(crate) fn of_message(body: &'a Bytes) -> Result<(i64, Self), ReadError> {
        let mut fields = Self::new(body)?;
        let number = fields.reader.integer()?;
        fields.left = fields.left.saturating_sub(1);
        Ok((number, fields))
    }

    pub(crate) fn has(&self, items: usize) -> bool {
        self.items >= items
    }

    /// Skips a nil. Returns whether there was one.
    pub(crate) fn take_nil(&mut self) -> bool {
        self.reader.take_nil()
    }

    pub(crate) fn value<T: Field>(&mut self, name: &'static str) -> FieldResult<T> {
        self.value_as::<Plain, T>(name)
    }

    pub(crate) fn value_as<F: Form<T>, T: Field>(&mut self, name: &'static str) -> FieldResult<T> {
        self.next(name)?;
        F::read(self, name)
    }

    /// Reads another part of the current field, for extension maps.
    pub(crate) fn read<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, ReadError>,
    ) -> FieldResult<T> {
        read(&mut self.reader).map_err(|error| FieldError { field, problem: Problem::Read(error) })
    }

    pub(crate) fn next(&mut self, field: &'static str) -> FieldResult<()> {
        self.left = self.left.checked_sub(1).ok_or(FieldError { field, problem: Problem::Missing })?;
        Ok(())
    }

    pub(crate) fn items<T: Field>(&mut self, name: &'static str, max: usize) -> FieldResult<Vec<T>> {
        let count = self.read(name, Reader::array_len)?;
        let count = check_count(name, count, max)?;
        collect(count, || T::read(self, name))
    }

    /// Reads a list within the array. Items that `read` leaves are skipped.
    pub(crate) fn list<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Self) -> FieldResult<T>,
    ) -> FieldResult<T> {
        let after = self.left;
        self.left = self.read(field, Reader::array_len)?;
        let value = read(self)?;
        for _ in 0..std::mem::replace(&mut self.left, after) {
            self.read(field, Reader::skip)?;
        }
        Ok(value)
    }
}

pub(crate) fn check_count(field: &'static str, count: usize, max: usize) -> FieldResult<usize> {
    if count > max {
        return Err(FieldError { field, problem: Problem::TooMany(count, max) });
    }
    Ok(count)
}

/// Limits the initial capacity, because the peer's item count can't be trusted.
pub(crate) fn collect<T>(count: usize, mut next: impl FnMut() -> FieldResult<T>) -> FieldResult<Vec<T>> {
    let mut items = Vec::with_capacity(count.min(LIST_ROOM_ITEMS));
    for _ in 0..count {
        items.push(next()?);
    }
    Ok(items)
}

/// Type of a field, with its encoding.
pub(crate) trait Field: Sized {
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

/// Written as the `i64` with equal bits, because readers only support signed numbers.
impl Field for u64 {
    fn write(&self, out: &mut Writer) {
        out.integer(self.cast_signed());
    }

    fn read(fields: &mut Fields, name: &'static str) -> FieldResult<Self> {
        i64::read(fields, name).map(i64::cast_unsigned)
    }
}

macro_rules! small_numbers {
    ($($type:ident)*) => {$(
        impl Field for $type {
            fn write(&self, out: &mut Writer) {
                out.integer(i64::from(*self));
            }

            fn read(fields: &mut Fields, name: &'static str) -> FieldResult<Self> {
                let number = i64::read(fields, name)?;
                Self::try_from(number).map_err(|_| FieldError { field: name, problem: Problem::Range(number) })
            }
        }
    )*};
}

small_numbers!(u16 u32);

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
        if fields.take_nil() { Ok(None) } else { T::read(fields, name).map(Some) }
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
        fields.items(name, LIST_MAX_ITEMS)
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
        fields.list(name, |fields| Ok((fields.value(name)?, fields.value(name)?)))
    }
}

/// Implements [`Field`] for an enum with a number for each variant. Unknown numbers are an error, unless a variant
/// keeps them (`_`) or replaces them (`else`).
macro_rules! numbered {
    (
        $type:ident as $write:ident: $($number:literal $variant:ident),* $(, _ $unknown:ident)? $(; else $other:ident)?
    ) => {
        impl $crate::fields::Field for $type {
            fn write(&self, out: &mut $crate::message_pack::Writer) {
                out.$write(match self {
                    $(Self::$variant => $number,)*
                    $(Self::$unknown(number) => *number,)?
                });
            }

            fn read(fields: &mut $crate::fields::Fields, name: &'static str) -> $crate::fields::FieldResult<Self> {
                match $crate::fields::Field::read(fields, name)? {
                    $($number => Ok(Self::$variant),)*
                    number => numbered!(@other name, number $(, $unknown)? $(, else $other)?),
                }
            }
        }
    };
    (@other $name:ident, $number:ident, $unknown:ident) => { Ok(Self::$unknown($number)) };
    (@other $name:ident, $number:ident, else $other:ident) => {{
        let _: i64 = $number;
        Ok(Self::$other)
    }};
    (@other $name:ident, $number:ident) => { Err($crate::fields::FieldError::number($name, $number)) };
}

pub(crate) use numbered;

/// Implements [`Field`] for a struct: a list of its fields in this order. Later versions may append fields.
macro_rules! record {
    ($type:ident [$($field:ident $(as $form:ident)? $($name:literal)?),*]) => {
        impl $crate::fields::Field for $type {
            fn expected_bytes(&self) -> usize {
                0 $(+ $crate::fields::Field::expected_bytes(&self.$field))*
            }

            fn write(&self, out: &mut $crate::message_pack::Writer) {
                out.array_len($crate::fields::count!($($field)*));
                $(<$crate::fields::form!($($form)?) as $crate::fields::Form<_>>::write(&self.$field, out);)*
            }

            fn read(fields: &mut $crate::fields::Fields, name: &'static str) -> $crate::fields::FieldResult<Self> {
                fields.list(name, |fields| {
                    Ok(Self {$(
                        $field: fields.value_as::<$crate::fields::form!($($form)?), _>(
                            $crate::fields::name!($field $($name)?),
                        )?,
                    )*})
                })
            }
        }
    };
}

pub(crate) use record;

/// Form of a field in a table.
macro_rules! form {
    () => {
        $crate::fields::Plain
    };
    ($form:ident) => {
        $form
    };
}

pub(crate) use form;

/// Name of a field in errors.
macro_rules! name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $name:literal) => {
        $name
    };
}

pub(crate) use name;

macro_rules! count {
    ($($field:ident)*) => { <[&str]>::len(&[$(stringify!($field)),*]) };
}

pub(crate) use count;

/// Encoding of a field in a table. [`Plain`] is the encoding of its type.
pub(crate) trait Form<T: Field> {
    fn write(value: &T, out: &mut Writer) {
        value.write(out);
    }

    fn read(fields: &mut Fields, name: &'static str) -> FieldResult<T>;
}

pub(crate) enum Plain {}

impl<T: Field> Form<T> for Plain {
    fn read(fields: &mut Fields, name: &'static str) -> FieldResult<T> {
        T::read(fields, name)
    }
}

/// Optional value that this message always has.
pub(crate) enum Required {}

impl<T: Field> Form<Option<T>> for Required {
    fn read(fields: &mut Fields, name: &'static str) -> FieldResult<Option<T>> {
        T::read(fields, name).map(Some)
    }
}

/// Seconds since 1970 as a MessagePack timestamp.
pub(crate) enum Timestamp {}

impl Form<i64> for Timestamp {
    fn write(value: &i64, out: &mut Writer) {
        out.timestamp(*value);
    }

    fn read(fields: &mut Fields, name: &'static str) -> FieldResult<i64> {
        fields.read(name, Reader::timestamp)
    }
}

/// Map, in which names may repeat.
pub(crate) enum Map {}

impl<T: Field> Form<Vec<(ByteString, T)>> for Map {
    fn write(value: &Vec<(ByteString, T)>, out: &mut Writer) {
        write_map(value, out);
    }

    fn read(fields: &mut Fields, name: &'static str) -> FieldResult<Vec<(ByteString, T)>> {
        let count = fields.read(name, Reader::map_len)?;
        let count = check_count(name, count, LIST_MAX_ITEMS)?;
        collect(count, || Ok((Field::read(fields, name)?, Field::read(fields, name)?)))
    }
}

pub(crate) fn write_map<T: Field>(entries: &[(ByteString, T)], out: &mut Writer) {
    out.map_len(entries.len());
    for (name, value) in entries {
        name.write(out);
        value.write(out);
    }
}

/// Encodes a [`record`] outside of a message.
pub(crate) fn to_bytes(record: &impl Field) -> Bytes {
    let mut out = BytesMut::with_capacity(record.expected_bytes());
    record.write(&mut Writer(&mut out));
    out.freeze()
}

/// Decodes the output of [`to_bytes`], sharing its memory.
pub(crate) fn from_bytes<T: Field>(bytes: &Bytes, name: &'static str) -> FieldResult<T> {
    T::read(&mut Fields { reader: Reader::new(bytes), items: 1, left: 1 }, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_count_makes_no_room() {
        // Would panic if all capacity were allocated up front.
        let items: FieldResult<Vec<u64>> =
            collect(usize::MAX, || Err(FieldError { field: "x", problem: Problem::Number(1) }));
        assert_eq!(items.unwrap_err().to_string(), "x: is 1, which has no meaning");
    }

    #[test]
    fn a_list_of_too_many_names_is_refused() {
        let error = check_count("groups", LIST_MAX_ITEMS + 1, LIST_MAX_ITEMS).unwrap_err();
        assert_eq!(error.to_string(), "groups: has 1048577 items, over 1048576");
    }
}
