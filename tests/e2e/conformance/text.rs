//! Category 6: valid and invalid text, whole and in fragments that split characters.

use super::conformance_case::{ConformanceCase, Expect, case, fragmented};

const TEXT: u8 = 0x1;

/// Greek, with letters of two and three bytes.
const KOSME: &[u8] = "\u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5}".as_bytes();

/// Texts with one byte missing, complete, and with one byte too many.
const UNSOUND: [(u32, &[&[u8]]); 12] = [
    (8, &[b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"]),
    (10, &[b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"]),
    (
        12,
        &[
            b"\x80",
            b"\xbf",
            b"\x80\xbf",
            b"\x80\xbf\x80",
            b"\x80\xbf\x80\xbf",
            b"\x80\xbf\x80\xbf\x80",
            b"\x80\xbf\x80\xbf\x80\xbf",
            b"\x80\x81\x82\x83\x84\x85\x86\x87\xb8\xb9\xba\xbb\xbc\xbd\xbe\xbf",
        ],
    ),
    (13, &[b"\xc0 \xc1 \xdf ", b"\xe0 \xe1 \xef ", b"\xf0 \xf1 \xf7 ", b"\xf8 \xf9 \xfb ", b"\xfc \xfd "]),
    (
        14,
        &[
            b"\xc0",
            b"\xe0\x80",
            b"\xf0\x80\x80",
            b"\xf8\x80\x80\x80",
            b"\xfc\x80\x80\x80\x80",
            b"\xdf",
            b"\xef\xbf",
            b"\xf7\xbf\xbf",
            b"\xfb\xbf\xbf\xbf",
            b"\xfd\xbf\xbf\xbf\xbf",
        ],
    ),
    (15, &[b"\xc0\xe0\x80\xf0\x80\x80\xf8\x80\x80\x80\xfc\x80\x80\x80\x80\xdf\xef\xbf\xf7\xbf\xbf\xfb\xbf\xbf\xbf"]),
    (16, &[b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"]),
    (17, &[b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf", b"\xfc\x80\x80\x80\x80\xaf"]),
    (18, &[b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xf8\x87\xbf\xbf\xbf", b"\xfc\x83\xbf\xbf\xbf\xbf"]),
    (19, &[b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf8\x80\x80\x80\x80", b"\xfc\x80\x80\x80\x80\x80"]),
    (
        20,
        &[
            b"\xed\xa0\x80",
            b"\xed\xad\xbf",
            b"\xed\xae\x80",
            b"\xed\xaf\xbf",
            b"\xed\xb0\x80",
            b"\xed\xbe\x80",
            b"\xed\xbf\xbf",
        ],
    ),
    (
        21,
        &[
            b"\xed\xa0\x80\xed\xb0\x80",
            b"\xed\xa0\x80\xed\xbf\xbf",
            b"\xed\xad\xbf\xed\xb0\x80",
            b"\xed\xad\xbf\xed\xbf\xbf",
            b"\xed\xae\x80\xed\xb0\x80",
            b"\xed\xae\x80\xed\xbf\xbf",
            b"\xed\xaf\xbf\xed\xb0\x80",
            b"\xed\xaf\xbf\xed\xbf\xbf",
        ],
    ),
];

fn sound(id: impl Into<String>, sent: &[Vec<u8>], text: &[u8]) -> ConformanceCase {
    case(id, sent, 99, Expect::Served(text.to_vec(), Vec::new()))
}

fn unsound(id: impl Into<String>, sent: &[Vec<u8>], text: &[u8]) -> ConformanceCase {
    case(id, sent, 99, Expect::NotUtf8(text.to_vec()))
}

fn whole(text: &[u8]) -> Vec<u8> {
    fragmented(TEXT, text, usize::MAX)
}

pub(super) fn all() -> Vec<ConformanceCase> {
    let mut all = [fragments(), prefixes()].concat();
    for (group, texts) in UNSOUND {
        let cases = texts.iter().enumerate();
        all.extend(cases.map(|(place, text)| unsound(format!("6.{group}.{}", place + 1), &[whole(text)], text)));
    }
    all.push(unsound("6.11.5", &[whole(b"\xf4\x90\x80\x80")], b"\xf4\x90\x80\x80"));
    for (group, texts) in sound_texts() {
        let cases = texts.iter().enumerate();
        all.extend(cases.map(|(place, text)| {
            sound(format!("6.{group}.{}", place + 1), &[whole(text.as_bytes())], text.as_bytes())
        }));
    }
    all
}

fn fragments() -> Vec<ConformanceCase> {
    let hello = "Hello-µ@ßöäüàá-UTF-8!!".as_bytes();
    let (first, second) = hello.split_at("Hello-µ@ßöä".len());
    let empty = |middle: &[u8]| [vec![0x01, 0x80, 0, 0, 0, 0], masked(0x00, middle), vec![0x80, 0x80, 0, 0, 0, 0]];
    let broken = [KOSME, b"\xed\xa0\x80edited"].concat();
    let fast = [KOSME, b"\xf4\x90\x80\x80edited"].concat();
    let mut all = vec![
        sound("6.1.1", &[whole(b"")], b""),
        sound("6.1.2", &empty(b""), b""),
        sound("6.1.3", &empty(b"middle frame payload"), b"middle frame payload"),
        sound("6.2.1", &[whole(hello)], hello),
        sound("6.2.2", &[masked(0x01, first), masked(0x80, second)], hello),
        sound("6.2.3", &[fragmented(TEXT, hello, 1)], hello),
        sound("6.2.4", &[fragmented(TEXT, KOSME, 1)], KOSME),
        unsound("6.3.1", &[whole(&broken)], &broken),
        unsound("6.3.2", &[fragmented(TEXT, &broken, 1)], &broken),
    ];
    // The cases differ in the earliest time of detection: after the frame, or at the invalid byte.
    let sizes = [(1, KOSME.len()), (2, KOSME.len() + 3), (3, fast.len()), (4, 1)];
    all.extend(sizes.map(|(place, size)| unsound(format!("6.4.{place}"), &[fragmented(TEXT, &fast, size)], &fast)));
    all
}

/// Frame of less than 126 bytes with a mask of zeros.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0], payload].concat()
}

/// All prefixes of a text; prefixes that end within a character are invalid.
fn prefixes() -> Vec<ConformanceCase> {
    let is_end = |length: usize| KOSME.get(length).is_none_or(|next| next & 0xc0 != 0x80);
    let of = |length: usize| {
        let (id, text) = (format!("6.6.{length}"), &KOSME[..length]);
        if is_end(length) { sound(id, &[whole(text)], text) } else { unsound(id, &[whole(text)], text) }
    };
    (1..=KOSME.len()).map(of).collect()
}

fn sound_texts() -> Vec<(u32, Vec<String>)> {
    let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let of = |codes: &[u32]| codes.iter().map(|code| char::from_u32(*code).unwrap().to_string()).collect::<Vec<_>>();
    let no_characters: Vec<u32> = (0..=16).flat_map(|plane| [plane << 16 | 0xfffe, plane << 16 | 0xffff]).collect();
    vec![
        (
            5,
            strings(&[
                "hello\u{24}world",
                "hello\u{a2}world",
                "hello\u{20ac}world",
                "hello\u{24b62}world",
                "\u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5}",
            ]),
        ),
        (7, of(&[0x0, 0x80, 0x800, 0x10000])),
        (9, of(&[0x7f, 0x7ff, 0xffff, 0x10_ffff])),
        (11, of(&[0xd7ff, 0xe000, 0xfffd, 0x10_ffff])),
        (22, of(&no_characters)),
        (23, of(&[0xfff9, 0xfffa, 0xfffb, 0xfffc, 0xfffd, 0xfffe, 0xffff])),
    ]
}
