//! Pool of idle HTTP connections, keyed by the connected address.
//!
//! The key is the whole [`Address`]: a name may stand for several servers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use hyper::client::conn::http1::SendRequest;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use crate::ground::net::address::Address;

/// Idle timeout, shorter than that of servers (Node.js: 5 s), so that requests don't race a close.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Age at which a connection is closed after its response, because its name may resolve to other addresses by then.
const AGE_MAX: Duration = Duration::from_secs(60);

/// Maximum number of idle connections per address. A larger burst opens its own.
const IDLE_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct PooledConnection {
    pub sender: SendRequest<Body>,
    dialled: Instant,
}

impl PooledConnection {
    pub(super) fn new(sender: SendRequest<Body>) -> Self {
        Self { sender, dialled: Instant::now() }
    }
}

/// Idle connections, shared by all clones of a client.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionPool(Arc<Mutex<IdleConnections<PooledConnection>>>);

impl ConnectionPool {
    /// Takes the most recently used open connection to `address`.
    pub(super) async fn take(&self, address: &Address) -> Option<PooledConnection> {
        loop {
            let kept = self.lock().take(address, Instant::now())?;
            // Meanwhile the runtime reads the sockets, so that a connection closed by its server is recognised.
            yield_now().await;
            if kept.sender.is_ready() {
                return Some(kept);
            }
        }
    }

    /// Returns a connection to the pool once its response has been read completely.
    pub(super) fn put(&self, address: &Address, mut connection: PooledConnection) {
        if connection.sender.is_ready() {
            return self.put_idle(address, connection);
        }
        let (pool, address) = (self.clone(), address.clone());
        tokio::spawn(async move {
            if connection.sender.ready().await.is_ok() {
                pool.put_idle(&address, connection);
            }
        });
    }

    fn put_idle(&self, address: &Address, connection: PooledConnection) {
        if connection.dialled.elapsed() >= AGE_MAX {
            return;
        }
        let mut idle = self.lock();
        idle.put(address, Instant::now(), connection);
        if !std::mem::replace(&mut idle.is_swept, true) {
            self.sweep();
        }
    }

    /// Closes expired connections until none is idle or all clients are dropped.
    fn sweep(&self) {
        let pool = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            loop {
                sleep(IDLE_TIMEOUT).await;
                let Some(pool) = pool.upgrade().map(ConnectionPool) else { return };
                let mut idle = pool.lock();
                idle.expire(Instant::now());
                if idle.by_address.is_empty() {
                    idle.is_swept = false;
                    return;
                }
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, IdleConnections<PooledConnection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct IdleConnections<C> {
    /// Idle connections by address, each with the time it became idle, oldest first. Lists are never empty.
    by_address: HashMap<Address, Vec<(Instant, C)>>,
    /// Whether a task closes expired connections.
    is_swept: bool,
}

impl<C> Default for IdleConnections<C> {
    fn default() -> Self {
        Self { by_address: HashMap::new(), is_swept: false }
    }
}

impl<C> IdleConnections<C> {
    fn take(&mut self, address: &Address, now: Instant) -> Option<C> {
        let list = self.by_address.get_mut(address)?;
        let newest = list.pop().filter(|(since, _)| now - *since < IDLE_TIMEOUT);
        // Connections below an expired one are older.
        if list.is_empty() || newest.is_none() {
            self.by_address.remove(address);
        }
        newest.map(|(_, connection)| connection)
    }

    fn put(&mut self, address: &Address, now: Instant, connection: C) {
        match self.by_address.get_mut(address) {
            Some(list) if list.len() >= IDLE_MAX => {}
            Some(list) => list.push((now, connection)),
            None => drop(self.by_address.insert(address.clone(), vec![(now, connection)])),
        }
    }

    fn expire(&mut self, now: Instant) {
        self.by_address.retain(|_, list| {
            list.retain(|(since, _)| now - *since < IDLE_TIMEOUT);
            !list.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::TokioIo;

    use super::*;

    #[test]
    fn the_connection_used_last_is_taken_first_and_only_for_its_address() {
        let (mut idle, now) = (IdleConnections::default(), Instant::now());
        let name: Address = "http://apps.invalid:5000".parse().unwrap();
        let [one, other] = [1, 2].map(|last| name.at(([10, 0, 0, last], 5000).into()));
        for connection in [1, 2] {
            idle.put(&one, now, connection);
        }
        assert_eq!((idle.take(&other, now), idle.take(&name, now)), (None, None));
        assert_eq!([(); 3].map(|()| idle.take(&one, now)), [Some(2), Some(1), None]);
        assert!(idle.by_address.is_empty());
    }

    #[test]
    fn a_burst_leaves_few_connections_behind() {
        let (mut idle, now) = (IdleConnections::default(), Instant::now());
        let address: Address = "http://127.0.0.1:5000".parse().unwrap();
        (0..1024).for_each(|connection| idle.put(&address, now, connection));
        assert_eq!(idle.by_address[&address].len(), IDLE_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_not_kept_for_longer_than_its_name_may_stand_for_its_address() {
        let (near, _far) = tokio::io::duplex(1024);
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await.unwrap();
        tokio::spawn(connection);
        let (pool, address) = (ConnectionPool::default(), "http://apps.invalid:5000".parse().unwrap());
        let mut kept = Some(PooledConnection::new(sender));
        let begun = Instant::now();
        // In constant use.
        while let Some(connection) = kept {
            tokio::time::advance(IDLE_TIMEOUT / 2).await;
            pool.put(&address, connection);
            kept = pool.take(&address).await;
        }
        assert_eq!(begun.elapsed(), AGE_MAX);
    }

    #[test]
    fn an_idle_connection_expires() {
        let (mut idle, start) = (IdleConnections::default(), Instant::now());
        let address: Address = "http://127.0.0.1:5000".parse().unwrap();
        idle.put(&address, start, 1);
        idle.put(&address, start + IDLE_TIMEOUT / 2, 2);
        idle.expire(start + IDLE_TIMEOUT);
        assert_eq!(idle.by_address[&address].len(), 1);
        assert_eq!(idle.take(&address, start + IDLE_TIMEOUT * 2), None);
        assert!(idle.by_address.is_empty());
    }
}
