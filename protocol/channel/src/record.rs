//! Records of a channel: sealed pieces of at most 16 KiB, each a binary WebSocket message.

use bytes::{Buf, BytesMut};
use snow::TransportState;

use crate::cipher::TAG_BYTES;

/// Most bytes that one record seals: small enough that a buffer for it costs little, large enough that its head does
/// not.
pub(crate) const RECORD_MAX_BYTES: usize = 16 * 1024;

/// Most bytes before a sealed piece: two, a long length, a mask.
const HEAD_MAX_BYTES: usize = 8;

/// First byte of a WebSocket message that is binary and whole.
const BINARY: u8 = 0x82;
/// First byte of a WebSocket close frame.
const CLOSE: u8 = 0x88;
/// Bit of the second byte that says that a mask follows, as clients must send one.
const MASKED: u8 = 0x80;
/// Length that says that the real one follows in two bytes.
const LONG: u8 = 126;

/// End of the channel that seals or opens, as a WebSocket sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The one that dialled; its frames are masked, by zeros, because they look random already.
    Client,
    /// The one that answered.
    Server,
}

/// Finding at the front of the bytes that have come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Front {
    /// A record with this many sealed bytes behind its head, which is taken off.
    Record { sealed: usize },
    /// A close frame: nothing follows.
    Close,
    /// The beginning of a record.
    Incomplete,
}

/// Reason why bytes are no record; nothing behind it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("the channel carries something else than its records")]
    Foreign,
    #[error("a record of the channel was changed on the way")]
    Forged,
}

/// Seals a piece of at most [`RECORD_MAX_BYTES`] behind what `out` holds.
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

/// Finds the record at the front of what has come, as soon as it is whole, and takes off its head and its mask.
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
        // A balancer that makes the frames anew makes a mask of its own.
        if mask != [0; 4] {
            input.iter_mut().take(sealed).zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        }
    }
    Ok(Front::Record { sealed })
}

/// Opens a sealed piece into `plain`, which has room for it. Returns its length.
pub(crate) fn open(noise: &mut TransportState, sealed: &[u8], plain: &mut [u8]) -> Result<usize, RecordError> {
    noise.read_message(sealed, plain).map_err(|_| RecordError::Forged)
}

/// Length of what so many sealed bytes hold.
pub(crate) fn plain_length(sealed: usize) -> usize {
    sealed.saturating_sub(TAG_BYTES)
}
