//! Categories 1 to 5, 7, 9 and 10: framing, control frames, fragments, closing, sizes.

use trunkline_proxy::websocket::ProtocolError;

use super::conformance_case::{CONTINUED, ConformanceCase, Expect, FIN, case, fragmented, part, raw, whole};
use super::text;

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

fn served(data: &[u8]) -> Expect {
    Expect::Served(data.to_vec(), Vec::new())
}

fn broken(data: &[u8], error: ProtocolError) -> Expect {
    Expect::Broken(data.to_vec(), error)
}

pub(super) fn all() -> Vec<ConformanceCase> {
    let mut all = [payloads(), pings(), reserved(), opcodes(), fragments()].concat();
    all.extend(text::all());
    all.extend([closing(), close_codes(), sizes()].concat());
    all
}

fn payloads() -> Vec<ConformanceCase> {
    let of = |opcode: u8, kind: usize| {
        let lengths = [0, 125, 126, 127, 128, 65_535, 65_536, 65_536].into_iter().enumerate();
        lengths.map(move |(place, length)| {
            let (payload, chop) = (vec![b'*'; length], if place == 7 { 997 } else { usize::MAX });
            case(format!("1.{kind}.{}", place + 1), &[whole(opcode, &payload)], chop, served(&payload))
        })
    };
    of(TEXT, 1).chain(of(BINARY, 2)).collect()
}

fn pings() -> Vec<ConformanceCase> {
    let ping = |payload: &[u8]| whole(PING, payload);
    let answered =
        |payloads: &[&[u8]]| Expect::Served(vec![], payloads.iter().map(|payload| payload.to_vec()).collect());
    let (bytes, longest) = ([0x00, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0x00, 0xff], [0xfe; 125]);
    let ten: Vec<Vec<u8>> = (0..10).map(|number| format!("payload-{number}").into_bytes()).collect();
    let ten_sent: Vec<Vec<u8>> = ten.iter().map(|payload| ping(payload)).collect();
    let ten_answered = Expect::Served(vec![], ten);
    let pong = whole(PONG, b"unsolicited pong payload");
    vec![
        case("2.1", &[ping(b"")], 99, answered(&[b""])),
        case("2.2", &[ping(b"Hello, world!")], 99, answered(&[b"Hello, world!"])),
        case("2.3", &[ping(&bytes)], 99, answered(&[&bytes])),
        case("2.4", &[ping(&longest)], 999, answered(&[&longest])),
        case("2.5", &[ping(&[0xfe; 126])], 999, broken(b"", ProtocolError::Control)),
        case("2.6", &[ping(&longest)], 1, answered(&[&longest])),
        case("2.7", &[whole(PONG, b"")], 99, served(b"")),
        case("2.8", std::slice::from_ref(&pong), 99, served(b"")),
        case("2.9", &[pong, ping(b"ping payload")], 99, answered(&[b"ping payload"])),
        case("2.10", &ten_sent, 999, ten_answered.clone()),
        case("2.11", &ten_sent, 1, ten_answered),
    ]
}

fn reserved() -> Vec<ConformanceCase> {
    let hello = b"Hello, world!";
    let bits = |rsv: u8, opcode: u8| raw(FIN | rsv << 4 | opcode, hello);
    let after = |rsv: u8| [whole(TEXT, hello), bits(rsv, TEXT), whole(PING, b"")];
    let at_once = broken(b"", ProtocolError::Reserved);
    let then = broken(hello, ProtocolError::Reserved);
    vec![
        case("3.1", &[bits(1, TEXT)], 99, at_once.clone()),
        case("3.2", &after(2), 99, then.clone()),
        case("3.3", &after(3), 19, then.clone()),
        case("3.4", &after(4), 1, then),
        case("3.5", &[bits(5, BINARY)], 99, at_once.clone()),
        case("3.6", &[bits(6, PING)], 99, at_once.clone()),
        case("3.7", &[bits(7, CLOSE)], 99, at_once),
    ]
}

fn opcodes() -> Vec<ConformanceCase> {
    let hello = b"Hello, world!";
    let of = |kind: usize, first: u8| {
        (0..5_u8).map(move |number| {
            let opcode = first + number;
            let payload: &[u8] = if number == 0 || number == 2 { b"" } else { b"reserved opcode payload" };
            let unknown = whole(opcode, payload);
            let (sent, before) = match number {
                0 | 1 => (vec![unknown], b"".as_slice()),
                _ => (vec![whole(TEXT, hello), unknown, whole(PING, b"")], hello.as_slice()),
            };
            let chop = if number == 4 { 1 } else { 99 };
            case(format!("4.{kind}.{}", number + 1), &sent, chop, broken(before, ProtocolError::Opcode(opcode)))
        })
    };
    of(1, 3).chain(of(2, 11)).collect()
}

fn fragments() -> Vec<ConformanceCase> {
    let (one, two, both) = (b"fragment1", b"fragment2", b"fragment1fragment2");
    let halves = [part(TEXT, one), whole(CONTINUED, two)];
    let with_ping = [part(TEXT, one), whole(PING, b"ping payload"), whole(CONTINUED, two)];
    let pinged = Expect::Served(both.to_vec(), vec![b"ping payload".to_vec()]);
    let lonely = |last: bool| {
        let stray = if last { whole(CONTINUED, b"non-continuation") } else { part(CONTINUED, b"non-continuation") };
        [stray, whole(TEXT, b"Hello, world!")]
    };
    let late = |stray: Vec<u8>| [halves.concat(), stray, whole(TEXT, b"Hello, world!")];
    let odd = ProtocolError::Fragment;
    let five = [
        part(TEXT, one),
        part(CONTINUED, two),
        whole(PING, b"p1"),
        part(CONTINUED, b"fragment3"),
        part(CONTINUED, b"fragment4"),
        whole(PING, b"p2"),
        whole(CONTINUED, b"fragment5"),
    ];
    let all_five = b"fragment1fragment2fragment3fragment4fragment5".to_vec();
    let five_served = Expect::Served(all_five, vec![b"p1".to_vec(), b"p2".to_vec()]);
    vec![
        case("5.1", &[part(PING, one), whole(CONTINUED, two)], 99, broken(b"", ProtocolError::Control)),
        case("5.2", &[part(PONG, one), whole(CONTINUED, two)], 99, broken(b"", ProtocolError::Control)),
        case("5.3", &halves, 99, served(both)),
        case("5.4", &halves, 15, served(both)),
        case("5.5", &halves, 1, served(both)),
        case("5.6", &with_ping, 99, pinged.clone()),
        case("5.7", &with_ping, 15, pinged.clone()),
        case("5.8", &with_ping, 1, pinged),
        case("5.9", &lonely(true), 99, broken(b"", odd)),
        case("5.10", &lonely(true), 22, broken(b"", odd)),
        case("5.11", &lonely(true), 1, broken(b"", odd)),
        case("5.12", &lonely(false), 99, broken(b"", odd)),
        case("5.13", &lonely(false), 22, broken(b"", odd)),
        case("5.14", &lonely(false), 1, broken(b"", odd)),
        case("5.15", &late(part(CONTINUED, b"fragment3")), 99, broken(both, odd)),
        case("5.16", &[[part(CONTINUED, one), whole(TEXT, two)].concat().repeat(2)], 99, broken(b"", odd)),
        case("5.17", &[[whole(CONTINUED, one), whole(TEXT, two)].concat().repeat(2)], 99, broken(b"", odd)),
        case("5.18", &[part(TEXT, one), whole(TEXT, two)], 99, broken(one, odd)),
        case("5.19", &five, 25, five_served.clone()),
        case("5.20", &five, 99, five_served),
    ]
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    whole(CLOSE, &[&code.to_be_bytes(), reason].concat())
}

fn closing() -> Vec<ConformanceCase> {
    let hello = b"Hello World!";
    let closed = |data: &[u8]| Expect::Closed(data.to_vec(), vec![]);
    let large = vec![b'B'; 256 * 1024];
    let longest = [b'*'; 123];
    vec![
        case("7.1.1", &[whole(TEXT, hello), close(1000, b"")], 99, closed(hello)),
        case("7.1.2", &[close(1000, b""), close(1000, b"")], 99, closed(b"")),
        case("7.1.3", &[close(1000, b""), whole(PING, b"")], 99, closed(b"")),
        case("7.1.4", &[close(1000, b""), whole(TEXT, hello)], 99, closed(b"")),
        case("7.1.5", &[part(TEXT, hello), close(1000, b""), whole(CONTINUED, hello)], 99, closed(hello)),
        case("7.1.6", &[whole(TEXT, &large), close(1000, b""), whole(PING, b"")], 9999, closed(&large)),
        case("7.3.1", &[whole(CLOSE, b"")], 99, closed(b"")),
        case("7.3.2", &[whole(CLOSE, b"a")], 99, broken(b"", ProtocolError::CloseLength)),
        case("7.3.3", &[close(1000, b"")], 99, closed(b"")),
        case("7.3.4", &[close(1000, hello)], 99, closed(b"")),
        case("7.3.5", &[close(1000, &longest)], 999, closed(b"")),
        case("7.3.6", &[close(1000, &[b'*'; 124])], 999, broken(b"", ProtocolError::Control)),
        case("7.5.1", &[close(1000, b"\xce\xba\xed\xa0\x80")], 99, broken(b"", ProtocolError::CloseReason)),
    ]
}

fn close_codes() -> Vec<ConformanceCase> {
    let of = |kind: usize, codes: &[u16], expect: fn(u16) -> Expect| {
        let cases = codes.iter().enumerate();
        cases
            .map(|(place, &code)| case(format!("7.{kind}.{}", place + 1), &[close(code, b"")], 99, expect(code)))
            .collect()
    };
    let good = |_| Expect::Closed(vec![], vec![]);
    let bad = |code| broken(b"", ProtocolError::CloseCode(code));
    let sound = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
    let cases: [Vec<ConformanceCase>; 3] = [
        of(7, &sound, good),
        of(9, &[0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999], bad),
        // The list does not define the outcome of these two cases.
        of(13, &[5000, 65_535], bad),
    ];
    cases.concat()
}

fn sizes() -> Vec<ConformanceCase> {
    const KIB: usize = 1024;
    let mut all = Vec::new();
    for (kind, opcode) in [(0, TEXT), (1, BINARY)] {
        for (place, size) in [64, 256, KIB, 4 * KIB, 8 * KIB, 16 * KIB].into_iter().enumerate() {
            let payload = vec![b'*'; size * KIB];
            let id = format!("9.{}.{}", 1 + kind, place + 1);
            all.push(case(id, &[whole(opcode, &payload)], 64 * KIB, served(&payload)));
        }
        let payload = vec![b'*'; 4 * KIB * KIB];
        for place in 0..9_u32 {
            let sent = fragmented(opcode, &payload, 64 << (2 * place));
            all.push(case(format!("9.{}.{}", 3 + kind, place + 1), &[sent], 64 * KIB, served(&payload)));
        }
        let payload = vec![b'*'; KIB * KIB];
        for place in 0..6_u32 {
            let id = format!("9.{}.{}", 5 + kind, place + 1);
            all.push(case(id, &[whole(opcode, &payload)], 64 << place, served(&payload)));
        }
        for (place, size) in [0, 16, 64, 256, KIB, 4 * KIB].into_iter().enumerate() {
            let payload = vec![b'*'; size];
            let id = format!("9.{}.{}", 7 + kind, place + 1);
            all.push(case(id, &[whole(opcode, &payload).repeat(1000)], 64 * KIB, served(&payload.repeat(1000))));
        }
    }
    let payload = vec![b'*'; 65_536];
    all.push(case("10.1.1", &[fragmented(TEXT, &payload, 1300)], 64 * KIB, served(&payload)));
    all
}
