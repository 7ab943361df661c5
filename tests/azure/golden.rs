//! Golden frames of the documented layouts, byte for byte, as the scripted app server writes and reads them.

use anyhow::{Context, Result};

use crate::frame::{frame, from_hex, message, take_frame};
use crate::value::{Value, list, map};

fn golden() -> Vec<(&'static str, Value)> {
    let payload = "{}\u{1e}".as_bytes();
    let payloads = || map! { "json" => payload };
    let none = || map! {};
    let empty = || list![];
    vec![
        ("0796010100a00080", list![1, 1, 0, "", 0, none()]),
        ("0e97010101a66e6f64652d370180c2", list![1, 1, 1, "node-7", 1, none(), false]),
        ("099402c080a473632d31", list![2, Value::Nil, none(), "sc-1"]),
        ("109402ab6261642076657273696f6e80c0", list![2, "bad version", none(), Value::Nil]),
        ("029103", list![3]),
        ("0b9303a6737461747573a131", list![3, "status", "1"]),
        ("119303a873687574646f776ea566696e3a31", list![3, "shutdown", "fin:1"]),
        ("129303a873687574646f776ea666696e61636b", list![3, "shutdown", "finack"]),
        (
            "2f9604a2633181aa617372732e732e756964a2753181a4486f737491a26831a93f6875623d63686174\
             8103a46a736f6e",
            list![
                4,
                "c1",
                map! { "asrs.s.uid" => "u1" },
                map! { "Host" => list!["h1"] },
                "?hub=chat",
                map! { 3 => "json" }
            ],
        ),
        ("089505a26331a08080", list![5, "c1", "", none(), none()]),
        (
            "1c9505a26331a081af417372732d4d6967726174652d546f91a2733280",
            list![5, "c1", "", map! { "Asrs-Migrate-To" => list!["s2"] }, none()],
        ),
        ("0d9406a26331c4037b7d1e810502", list![6, "c1", payload, map! { 5 => 2 }]),
        ("0c9406a26331c40261628106c3", list![6, "c1", b"ab".as_slice(), map! { 6 => true }]),
        ("15940792a26331a2633281a46a736f6ec4037b7d1e80", list![7, list!["c1", "c2"], payloads(), none()]),
        ("119408a2753181a46a736f6ec4037b7d1e80", list![8, "u1", payloads(), none()]),
        (
            "27940a91a2633982a46a736f6ec4037b7d1eab6d6573736167657061636bc4030291068101cd1234",
            list![
                10,
                list!["c9"],
                map! { "json" => payload, "messagepack" => [2_u8, 0x91, 6].as_slice() },
                map! { 1 => 4660 }
            ],
        ),
        (
            "14970da267319081a46a736f6ec4037b7d1e8090c0",
            list![13, "g1", empty(), payloads(), none(), empty(), Value::Nil],
        ),
        ("15940e92a26731a2673281a46a736f6ec4037b7d1e80", list![14, list!["g1", "g2"], payloads(), none()]),
        ("0c920fa972656c6f6164696e67", list![15, "reloading"]),
        ("0c9512a26331a26731cd012c80", list![18, "c1", "g1", 300, none()]),
        ("089514cd012c01a080", list![20, 300, 1, "", none()]),
        ("099614cd012c01a080c0", list![20, 300, 1, "", none(), Value::Nil]),
        ("14961604a473632d3103a9736c6f7720646f776e80", list![22, 4, "sc-1", 3, "slow down", none()]),
        ("0c951aa27531a267310781023c", list![26, "u1", "g1", 7, map! { 2 => 60 }]),
        (
            "1c9723a26931a26331a27331a46a736f6ec4037b7d1e8103a46a736f6e",
            list![35, "i1", "c1", "s1", "json", payload, map! { 3 => "json" }],
        ),
        ("069326a2633180", list![38, "c1", none()]),
        ("109527a26331d200000001d20000000180", list![39, "c1", Value::Fixed(1), Value::Fixed(1), none()]),
        ("09962880a267310564c0", list![40, none(), "g1", 5, 100, Value::Nil]),
        (
            "169629a2633181a3737562a3616e6ed6ff6b0779ab0180",
            list![41, "c1", map! { "sub" => "ann" }, Value::Time(1_795_652_011), 1, none()],
        ),
        ("0f942ba2633181a3737562a3616e6e80", list![43, "c1", map! { "sub" => "ann" }, none()]),
    ]
}

#[test]
fn golden_frames_are_written_byte_for_byte() -> Result<()> {
    for (hex, said) in golden() {
        assert_eq!(frame(&said), from_hex(hex)?, "{said:?}");
    }
    Ok(())
}

#[test]
fn golden_frames_are_read() -> Result<()> {
    for (hex, said) in golden() {
        let mut bytes = from_hex(hex)?;
        let read = message(&take_frame(&mut bytes)?.context("a whole frame")?)?;
        assert!(bytes.is_empty(), "{hex}");
        // Reading loses the encoding of integers.
        assert_eq!(read.encode(), message(&said.encode())?.encode(), "{said:?}");
    }
    Ok(())
}
