//! Connections that switch from HTTP to another protocol.

use axum::body::Body;
use axum::extract::{Request, WebSocketUpgrade};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// WebSocket that echoes everything.
pub(crate) async fn socket(upgrade: WebSocketUpgrade) -> Response {
    upgrade.protocols(["echo"]).on_upgrade(async |socket| {
        let (mut sink, mut stream) = socket.split();
        while let Some(Ok(message)) = stream.next().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
    })
}

/// Reads until the other end has finished, then replies with the number of bytes.
pub(crate) async fn tally(mut request: Request) -> Response {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let mut upgraded = TokioIo::new(upgraded);
        let mut all = Vec::new();
        if upgraded.read_to_end(&mut all).await.is_ok() {
            // The client may be gone.
            drop(upgraded.write_all(all.len().to_string().as_bytes()).await);
            drop(upgraded.shutdown().await);
        }
    });
    let headers = [("connection", "upgrade"), ("upgrade", "tally")];
    (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response()
}
