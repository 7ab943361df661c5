//! Server-Sent Events and long polling: statuses, headers, handovers and ends like the official server's.

mod ends;
pub(crate) mod libraries;
pub(crate) mod statuses;

use anyhow::Result;
use serde_json::{Value, json};
use trunkline_tests::harness::http_transport::CarriedClient;
use trunkline_tests::harness::raw::RECORD_SEPARATOR;

/// Encodes a call of `target`.
pub(crate) fn call(id: u64, target: &str, arguments: &Value) -> String {
    let call = json!({ "type": 1, "invocationId": id.to_string(), "target": target, "arguments": arguments });
    format!("{call}{RECORD_SEPARATOR}")
}

/// Completion of a call as the app server encodes it.
pub(crate) fn completion(id: u64, result: &Value) -> String {
    format!("{{\"type\":3,\"invocationId\":\"{id}\",\"result\":{result}}}{RECORD_SEPARATOR}")
}

/// Polls repeatedly until it is stopped, and returns all received messages.
async fn poll_to_the_end(client: &CarriedClient) -> Result<String> {
    let mut all = String::new();
    loop {
        let answer = client.poll().await?;
        match answer.status.as_u16() {
            200 => all += &answer.body,
            204 => return Ok(all),
            other => anyhow::bail!("a poll is answered with {other} after {all:?}"),
        }
    }
}
