//! One port shared by all shards: a listener per shard, over which the kernel distributes connections.

use std::io;
use std::net::{SocketAddr, TcpListener};

#[cfg(unix)]
use socket2::SockRef;
use socket2::{Domain, Protocol, Socket, Type};

use crate::ground::config::PortSharing;

/// Maximum number of connections waiting to be accepted, sized for a reconnect storm.
const BACKLOG: i32 = 4096;

/// Binds `count` listeners to `address`; returns the bound address.
///
/// ```text
///  first:  bind ─► listen, exclusively ─► share the port     another node: bind ─► refused
///  others:                                     └─► bind ─► listen
/// ```
///
/// With [`PortSharing::WithNodes`], the port is shared from the start with nodes of the same user. All must be
/// configured for this; an exclusive node that binds first keeps the others out. Only if it has several shards, a
/// sharing node gets some of its connections, because the kernel can't distinguish their sockets. Fails if the address
/// can't be bound, usually because it is in use.
pub(super) fn bind_shared(
    address: SocketAddr,
    count: u16,
    sharing: PortSharing,
) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    // If it were shared from the start, a second node on a used port would start and get half of the clients. If two
    // nodes start simultaneously, the kernel lets one listen.
    let first_use = match sharing {
        PortSharing::Alone => PortUse::Exclusive,
        PortSharing::WithNodes => PortUse::Shared,
    };
    let first = listening(bind(address, first_use)?)?;
    let address = first.local_addr()?;
    if count > 1 {
        share(&first)?;
    }
    let another = || match cfg!(unix) {
        true => listening(bind(address, PortUse::Shared)?),
        // Where ports can't be shared, shards share one listener, and any idle shard accepts.
        false => first.try_clone(),
    };
    let more = (1..count).map(|_| another()).collect::<io::Result<Vec<_>>>()?;
    Ok((address, [first].into_iter().chain(more).collect()))
}

/// Binds one listener with an exclusive port. Fails if the address can't be bound.
pub(super) fn bind_alone(address: SocketAddr) -> io::Result<TcpListener> {
    listening(bind(address, PortUse::Exclusive)?)
}

/// Permits other sockets of this node on a listener's port.
#[cfg(unix)]
fn share(listener: &TcpListener) -> io::Result<()> {
    SockRef::from(listener).set_reuse_port(true)
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "as on Unix")]
fn share(_: &TcpListener) -> io::Result<()> {
    Ok(())
}

/// Distributes inherited listeners over `count` shards, so that each shard has a listener and each listener a shard.
/// Shards share too few listeners, and any idle shard accepts.
///
/// Further listeners can't be opened: the kernel shares a port only among sockets of one user, not with the
/// supervisor's. Fails if no file descriptor is left.
pub(super) fn distribute(listeners: &[TcpListener], count: u16) -> io::Result<Vec<Vec<TcpListener>>> {
    let count = usize::from(count);
    let mut shares: Vec<Vec<TcpListener>> = (0..count).map(|_| Vec::new()).collect();
    let pairs = (0..count).cycle().zip(listeners.iter().cycle());
    for (shard, listener) in pairs.take(count.max(listeners.len())) {
        if let Some(share) = shares.get_mut(shard) {
            share.push(listener.try_clone()?);
        }
    }
    Ok(shares)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PortUse {
    Exclusive,
    Shared,
}

fn listening(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind(address: SocketAddr, port_use: PortUse) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // On Unix this only skips the wait for old connections; on Windows it would let two programs share a port.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(port_use == PortUse::Shared)?;
    let _ = port_use;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // Always dual-stack, regardless of the system's default.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn all_shards_listen_on_one_address() {
        let (address, listeners) = bind_shared("127.0.0.1:0".parse().unwrap(), 3, PortSharing::Alone).unwrap();
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap() == address));
    }

    #[test]
    fn every_address_is_of_both_families() {
        let any = "[::]:0".parse().unwrap();
        for listener in [bind_shared(any, 1, PortSharing::Alone).unwrap().1.pop().unwrap(), bind_alone(any).unwrap()] {
            let port = listener.local_addr().unwrap().port();
            std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
            std::net::TcpStream::connect(("::1", port)).unwrap();
        }
    }

    #[test]
    fn of_nodes_that_start_at_the_same_moment_one_gets_the_port() {
        for _ in 0..20 {
            let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let begun = Barrier::new(6);
            let bound = thread::scope(|scope| {
                let starts = [(); 6].map(|()| {
                    scope.spawn(|| {
                        begun.wait();
                        bind_shared(free, 3, PortSharing::Alone)
                    })
                });
                starts.map(|start| start.join().unwrap())
            });
            assert_eq!(bound.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{bound:?}");
        }
    }

    #[test]
    fn each_shard_gets_a_listener_and_each_listener_a_shard() {
        for (shards, listeners, shares) in [(3, 1, vec![1, 1, 1]), (2, 2, vec![1, 1]), (2, 5, vec![3, 2])] {
            let inherited: Vec<_> = (0..listeners).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
            let mut addresses: Vec<_> = inherited.iter().map(|one| one.local_addr().unwrap()).collect();
            let shared = distribute(&inherited, shards).unwrap();
            assert_eq!(shared.iter().map(Vec::len).collect::<Vec<_>>(), shares);
            let mut served: Vec<_> = shared.iter().flatten().map(|one| one.local_addr().unwrap()).collect();
            served.sort();
            served.dedup();
            addresses.sort();
            assert_eq!(served, addresses);
        }
    }

    #[test]
    fn a_taken_port_is_an_error_even_though_ports_are_shared() {
        let (address, _listeners) = bind_shared("127.0.0.1:0".parse().unwrap(), 2, PortSharing::Alone).unwrap();
        assert_eq!(bind_shared(address, 2, PortSharing::Alone).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[cfg(unix)]
    #[test]
    fn nodes_configured_to_share_a_port_do_so_and_another_node_is_refused() {
        for count in [1, 3] {
            let any = "127.0.0.1:0".parse().unwrap();
            let (address, one) = bind_shared(any, count, PortSharing::WithNodes).unwrap();
            let (shared, other) = bind_shared(address, count, PortSharing::WithNodes).unwrap();
            assert_eq!(shared, address);
            let refused = bind_shared(address, count, PortSharing::Alone).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
            // Each gets a share of many connections.
            let _clients = [(); 200].map(|()| std::net::TcpStream::connect(address).unwrap());
            for listeners in [one, other] {
                assert!(listeners.iter().any(|listener| listener.accept().is_ok()));
            }
        }
    }

    #[test]
    fn a_node_configured_to_share_is_refused_the_port_of_another_program() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let refused = bind_shared(taken.local_addr().unwrap(), 2, PortSharing::WithNodes).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    }
}
