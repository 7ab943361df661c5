//! Minimal MessagePack encoder for benchmarks, because the product's encoder must not check itself.

const SHORT_TEXT_MAX_BYTES: u8 = 31;
/// Payload bits per byte of a length prefix; the remaining bit marks a continuation.
const LENGTH_BITS: u32 = 7;

/// Encodes a text of at most 65 535 bytes; the length of longer ones would be wrong.
#[must_use]
pub fn text(text: &str) -> Vec<u8> {
    let head = match (u8::try_from(text.len()), u16::try_from(text.len())) {
        (Ok(short @ ..=SHORT_TEXT_MAX_BYTES), _) => vec![0xa0 | short],
        (Ok(medium), _) => vec![0xd9, medium],
        (_, long) => [&[0xda][..], &long.unwrap_or(u16::MAX).to_be_bytes()].concat(),
    };
    [&head, text.as_bytes()].concat()
}

/// Adds the length prefix to a hub message.
#[must_use]
pub fn message(body: &[u8]) -> Vec<u8> {
    let (mut message, mut length) = (Vec::new(), body.len());
    loop {
        let [low, ..] = length.to_le_bytes();
        length >>= LENGTH_BITS;
        if length == 0 {
            message.push(low);
            break;
        }
        message.push(low | 0x80);
    }
    message.extend_from_slice(body);
    message
}
