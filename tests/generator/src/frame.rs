//! WebSocket frames: encoded as a client, decoded as sent by a server.
//!
//! The mask is zero: masking prevents untrusted text from being taken for HTTP by a broken cache, and all text here is
//! trusted.

/// Maximum frame size, larger than the default of any SignalR server.
const FRAME_MAX_BYTES: usize = 32 * 1024 * 1024;

const FINAL: u8 = 0x80;
/// Extension bits. No extension is negotiated.
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

/// Opcode of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// Continuation of a fragmented message.
    Continuation,
    /// Text message or its first part.
    Text,
    /// Binary message or its first part.
    Binary,
    /// End of the WebSocket.
    Close,
    /// Request for a pong.
    Ping,
    /// Answer to a ping.
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

/// Complete frame at the start of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Whether it is the last frame of its message.
    pub is_final: bool,
    /// Kind of the frame.
    pub opcode: Opcode,
    /// Content of the frame.
    pub payload: &'a [u8],
    /// Bytes after the frame.
    pub rest: &'a [u8],
}

/// Error for invalid or oversized frames of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bad WebSocket frame")]
pub struct FrameError;

/// Encodes a text frame like a server.
#[must_use]
pub fn from_server(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    put_head(Opcode::Text, payload.len(), 0, &mut frame);
    frame.extend_from_slice(payload);
    frame
}

/// Encodes a text frame like a client.
#[must_use]
pub fn from_client(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    put(Opcode::Text, payload, &mut frame);
    frame
}

/// Appends a client frame.
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

/// Splits off the first server frame; `None` if it is incomplete.
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

/// Splits socket data into frames.
///
/// Bytes are copied only for incomplete frames, so an idle connection has no buffer.
#[derive(Debug, Default)]
pub struct Frames {
    partial: Vec<u8>,
}

impl Frames {
    /// Starts with bytes that were read early.
    #[must_use]
    pub fn new(early: Vec<u8>) -> Self {
        Self { partial: early }
    }

    /// Whether no incomplete frame is buffered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.partial.is_empty()
    }

    /// Processes bytes from the socket and passes each complete frame on.
    ///
    /// # Errors
    /// The first error of `each`, or if the bytes are invalid.
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

/// Passes each complete frame on, and returns the bytes after the last.
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
