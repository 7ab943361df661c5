//! WebSocket frames as a client writes and reads them.
//!
//! Masked with zeros: the mask keeps strangers' text from looking like HTTP to a broken cache, and here no stranger writes.

/// The largest frame that we take; more than any server of SignalR sends by default.
const FRAME_MAX_BYTES: usize = 32 * 1024 * 1024;

const FINAL: u8 = 0x80;
/// Bits of extensions, of which we ask for none.
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn number(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    fn of(first: u8) -> Option<Self> {
        let all = [Self::Continuation, Self::Text, Self::Binary, Self::Close, Self::Ping, Self::Pong];
        all.into_iter().find(|opcode| opcode.number() == first & OPCODE)
    }
}

/// A whole frame at the front of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) opcode: Opcode,
    pub(crate) payload: &'a [u8],
    /// What follows it.
    pub(crate) rest: &'a [u8],
}

/// The bytes are no frame of a server, or one that is far too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bad WebSocket frame")]
pub(crate) struct FrameError;

/// Appends a frame.
pub(crate) fn put(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    out.push(FINAL | opcode.number());
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short), _) if short < LENGTH_16 => out.push(MASKED | short),
        (_, Ok(medium)) => {
            out.push(MASKED | LENGTH_16);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(MASKED | LENGTH_64);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

/// The first frame of a server's bytes; `None` while it is not whole.
pub(crate) fn split(bytes: &[u8]) -> Result<Option<Frame<'_>>, FrameError> {
    let Some((&[first, short], rest)) = bytes.split_first_chunk() else { return Ok(None) };
    let opcode = Opcode::of(first).filter(|_| first & RESERVED == 0).ok_or(FrameError)?;
    let Some((length, rest)) = read_length(short, rest) else { return Ok(None) };
    if short & MASKED != 0 || length > FRAME_MAX_BYTES as u64 {
        return Err(FrameError);
    }
    let length = usize::try_from(length).map_err(|_| FrameError)?;
    Ok(rest.split_at_checked(length).map(|(payload, rest)| Frame { opcode, payload, rest }))
}

fn read_length(short: u8, rest: &[u8]) -> Option<(u64, &[u8])> {
    match short {
        LENGTH_16 => rest.split_first_chunk().map(|(length, rest)| (u16::from_be_bytes(*length).into(), rest)),
        LENGTH_64 => rest.split_first_chunk().map(|(length, rest)| (u64::from_be_bytes(*length), rest)),
        short => Some((short.into(), rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same frame without its mask, as a server sends it.
    fn from_server(payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        put(Opcode::Text, payload, &mut frame);
        let mask = frame.len() - payload.len() - 4;
        frame.drain(mask..mask + 4);
        frame[1] &= !MASKED;
        frame
    }

    #[test]
    fn frames_are_found_again_however_the_bytes_are_cut() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let frame = from_server(&payload);
            let expected = Frame { opcode: Opcode::Text, payload: &payload, rest: &[] };
            assert_eq!(split(&frame), Ok(Some(expected)));
            for cut in (0..frame.len()).step_by(1 + frame.len() / 50) {
                assert_eq!(split(&frame[..cut]), Ok(None));
            }
        }
    }

    #[test]
    fn masked_frames_unknown_kinds_and_huge_ones_are_refused() {
        assert_eq!(split(&[0x81, 0x80]), Err(FrameError));
        assert_eq!(split(&[0x83, 0x00]), Err(FrameError));
        assert_eq!(split(&[0x82, 127, 0, 0, 1, 0, 0, 0, 0, 0]), Err(FrameError));
    }

    #[test]
    fn a_client_masks_what_it_sends() {
        let mut frame = Vec::new();
        put(Opcode::Binary, b"ab", &mut frame);
        assert_eq!(frame, [0x82, 0x82, 0, 0, 0, 0, b'a', b'b']);
    }
}
