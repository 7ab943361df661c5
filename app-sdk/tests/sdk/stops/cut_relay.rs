//! Relay between a node and an app server that cuts links and blocks new ones.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// Which end of the list of connections to cut first.
#[derive(Debug, Clone, Copy)]
pub(crate) enum CutFrom {
    /// The node's own requests and the first links, over which an app server sends to a node.
    Oldest,
    Latest,
}

/// A running relay. Its tasks end with the runtime.
pub(crate) struct CutRelay {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Relayed connections, oldest first.
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
                // A blocked connection is not refused either, so that the node cannot tell whether the app server is
                // gone.
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

    /// Cuts this number of connections from the given end, and blocks new ones.
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
