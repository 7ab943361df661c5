//! The published cases of the Autobahn test suite for WebSocket servers, by their numbers: run against the decoder,
//! and against a raw endpoint that echoes all messages.
//!
//! A case consists of the client's frames and the expected result. Numbers and expectations follow the published list;
//! the frames are written for this test. The decoder receives each case in the requested pieces, then byte by byte, and
//! then as a whole.

mod cases;
mod compression;
mod conformance_case;
mod echo;
mod text;

use trunkline_proxy::websocket::{Decoder, Event};

use conformance_case::{ConformanceCase, Expect};

/// Output of the decoder.
fn echoed(sent: &[u8], chop: usize) -> Expect {
    let (mut decoder, mut data, mut pings) = (Decoder::default(), Vec::new(), Vec::new());
    for piece in sent.chunks(chop.max(1)) {
        let mut input = piece.to_vec();
        let mut at = 0;
        loop {
            let (used, event) = match decoder.decode(&mut input[at..]) {
                Ok(decoded) => decoded,
                Err(error) => return Expect::Broken(data, error),
            };
            match event {
                Event::Data(range) => data.extend_from_slice(&input[at..][range]),
                Event::Ping(payload) => pings.push(payload),
                Event::Pong => {}
                // Data after a close is ignored.
                Event::Close => return Expect::Closed(data, pings),
                Event::NeedMore => break,
            }
            at += used;
        }
    }
    Expect::Served(data, pings)
}

fn assert_case(case: &ConformanceCase) {
    let mut chops = vec![case.chop];
    if case.sent.len() <= 70_000 {
        chops.extend([case.sent.len(), 1]);
    }
    for chop in chops {
        let played = echoed(&case.sent, chop);
        match (&case.expect, &played) {
            (Expect::NotUtf8(data), Expect::Served(played, _)) => {
                assert_eq!(played, data, "case {} in pieces of {chop}", case.id);
                assert!(std::str::from_utf8(played).is_err(), "case {}", case.id);
            }
            (expected, played) => assert!(expected == played, "case {} in pieces of {chop}", case.id),
        }
    }
}

/// The published list, category by category.
const PUBLISHED: [(&str, usize); 9] =
    [("1", 16), ("2", 11), ("3", 7), ("4", 10), ("5", 20), ("6", 145), ("7", 37), ("9", 54), ("10", 1)];

#[test]
fn every_published_case_is_played() {
    let all = cases::all();
    let mut ids: Vec<&str> = all.iter().map(|case| case.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all.len(), "each number once");
    for (category, count) in PUBLISHED {
        let found = ids.iter().filter(|id| id.split('.').next() == Some(category)).count();
        assert_eq!(found, count, "category {category}");
    }
    assert_eq!(PUBLISHED.iter().map(|(_, count)| count).sum::<usize>(), 301);
    assert_eq!(compression::play(), [90, 126], "categories 12 and 13");
    all.iter().for_each(assert_case);
}
