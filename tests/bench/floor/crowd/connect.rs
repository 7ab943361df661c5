//! Connects of the crowd: a bare socket to the floor, a hub client to the proxy.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};
use trunkline_generator::frame_protocol::Hub;
use trunkline_generator::{connect, message_pack};

use crate::arguments::At;
use crate::writer::GREETING;

pub(super) const HUB: &str = "/bench";

/// Connection with its protocol and the bytes that were read early.
pub(super) type Connected = (TcpStream, Hub, Vec<u8>);

/// Connects a calling or idle client.
pub(super) fn to(at: At, address: SocketAddr) -> Result<Connected> {
    let (socket, early) = match at {
        At::Floor => (connect::open(address)?, Vec::new()),
        At::Proxy => connect::to_hub(address, HUB, "")?,
    };
    Ok((socket, Hub::Json, early))
}

/// Connects a receiver to the floor, and waits until the floor writes to it.
pub(super) fn to_floor(address: SocketAddr) -> Result<TcpStream> {
    let mut socket = connect::open(address)?;
    let mut greeting = [0];
    socket.read_exact(&mut greeting).context("the floor greets nobody")?;
    ensure!(greeting == [GREETING], "something else listens at {address}");
    Ok(socket)
}

/// Connects a receiver to the hub, and waits until it is in its groups.
pub(super) fn to_proxy(address: SocketAddr, hub: Hub, groups: &[String]) -> Result<Connected> {
    let (mut socket, mut early) = connect::over(connect::open(address)?, address, HUB, "", hub)?;
    for group in groups {
        (_, early) = call(&mut socket, early, &join(group, hub), hub).context("joining a group")?;
    }
    Ok((socket, hub, early))
}

/// Calls a method and waits for the answer. Also returns the bytes after it.
pub(super) fn call(socket: &mut TcpStream, early: Vec<u8>, message: &[u8], hub: Hub) -> Result<(Vec<u8>, Vec<u8>)> {
    socket.write_all(&hub.frame(message))?;
    connect::next_message(socket, early, hub)
}

fn join(group: &str, hub: Hub) -> Vec<u8> {
    if hub == Hub::Json {
        let call = format!("{{\"type\":1,\"invocationId\":\"1\",\"target\":\"Join\",\"arguments\":[\"{group}\"]}}\x1e");
        return call.into_bytes();
    }
    let [id, target, group] = ["1", "Join", group].map(message_pack::text);
    message_pack::message(&[&[0x96, 1, 0x80][..], &id, &target, &[0x91], &group, &[0x90]].concat())
}
