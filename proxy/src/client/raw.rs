//! What a client of a raw endpoint sends: whole messages of its transport, text or bytes, unread.
//!
//! Pure, as the reading of hub messages is. A message that is cut into frames or reads is kept until it is whole; one
//! that is not goes up from where it was read to.

use std::mem;

use trunkline_protocol::service::RawKind;

use super::inbound::{Inbound, InboundError, Upward};
use crate::transport::websocket::{MessageForm, PiecePosition};

impl Inbound {
    /// Takes what was read and gives the messages that are whole, in order.
    pub(super) fn take_raw(
        &mut self,
        bytes: &mut [u8],
        limit_bytes: usize,
        give: impl FnMut(Upward<'_>),
    ) -> Result<(), InboundError> {
        self.take_each(bytes, give, |partial, piece, place, give| take_piece(partial, piece, place, limit_bytes, give))
    }
}

fn take_piece(
    partial: &mut Vec<u8>,
    piece: &[u8],
    place: PiecePosition,
    limit_bytes: usize,
    give: &mut impl FnMut(Upward<'_>),
) -> Result<(), InboundError> {
    if partial.len() + piece.len() > limit_bytes {
        return Err(InboundError::RawTooLarge(limit_bytes));
    }
    if partial.is_empty() && place.is_last {
        return give_message(piece, place, give);
    }
    partial.extend_from_slice(piece);
    // The memory goes too: an idle connection holds no buffer.
    if place.is_last { give_message(&mem::take(partial), place, give) } else { Ok(()) }
}

fn give_message(bytes: &[u8], place: PiecePosition, give: &mut impl FnMut(Upward<'_>)) -> Result<(), InboundError> {
    let kind = match (place.form, str::from_utf8(bytes)) {
        (MessageForm::Text, Err(_)) => return Err(InboundError::NotUtf8),
        (MessageForm::Text | MessageForm::Unknown, Ok(_)) => RawKind::Text,
        (MessageForm::Binary, _) | (MessageForm::Unknown, Err(_)) => RawKind::Binary,
    };
    give(Upward::Raw { bytes, kind });
    Ok(())
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::manifest::Transport;

    use super::*;

    const LIMIT: usize = 100;
    const WHOLE_TEXT: u8 = 0x81;
    const WHOLE_BINARY: u8 = 0x82;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
        out.extend(payload);
        out
    }

    /// What comes up when the frames are read in pieces of `chunk`.
    fn read(frames: &[Vec<u8>], chunk: usize) -> Result<Vec<(RawKind, Vec<u8>)>, InboundError> {
        let (mut inbound, mut messages) = (Inbound::new(Transport::WebSockets), Vec::new());
        for piece in frames.concat().chunks(chunk) {
            inbound.take_raw(&mut piece.to_vec(), LIMIT, |upward| match upward {
                Upward::Raw { bytes, kind } => messages.push((kind, bytes.to_vec())),
                other => assert!(matches!(other, Upward::TransportPing(_)), "{other:?}"),
            })?;
        }
        Ok(messages)
    }

    #[test]
    fn messages_come_up_whole_and_as_what_they_are_however_they_were_cut() {
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
    fn a_text_that_is_not_utf8_is_refused_and_bytes_are_not() {
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
