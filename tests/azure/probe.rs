//! The vendor's own codec against a node: which frames of an app server are answered, and how the codec reads the
//! answers.

use anyhow::{Context, Result, ensure};
use trunkline_tests::harness::dotnet::play_dotnet_11;

use crate::dial_in::{DialIn, KEY};
use crate::frame::{from_hex, message, take_frame};
use crate::value::Value;

/// Names of the probe's frames, with expected parts of the lines after each.
const ANSWERS: [(&str, &[&str]); 27] = [
    ("handshake", &["HandshakeResponseMessage { ErrorMessage=null, ", "AckId=5, Status=1, "]),
    ("10 with a filter (userId eq 'u0')", &["u0 heard: {} {\"type\":1,\"target\":\"M\",\"arguments\":[1]}"]),
    ("query plain", &["Status=1, ", "= 5 members ", ", token null"]),
    ("query top 3", &["Status=1, ", "= 3 members "]),
    ("query maxPageSize 2", &["Status=1, ", "= 2 members "]),
    ("query top 3, maxPageSize 2", &["Status=1, ", "= 2 members "]),
    ("query top 100", &["Status=1, ", "= 5 members ", ", token null"]),
    ("six elements, element 4 = 2, token nil", &["Status=1, ", "= 2 members "]),
    ("query next page by token alone", &["Status=1, ", "= 3 members ", ", token null"]),
    ("query token and maxPageSize 2", &["Status=1, ", "= 2 members "]),
    ("query token, top 3", &["Status=1, ", "= 3 members "]),
    ("query token, top 3, maxPageSize 2", &["Status=1, ", "= 2 members "]),
    ("41 RefreshAuth, connection token", &["Status=1, ", "UpdateConnectionClaimsMessage { "]),
    ("41 RefreshAuth, connection id", &["Status=2, "]),
    ("42 GetConnectionClaims, connection token", &["Status=1, "]),
    ("42 GetConnectionClaims, connection id", &["Status=2, "]),
    ("21 user in group", &["Status=1, "]),
    ("23 group", &["Status=1, "]),
    ("24 connection", &["Status=1, "]),
    ("25 user", &["Status=1, "]),
    ("26 user joins, ttl", &["Status=1, "]),
    ("27 user leaves all", &["Status=1, "]),
    ("19 leave all", &["Status=1, "]),
    ("30 close", &["CloseConnectionMessage { ", "Status=1, "]),
    ("32 close user", &["CloseConnectionMessage { ", "Status=1, "]),
    ("28 AccessKeyRequest", &["AccessKeyResponseMessage { "]),
    ("31 close all", &["CloseConnectionMessage { ", "Status=1, "]),
];

/// Lines after a frame's line, up to the next frame.
fn behind(lines: &[String], name: &str) -> Result<String> {
    let start = format!("> {name}:");
    let is_it = |line: &String| line.starts_with(&start) || line.strip_prefix("> ") == Some(name);
    let at = lines.iter().position(is_it).with_context(|| format!("the probe sends no {name}"))?;
    let answers = lines.iter().skip(at + 1).take_while(|line| !line.starts_with("> ") && !line.starts_with("---"));
    Ok(answers.map(String::as_str).collect::<Vec<_>>().join("\n"))
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
    play_dotnet_11(async |stage, dotnet| {
        let dial_in = DialIn::open(stage).await?;
        let lines = dotnet.probe(stage, dial_in.address(), KEY).await?;
        let all = lines.join("\n");
        for (name, parts) in ANSWERS {
            let answers = behind(&lines, name)?;
            for part in parts {
                ensure!(answers.contains(part), "{name}: {part:?} should be in {answers:?}\n{all}");
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
