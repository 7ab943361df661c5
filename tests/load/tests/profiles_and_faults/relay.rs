//! Relay between clients and a server that injects faults into WebSocket messages.
//!
//! A message held for swapping waits for the next message of its connection.

use std::sync::Arc;

use anyhow::{Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use trunkline_generator::frame::{self, Frame};

use crate::fault::{Fault, Plan, Spoiler};

/// Running relay. Its tasks end with the runtime.
#[derive(Debug)]
pub(crate) struct Relay {
    address: String,
    plan: Arc<Plan>,
}

impl Relay {
    pub(crate) async fn start(server: &str, fault: Fault, every: u64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let plan = Plan::new(fault, every);
        let (server, shared) = (server.to_owned(), Arc::clone(&plan));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, server.clone(), Spoiler::new(&shared)));
            }
        });
        Ok(Self { address, plan })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn made(&self) -> u64 {
        self.plan.made()
    }
}

async fn relay(client: TcpStream, server: String, spoiler: Spoiler) -> Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((mut from_client, to_client), (from_server, mut to_server)) = (client.into_split(), server.into_split());
    tokio::spawn(async move {
        let _ = copy(&mut from_client, &mut to_server).await;
        to_server.shutdown().await
    });
    Down { from_server, to_client, spoiler }.run().await
}

/// Direction from the server to one client.
struct Down {
    from_server: OwnedReadHalf,
    to_client: OwnedWriteHalf,
    spoiler: Spoiler,
}

impl Down {
    async fn run(mut self) -> Result<()> {
        let mut bytes = Vec::new();
        self.pass_head(&mut bytes).await?;
        loop {
            while let Some(Frame { payload, rest, .. }) = frame::split(&bytes)? {
                let (length, payload) = (bytes.len() - rest.len(), payload.to_vec());
                if payload.ends_with(&[0x1e]) {
                    // A frame may contain several messages.
                    for message in payload.split_inclusive(|&byte| byte == 0x1e) {
                        let messages = self.spoiler.pass(message);
                        self.write(messages).await?;
                    }
                } else {
                    self.to_client.write_all(bytes.get(..length).unwrap_or_default()).await?;
                }
                bytes.drain(..length);
            }
            self.read(&mut bytes).await?;
        }
    }

    async fn pass_head(&mut self, bytes: &mut Vec<u8>) -> Result<()> {
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            self.read(bytes).await?;
        };
        let head: Vec<u8> = bytes.drain(..end).collect();
        self.to_client.write_all(&head).await?;
        Ok(())
    }

    /// Writes a frame for each message, in a single write.
    async fn write(&mut self, messages: impl IntoIterator<Item = Vec<u8>>) -> Result<()> {
        let frames: Vec<u8> = messages.into_iter().flat_map(|message| frame::from_server(&message)).collect();
        self.to_client.write_all(&frames).await?;
        Ok(())
    }

    async fn read(&mut self, bytes: &mut Vec<u8>) -> Result<()> {
        if self.from_server.read_buf(bytes).await? == 0 {
            bail!("the server has closed");
        }
        Ok(())
    }
}
