//! Relay between a proxy and an app server that can cut connections, even inside a frame, or silently drop all bytes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use trunkline_tests::harness::sockets::free_address;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoil {
    /// Cut between two reads.
    Cut,
    /// Cut after half of the next read, in each direction.
    CutInside,
    /// Silently drop all further bytes.
    Deafen,
}

/// Time after which even an idle connection is cut.
const CUT_INSIDE_PATIENCE: Duration = Duration::from_millis(500);

type RequestedFault = Option<Spoil>;

/// Relay. Its tasks end with the runtime.
#[derive(Debug)]
pub(crate) struct Relay {
    address: String,
    server: String,
    open: Arc<Mutex<Vec<watch::Sender<RequestedFault>>>>,
    accepting: Option<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Relay {
    pub(crate) async fn start(server: &str) -> Result<Self> {
        let (address, server) = (free_address()?, server.to_owned());
        let mut relay = Self { address, server, open: Arc::default(), accepting: None };
        relay.open().await?;
        Ok(relay)
    }

    pub(crate) async fn open(&mut self) -> Result<()> {
        self.close().await;
        let listener = TcpListener::bind(&self.address).await?;
        let (server, all) = (self.server.clone(), Arc::clone(&self.open));
        self.accepting = Some(tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                let (wish, wishes) = watch::channel(None);
                lock(&all).push(wish);
                tokio::spawn(pass_both_ways(client, server, wishes));
            }
        }));
        Ok(())
    }

    /// Refuses connections, like an address without a listener.
    pub(crate) async fn close(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            // Only now is its listener closed.
            drop(accepting.await);
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Injects a fault into the open connection with this number; `false` without one.
    pub(crate) fn spoil(&self, number: usize, spoil: Spoil) -> bool {
        let mut open = lock(&self.open);
        open.retain(|wish| !wish.is_closed());
        if open.is_empty() {
            return false;
        }
        let at = number % open.len();
        open.remove(at).send(Some(spoil)).is_ok()
    }
}

async fn pass_both_ways(client: TcpStream, server: TcpStream, wishes: watch::Receiver<RequestedFault>) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let up = pass(from_client, to_server, wishes.clone());
    let down = pass(from_server, to_client, wishes);
    // Both directions end together, and the sockets with them.
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut wishes: watch::Receiver<RequestedFault>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        tokio::select! {
            // Without a pending fault, the relay forwards.
            Some(spoil) = wished(&mut wishes) => return spoilt(spoil, from, to, buffer).await,
            read = from.read(&mut buffer) => match read {
                Ok(count @ 1..) => {
                    let bytes = buffer.get(..count).unwrap_or_default();
                    if to.write_all(bytes).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}

async fn wished(wishes: &mut watch::Receiver<RequestedFault>) -> Option<Spoil> {
    wishes.wait_for(Option::is_some).await.ok().and_then(|wish| *wish)
}

async fn spoilt(spoil: Spoil, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut buffer: Vec<u8>) {
    match spoil {
        Spoil::Deafen => std::future::pending().await,
        Spoil::CutInside => {
            if let Ok(Ok(count @ 2..)) = timeout(CUT_INSIDE_PATIENCE, from.read(&mut buffer)).await {
                drop(to.write_all(buffer.get(..count / 2).unwrap_or_default()).await);
            }
        }
        Spoil::Cut => {}
    }
}
