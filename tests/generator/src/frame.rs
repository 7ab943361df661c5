//! WebSocket frames: written as a client, read as a server sends them.
//!
//! Masked with zeros: the mask keeps strangers' text from looking like HTTP to a broken cache, and here no stranger
//! writes.

/// Largest accepted frame: more than any SignalR server sends by default.
const FRAME_MAX_BYTES: usize = 32 * 1024 * 1024;

const FINAL: u8 = 0x80;
/// Bits of extensions, none of which is negotiated.
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

/// Opcode of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// The rest of a fragmented message.
    Continuation,
    /// A message, or its first part, in text.
    Text,
    /// A message, or its first part, in bytes.
    Binary,
    /// The end of the WebSocket.
    Close,
    /// A question for a pong.
    Ping,
    /// The answer to a ping.
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
        Some(match first & OPCODE {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }
}

/// A whole frame at the front of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Whether it is the last frame of its message.
    pub is_final: bool,
    /// Kind of frame it is.
    pub opcode: Opcode,
    /// The bytes it carries.
    pub payload: &'a [u8],
    /// The bytes behind it.
    pub rest: &'a [u8],
}

/// The bytes are not a server's frame, or it is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bad WebSocket frame")]
pub struct FrameError;

/// A text frame as a server sends it.
#[must_use]
pub fn from_server(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    put_head(Opcode::Text, payload.len(), 0, &mut frame);
    frame.extend_from_slice(payload);
    frame
}

/// A text frame as a client sends it.
#[must_use]
pub fn from_client(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    put(Opcode::Text, payload, &mut frame);
    frame
}

/// Appends a client's frame.
pub fn put(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    put_head(opcode, payload.len(), MASKED, out);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

fn put_head(opcode: Opcode, length: usize, masked: u8, out: &mut Vec<u8>) {
    out.push(FINAL | opcode.number());
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < LENGTH_16 => out.push(masked | short),
        (_, Ok(medium)) => {
            out.push(masked | LENGTH_16);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(masked | LENGTH_64);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Splits the first frame off a server's bytes; `None` while it is incomplete.
///
/// # Errors
/// When they are not a server's frame.
pub fn split(bytes: &[u8]) -> Result<Option<Frame<'_>>, FrameError> {
    let Some((&[first, short], rest)) = bytes.split_first_chunk() else { return Ok(None) };
    let opcode = Opcode::of(first).filter(|_| first & RESERVED == 0).ok_or(FrameError)?;
    let Some((length, rest)) = read_length(short, rest) else { return Ok(None) };
    if short & MASKED != 0 || length > FRAME_MAX_BYTES as u64 {
        return Err(FrameError);
    }
    let length = usize::try_from(length).map_err(|_| FrameError)?;
    let is_final = first & FINAL != 0;
    Ok(rest.split_at_checked(length).map(|(payload, rest)| Frame { is_final, opcode, payload, rest }))
}

fn read_length(short: u8, rest: &[u8]) -> Option<(u64, &[u8])> {
    match short {
        LENGTH_16 => rest.split_first_chunk().map(|(length, rest)| (u16::from_be_bytes(*length).into(), rest)),
        LENGTH_64 => rest.split_first_chunk().map(|(length, rest)| (u64::from_be_bytes(*length), rest)),
        short => Some((short.into(), rest)),
    }
}

/// Splits a socket's bytes into frames.
///
/// Bytes are copied only while a frame is incomplete, so an idle connection holds no buffer.
#[derive(Debug, Default)]
pub struct Frames {
    partial: Vec<u8>,
}

impl Frames {
    /// Starts with bytes that were read too early.
    #[must_use]
    pub fn new(early: Vec<u8>) -> Self {
        Self { partial: early }
    }

    /// Whether no part of a frame waits for its rest.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.partial.is_empty()
    }

    /// Takes bytes from the socket, and hands each whole frame on.
    ///
    /// # Errors
    /// The first of `each`, or when the bytes are not frames.
    pub fn take<E: From<FrameError>>(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(&Frame<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.partial.is_empty() {
            self.partial.extend_from_slice(rest_of(bytes, &mut each)?);
            return Ok(());
        }
        self.partial.extend_from_slice(bytes);
        let used = self.partial.len() - rest_of(&self.partial, &mut each)?.len();
        if used == self.partial.len() {
            self.partial = Vec::new();
        } else {
            self.partial.drain(..used);
        }
        Ok(())
    }
}

/// Hands each whole frame on; returns the bytes behind the last.
fn rest_of<'a, E: From<FrameError>>(
    mut bytes: &'a [u8],
    each: &mut impl FnMut(&Frame<'_>) -> Result<(), E>,
) -> Result<&'a [u8], E> {
    while let Some(frame) = split(bytes)? {
        bytes = frame.rest;
        each(&frame)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_again_wherever_the_bytes_are_cut() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let frame = from_server(&payload);
            let expected = Frame { is_final: true, opcode: Opcode::Text, payload: &payload, rest: &[] };
            assert_eq!(split(&frame), Ok(Some(expected)));
            for cut in (0..frame.len()).step_by(1 + frame.len() / 50) {
                assert_eq!(split(&frame[..cut]), Ok(None));
                let (mut frames, mut found) = (Frames::default(), Vec::new());
                for part in [&frame[..cut], &frame[cut..]] {
                    let note = |frame: &Frame<'_>| -> Result<(), FrameError> {
                        found.push(frame.payload.to_vec());
                        Ok(())
                    };
                    frames.take(part, note).unwrap();
                }
                assert!(found == [payload.as_slice()] && frames.is_empty());
            }
        }
    }

    #[test]
    fn masked_frames_unknown_opcodes_and_huge_frames_are_refused() {
        assert_eq!(split(&[0x81, 0x80]), Err(FrameError));
        assert_eq!(split(&[0x83, 0x00]), Err(FrameError));
        assert_eq!(split(&[0x82, 127, 0, 0, 1, 0, 0, 0, 0, 0]), Err(FrameError));
    }

    #[test]
    fn a_client_masks_its_frames() {
        let mut frame = Vec::new();
        put(Opcode::Binary, b"ab", &mut frame);
        assert_eq!(frame, [0x82, 0x82, 0, 0, 0, 0, b'a', b'b']);
        assert_eq!(from_client(b"a"), [0x81, 0x81, 0, 0, 0, 0, b'a']);
    }
}
