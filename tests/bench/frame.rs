//! WebSocket frames put together and taken apart.
//!
//! Written by hand, so that the product's own encoder is not its own judge.

/// The hub's ping, which a proxy sends to whoever it has sent nothing for a while.
pub const PING: &[u8] = b"{\"type\":6}\x1e";

/// The same in MessagePack, behind its length.
pub const BINARY_PING: &[u8] = &[2, 0x91, 6];

/// The first byte of a whole text frame.
pub const TEXT: u8 = 0x81;

/// The first byte of a whole binary frame.
pub const BINARY: u8 = 0x82;

const MASKED: u8 = 0x80;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

/// A text frame as a server sends it.
#[must_use]
pub fn from_server(payload: &[u8]) -> Vec<u8> {
    let mut frame = head(TEXT, payload.len(), 0);
    frame.extend_from_slice(payload);
    frame
}

/// A text frame as a client sends it.
#[must_use]
pub fn from_client(payload: &[u8]) -> Vec<u8> {
    of_client(TEXT, payload)
}

/// A frame with this first byte as a client sends it. Masked with zeros: nothing stands between us and the server.
#[must_use]
pub fn of_client(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = head(first, payload.len(), MASKED);
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

fn head(first: u8, length: usize, masked: u8) -> Vec<u8> {
    let mut head = vec![first];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < LENGTH_16 => head.push(masked | short),
        (_, Ok(medium)) => {
            head.push(masked | LENGTH_16);
            head.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            head.push(masked | LENGTH_64);
            head.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    head
}

/// The first frame of a server's bytes: its first byte, its payload, what follows; `None` while it is not whole.
#[must_use]
pub fn split(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[first, short], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match short {
        LENGTH_16 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        LENGTH_64 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::try_from(u64::from_be_bytes(*length)).ok()?, rest)
        }
        short => (usize::from(short), rest),
    };
    let (payload, rest) = rest.split_at_checked(length)?;
    Some((first, payload, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_again_however_the_bytes_are_cut() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let frame = from_server(&payload);
            assert_eq!(split(&frame), Some((TEXT, payload.as_slice(), [].as_slice())));
            for cut in (0..frame.len()).step_by(1 + frame.len() / 50) {
                assert_eq!(split(&frame[..cut]), None);
            }
        }
    }

    #[test]
    fn a_client_masks_what_it_sends() {
        assert_eq!(of_client(BINARY, b"a"), [BINARY, 0x81, 0, 0, 0, 0, b'a']);
        assert_eq!(from_client(b"ab"), [TEXT, 0x82, 0, 0, 0, 0, b'a', b'b']);
    }
}
