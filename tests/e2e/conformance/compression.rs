//! Categories 12 and 13: compressed messages of each kind and length, whole and in fragments.
//!
//! The suite sends a thousand messages of each case and expects the same. Here each message is decoded, and compressed
//! as one of ours, which must return to what it was.

use trunkline_proxy::websocket::{Decoder, Deflater, Event, Inflater, Opcode, ProtocolError, frame, payload_bytes};

use super::conformance_case::{FIN, raw};

const COMPRESSED: u8 = 0x40;

/// Lengths of messages, and of their fragments; 0 for none.
const LENGTHS: [(usize, usize); 18] = [
    (16, 0),
    (64, 0),
    (256, 0),
    (1024, 0),
    (4096, 0),
    (8192, 0),
    (16_384, 0),
    (32_768, 0),
    (65_536, 0),
    (131_072, 0),
    (8192, 256),
    (16_384, 256),
    (32_768, 256),
    (65_536, 256),
    (131_072, 256),
    (131_072, 1024),
    (131_072, 4096),
    (131_072, 32_768),
];

/// Kinds of data in category 12: JSON, a picture, texts, a page.
const KINDS: [&str; 5] = ["json", "picture", "text", "foreign text", "page"];

/// Sets of parameters in category 13, all of them without contexts here, and their kind of data.
const PARAMETERS: usize = 7;

fn data(kind: &str, length: usize) -> Vec<u8> {
    let line = |number: usize| match kind {
        "json" => format!("{{\"id\":{number},\"name\":\"entry {}\",\"tags\":[\"a\",\"b\"]}},", number * 7919 % 1000),
        "text" => format!("Line {number} of the text has {} words and ends here.\n", number % 12),
        "foreign text" => format!("Zeile {number}: „Grüße“, καλημέρα, здравствуйте, 你好 {}\n", number * 31 % 100),
        _ => format!("<tr class=\"row\"><td>{number}</td><td>{}</td></tr>\n", number * number),
    };
    if kind == "picture" {
        // Noise in the low bits, as in a photograph.
        let bytes = (0..length).map(|at| (at / 64) ^ (at.wrapping_mul(2_654_435_761) >> 13 & 7));
        return bytes.map(|byte| u8::try_from(byte & 0xff).unwrap()).collect();
    }
    let mut text: Vec<u8> = (0..)
        .map(line)
        .scan(0, |sum, line| {
            let before = *sum;
            *sum += line.len();
            (before < length).then_some(line)
        })
        .collect::<String>()
        .into_bytes();
    text.truncate(length);
    text
}

/// Payload of the compressed frame, or of a message in one stored block if it gets no smaller.
fn deflated(payload: &[u8]) -> Vec<u8> {
    match Deflater::default().deflate_frame(&frame(Opcode::Binary, payload)) {
        Some(twin) => twin[twin.len() - payload_bytes(&twin)..].to_vec(),
        None => {
            let length = u16::try_from(payload.len()).unwrap();
            [&[0], &length.to_le_bytes()[..], &(!length).to_le_bytes(), payload, &[0]].concat()
        }
    }
}

fn inflate(inflater: &mut Inflater, message: Vec<u8>) -> Result<Vec<u8>, ProtocolError> {
    let mut data = Vec::new();
    inflater.begin_message(message);
    while let Some(length) = inflater.inflate()? {
        data.extend_from_slice(inflater.piece(length));
    }
    Ok(data)
}

/// Reads a client's frames in pieces.
fn received(sent: &[u8], chop: usize) -> Result<Vec<Vec<u8>>, ProtocolError> {
    let (mut decoder, mut inflater) = (Decoder::new(true), Inflater::default());
    let (mut message, mut messages) = (Vec::new(), Vec::new());
    for piece in sent.chunks(chop) {
        let (mut input, mut at) = (piece.to_vec(), 0);
        loop {
            let (used, event) = decoder.decode(&mut input[at..])?;
            match event {
                Event::Data(range) => {
                    assert!(decoder.position().is_compressed);
                    message.extend_from_slice(&input[at..][range]);
                    if decoder.position().is_last {
                        messages.push(inflate(&mut inflater, std::mem::take(&mut message))?);
                    }
                }
                Event::NeedMore => break,
                other => panic!("{other:?}"),
            }
            at += used;
        }
    }
    Ok(messages)
}

/// Plays the cases. Returns the number of each category.
pub(super) fn play() -> [usize; 2] {
    let mut counts = [0, 0];
    for (kind, name) in KINDS.iter().enumerate() {
        for (number, (length, fragment)) in LENGTHS.into_iter().enumerate() {
            let payload = data(name, length);
            let packed = deflated(&payload);
            let frames: Vec<u8> = match fragment {
                0 => raw(FIN | COMPRESSED | 0x2, &packed),
                // Fragments of the compressed message are shorter than the suite's, which cuts the message first.
                size => {
                    let parts: Vec<&[u8]> = packed.chunks(size.min(packed.len() / 3 + 1)).collect();
                    let last = parts.len() - 1;
                    let first = |at| if at == 0 { COMPRESSED | 0x2 } else { 0 } | if at == last { FIN } else { 0 };
                    parts.iter().enumerate().flat_map(|(at, part)| raw(first(at), part)).collect()
                }
            };
            let sent = frames.repeat(3);
            for chop in [sent.len(), 997] {
                let messages = received(&sent, chop);
                assert!(messages == Ok(vec![payload.clone(); 3]), "case 12.{}.{}", kind + 1, number + 1);
            }
            counts[0] += 1;
        }
    }
    // The parameters decide only whether an offer is accepted: see `websocket_upgrade.rs`. Data is as in category 12.
    for set in 0..PARAMETERS {
        for (length, _) in LENGTHS {
            let payload = data(KINDS[set % KINDS.len()], length);
            assert!(inflate(&mut Inflater::default(), deflated(&payload)) == Ok(payload));
            counts[1] += 1;
        }
    }
    counts
}
