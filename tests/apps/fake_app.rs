//! App server that violates the service protocol: it opens links correctly, then sends scripted bytes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::sync::watch;
use trunkline_protocol::manifest::{HubManifest, LINK_PATH, MANIFEST_PATH, Manifest};
use trunkline_protocol::service::{LinkHandshakeRequest, LinkKind, ServiceMessage};

use super::channel_host::in_channels;

/// Running app server; it ends with the test.
#[derive(Debug)]
pub struct FakeApp {
    address: String,
    dropped: watch::Receiver<usize>,
}

/// Lines that links still have to send, and the number of links that the proxy has dropped because of them.
#[derive(Debug, Clone)]
struct Script {
    lines: Arc<Mutex<VecDeque<Vec<u8>>>>,
    dropped: watch::Sender<usize>,
}

impl FakeApp {
    /// Starts it. Each link sends the next of `lines` after its handshake and stays silent once none are left.
    pub async fn start(lines: Vec<Vec<u8>>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (tell, dropped) = watch::channel(0);
        let script = Script { lines: Arc::new(Mutex::new(lines.into())), dropped: tell };
        let router =
            Router::new().route(MANIFEST_PATH, get(manifest)).route(LINK_PATH, get(upgrade)).with_state(script);
        let router = in_channels(router)?;
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, dropped })
    }

    /// Listening address as `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Waits until the proxy has dropped this many links that sent something wrong.
    pub async fn dropped(&mut self, count: usize) -> Result<()> {
        self.dropped.wait_for(|dropped| *dropped >= count).await.context("the app server has ended")?;
        Ok(())
    }
}

async fn manifest() -> Json<Manifest> {
    Json(Manifest {
        instance: "fake".into(),
        name: "fake".into(),
        version: "0".into(),
        hubs: vec![HubManifest::new("broken", "/broken")],
    })
}

async fn upgrade(State(script): State<Script>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async move |socket| {
        // The proxy drops links, and the reason is irrelevant here.
        drop(run_script(socket, script).await);
    })
}

async fn run_script(mut socket: WebSocket, script: Script) -> Result<()> {
    let greeting = ServiceMessage::HandshakeRequest(LinkHandshakeRequest {
        version: 1,
        kind: LinkKind::Default,
        target: Default::default(),
        migration_level: 0,
        allow_stateful_reconnects: false,
    });
    socket.send(Message::Binary(greeting.to_frame())).await?;
    socket.recv().await.context("the handshake's answer")??;
    let line = script.lines.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let is_scripted = line.is_some();
    if let Some(line) = line {
        socket.send(Message::Binary(line.into())).await?;
    }
    while let Some(Ok(_)) = socket.recv().await {}
    if is_scripted {
        script.dropped.send_modify(|dropped| *dropped += 1);
    }
    Ok(())
}
