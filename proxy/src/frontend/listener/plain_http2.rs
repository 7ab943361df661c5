//! HTTP/2 without TLS, as a load balancer sends that takes the node for a server of h2c: refused by a frame of HTTP/2
//! that names the cause, because an answer of HTTP/1.1 would be unreadable.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tracing::warn;

use super::listener_gate::{ListenerGate, REFUSAL_TIMEOUT};
use crate::net::socket::half_close;

/// First bytes of a client of HTTP/2 (RFC 9113, 3.4), as far as they are a head of HTTP.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// Text in the frame, for logs of load balancers.
const TEXT: &[u8; 52] = b"this node serves HTTP/1.1, or HTTP/2 behind TLS only";

/// Empty SETTINGS, the first frame of each server.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// GOAWAY of the length of the text and 8 bytes more: no stream was processed, HTTP_1_1_REQUIRED.
const GO_AWAY: [u8; 17] = [0, 0, 8 + 52, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xd];

/// Whether the first bytes of a socket are those of HTTP/2.
pub(super) fn is_preface(bytes: &[u8]) -> bool {
    bytes.starts_with(PREFACE)
}

/// Refuses a client of HTTP/2, and closes.
pub(super) async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, gate: &ListenerGate, peer: SocketAddr) {
    if let Some(others) = gate.pass_plain_http2() {
        warn!(%peer, others, "HTTP/2 without TLS refused: the load balancer has to send HTTP/1.1");
    }
    let refused = async {
        stream.write_all(&[&SETTINGS[..], &GO_AWAY, TEXT].concat()).await?;
        half_close(stream).await
    };
    // A client that is gone needs no answer.
    drop(timeout(REFUSAL_TIMEOUT, refused).await);
}
