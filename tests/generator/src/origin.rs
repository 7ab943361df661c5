//! Origins of visitors: an address and a port of loopback for each, so that none is used twice within a run.
//!
//! Left to the system, thousands of connects per second soon leave no port that is not still in TIME-WAIT, and its
//! search for one took 45 % of the generator's CPU time.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};

use crate::connect;
use anyhow::{Context, Result};

/// The last bytes of `127.0.0.x`: servers are at 1.
const HOSTS: std::ops::RangeInclusive<u8> = 2..=31;
/// Ports that nobody else is given.
const PORTS: std::ops::RangeInclusive<u16> = 11_000..=31_000;
/// Ports in a row that may be taken by somebody else.
const TRIES: usize = 100;

/// Address that the next visitor connects from.
#[derive(Debug, Clone, Copy)]
pub struct Origins {
    host: u8,
    port: u16,
}

impl Default for Origins {
    fn default() -> Self {
        Self { host: *HOSTS.start(), port: *PORTS.start() }
    }
}

impl Origins {
    /// Connects from the next one.
    ///
    /// # Errors
    /// When nobody listens, or all of the next ports are taken.
    pub fn connect(&mut self, to: SocketAddr) -> Result<TcpStream> {
        for _ in 0..TRIES {
            match connect::open_from(self.next(), to) {
                Err(error) if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable) => {}
                connected => return connected.with_context(|| format!("connecting to {to}")),
            }
        }
        anyhow::bail!("{TRIES} ports in a row are in use")
    }

    /// Each port at one host, then at the next one, and all over again.
    fn next(&mut self) -> SocketAddr {
        let next = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, self.host), self.port);
        self.port = if self.port < *PORTS.end() { self.port + 1 } else { *PORTS.start() };
        if self.port == *PORTS.start() {
            self.host = if self.host < *HOSTS.end() { self.host + 1 } else { *HOSTS.start() };
        }
        next.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_origin_comes_twice_before_all_have_come() {
        let mut origins = Origins::default();
        let all = HOSTS.len() * PORTS.len();
        let seen: std::collections::HashSet<SocketAddr> = (0..all).map(|_| origins.next()).collect();
        assert_eq!(seen.len(), all);
        assert_eq!(origins.next(), "127.0.0.2:11000".parse().unwrap());
    }
}
