//! A relay between clients and a server that makes faults on purpose, and knows how many it has made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use trunkline_tests::bench::frame;

/// A message that is held back to be swapped goes on alone after this long: then it was no swap.
const HELD_FOR: Duration = Duration::from_millis(200);

/// What is done to every nth message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Drop,
    Duplicate,
    /// With the next one of the same connection.
    Swap,
}

/// The relay. Its tasks end with the runtime.
#[derive(Debug)]
pub(crate) struct Relay {
    address: String,
    plan: Arc<Plan>,
}

#[derive(Debug)]
struct Plan {
    fault: Fault,
    every: u64,
    messages: AtomicU64,
    made: AtomicU64,
}

impl Relay {
    /// Starts one before a server.
    pub(crate) async fn start(server: &str, fault: Fault, every: u64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let plan = Arc::new(Plan { fault, every, messages: AtomicU64::new(0), made: AtomicU64::new(0) });
        let (server, shared) = (server.to_owned(), Arc::clone(&plan));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, server.clone(), Arc::clone(&shared)));
            }
        });
        Ok(Self { address, plan })
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// How many faults it has made.
    pub(crate) fn made(&self) -> u64 {
        self.plan.made.load(Ordering::SeqCst)
    }
}

async fn relay(client: TcpStream, server: String, plan: Arc<Plan>) -> Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((mut from_client, to_client), (from_server, mut to_server)) = (client.into_split(), server.into_split());
    tokio::spawn(async move {
        let _ = copy(&mut from_client, &mut to_server).await;
        to_server.shutdown().await
    });
    Down { from_server, to_client, plan, held: None }.run().await
}

/// The way from the server to one client.
struct Down {
    from_server: OwnedReadHalf,
    to_client: OwnedWriteHalf,
    plan: Arc<Plan>,
    held: Option<Vec<u8>>,
}

impl Down {
    async fn run(mut self) -> Result<()> {
        let mut bytes = Vec::new();
        self.pass_head(&mut bytes).await?;
        loop {
            while let Some((_, payload, rest)) = frame::split(&bytes) {
                let (length, payload) = (bytes.len() - rest.len(), payload.to_vec());
                if payload.ends_with(&[0x1e]) {
                    // One frame may hold several messages.
                    for message in payload.split_inclusive(|&byte| byte == 0x1e) {
                        self.pass(message).await?;
                    }
                } else {
                    self.to_client.write_all(bytes.get(..length).unwrap_or_default()).await?;
                }
                bytes.drain(..length);
            }
            if self.held.is_none() {
                self.read(&mut bytes).await?;
            } else if let Ok(read) = timeout(HELD_FOR, self.read(&mut bytes)).await {
                read?;
            } else if let Some(held) = self.held.take() {
                self.to_client.write_all(&held).await?;
            }
        }
    }

    /// Passes the answer to the upgrade on.
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

    async fn pass(&mut self, message: &[u8]) -> Result<()> {
        let framed = frame::from_server(message);
        let is_counted = message.windows(9).any(|window| window == b"\"Message\"");
        let number = if is_counted { self.plan.messages.fetch_add(1, Ordering::SeqCst) + 1 } else { 1 };
        let is_due = is_counted && number % self.plan.every == 0;
        match (self.plan.fault, self.held.take()) {
            (Fault::Drop, _) if is_due => self.made(),
            (Fault::Duplicate, _) if is_due => {
                self.made();
                self.to_client.write_all(&[framed.clone(), framed].concat()).await?;
            }
            (Fault::Swap, None) if is_due => self.held = Some(framed),
            (Fault::Swap, Some(held)) if is_counted => {
                self.made();
                self.to_client.write_all(&[framed, held].concat()).await?;
            }
            (_, held) => {
                self.held = held;
                self.to_client.write_all(&framed).await?;
            }
        }
        Ok(())
    }

    fn made(&self) {
        self.plan.made.fetch_add(1, Ordering::SeqCst);
    }

    async fn read(&mut self, bytes: &mut Vec<u8>) -> Result<()> {
        if self.from_server.read_buf(bytes).await? == 0 {
            bail!("the server has closed");
        }
        Ok(())
    }
}
