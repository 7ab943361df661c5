//! The vendor's own codec against a node: which frames of an app server are answered, and how the codec reads the
//! answers.

use anyhow::{Context, Result, ensure};
use trunkline_tests::harness::dotnet::run_dotnet_11_test;

use crate::dial_in::{DialIn, KEY};
use crate::frame::{from_hex, message, take_frame};
use crate::value::Value;

/// Names of the probe's frames, with expected parts of the lines after each.
const ANSWERS: [(&str, &[&str]); 27] = [
    ("handshake", &["HandshakeResponseMessage { ErrorMessage=null, ", "AckId=5, Status=1, "]),
    ("10 with a filter (userId eq 'u0')", &["u0 heard: {} {\"type\":1,\"target\":\"M\",\"arguments\":[1]}"]),
    ("query plain", &["AckId=107, Status=1, ", "= 5 members ", ", token null"]),
    ("query top 3", &["AckId=108, Status=1, ", "= 3 members "]),
    ("query maxPageSize 2", &["AckId=109, Status=1, ", "= 2 members "]),
    ("query top 3, maxPageSize 2", &["AckId=110, Status=1, ", "= 2 members "]),
    ("query top 100", &["AckId=111, Status=1, ", "= 5 members ", ", token null"]),
    ("six elements, element 4 = 2, token nil", &["AckId=12, Status=1, ", "= 2 members "]),
    ("query next page by token alone", &["AckId=113, Status=1, ", "= 3 members ", ", token null"]),
    ("query token and maxPageSize 2", &["AckId=114, Status=1, ", "= 2 members "]),
    ("query token, top 3", &["AckId=115, Status=1, ", "= 3 members "]),
    ("query token, top 3, maxPageSize 2", &["AckId=116, Status=1, ", "= 2 members "]),
    ("41 RefreshAuth, connection token", &["AckId=5001, Status=1, ", "UpdateConnectionClaimsMessage { "]),
    ("41 RefreshAuth, connection id", &["AckId=5002, Status=2, "]),
    ("42 GetConnectionClaims, connection token", &["AckId=5003, Status=1, "]),
    ("42 GetConnectionClaims, connection id", &["AckId=5004, Status=2, "]),
    ("21 user in group", &["AckId=6001, Status=1, "]),
    ("23 group", &["AckId=6002, Status=1, "]),
    ("24 connection", &["AckId=6003, Status=1, "]),
    ("25 user", &["AckId=6004, Status=1, "]),
    ("26 user joins, ttl", &["AckId=6005, Status=1, "]),
    ("27 user leaves all", &["AckId=6006, Status=1, "]),
    ("19 leave all", &["AckId=6007, Status=1, "]),
    ("30 close", &["CloseConnectionMessage { ", "AckId=6008, Status=1, "]),
    ("32 close user", &["CloseConnectionMessage { ", "AckId=6009, Status=1, "]),
    ("28 AccessKeyRequest", &["AccessKeyResponseMessage { "]),
    ("31 close all", &["CloseConnectionMessage { ", "AckId=6011, Status=1, "]),
];

/// Beginnings of parts that occur once in the output. The probe prints received messages concurrently with its frames,
/// so the answer to a frame may be printed after the next frame's line.
const UNIQUE: [&str; 2] = ["AckId=", "AccessKeyResponseMessage "];

/// Whether the probe printed this part for a frame. A unique part may follow any frame, other parts only this one.
fn has_answer(lines: &[String], name: &str, part: &str) -> Result<bool> {
    let start = format!("> {name}:");
    let is_frame = |line: &String| line.starts_with(&start) || line.strip_prefix("> ") == Some(name);
    let at = lines.iter().position(is_frame).with_context(|| format!("the probe sends no {name}"))?;
    let is_unique = UNIQUE.iter().any(|beginning| part.starts_with(beginning));
    let is_next = |line: &&String| !is_unique && (line.starts_with("> ") || line.starts_with("---"));
    Ok(lines.iter().skip(at + 1).take_while(|line| !is_next(line)).any(|line| line.contains(part)))
}

/// Whether the codec would write a frame as the node does, apart from nil instead of empty text or bytes.
fn is_written_alike(line: &str) -> Result<bool> {
    let Some((_, both)) = line.split_once("[re-encodes differently: ") else { return Ok(true) };
    let (one, other) = both.trim_end_matches(']').split_once(" ≠ ").context("two frames")?;
    let read = |hex: &str| Ok::<_, anyhow::Error>(plain(message(&take_frame(&mut from_hex(hex)?)?.context("whole")?)?));
    Ok(read(one)? == read(other)?)
}

fn plain(value: Value) -> Value {
    match value {
        Value::List(list) => Value::List(list.into_iter().map(plain).collect()),
        Value::Text(text) if text.is_empty() => Value::Nil,
        Value::Bytes(bytes) if bytes.is_empty() => Value::Nil,
        other => other,
    }
}

#[test]
fn the_vendors_codec_gets_an_answer_to_each_question_and_reads_it() {
    run_dotnet_11_test(async |fixture, dotnet| {
        let dial_in = DialIn::open(fixture).await?;
        let lines = dotnet.probe(fixture, dial_in.address(), KEY).await?;
        let all = lines.join("\n");
        for (name, parts) in ANSWERS {
            for part in parts {
                ensure!(has_answer(&lines, name, part)?, "{name}: {part:?} is not among the answers\n{all}");
            }
        }
        // The others received no message.
        for user in ["u1", "u2", "u3", "u4"] {
            let heard = lines.iter().find(|line| line.contains(&format!("{user} heard: "))).context("a user")?;
            ensure!(heard.trim_end().ends_with("heard: {}"), "{heard}");
        }
        for line in &lines {
            let is_read = !line.contains("UNREADABLE") && !line.contains("does not know") && !line.contains("NO ACK");
            ensure!(is_read && is_written_alike(line)?, "{line}\n{all}");
        }
        Ok(())
    });
}
