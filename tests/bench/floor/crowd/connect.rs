//! One connection of the crowd: to the floor a bare socket, to the proxy a client of the hub.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};
use trunkline_tests::bench::{connect, frame, message_pack};

use crate::writer::GREETING;

/// Connects to the floor and waits until it is among those that are written to.
pub(crate) fn to_floor(address: SocketAddr) -> Result<TcpStream> {
    let mut socket = connect::open(address)?;
    let mut greeting = [0];
    socket.read_exact(&mut greeting).context("the floor greets nobody")?;
    ensure!(greeting == [GREETING], "something else listens at {address}");
    Ok(socket)
}

/// Connects to the hub, and waits until it is in its group. Also returns what has come too early.
pub(super) fn to_proxy(address: SocketAddr, is_binary: bool, group: Option<String>) -> Result<(TcpStream, Vec<u8>)> {
    let connected = match is_binary {
        false => connect::to_hub(address, "/bench", ""),
        true => connect::to_hub_binary(address, "/bench"),
    };
    let (mut socket, early) = connected?;
    let Some(group) = group else { return Ok((socket, early)) };
    let joined = call(&mut socket, early, &join(&group, is_binary), is_binary).context("joining a group")?;
    Ok((socket, joined.1))
}

/// Calls, and waits for the first frame that is no ping: the answer. Also returns what came behind it.
pub(super) fn call(
    socket: &mut TcpStream,
    early: Vec<u8>,
    message: &[u8],
    is_binary: bool,
) -> Result<(Vec<u8>, Vec<u8>)> {
    let (kind, ping) = if is_binary { (frame::BINARY, frame::BINARY_PING) } else { (frame::TEXT, frame::PING) };
    socket.write_all(&frame::of_client(kind, message))?;
    let mut behind = early;
    loop {
        let (whole, rest) = connect::read_frame(socket, behind)?;
        behind = rest;
        if let Some((_, payload, _)) = frame::split(&whole)
            && payload != ping
        {
            return Ok((payload.to_vec(), behind));
        }
    }
}

fn join(group: &str, is_binary: bool) -> Vec<u8> {
    if !is_binary {
        let call = format!("{{\"type\":1,\"invocationId\":\"1\",\"target\":\"Join\",\"arguments\":[\"{group}\"]}}\x1e");
        return call.into_bytes();
    }
    let [id, target, group] = ["1", "Join", group].map(message_pack::text);
    message_pack::message(&[&[0x96, 1, 0x80][..], &id, &target, &[0x91], &group, &[0x90]].concat())
}
