//! Compressed messages of clients.

use bytes::Bytes;
use trunkline_proxy::websocket::{Deflater, Inflater, Opcode, frame, payload_bytes};

/// Largest number of decompressed bytes per compressed byte that the format permits, and some for the end.
const RATIO_MAX: usize = 1040;

/// Decompresses a message, and compresses it as one of ours.
pub fn deflated_messages(data: &[u8]) {
    let mut inflater = Inflater::default();
    let first = inflate(&mut inflater, data);
    assert_eq!(first, inflate(&mut inflater, data), "a message leaves a trace in the next one");
    come_back(&mut inflater, data);
    if let Some(text) = first.filter(|text| text.len() < 100_000) {
        come_back(&mut inflater, &text);
    }
}

/// The message; `None` if it is corrupt.
fn inflate(inflater: &mut Inflater, data: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    inflater.begin_message(data.to_vec());
    while let Some(length) = inflater.inflate().ok()? {
        text.extend_from_slice(inflater.piece(length));
        assert!(text.len() <= (data.len() + 16) * RATIO_MAX, "{} bytes of {}", text.len(), data.len());
    }
    assert_eq!(inflater.lengths(), (data.len(), text.len()));
    Some(text)
}

/// A message that this end compresses is smaller, and returns to its text.
fn come_back(inflater: &mut Inflater, text: &[u8]) {
    let plain = frame(Opcode::Binary, text);
    let Some(twin) = Deflater::default().deflate_frame(&plain) else { return };
    assert!(twin.len() < plain.len());
    let payload: &Bytes = &twin.slice(twin.len() - payload_bytes(&twin)..);
    assert_eq!(inflate(inflater, payload).as_deref(), Some(text));
}
