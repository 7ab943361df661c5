//! Case of the suite, with its frames.

use trunkline_proxy::websocket::ProtocolError;

pub(super) const CONTINUED: u8 = 0x0;
pub(super) const FIN: u8 = 0x80;

/// Expected outcome of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expect {
    /// The payload arrives, the pings require pongs, and the connection stays open.
    Served(Vec<u8>, Vec<Vec<u8>>),
    /// The payload arrives, then the client closes.
    Closed(Vec<u8>, Vec<Vec<u8>>),
    /// A protocol error follows this payload.
    Broken(Vec<u8>, ProtocolError),
    /// The payload is not valid UTF-8. The reader detects this, because the decoder does not distinguish text and
    /// bytes.
    NotUtf8(Vec<u8>),
}

#[derive(Debug, Clone)]
pub(super) struct ConformanceCase {
    pub(super) id: String,
    pub(super) sent: Vec<u8>,
    pub(super) chop: usize,
    pub(super) expect: Expect,
}

/// Frame with this first byte and a mask of zeros.
pub(super) fn raw(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x5a, 0x00, 0xff, 0x13];
    let mut out = vec![first];
    match payload.len() {
        short @ 0..126 => out.push(0x80 | u8::try_from(short).unwrap()),
        middle @ 126..65_536 => {
            out.push(0x80 | 126);
            out.extend(u16::try_from(middle).unwrap().to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend((long as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

pub(super) fn whole(opcode: u8, payload: &[u8]) -> Vec<u8> {
    raw(FIN | opcode, payload)
}

pub(super) fn part(opcode: u8, payload: &[u8]) -> Vec<u8> {
    raw(opcode, payload)
}

/// Message in fragments of this size.
pub(super) fn fragmented(opcode: u8, payload: &[u8], size: usize) -> Vec<u8> {
    let mut pieces: Vec<&[u8]> = payload.chunks(size).collect();
    if pieces.is_empty() {
        pieces.push(&[]);
    }
    let last = pieces.len() - 1;
    let frames = pieces.iter().enumerate().map(|(at, piece)| {
        let opcode = if at == 0 { opcode } else { CONTINUED };
        if at == last { whole(opcode, piece) } else { part(opcode, piece) }
    });
    frames.collect::<Vec<_>>().concat()
}

pub(super) fn case(id: impl Into<String>, sent: &[Vec<u8>], chop: usize, expect: Expect) -> ConformanceCase {
    ConformanceCase { id: id.into(), sent: sent.concat(), chop, expect }
}
