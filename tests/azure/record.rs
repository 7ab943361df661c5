//! Recorded conversations of the real SDK, one JSON object per line, parsed into steps.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value as Json;
use trunkline_tests::harness::token::in_seconds;

use crate::frame::{frame, from_hex, kind, kind_of, message, take_frame};
use crate::value::Value;

const CUT: char = '\u{2026}';

/// One event between app server, service and clients.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    ServerUpgrade {
        path: String,
        server: String,
    },
    Negotiate {
        path: String,
        claims: Json,
    },
    Negotiated {
        id: String,
    },
    ClientUpgrade {
        path: String,
        headers: Vec<(String, String)>,
        claims: Json,
    },
    ClientRequest {
        path: String,
        headers: Vec<(String, String)>,
        claims: Json,
    },
    ToService {
        connection: String,
        frame: Vec<u8>,
    },
    FromService {
        connection: String,
        frame: Value,
    },
    ClientSays {
        id: String,
        is_binary: bool,
        bytes: Vec<u8>,
    },
    ClientGets {
        id: String,
        bytes: Vec<u8>,
    },
    ClientCloses {
        id: String,
        code: u64,
    },
    ServerCloses,
    /// Command to the recording service.
    Control(String),
    /// Event that this recording shows only partially.
    CutShort,
    Rest,
}

pub(crate) fn read(path: &Path) -> Result<Vec<Step>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let mut steps = Vec::new();
    for line in text.lines() {
        let line: Json = serde_json::from_str(line)?;
        steps.extend(step(&line).with_context(|| format!("{line:.200}"))?);
    }
    postpone(&mut steps)?;
    Ok(steps)
}

/// Claims of an app login that hold times.
const LOG_IN_TIMES: [&str; 4] = ["asrs.s.aeo", "asrs.u.exp", "asrs.u.iat", "asrs.u.nbf"];

/// Shifts the times of all logins so that the first refreshed one expires in an hour: recorded logins have expired.
fn postpone(steps: &mut [Step]) -> Result<()> {
    let ends = steps.iter().filter_map(|step| match step {
        Step::ToService { frame, .. } => refresh_in(frame),
        _ => None,
    });
    let ends = ends.filter_map(|refresh| if let Value::Time(end) = refresh.at(3) { Some(*end) } else { None });
    let Some(first) = ends.min() else { return Ok(()) };
    let by = i64::try_from(in_seconds(3600)?)? - i64::from(first);
    for step in steps {
        match step {
            Step::Negotiate { claims, .. }
            | Step::ClientUpgrade { claims, .. }
            | Step::ClientRequest { claims, .. } => postpone_claims(claims, by)?,
            Step::ToService { frame: bytes, .. } => {
                if let Some(refresh) = refresh_in(bytes) {
                    *bytes = frame(&postponed(&refresh, by)?);
                }
            }
            Step::FromService { frame, .. } => *frame = postponed(frame, by)?,
            _ => {}
        }
    }
    Ok(())
}

fn refresh_in(frame: &[u8]) -> Option<Value> {
    let refresh = message(&take_frame(&mut frame.to_vec()).ok()??).ok()?;
    (kind_of(&refresh) == kind::REFRESH_AUTH).then_some(refresh)
}

fn postpone_claims(claims: &mut Json, by: i64) -> Result<()> {
    for name in LOG_IN_TIMES {
        if let Some(Json::String(time)) = claims.get_mut(name) {
            *time = postponed_text(time, by)?;
        }
    }
    Ok(())
}

fn postponed_text(time: &str, by: i64) -> Result<String> {
    Ok((time.parse::<i64>()? + by).to_string())
}

fn postponed(value: &Value, by: i64) -> Result<Value> {
    Ok(match value {
        Value::Time(seconds) => Value::Time(u32::try_from(i64::from(*seconds) + by)?),
        Value::List(list) => Value::List(list.iter().map(|value| postponed(value, by)).collect::<Result<_>>()?),
        Value::Map(map) => {
            let pair = |(key, value): &(Value, Value)| {
                let is_time = key.as_text().is_some_and(|name| LOG_IN_TIMES.contains(&name));
                let time = value.as_text().filter(|_| is_time);
                let value = time.map_or_else(|| postponed(value, by), |time| Ok(postponed_text(time, by)?.into()))?;
                Ok((key.clone(), value))
            };
            Value::Map(map.iter().map(pair).collect::<Result<_>>()?)
        }
        // Claims in an answer.
        Value::Bytes(bytes) => match message(bytes) {
            Ok(claims @ Value::Map(_)) => Value::Bytes(postponed(&claims, by)?.encode()),
            _ => value.clone(),
        },
        _ => value.clone(),
    })
}

fn step(line: &Json) -> Result<Option<Step>> {
    let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let claims = || line["token"]["claims"].clone();
    if let Some(direction) = line["dir"].as_str() {
        return conversation(line, direction).map(Some);
    }
    if let Some(path) = line["upgrade"].as_str() {
        let headers = headers(line);
        return Ok(Some(if path.starts_with("/server/") {
            let server = line["headers"]["x-asrs-server-id"].as_str().context("a server id")?;
            Step::ServerUpgrade { path: path.into(), server: server.into() }
        } else {
            Step::ClientUpgrade { path: path.into(), headers, claims: claims() }
        }));
    }
    if let Some(request) = line["http"].as_str() {
        let (method, path) = request.split_once(' ').context("a method and a path")?;
        if path.starts_with("/client/?") {
            // The client's end is a separate step.
            let request = Step::ClientRequest { path: path.into(), headers: headers(line), claims: claims() };
            return Ok((method != "DELETE").then_some(request));
        }
        let is_negotiate = path.starts_with("/client/negotiate");
        // The Management SDK first checks the service's health.
        let is_call = !is_negotiate && !path.starts_with("/api/health");
        let negotiate = is_negotiate.then(|| Step::Negotiate { path: path.into(), claims: claims() });
        return Ok(negotiate.or(is_call.then_some(Step::Rest)));
    }
    if line.get("control").is_some() {
        return Ok(Some(Step::Control(text("control"))));
    }
    if let Some(id) = line["value"]["connectionId"].as_str() {
        return Ok(Some(Step::Negotiated { id: id.into() }));
    }
    Ok(match line["note"].as_str() {
        Some("client closed") => {
            Some(Step::ClientCloses { id: text("client"), code: line["code"].as_u64().context("a code")? })
        }
        Some("server connection closed") => Some(Step::ServerCloses),
        Some(note) if note.starts_with("moved") || note.starts_with("client lost") => Some(Step::Control(note.into())),
        _ => None,
    })
}

fn conversation(line: &Json, direction: &str) -> Result<Step> {
    let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    if direction.contains('C') {
        let Some(bytes) = payload(&line["payload"])? else { return Ok(Step::CutShort) };
        let is_binary = line["binary"] == true;
        let id = text("client");
        return Ok(match direction {
            "C>V" => Step::ClientSays { id, is_binary, bytes },
            _ => Step::ClientGets { id, bytes },
        });
    }
    let (connection, hex) = (text("conn"), text("hex"));
    if hex.contains(CUT) {
        return Ok(Step::CutShort);
    }
    let frame = from_hex(&hex)?;
    if direction == "S>V" {
        return Ok(Step::ToService { connection, frame });
    }
    let mut rest = frame;
    let Some(whole) = take_frame(&mut rest)? else { return Ok(Step::Control("a broken frame".into())) };
    Ok(match message(&whole) {
        Ok(frame) => Step::FromService { connection, frame },
        Err(_) => Step::Control("a broken frame".into()),
    })
}

fn payload(payload: &Json) -> Result<Option<Vec<u8>>> {
    let hex = payload["hex"].as_str();
    let text = hex.or(payload.as_str()).context("a payload")?;
    if text.contains(CUT) && text.ends_with("characters") {
        return Ok(None);
    }
    Ok(Some(if hex.is_some() { from_hex(text)? } else { text.as_bytes().to_vec() }))
}

/// Request headers that a replay also sends, without the WebSocket's own headers, which each client creates.
fn headers(line: &Json) -> Vec<(String, String)> {
    const OWN: [&str; 5] = ["host", "connection", "upgrade", "authorization", "content-length"];
    let all = line["headers"].as_object().into_iter().flatten();
    let all = all.filter(|(name, _)| !OWN.contains(&name.as_str()) && !name.starts_with("sec-websocket"));
    all.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}
