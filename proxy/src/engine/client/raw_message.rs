//! Messages of a raw endpoint's client: complete transport messages, text or binary, not parsed.
//!
//! Pure, like the reader of hub messages. A message split into frames or reads is stored until it is complete; an
//! unsplit one is forwarded from the read buffer.

use std::borrow::Cow;
use std::mem;

use trunkline_protocol::service::RawKind;

use super::inbound::{PartialMessage, Upward};
use super::inbound_error::InboundError;
use crate::engine::transport::websocket::{MessageForm, PiecePosition};

/// Takes a piece of a message; returns the message once complete.
pub(super) fn take_raw<'a>(
    partial: &mut PartialMessage,
    piece: &'a [u8],
    place: PiecePosition,
    limit_bytes: usize,
) -> Result<Option<Upward<'a>>, InboundError> {
    if place.is_last && partial.has_begun() {
        partial.note_end();
    }
    let partial = partial.bytes_mut();
    if partial.len() + piece.len() > limit_bytes {
        return Err(InboundError::RawTooLarge(limit_bytes));
    }
    if partial.is_empty() && place.is_last {
        return message(Cow::Borrowed(piece), place).map(Some);
    }
    partial.extend_from_slice(piece);
    // Frees the memory, so that an idle connection has no buffer.
    if place.is_last { message(Cow::Owned(mem::take(partial)), place).map(Some) } else { Ok(None) }
}

fn message(bytes: Cow<'_, [u8]>, place: PiecePosition) -> Result<Upward<'_>, InboundError> {
    let kind = match (place.form, str::from_utf8(&bytes)) {
        (MessageForm::Text, Err(_)) => return Err(InboundError::NotUtf8),
        (MessageForm::Text | MessageForm::Unknown, Ok(_)) => RawKind::Text,
        (MessageForm::Binary, _) | (MessageForm::Unknown, Err(_)) => RawKind::Binary,
    };
    Ok(Upward::Raw { bytes, kind })
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::manifest::Transport;

    use super::*;
    use crate::engine::client::inbound::{Inbound, Piece};

    const LIMIT: usize = 100;
    const WHOLE_TEXT: u8 = 0x81;
    const WHOLE_BINARY: u8 = 0x82;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
        out.extend(payload);
        out
    }

    /// Reads the frames in pieces of `chunk` bytes.
    fn read(frames: &[Vec<u8>], chunk: usize) -> Result<Vec<(RawKind, Vec<u8>)>, InboundError> {
        let (mut inbound, mut messages) = (Inbound::new(Transport::WebSockets, false), Vec::new());
        for piece in frames.concat().chunks(chunk) {
            let mut bytes = piece.to_vec();
            let mut inflater = None;
            let (mut pieces, partial) = inbound.pieces(&mut bytes, (&mut inflater, LIMIT));
            while let Some(piece) = pieces.next()? {
                match piece {
                    Piece::Payload(payload, place) => match take_raw(partial, payload, place, LIMIT)? {
                        Some(Upward::Raw { bytes, kind }) => messages.push((kind, bytes.to_vec())),
                        other => assert_eq!(other, None),
                    },
                    other => assert!(matches!(other, Piece::Ping(_)), "{other:?}"),
                }
            }
        }
        Ok(messages)
    }

    #[test]
    fn messages_come_whole_and_keep_their_kind_however_they_were_cut() {
        let frames = [
            frame(WHOLE_TEXT, "grüße".as_bytes()),
            frame(WHOLE_BINARY, &[0xff, 0]),
            frame(0x01, &"ü".as_bytes()[..1]),
            frame(0x89, b"are you there"),
            frame(0x00, &"ü".as_bytes()[1..]),
            frame(0x80, b""),
            frame(WHOLE_BINARY, b""),
        ];
        let whole = [
            (RawKind::Text, "grüße".as_bytes().to_vec()),
            (RawKind::Binary, vec![0xff, 0]),
            (RawKind::Text, "ü".as_bytes().to_vec()),
            (RawKind::Binary, vec![]),
        ];
        for chunk in [1, 2, 3, 7, 1000] {
            assert_eq!(read(&frames, chunk).unwrap(), whole, "chunk {chunk}");
        }
    }

    #[test]
    fn only_texts_must_be_utf8() {
        assert_eq!(read(&[frame(WHOLE_TEXT, &[0xff])], 100), Err(InboundError::NotUtf8));
        assert_eq!(read(&[frame(0x01, "ü".as_bytes()), frame(0x80, &[0xc3])], 100), Err(InboundError::NotUtf8));
        assert!(read(&[frame(WHOLE_BINARY, &[0xff])], 100).is_ok());
        assert_eq!(InboundError::NotUtf8.raw_code(), 1007);
    }

    #[test]
    fn a_message_may_be_as_large_as_the_limit_and_no_larger_in_one_frame_or_many() {
        let half = LIMIT / 2;
        assert!(read(&[frame(WHOLE_TEXT, &[b'x'; LIMIT])], 7).is_ok());
        let too_large = Err(InboundError::RawTooLarge(LIMIT));
        assert_eq!(read(&[frame(WHOLE_TEXT, &[b'x'; LIMIT + 1])], 7), too_large);
        assert_eq!(read(&[frame(0x02, &vec![1; half]), frame(0x00, &vec![1; half + 1])], 1000), too_large);
        assert_eq!(InboundError::RawTooLarge(LIMIT).raw_code(), 1009);
    }
}
