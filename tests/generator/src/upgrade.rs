//! HTTP upgrade to a WebSocket: the request, and the head of the response.

use anyhow::{Result, ensure};
use memchr::memmem;

const HEAD_END: &[u8] = b"\r\n\r\n";
const ACCEPTED: &[u8] = b"HTTP/1.1 101 ";

/// Upgrade request. `headers` contains additional lines, each with its line end.
#[must_use]
pub fn request(host: &str, target: &str, headers: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n{headers}Upgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// Length of an HTTP response head; `None` if it is incomplete.
#[must_use]
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    memmem::find(bytes, HEAD_END).map(|place| place + HEAD_END.len())
}

/// Length of a response that accepts the upgrade; `None` if it is incomplete.
pub fn accepted(bytes: &[u8]) -> Result<Option<usize>> {
    let end = head_end(bytes);
    ensure!(
        end.is_none() || bytes.starts_with(ACCEPTED),
        "the upgrade is refused: {:?}",
        String::from_utf8_lossy(bytes)
    );
    Ok(end)
}
