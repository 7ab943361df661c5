//! In-memory network for tests: servers by address, and the dials made.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use trunkline_channel::dial_staggered;

use crate::ground::net::address::Address;

/// Buffer of a connection in each direction, in bytes.
const PIPE_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryNetwork(Arc<Mutex<Servers>>);

#[derive(Debug, Default)]
struct Servers {
    listening: HashMap<String, UnboundedSender<DuplexStream>>,
    /// Unreachable addresses, even with a listener.
    cut: HashSet<String>,
    /// Dialled addresses, in order.
    dials: Vec<String>,
    /// State of others who share the network.
    shared: Option<Box<dyn Any + Send>>,
}

impl MemoryNetwork {
    /// Value that all nodes of the network share, made at its first use.
    pub(crate) fn shared<T: Default + Clone + Send + 'static>(&self) -> T {
        let mut servers = self.0.lock().unwrap();
        servers.shared.get_or_insert_with(|| Box::<T>::default()).downcast_ref::<T>().unwrap().clone()
    }

    /// Listens at an address, replacing an earlier listener.
    pub(crate) fn listen(&self, address: &Address) -> UnboundedReceiver<DuplexStream> {
        let (sender, accepted) = unbounded_channel();
        self.0.lock().unwrap().listening.insert(address.authority().to_owned(), sender);
        accepted
    }

    /// Makes an address unreachable, or reachable again. Open connections are kept.
    pub(crate) fn set_cut(&self, address: &Address, is_cut: bool) {
        let mut servers = self.0.lock().unwrap();
        match is_cut {
            true => servers.cut.insert(address.authority().to_owned()),
            false => servers.cut.remove(address.authority()),
        };
    }

    pub(crate) fn dials(&self, address: &Address) -> usize {
        self.0.lock().unwrap().dials.iter().filter(|dialled| *dialled == address.authority()).count()
    }

    pub(super) async fn dial(&self, address: &Address) -> io::Result<DuplexStream> {
        match address.endpoints() {
            Some(all) => Ok(dial_staggered(all, async |at: SocketAddr| self.dial_one(at.to_string())).await?.0),
            None => self.dial_one(address.authority().to_owned()),
        }
    }

    fn dial_one(&self, authority: String) -> io::Result<DuplexStream> {
        let mut servers = self.0.lock().unwrap();
        let (near, far) = duplex(PIPE_BYTES);
        let server = servers.listening.get(&authority).filter(|_| !servers.cut.contains(&authority));
        let is_there = server.is_some_and(|server| server.send(far).is_ok());
        servers.dials.push(authority);
        if is_there { Ok(near) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
    }
}
