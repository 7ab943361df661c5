//! Client transport over a WebSocket, with a browser's upgrade request.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS};
use http::{HeaderMap, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::finding::excerpt;
use super::probe_client::{ANSWER_MAX_BYTES, ProbeClient, ProbeError};

const COMPRESSION: &str = "permessage-deflate; client_max_window_bits";

#[derive(Debug)]
pub(super) struct WebSocketCarrier {
    socket: WebSocketStream<TokioIo<Upgraded>>,
}

impl WebSocketCarrier {
    /// Opens a WebSocket for a connection, with or without offering compression.
    pub(super) async fn open(client: &ProbeClient, id: &str, compresses: bool) -> Result<Self, ProbeError> {
        let key = generate_key();
        let mut headers = vec![
            ("connection", "Upgrade".to_owned()),
            ("upgrade", "websocket".to_owned()),
            ("sec-websocket-version", "13".to_owned()),
            ("sec-websocket-key", key.clone()),
        ];
        if compresses {
            headers.push(("sec-websocket-extensions", COMPRESSION.to_owned()));
        }
        let answer = client.open(id, headers).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(client.refusal(answer).await);
        }
        judge_upgrade(answer.headers(), &derive_accept_key(key.as_bytes())).map_err(ProbeError::Upgrade)?;
        let upgraded = timeout(client.deadline, hyper::upgrade::on(answer)).await;
        let upgraded = upgraded.map_err(|_| ProbeError::Late(client.deadline))?;
        let stream = upgraded.map_err(|error| ProbeError::Closed(error.to_string()))?;
        let config =
            WebSocketConfig::default().max_message_size(Some(ANSWER_MAX_BYTES)).max_frame_size(Some(ANSWER_MAX_BYTES));
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Client, Some(config)).await;
        Ok(Self { socket })
    }

    pub(super) async fn send(&mut self, messages: &Bytes) -> Result<(), ProbeError> {
        let text = String::from_utf8_lossy(messages).into_owned();
        self.socket.send(Message::text(text)).await.map_err(told)
    }

    pub(super) async fn receive(&mut self) -> Result<Bytes, ProbeError> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text.into()),
                Some(Ok(Message::Binary(bytes))) => return Ok(bytes),
                Some(Ok(Message::Close(Some(frame)))) => {
                    let text = format!("closed with {} {}", frame.code, excerpt(frame.reason.as_bytes()));
                    return Err(ProbeError::Closed(text));
                }
                Some(Ok(Message::Close(None))) => return Err(ProbeError::Closed("closed without a reason".into())),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(told(error)),
                None => return Err(ProbeError::Closed("cut without a close frame".into())),
            }
        }
    }

    pub(super) async fn close(mut self) {
        // Fails if the server has already closed.
        drop(self.socket.close(None).await);
    }
}

/// Refusal of an upgrade that accepts compression, because this client has none.
pub(super) const COMPRESSED: &str = "the response accepts permessage-deflate";

/// Refusal of compression by a node with `--compress`, which has these parameters.
pub(super) const COMPRESSED_BY_NODE: &str = "the response accepts permessage-deflate as nodes do";

const OF_NODES: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

fn judge_upgrade(headers: &HeaderMap, accept: &str) -> Result<(), &'static str> {
    match headers.get(SEC_WEBSOCKET_ACCEPT) {
        None => Err("the response has no Sec-WebSocket-Accept"),
        Some(value) if value != accept => Err("the response has the Sec-WebSocket-Accept of another request"),
        Some(_) if headers.get(SEC_WEBSOCKET_EXTENSIONS).is_some_and(|value| value == OF_NODES) => {
            Err(COMPRESSED_BY_NODE)
        }
        Some(_) if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) => Err(COMPRESSED),
        Some(_) => Ok(()),
    }
}

fn told(error: Error) -> ProbeError {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => ProbeError::Closed("closed".into()),
        Error::Io(error) => ProbeError::Closed(error.to_string()),
        other => ProbeError::WebSocket(Box::new(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(pairs: &[(&'static str, &'static str)]) -> Result<(), &'static str> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        judge_upgrade(&headers, "right")
    }

    #[test]
    fn an_upgrade_is_one_if_it_answers_this_request_and_adds_nothing() {
        assert_eq!(judged(&[("sec-websocket-accept", "right")]), Ok(()));
        assert!(judged(&[]).unwrap_err().contains("no Sec-WebSocket-Accept"));
        assert!(judged(&[("sec-websocket-accept", "wrong")]).unwrap_err().contains("another request"));
        let compressed = [("sec-websocket-accept", "right"), ("sec-websocket-extensions", "permessage-deflate")];
        assert_eq!(judged(&compressed), Err(COMPRESSED));
        let by_node = [("sec-websocket-accept", "right"), ("sec-websocket-extensions", OF_NODES)];
        assert_eq!(judged(&by_node), Err(COMPRESSED_BY_NODE));
    }
}
