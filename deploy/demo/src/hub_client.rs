//! Minimal hub client for simulated clients: JSON over one WebSocket, without negotiation.

use std::collections::VecDeque;
use std::net::SocketAddr;

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

const END: char = '\u{1e}';

/// Connection to a hub after its handshake.
#[derive(Debug)]
pub(crate) struct HubClient {
    socket: WebSocketStream<TcpStream>,
    /// Further messages received in the same frame.
    received: VecDeque<Value>,
}

impl HubClient {
    /// Connects through a proxy. `target` is the hub's path with a query.
    pub(crate) async fn connect(proxy: SocketAddr, target: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(proxy).await?;
        let (socket, _) = client_async(format!("ws://{proxy}{target}"), stream).await?;
        let mut client = Self { socket, received: VecDeque::new() };
        client.send(&json!({"protocol": "json", "version": 1})).await?;
        match client.next().await?.get("error") {
            Some(error) => bail!("{error}"),
            None => Ok(client),
        }
    }

    pub(crate) async fn call(&mut self, method: &str, arguments: Value) -> anyhow::Result<()> {
        self.send(&json!({"type": 1, "target": method, "arguments": arguments})).await
    }

    pub(crate) async fn send(&mut self, message: &Value) -> anyhow::Result<()> {
        Ok(self.socket.send(Message::text(format!("{message}{END}"))).await?)
    }

    /// Returns the next message of any type. Cancel-safe.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Value> {
        loop {
            if let Some(message) = self.received.pop_front() {
                return Ok(message);
            }
            if let Message::Text(text) = self.socket.next().await.context("the connection has ended")?? {
                for message in text.split_terminator(END) {
                    self.received.push_back(serde_json::from_str(message)?);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio_tungstenite::accept_async;

    use super::*;

    #[tokio::test]
    async fn messages_received_together_are_returned_one_by_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let mut socket = accept_async(listener.accept().await.unwrap().0).await.unwrap();
            let handshake = socket.next().await.unwrap().unwrap();
            assert_eq!(handshake.to_text().unwrap(), "{\"protocol\":\"json\",\"version\":1}\u{1e}");
            socket.send(Message::text("{}\u{1e}{\"type\":6}\u{1e}{\"type\":7}\u{1e}")).await.unwrap();
        });
        let mut client = HubClient::connect(address, "/chat").await.unwrap();
        assert_eq!(client.next().await.unwrap(), json!({"type": 6}));
        assert_eq!(client.next().await.unwrap(), json!({"type": 7}));
        assert!(client.next().await.is_err(), "the end");
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_refused_handshake_is_an_error_with_its_reason() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let mut socket = accept_async(listener.accept().await.unwrap().0).await.unwrap();
            socket.send(Message::text("{\"error\":\"no such protocol\"}\u{1e}")).await.unwrap();
        });
        let error = HubClient::connect(address, "/chat").await.unwrap_err();
        assert!(error.to_string().contains("no such protocol"), "{error}");
        server.await.unwrap();
    }
}
