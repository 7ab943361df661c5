//! Client addresses: a loopback address and port per visitor, each used once per run.
//!
//! If the system chose the ports, thousands of connects per second would soon leave all ports in TIME-WAIT, and its
//! search took 45 % of the generator's CPU time.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};

use crate::connect;
use anyhow::{Context, Result};

/// Last bytes of `127.0.0.x`; servers use 1.
const HOSTS: std::ops::RangeInclusive<u8> = 2..=31;
/// Ports outside of the system's automatic range.
const PORTS: std::ops::RangeInclusive<u16> = 11_000..=31_000;
/// Maximum number of consecutive ports in use by other programs.
const TRIES: usize = 100;

/// Next address to connect from.
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
    /// Connects from the next address.
    pub fn connect(&mut self, to: SocketAddr) -> Result<TcpStream> {
        for _ in 0..TRIES {
            match connect::open_from(self.next(), to) {
                Err(error) if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable) => {}
                connected => return connected.with_context(|| format!("connecting to {to}")),
            }
        }
        anyhow::bail!("{TRIES} ports in a row are in use")
    }

    /// Iterates over the ports of one host, then of the next, cyclically.
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
