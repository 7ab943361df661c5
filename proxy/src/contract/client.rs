//! A raw client: WebSocket frames from an independent library, and hub messages as text.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::app::AppLink;
use super::fixture::Fixture;
use super::http::negotiate;

pub(super) const JSON_HANDSHAKE: &str = "{\"protocol\":\"json\",\"version\":1}\u{1e}";

pub(super) const STATEFUL_HANDSHAKE: &str = "{\"protocol\":\"json\",\"version\":2}\u{1e}";

/// Message received by a client, or the end of its socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Received {
    /// Hub message without its record separator.
    Text(String),
    Binary(Bytes),
    /// End of the socket, with the close code if a close frame arrived.
    End(Option<u16>),
}

pub(super) struct Client {
    /// Connection id, set once an app server has received the connection.
    pub(super) id: String,
    socket: WebSocketStream<DuplexStream>,
    read: VecDeque<String>,
}

impl Client {
    /// Upgrades to a WebSocket, or returns the status of the refusal.
    pub(super) async fn upgrade(fixture: &Fixture, target: &str) -> Result<Self, u16> {
        Self::upgrade_over(fixture.dial(), target).await
    }

    pub(super) async fn upgrade_over(pipe: DuplexStream, target: &str) -> Result<Self, u16> {
        Self::upgrade_with(pipe, target, &[]).await
    }

    pub(super) async fn upgrade_with(
        pipe: DuplexStream,
        target: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, u16> {
        let mut request = format!("ws://node.example{target}").into_client_request().unwrap();
        request.headers_mut().insert("x-forwarded-for", "203.0.113.9".parse().unwrap());
        request.headers_mut().insert("x-app", "kept".parse().unwrap());
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match client_async(request, pipe).await {
            Ok((socket, _)) => Ok(Self { id: String::new(), socket, read: VecDeque::new() }),
            Err(tungstenite::Error::Http(answer)) => Err(answer.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// Connects with JSON. The app server on this link accepts the client.
    pub(super) async fn connect(fixture: &Fixture, link: &mut AppLink, target: &str) -> Self {
        Self::connect_over(fixture.dial(), link, target).await
    }

    pub(super) async fn connect_over(pipe: DuplexStream, link: &mut AppLink, target: &str) -> Self {
        let mut client = Self::upgrade_over(pipe, target).await.unwrap();
        client.send(JSON_HANDSHAKE).await;
        client.accept(link).await;
        client
    }

    /// Negotiates stateful reconnect, and connects with it at this path. Returns the client and its reconnect target.
    pub(super) async fn connect_stateful(fixture: &Fixture, link: &mut AppLink, path: &str) -> (Self, String) {
        let target = Self::stateful_target(fixture, path).await;
        (Self::connect_at(fixture, link, &target).await, target)
    }

    /// Negotiates stateful reconnect; returns the target of the upgrade.
    pub(super) async fn stateful_target(fixture: &Fixture, path: &str) -> String {
        format!("{path}?id={}", negotiate(fixture, path, "&useStatefulReconnect=true").await.1)
    }

    /// Connects at the target of a negotiation with stateful reconnect.
    pub(super) async fn connect_at(fixture: &Fixture, link: &mut AppLink, target: &str) -> Self {
        let mut client = Self::upgrade(fixture, target).await.unwrap();
        client.send(STATEFUL_HANDSHAKE).await;
        client.accept(link).await;
        client
    }

    /// Answers the client's hub handshake at the app server.
    pub(super) async fn accept(&mut self, link: &mut AppLink) {
        self.id = link.opening().await.connection_id.to_string();
        let (_, handshake) = link.data().await;
        assert_eq!(handshake.connection_id, self.id);
        link.write(&self.id, "{}\u{1e}").await;
        assert_eq!(self.next().await, Received::Text("{}".into()));
    }

    /// Accepts the client at a new app server, which does not answer the hub handshake.
    pub(super) async fn accept_again(&self, link: &mut AppLink) {
        assert_eq!(link.opening().await.connection_id, self.id);
        link.data().await;
    }

    pub(super) async fn send(&mut self, text: &str) {
        self.write(Message::text(text)).await;
    }

    pub(super) async fn write(&mut self, message: Message) {
        assert!(self.try_write(message).await);
    }

    pub(super) async fn try_write(&mut self, message: Message) -> bool {
        self.socket.send(message).await.is_ok()
    }

    /// Receives the next hub message, even if a frame has several.
    pub(super) async fn next(&mut self) -> Received {
        loop {
            if let Some(text) = self.read.pop_front() {
                return Received::Text(text);
            }
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    self.read.extend(text.split_terminator('\u{1e}').map(str::to_owned));
                }
                Some(Ok(Message::Binary(bytes))) => return Received::Binary(bytes),
                Some(Ok(Message::Close(close))) => {
                    return Received::End(close.map(|CloseFrame { code, .. }| code.into()));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(_)) | None => return Received::End(None),
            }
        }
    }

    /// Receives the next hub message, skipping pings.
    pub(super) async fn text(&mut self) -> String {
        loop {
            match self.next().await {
                Received::Text(text) if text == PING => {}
                Received::Text(text) => return text,
                other => panic!("{other:?} instead of a hub message"),
            }
        }
    }

    /// Receives this many raw WebSocket messages, including control frames.
    pub(super) async fn frames(&mut self, count: usize) -> Vec<Message> {
        let mut frames = Vec::new();
        while frames.len() < count {
            frames.push(self.socket.next().await.unwrap().unwrap());
        }
        frames
    }

    /// Proves that no other message is in flight: the message sent now must come next.
    pub(super) async fn fence(&mut self, link: &AppLink) {
        link.write(&self.id, "{\"fence\":true}\u{1e}").await;
        assert_eq!(self.text().await, "{\"fence\":true}");
    }

    /// Shuts down the write half without a close frame, and keeps reading.
    pub(super) async fn stop_sending(&mut self) {
        self.socket.get_mut().shutdown().await.unwrap();
    }

    pub(super) async fn close(mut self) {
        self.socket.close(None).await.unwrap();
        while !matches!(self.next().await, Received::End(_)) {}
    }
}

pub(super) const PING: &str = "{\"type\":6}";
