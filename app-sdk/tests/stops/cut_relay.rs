//! A relay between a node and an app server that cuts links, and lets none come back.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// The end of the row of connections at which cutting begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum CutFrom {
    /// The node's own requests and the links that came first, by which an app server speaks to a node.
    Oldest,
    Latest,
}

/// A running relay; its tasks end with the runtime.
pub(crate) struct CutRelay {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Connections that pass, oldest first.
    passing: Vec<AbortHandle>,
    is_shut: bool,
}

impl CutRelay {
    pub(crate) async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let state = Arc::clone(&relay.state);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut state = state.lock().unwrap();
                // Whoever is not let in is not refused, either: it is not certain that nobody is there.
                if !state.is_shut {
                    let passing = tokio::spawn(async move {
                        let Ok(mut server) = TcpStream::connect(server).await else { return };
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    });
                    state.passing.retain(|passing| !passing.is_finished());
                    state.passing.push(passing.abort_handle());
                }
            }
        });
        relay
    }

    /// Cuts so many connections from this end on, and lets no other in.
    pub(crate) fn cut(&self, from: CutFrom, count: usize) {
        let mut state = self.state.lock().unwrap();
        state.is_shut = true;
        state.passing.retain(|passing| !passing.is_finished());
        match from {
            CutFrom::Oldest => state.passing.iter().take(count).for_each(AbortHandle::abort),
            CutFrom::Latest => state.passing.iter().rev().take(count).for_each(AbortHandle::abort),
        }
    }
}
