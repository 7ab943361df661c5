//! Reading MessagePack from `Bytes` without copying and with limits, for both protocols.
//!
//! [`Reader`] walks over memory filled by a peer: announced lengths are checked against the remaining bytes before
//! allocating, and nesting is bounded, so the cost of invalid input is bounded by its length.
//! [`Writer`] appends each value in its shortest form, as the official implementations do.

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use rmp::Marker;

use crate::limits::NESTING_MAX;

const TIMESTAMP: i8 = -1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    /// The value exceeds the remaining bytes.
    #[error("the bytes end too early")]
    End,
    /// The value has another type.
    #[error("{wanted} was expected, not {found}")]
    Kind { wanted: &'static str, found: &'static str },
    #[error("the header announces {claimed} items, but only {left} bytes follow")]
    Count { claimed: usize, left: usize },
    /// A number exceeds the range of `i64`.
    #[error("a number is too large")]
    Integer,
    #[error("a text is not UTF-8")]
    Utf8,
    #[error("values are nested over {NESTING_MAX} deep")]
    Nesting,
}

/// Reads values in sequence. Returned values share the memory of `bytes`.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a Bytes,
    rest: &'a [u8],
}

/// Skips the first value and returns the rest.
pub(crate) fn skip_value(bytes: &[u8]) -> Result<&[u8], ReadError> {
    static NONE: Bytes = Bytes::new();
    // Skipping returns no slices, so there is no memory to share.
    let mut reader = Reader { bytes: &NONE, rest: bytes };
    reader.skip()?;
    Ok(reader.rest)
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a Bytes) -> Self {
        Self { bytes, rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Reads the length of a list, which has at least one byte per item.
    pub(crate) fn array_len(&mut self) -> Result<usize, ReadError> {
        let claimed = match self.marker()? {
            Marker::FixArray(length) => usize::from(length),
            Marker::Array16 => self.length_16()?,
            Marker::Array32 => self.length_32()?,
            other => return Err(kind("a list", other)),
        };
        self.check_count(claimed, claimed)
    }

    /// Reads the length of a map, which has at least two bytes per entry.
    pub(crate) fn map_len(&mut self) -> Result<usize, ReadError> {
        let claimed = match self.marker()? {
            Marker::FixMap(length) => usize::from(length),
            Marker::Map16 => self.length_16()?,
            Marker::Map32 => self.length_32()?,
            other => return Err(kind("a map", other)),
        };
        self.check_count(claimed, claimed.saturating_mul(2))
    }

    pub(crate) fn integer(&mut self) -> Result<i64, ReadError> {
        Ok(match self.marker()? {
            Marker::FixPos(value) => i64::from(value),
            Marker::FixNeg(value) => i64::from(value),
            Marker::U8 => i64::from(u8::from_be_bytes(self.chunk()?)),
            Marker::U16 => i64::from(u16::from_be_bytes(self.chunk()?)),
            Marker::U32 => i64::from(u32::from_be_bytes(self.chunk()?)),
            Marker::U64 => i64::try_from(u64::from_be_bytes(self.chunk()?)).map_err(|_| ReadError::Integer)?,
            Marker::I8 => i64::from(i8::from_be_bytes(self.chunk()?)),
            Marker::I16 => i64::from(i16::from_be_bytes(self.chunk()?)),
            Marker::I32 => i64::from(i32::from_be_bytes(self.chunk()?)),
            Marker::I64 => i64::from_be_bytes(self.chunk()?),
            other => return Err(kind("an integer", other)),
        })
    }

    /// Reads a timestamp, in whole seconds since 1970.
    pub(crate) fn timestamp(&mut self) -> Result<i64, ReadError> {
        let form = self.marker()?;
        let length = if form == Marker::Ext8 { self.length_8()? } else { 12 };
        let other = || kind("a timestamp", form);
        if length != 12 || !matches!(form, Marker::FixExt4 | Marker::FixExt8 | Marker::Ext8) {
            return Err(other());
        }
        if i8::from_be_bytes(self.chunk()?) != TIMESTAMP {
            return Err(other());
        }
        Ok(match form {
            Marker::FixExt4 => i64::from(u32::from_be_bytes(self.chunk()?)),
            // The nanoseconds come first, with 30 bits.
            Marker::FixExt8 => (u64::from_be_bytes(self.chunk()?) & ((1 << 34) - 1)).cast_signed(),
            _ => {
                self.take_bytes(4)?;
                i64::from_be_bytes(self.chunk()?)
            }
        })
    }

    pub(crate) fn boolean(&mut self) -> Result<bool, ReadError> {
        match self.marker()? {
            Marker::True => Ok(true),
            Marker::False => Ok(false),
            other => Err(kind("a boolean", other)),
        }
    }

    pub(crate) fn shared_text(&mut self) -> Result<ByteString, ReadError> {
        let text = self.text_bytes()?;
        ByteString::try_from(self.bytes.slice_ref(text)).map_err(|_| ReadError::Utf8)
    }

    pub(crate) fn optional_text(&mut self) -> Result<Option<ByteString>, ReadError> {
        if self.take_nil() { Ok(None) } else { self.shared_text().map(Some) }
    }

    /// Reads a binary; nil is empty.
    pub(crate) fn binary(&mut self) -> Result<Bytes, ReadError> {
        let length = match self.marker()? {
            Marker::Null => 0,
            Marker::Bin8 => self.length_8()?,
            Marker::Bin16 => self.length_16()?,
            Marker::Bin32 => self.length_32()?,
            other => return Err(kind("binary", other)),
        };
        Ok(self.bytes.slice_ref(self.take_bytes(length)?))
    }

    /// Skips a nil. Returns whether there was one.
    pub(crate) fn take_nil(&mut self) -> bool {
        match self.rest.split_first() {
            Some((&first, rest)) if Marker::from_u8(first) == Marker::Null => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn skip(&mut self) -> Result<(), ReadError> {
        self.skip_nested(0)
    }

    pub(crate) fn value(&mut self) -> Result<Bytes, ReadError> {
        let before = self.rest;
        self.skip()?;
        let length = before.len() - self.rest.len();
        let value = before.get(..length).ok_or(ReadError::End)?;
        Ok(self.bytes.slice_ref(value))
    }

    /// Recurses at most to the nesting limit.
    fn skip_nested(&mut self, depth: usize) -> Result<(), ReadError> {
        let items = match self.peek()? {
            Marker::FixArray(_) | Marker::Array16 | Marker::Array32 => self.array_len()?,
            Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => self.map_len()?.saturating_mul(2),
            _ => return self.skip_scalar(),
        };
        if depth >= NESTING_MAX {
            return Err(ReadError::Nesting);
        }
        (0..items).try_for_each(|_| self.skip_nested(depth + 1))
    }

    fn skip_scalar(&mut self) -> Result<(), ReadError> {
        let length = match self.marker()? {
            Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => 0,
            Marker::U8 | Marker::I8 => 1,
            Marker::U16 | Marker::I16 | Marker::FixExt1 => 2,
            Marker::FixExt2 => 3,
            Marker::U32 | Marker::I32 | Marker::F32 => 4,
            Marker::FixExt4 => 5,
            Marker::U64 | Marker::I64 | Marker::F64 => 8,
            Marker::FixExt8 => 9,
            Marker::FixExt16 => 17,
            Marker::FixStr(length) => usize::from(length),
            Marker::Str8 | Marker::Bin8 => self.length_8()?,
            Marker::Str16 | Marker::Bin16 => self.length_16()?,
            Marker::Str32 | Marker::Bin32 => self.length_32()?,
            // The type byte of an extension is between its length and its bytes.
            Marker::Ext8 => self.length_8()?.saturating_add(1),
            Marker::Ext16 => self.length_16()?.saturating_add(1),
            Marker::Ext32 => self.length_32()?.saturating_add(1),
            other => return Err(kind("a value", other)),
        };
        self.take_bytes(length).map(|_| ())
    }

    fn text_bytes(&mut self) -> Result<&'a [u8], ReadError> {
        let length = match self.marker()? {
            Marker::FixStr(length) => usize::from(length),
            Marker::Str8 => self.length_8()?,
            Marker::Str16 => self.length_16()?,
            Marker::Str32 => self.length_32()?,
            other => return Err(kind("a text", other)),
        };
        self.take_bytes(length)
    }

    fn check_count(&self, claimed: usize, bytes_needed: usize) -> Result<usize, ReadError> {
        let left = self.rest.len();
        if bytes_needed > left { Err(ReadError::Count { claimed, left }) } else { Ok(claimed) }
    }

    fn peek(&self) -> Result<Marker, ReadError> {
        self.rest.first().map(|&first| Marker::from_u8(first)).ok_or(ReadError::End)
    }

    fn marker(&mut self) -> Result<Marker, ReadError> {
        let (&first, rest) = self.rest.split_first().ok_or(ReadError::End)?;
        self.rest = rest;
        Ok(Marker::from_u8(first))
    }

    fn length_8(&mut self) -> Result<usize, ReadError> {
        self.chunk().map(|bytes| usize::from(u8::from_be_bytes(bytes)))
    }

    fn length_16(&mut self) -> Result<usize, ReadError> {
        self.chunk().map(|bytes| usize::from(u16::from_be_bytes(bytes)))
    }

    fn length_32(&mut self) -> Result<usize, ReadError> {
        let length = u32::from_be_bytes(self.chunk()?);
        usize::try_from(length).map_err(|_| ReadError::End)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let (chunk, rest) = self.rest.split_first_chunk().ok_or(ReadError::End)?;
        self.rest = rest;
        Ok(*chunk)
    }

    fn take_bytes(&mut self, length: usize) -> Result<&'a [u8], ReadError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(ReadError::End)?;
        self.rest = rest;
        Ok(taken)
    }
}

/// Appends values, each in its shortest form. Returns no errors: appending to a `BytesMut` can't fail.
#[derive(Debug)]
pub(crate) struct Writer<'a>(pub(crate) &'a mut BytesMut);

impl Writer<'_> {
    pub(crate) fn array_len(&mut self, items: usize) {
        match u8::try_from(items) {
            Ok(items @ 0..=15) => self.marker(Marker::FixArray(items)),
            _ => self.length(items, None, Marker::Array16, Marker::Array32),
        }
    }

    pub(crate) fn map_len(&mut self, entries: usize) {
        match u8::try_from(entries) {
            Ok(entries @ 0..=15) => self.marker(Marker::FixMap(entries)),
            _ => self.length(entries, None, Marker::Map16, Marker::Map32),
        }
    }

    pub(crate) fn integer(&mut self, value: i64) {
        match u64::try_from(value) {
            Ok(value) => self.unsigned(value),
            Err(_) => self.negative(value),
        }
    }

    pub(crate) fn timestamp(&mut self, seconds: i64) {
        if let Ok(seconds) = u32::try_from(seconds) {
            self.marker(Marker::FixExt4);
            self.0.put_i8(TIMESTAMP);
            self.0.put_u32(seconds);
        } else {
            self.marker(Marker::Ext8);
            self.0.put_u8(12);
            self.0.put_i8(TIMESTAMP);
            self.0.put_u32(0);
            self.0.put_i64(seconds);
        }
    }

    /// Writes an integer as a five-byte int32.
    pub(crate) fn int32(&mut self, value: i32) {
        self.marker(Marker::I32);
        self.0.put_i32(value);
    }

    pub(crate) fn boolean(&mut self, value: bool) {
        self.marker(if value { Marker::True } else { Marker::False });
    }

    pub(crate) fn nil(&mut self) {
        self.marker(Marker::Null);
    }

    pub(crate) fn text(&mut self, text: &str) {
        match u8::try_from(text.len()) {
            Ok(length @ 0..=31) => self.marker(Marker::FixStr(length)),
            _ => self.length(text.len(), Some(Marker::Str8), Marker::Str16, Marker::Str32),
        }
        self.0.put_slice(text.as_bytes());
    }

    pub(crate) fn binary(&mut self, bytes: &[u8]) {
        self.length(bytes.len(), Some(Marker::Bin8), Marker::Bin16, Marker::Bin32);
        self.0.put_slice(bytes);
    }

    fn unsigned(&mut self, value: u64) {
        if let Ok(byte) = u8::try_from(value) {
            if byte > 0x7f {
                self.marker(Marker::U8);
            }
            self.0.put_u8(byte);
        } else if let Ok(value) = u16::try_from(value) {
            self.marker(Marker::U16);
            self.0.put_u16(value);
        } else if let Ok(value) = u32::try_from(value) {
            self.marker(Marker::U32);
            self.0.put_u32(value);
        } else {
            self.marker(Marker::U64);
            self.0.put_u64(value);
        }
    }

    fn negative(&mut self, value: i64) {
        if let Ok(byte) = i8::try_from(value) {
            if byte < -32 {
                self.marker(Marker::I8);
            }
            self.0.put_i8(byte);
        } else if let Ok(value) = i16::try_from(value) {
            self.marker(Marker::I16);
            self.0.put_i16(value);
        } else if let Ok(value) = i32::try_from(value) {
            self.int32(value);
        } else {
            self.marker(Marker::I64);
            self.0.put_i64(value);
        }
    }

    #[expect(clippy::expect_used, reason = "lengths come from this process, far below 4 GiB")]
    fn length(&mut self, length: usize, of_8: Option<Marker>, of_16: Marker, of_32: Marker) {
        if let (Some(of_8), Ok(length)) = (of_8, u8::try_from(length)) {
            self.marker(of_8);
            self.0.put_u8(length);
        } else if let Ok(length) = u16::try_from(length) {
            self.marker(of_16);
            self.0.put_u16(length);
        } else {
            self.marker(of_32);
            self.0.put_u32(u32::try_from(length).expect("a value is shorter than 4 GiB"));
        }
    }

    fn marker(&mut self, marker: Marker) {
        self.0.put_u8(marker.to_u8());
    }
}

fn kind(wanted: &'static str, found: Marker) -> ReadError {
    let found = match found {
        Marker::Null => "nil",
        Marker::True | Marker::False => "a boolean",
        Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32 => "a text",
        Marker::Bin8 | Marker::Bin16 | Marker::Bin32 => "binary",
        Marker::FixArray(_) | Marker::Array16 | Marker::Array32 => "a list",
        Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => "a map",
        Marker::F32 | Marker::F64 => "a fraction",
        Marker::Reserved => "a byte that MessagePack never uses",
        Marker::Ext8 | Marker::Ext16 | Marker::Ext32 => "an extension",
        Marker::FixExt1 | Marker::FixExt2 | Marker::FixExt4 | Marker::FixExt8 | Marker::FixExt16 => "an extension",
        _ => "an integer",
    };
    ReadError::Kind { wanted, found }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Writer)) -> Bytes {
        let mut out = BytesMut::new();
        write(&mut Writer(&mut out));
        out.freeze()
    }

    #[test]
    fn integers_round_trip_in_their_shortest_form() {
        let cases = [
            (0, 1),
            (127, 1),
            (128, 2),
            (255, 2),
            (256, 3),
            (65_535, 3),
            (65_536, 5),
            (i64::from(u32::MAX), 5),
            (i64::from(u32::MAX) + 1, 9),
            (i64::MAX, 9),
            (-1, 1),
            (-32, 1),
            (-33, 2),
            (-128, 2),
            (-129, 3),
            (-32_768, 3),
            (-32_769, 5),
            (i64::from(i32::MIN), 5),
            (i64::MIN, 9),
        ];
        for (value, length) in cases {
            let bytes = written(|writer| writer.integer(value));
            assert_eq!(bytes.len(), length, "{value}");
            assert_eq!(Reader::new(&bytes).integer(), Ok(value));
            let mut reference = Vec::new();
            rmp::encode::write_sint(&mut reference, value).unwrap();
            assert_eq!(bytes, reference, "{value}");
        }
    }

    #[test]
    fn an_integer_above_63_bits_is_an_error() {
        let bytes = Bytes::from_static(&[0xcf, 0x80, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Reader::new(&bytes).integer(), Err(ReadError::Integer));
    }

    #[test]
    fn headers_of_all_lengths_are_those_of_rmp() {
        for length in [0_u32, 15, 16, 31, 32, 255, 256, 65_535, 65_536] {
            let size = usize::try_from(length).unwrap();
            let text = "x".repeat(size);
            let bytes = written(|writer| writer.text(&text));
            let mut reference = Vec::new();
            rmp::encode::write_str(&mut reference, &text).unwrap();
            assert_eq!(bytes, reference);
            assert_eq!(Reader::new(&bytes).shared_text().unwrap(), text.as_str());

            let bytes = written(|writer| writer.binary(text.as_bytes()));
            let mut reference = Vec::new();
            rmp::encode::write_bin(&mut reference, text.as_bytes()).unwrap();
            assert_eq!(bytes, reference);
            assert_eq!(Reader::new(&bytes).binary().unwrap(), text);

            let bytes = written(|writer| {
                writer.array_len(size);
                writer.map_len(size);
            });
            let mut reference = Vec::new();
            rmp::encode::write_array_len(&mut reference, length).unwrap();
            rmp::encode::write_map_len(&mut reference, length).unwrap();
            assert_eq!(bytes, reference);
        }
    }

    #[test]
    fn texts_and_binary_share_the_memory_they_are_read_from() {
        let bytes = written(|writer| {
            writer.text("hello");
            writer.binary(b"world");
        });
        let inside = bytes.as_ptr_range();
        let mut reader = Reader::new(&bytes);
        assert!(inside.contains(&reader.shared_text().unwrap().as_bytes().as_ptr()));
        assert!(inside.contains(&reader.binary().unwrap().as_ptr()));
        assert!(reader.is_empty());
    }

    #[test]
    fn a_list_cannot_claim_more_items_than_bytes_are_left() {
        let bytes = Bytes::from_static(&[0xdd, 0xff, 0xff, 0xff, 0xff, 0x01]);
        assert_eq!(Reader::new(&bytes).array_len(), Err(ReadError::Count { claimed: 0xffff_ffff, left: 1 }));
        let bytes = Bytes::from_static(&[0x82, 0x01, 0x02, 0x03]);
        assert_eq!(Reader::new(&bytes).map_len(), Err(ReadError::Count { claimed: 2, left: 3 }));
    }

    #[test]
    fn a_text_cannot_claim_more_bytes_than_are_left() {
        for bytes in [&[0xa3, b'a', b'b'][..], &[0xd9], &[0xdb, 0xff, 0xff, 0xff, 0xff, b'a'], &[]] {
            assert_eq!(Reader::new(&Bytes::from_static(bytes)).shared_text(), Err(ReadError::End));
        }
    }

    #[test]
    fn a_text_must_be_utf_8() {
        assert_eq!(Reader::new(&Bytes::from_static(&[0xa1, 0xff])).shared_text(), Err(ReadError::Utf8));
    }

    #[test]
    fn nil_is_an_empty_binary_and_can_be_skipped() {
        let bytes = Bytes::from_static(&[0xc0, 0xc0, 0x01]);
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.binary(), Ok(Bytes::new()));
        assert!(reader.take_nil());
        assert!(!reader.take_nil());
        assert_eq!(reader.integer(), Ok(1));
        assert!(!reader.take_nil());
    }

    #[test]
    fn a_wrong_kind_of_value_is_named() {
        let error = Reader::new(&Bytes::from_static(&[0xc0])).shared_text().unwrap_err();
        assert_eq!(error.to_string(), "a text was expected, not nil");
        let error = Reader::new(&Bytes::from_static(&[0xc1])).boolean().unwrap_err();
        assert_eq!(error.to_string(), "a boolean was expected, not a byte that MessagePack never uses");
    }

    #[test]
    fn every_kind_of_value_can_be_skipped_and_taken_raw() {
        let values: &[&[u8]] = &[
            &[0x05],
            &[0xff],
            &[0xc0],
            &[0xc2],
            &[0xc3],
            &[0xc4, 1, 9],
            &[0xc5, 0, 1, 9],
            &[0xc6, 0, 0, 0, 1, 9],
            &[0xc7, 1, 7, 9],
            &[0xc8, 0, 1, 7, 9],
            &[0xc9, 0, 0, 0, 1, 7, 9],
            &[0xca, 0, 0, 0, 0],
            &[0xcb, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0xcc, 200],
            &[0xd1, 0, 1],
            &[0xd2, 0, 0, 0, 1],
            &[0xd3, 0, 0, 0, 0, 0, 0, 0, 1],
            &[0xd4, 7, 1],
            &[0xd5, 7, 1, 2],
            &[0xd6, 7, 1, 2, 3, 4],
            &[0xd7, 7, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0xd8, 7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
            &[0xa1, b'a'],
            &[0xd9, 1, b'a'],
            &[0xda, 0, 1, b'a'],
            &[0xdb, 0, 0, 0, 1, b'a'],
            &[0x92, 0x01, 0x91, 0xc0],
            &[0xdc, 0, 1, 0x01],
            &[0xdd, 0, 0, 0, 1, 0x01],
            &[0x81, 0xa1, b'k', 0x81, 0x01, 0x02],
            &[0xde, 0, 1, 0x01, 0x02],
            &[0xdf, 0, 0, 0, 1, 0x01, 0x02],
        ];
        let all = Bytes::from(values.concat());
        let mut reader = Reader::new(&all);
        for &value in values {
            assert_eq!(reader.value().unwrap(), value);
        }
        assert!(reader.is_empty());
        for &value in values.iter().filter(|value| value.len() > 1) {
            let cut = Bytes::copy_from_slice(&value[..value.len() - 1]);
            assert!(Reader::new(&cut).skip().is_err(), "{value:x?}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = |depth: usize| Bytes::from([vec![0x91; depth], vec![0x01]].concat());
        assert_eq!(Reader::new(&deep(NESTING_MAX)).skip(), Ok(()));
        assert_eq!(Reader::new(&deep(NESTING_MAX + 1)).skip(), Err(ReadError::Nesting));
        assert_eq!(Reader::new(&deep(1_000_000)).skip(), Err(ReadError::Nesting));
    }
}
