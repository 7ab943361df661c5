//! Framing of hub messages, independent of how the bytes are split.

use std::iter;
use std::ops::Range;

use bytes::{BufMut, BytesMut};
use memchr::memchr;

use super::HubProtocol;

/// Separator after a handshake and after each JSON message.
pub const RECORD_SEPARATOR: u8 = 0x1e;

/// Maximum size of a MessagePack length prefix: five times seven bits hold the largest length.
const PREFIX_MAX_BYTES: usize = 5;

/// Largest length allowed in a prefix, as in the official implementations.
const LENGTH_MAX: u64 = 0x7fff_ffff;

/// Complete message at the start of a buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The message without framing.
    pub body: Range<usize>,
    /// Size of the whole frame, which is the offset of the next one.
    pub length: usize,
}

/// Error that ends a stream of messages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FramingError {
    /// A message is longer than allowed.
    #[error("the message is larger than {limit} bytes")]
    TooLarge {
        /// The limit, including framing.
        limit: usize,
    },
    /// A length prefix has more than five bytes or exceeds 2 GiB.
    #[error("the length prefix of a MessagePack message is malformed")]
    Prefix,
}

/// Bytes of a complete message.
#[derive(Debug, Clone, Copy)]
pub struct WholeMessage<'a> {
    /// All bytes, framing included.
    pub whole: &'a [u8],
    /// The message without framing.
    pub body: &'a [u8],
}

/// Splits `buffer` into messages, up to the first incomplete or malformed one.
pub fn whole_messages(protocol: HubProtocol, buffer: &[u8]) -> impl Iterator<Item = WholeMessage<'_>> {
    let mut rest = buffer;
    iter::from_fn(move || {
        let frame = next_frame(protocol, rest, usize::MAX).ok()??;
        let (whole, behind) = rest.split_at_checked(frame.length)?;
        rest = behind;
        Some(WholeMessage { whole, body: whole.get(frame.body)? })
    })
}

/// Finds the first message in `buffer`. Returns `None` if more bytes are needed.
///
/// `limit` is the maximum message size, including the separator or length prefix. Fails as soon as the message must
/// exceed the limit or its prefix is malformed.
pub fn next_frame(protocol: HubProtocol, buffer: &[u8], limit: usize) -> Result<Option<Frame>, FramingError> {
    next_frame_behind(protocol, buffer, 0, limit)
}

/// Like [`next_frame`], for a buffer that has grown since no message was found in its first `searched` bytes.
///
/// Each byte is searched only once. Otherwise a message that arrives in `n` pieces would be searched `n` times. Fails
/// as [`next_frame`] does.
pub fn next_frame_behind(
    protocol: HubProtocol,
    buffer: &[u8],
    searched: usize,
    limit: usize,
) -> Result<Option<Frame>, FramingError> {
    match protocol {
        HubProtocol::Json => next_json(buffer, searched, limit),
        HubProtocol::MessagePack | HubProtocol::BlazorPack => next_message_pack(buffer, limit),
    }
}

/// Appends the length prefix of a MessagePack message with a body of `length` bytes.
pub(super) fn put_length(mut length: usize, out: &mut BytesMut) {
    while let Some(more) = Some(length >> 7).filter(|&more| more > 0) {
        out.put_u8(seven_bits(length) | 0x80);
        length = more;
    }
    out.put_u8(seven_bits(length));
}

fn next_json(buffer: &[u8], searched: usize, limit: usize) -> Result<Option<Frame>, FramingError> {
    // Bytes beyond the limit can't make the message valid, so they aren't searched.
    let searchable = buffer.get(..limit).unwrap_or(buffer);
    let found = searchable.get(searched..).and_then(|new| memchr(RECORD_SEPARATOR, new));
    match found.map(|at| searched + at) {
        Some(end) => Ok(Some(Frame { body: 0..end, length: end + 1 })),
        None if buffer.len() >= limit => Err(FramingError::TooLarge { limit }),
        None => Ok(None),
    }
}

fn next_message_pack(buffer: &[u8], limit: usize) -> Result<Option<Frame>, FramingError> {
    let prefix = read_prefix(buffer)?;
    // An incomplete prefix misses at least one byte, and its length can only grow.
    let prefix_bytes = if prefix.is_whole { prefix.bytes } else { prefix.bytes + 1 };
    let length = usize::try_from(prefix.length).map_err(|_| FramingError::Prefix)?.saturating_add(prefix_bytes);
    if length > limit {
        return Err(FramingError::TooLarge { limit });
    }
    let is_here = prefix.is_whole && buffer.len() >= length;
    Ok(is_here.then_some(Frame { body: prefix_bytes..length, length }))
}

/// Length prefix of a MessagePack message, as far as received.
struct LengthPrefix {
    length: u64,
    bytes: usize,
    is_whole: bool,
}

fn read_prefix(buffer: &[u8]) -> Result<LengthPrefix, FramingError> {
    let mut prefix = LengthPrefix { length: 0, bytes: 0, is_whole: false };
    for &byte in buffer.iter().take(PREFIX_MAX_BYTES) {
        prefix.length |= u64::from(byte & 0x7f) << (7 * prefix.bytes);
        prefix.bytes += 1;
        prefix.is_whole = byte & 0x80 == 0;
        if prefix.is_whole {
            break;
        }
    }
    let is_endless = prefix.bytes == PREFIX_MAX_BYTES && !prefix.is_whole;
    if is_endless || prefix.length > LENGTH_MAX { Err(FramingError::Prefix) } else { Ok(prefix) }
}

#[expect(clippy::cast_possible_truncation, reason = "seven bits fit a byte")]
fn seven_bits(length: usize) -> u8 {
    (length & 0x7f) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_LIMIT: usize = usize::MAX;

    fn json(buffer: &[u8], limit: usize) -> Result<Option<Frame>, FramingError> {
        next_frame(HubProtocol::Json, buffer, limit)
    }

    fn message_pack(buffer: &[u8], limit: usize) -> Result<Option<Frame>, FramingError> {
        next_frame(HubProtocol::MessagePack, buffer, limit)
    }

    #[test]
    fn a_json_message_ends_at_its_separator() {
        assert_eq!(json(b"{}\x1e{\"a\"", NO_LIMIT), Ok(Some(Frame { body: 0..2, length: 3 })));
        assert_eq!(json(b"{}", NO_LIMIT), Ok(None));
        assert_eq!(json(b"", NO_LIMIT), Ok(None));
    }

    #[test]
    fn searched_bytes_are_not_searched_again() {
        let behind = |searched| next_frame_behind(HubProtocol::Json, b"{}\x1e{}\x1e", searched, NO_LIMIT);
        assert_eq!(behind(2), Ok(Some(Frame { body: 0..2, length: 3 })));
        assert_eq!(behind(3), Ok(Some(Frame { body: 0..5, length: 6 })), "the first separator was not looked at");
        assert_eq!(behind(6), Ok(None));
        assert_eq!(next_frame_behind(HubProtocol::Json, b"123", 9, 3), Err(FramingError::TooLarge { limit: 3 }));
    }

    #[test]
    fn the_separator_counts_towards_the_limit() {
        assert!(json(b"1234\x1e", 5).unwrap().is_some());
        assert_eq!(json(b"1234\x1e", 4), Err(FramingError::TooLarge { limit: 4 }));
    }

    #[test]
    fn a_json_message_is_too_large_as_soon_as_no_room_is_left_for_its_separator() {
        assert_eq!(json(b"1234", 5), Ok(None));
        assert_eq!(json(b"12345", 5), Err(FramingError::TooLarge { limit: 5 }));
    }

    #[test]
    fn the_prefix_determines_the_end_of_a_message_pack_message() {
        assert_eq!(message_pack(&[2, 0x91, 6, 2], NO_LIMIT), Ok(Some(Frame { body: 1..3, length: 3 })));
        assert_eq!(message_pack(&[2, 0x91], NO_LIMIT), Ok(None));
        assert_eq!(message_pack(&[], NO_LIMIT), Ok(None));
    }

    #[test]
    fn the_prefix_counts_towards_the_limit() {
        assert!(message_pack(&[2, 0x91, 6], 3).unwrap().is_some());
        assert_eq!(message_pack(&[2], 2), Err(FramingError::TooLarge { limit: 2 }));
    }

    #[test]
    fn half_a_prefix_is_refused_once_it_is_certain_to_be_too_large() {
        assert_eq!(message_pack(&[0xff], 200), Ok(None));
        assert_eq!(message_pack(&[0xff], 128), Err(FramingError::TooLarge { limit: 128 }));
        assert_eq!(message_pack(&[0x80, 0x80, 0x82], 32 * 1024), Err(FramingError::TooLarge { limit: 32 * 1024 }));
    }

    #[test]
    fn a_prefix_of_six_bytes_or_above_2_gib_is_malformed() {
        assert_eq!(message_pack(&[0x80; 5], NO_LIMIT), Err(FramingError::Prefix));
        assert_eq!(message_pack(&[0x80, 0x80, 0x80, 0x80, 0x08], NO_LIMIT), Err(FramingError::Prefix));
        assert_eq!(message_pack(&[0xff, 0xff, 0xff, 0xff, 0x07], NO_LIMIT), Ok(None));
    }

    #[test]
    fn a_prefix_that_is_longer_than_needed_is_read_all_the_same() {
        assert_eq!(message_pack(&[0x81, 0x00, 0x91], NO_LIMIT), Ok(Some(Frame { body: 2..3, length: 3 })));
    }

    #[test]
    fn every_length_round_trips() {
        for length in [0, 1, 127, 128, 5248, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_456, 0x7fff_ffff] {
            let mut bytes = BytesMut::new();
            put_length(length, &mut bytes);
            let prefix = read_prefix(&bytes).unwrap();
            assert_eq!((usize::try_from(prefix.length).unwrap(), prefix.bytes), (length, bytes.len()));
        }
    }
}
