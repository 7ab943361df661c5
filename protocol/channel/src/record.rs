//! Records of a channel: sealed pieces of at most 16 KiB, each a binary WebSocket message.

use bytes::{Buf, BytesMut};
use snow::TransportState;

use crate::resolver::TAG_BYTES;

/// Maximum number of bytes in one record: small enough for cheap buffers, large enough to make its head negligible.
pub(crate) const RECORD_MAX_BYTES: usize = 16 * 1024;

/// Maximum length of the head of a sealed piece: two bytes, an extended length and a mask.
const HEAD_MAX_BYTES: usize = 8;

/// First byte of a whole binary WebSocket message.
const BINARY: u8 = 0x82;
/// First byte of a WebSocket close frame.
const CLOSE: u8 = 0x88;
/// Bit of the second byte: a mask follows, which clients must send.
const MASKED: u8 = 0x80;
/// Length value: the real length follows in two bytes.
const LONG: u8 = 126;

/// Sealing or opening end of the channel in terms of WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The end that dialled; it masks its frames with zeros, because they already look random.
    Client,
    Server,
}

/// Content at the front of the received bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Front {
    Record { sealed: usize },
    Close,
    Incomplete,
}

/// Reason why bytes are not a record; nothing after them can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("the channel received data that is not a record")]
    Foreign,
    #[error("a record of the channel was modified in transit")]
    Forged,
}

/// Seals a piece of at most [`RECORD_MAX_BYTES`] and appends it to `out`.
pub(crate) fn seal(
    noise: &mut TransportState,
    side: Side,
    plain: &[u8],
    out: &mut BytesMut,
) -> Result<(), RecordError> {
    let sealed = plain.len() + TAG_BYTES;
    out.reserve(HEAD_MAX_BYTES + sealed);
    let mask_bit = if side == Side::Client { MASKED } else { 0 };
    match (u8::try_from(sealed), u16::try_from(sealed)) {
        (Ok(short), _) if short < LONG => out.extend_from_slice(&[BINARY, mask_bit | short]),
        (_, Ok(long)) => {
            out.extend_from_slice(&[BINARY, mask_bit | LONG]);
            out.extend_from_slice(&long.to_be_bytes());
        }
        _ => return Err(RecordError::Foreign),
    }
    if side == Side::Client {
        out.extend_from_slice(&[0; 4]);
    }
    let start = out.len();
    out.resize(start + sealed, 0);
    let place = out.get_mut(start..).unwrap_or_default();
    noise.write_message(plain, place).map_err(|_| RecordError::Forged)?;
    Ok(())
}

/// Finds the record at the front of `input` once it is complete, and removes its head and mask.
pub(crate) fn front(side: Side, input: &mut BytesMut) -> Result<Front, RecordError> {
    let &[first, second, ref rest @ ..] = &**input else {
        return if input.first().is_none_or(|first| [BINARY, CLOSE].contains(first)) {
            Ok(Front::Incomplete)
        } else {
            Err(RecordError::Foreign)
        };
    };
    let is_masked = second & MASKED != 0;
    if is_masked == (side == Side::Client) {
        return Err(RecordError::Foreign);
    }
    match first {
        BINARY => {}
        CLOSE => return Ok(Front::Close),
        _ => return Err(RecordError::Foreign),
    }
    let (sealed, head) = match (second & !MASKED, rest.first_chunk()) {
        (LONG, Some(long)) => (usize::from(u16::from_be_bytes(*long)), 4),
        (LONG, None) => return Ok(Front::Incomplete),
        (short @ ..LONG, _) => (usize::from(short), 2),
        _ => return Err(RecordError::Foreign),
    };
    if !(TAG_BYTES..=RECORD_MAX_BYTES + TAG_BYTES).contains(&sealed) {
        return Err(RecordError::Foreign);
    }
    let mask_bytes = if is_masked { 4 } else { 0 };
    if input.len() < head + mask_bytes + sealed {
        return Ok(Front::Incomplete);
    }
    input.advance(head);
    if is_masked {
        let mask = input.get_u32().to_be_bytes();
        // A load balancer that rewrites frames chooses its own mask.
        if mask != [0; 4] {
            input.iter_mut().take(sealed).zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        }
    }
    Ok(Front::Record { sealed })
}

/// Opens a sealed piece into `plain`, which must have room for it. Returns its length.
pub(crate) fn open_record(noise: &mut TransportState, sealed: &[u8], plain: &mut [u8]) -> Result<usize, RecordError> {
    noise.read_message(sealed, plain).map_err(|_| RecordError::Forged)
}

pub(crate) fn plain_length(sealed: usize) -> usize {
    sealed.saturating_sub(TAG_BYTES)
}
