//! One connection of the crowd to the floor: a bare socket. To the proxy the library connects.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};
use trunkline_tests::bench::connect;

use crate::writer::GREETING;

/// Connects to the floor and waits until it is among those that are written to.
pub(crate) fn to_floor(address: SocketAddr) -> Result<TcpStream> {
    let mut socket = connect::open(address)?;
    let mut greeting = [0];
    socket.read_exact(&mut greeting).context("the floor greets nobody")?;
    ensure!(greeting == [GREETING], "something else listens at {address}");
    Ok(socket)
}
