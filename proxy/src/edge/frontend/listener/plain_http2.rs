//! HTTP/2 without TLS, from load balancers configured for h2c. Refused with an HTTP/2 frame, because they can't read an
//! HTTP/1.1 response.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tracing::warn;

use super::listener_gate::{ListenerGate, REFUSAL_TIMEOUT};
use crate::ground::net::socket::half_close;

/// First bytes of an HTTP/2 client (RFC 9113, 3.4), up to the end of the request line.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// Text in the frame, for logs of load balancers.
const TEXT: &[u8; 52] = b"this node serves HTTP/1.1, or HTTP/2 behind TLS only";

/// Empty SETTINGS, the first frame of every server.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// GOAWAY with the length of the text plus 8 bytes: no stream processed, HTTP_1_1_REQUIRED.
const GO_AWAY: [u8; 17] = [0, 0, 8 + 52, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xd];

pub(super) fn is_preface(bytes: &[u8]) -> bool {
    bytes.starts_with(PREFACE)
}

pub(super) async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, gate: &ListenerGate, peer: SocketAddr) {
    if let Some(others) = gate.pass_plain_http2() {
        warn!(%peer, others, "HTTP/2 without TLS refused: the load balancer has to send HTTP/1.1");
    }
    let refused = async {
        stream.write_all(&[&SETTINGS[..], &GO_AWAY, TEXT].concat()).await?;
        half_close(stream).await
    };
    // Fails only for a client that is gone.
    drop(timeout(REFUSAL_TIMEOUT, refused).await);
}
