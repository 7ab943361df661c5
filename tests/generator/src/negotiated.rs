//! Blocking connects over the HTTP transports: negotiation, hub handshake and its response.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};
use memchr::memmem;

use crate::carrier::{Carrier, EventStream, LongPoll};
use crate::connect::open;
use crate::frame::Frame;
use crate::frame_protocol::{HANDSHAKE, HANDSHAKE_ANSWER};
use crate::http_answer::{Answer, request};

const TOKEN: &[u8] = b"\"connectionToken\":\"";

/// Connects to a hub over server-sent events, and waits for the handshake response.
pub fn by_event_stream(address: SocketAddr, hub: &str) -> Result<(TcpStream, Carrier)> {
    let (host, path) = (address.to_string(), negotiate(address, hub)?);
    let mut socket = open(address)?;
    socket.write_all(&request("GET", &path, &host, "Accept: text/event-stream\r\n", ""))?;
    let (answer, early) = read_head(&mut socket)?;
    ensure!(answer.status == 200, "the event stream is answered with {}", answer.status);
    let mut carrier = Carrier::EventStream(EventStream::new(answer));
    post(address, &path)?;
    welcome(&mut socket, &mut carrier, early)?;
    Ok((socket, carrier))
}

/// Connects to a hub over long polling, waits for the handshake response, and starts the next poll.
pub fn by_long_poll(address: SocketAddr, hub: &str) -> Result<(TcpStream, Carrier)> {
    let (host, path) = (address.to_string(), negotiate(address, hub)?);
    let mut socket = open(address)?;
    let poll = request("GET", &path, &host, "", "");
    // The first poll is answered immediately, with an empty body.
    socket.write_all(&poll)?;
    let (mut first, early) = read_head(&mut socket)?;
    ensure!(first.status == 200, "the first poll is answered with {}", first.status);
    read_body(&mut socket, &mut first, &early)?;
    socket.write_all(&poll)?;
    let mut carrier = Carrier::LongPoll(LongPoll::new(poll));
    post(address, &path)?;
    welcome(&mut socket, &mut carrier, Vec::new())?;
    Ok((socket, carrier))
}

/// Reads until the handshake response, and sends the poll that is then due.
fn welcome(socket: &mut TcpStream, carrier: &mut Carrier, early: Vec<u8>) -> Result<()> {
    let (mut bytes, mut is_welcome) = (early, false);
    while !is_welcome {
        carrier.take(&bytes, |frame: &Frame<'_>| {
            ensure!(!is_welcome, "something is behind the answer to the hub handshake");
            ensure!(frame.payload == HANDSHAKE_ANSWER, "{:?} is no welcome", String::from_utf8_lossy(frame.payload));
            is_welcome = true;
            Ok(())
        })?;
        if let Some(poll) = carrier.poll()? {
            socket.write_all(poll)?;
        }
        if !is_welcome {
            bytes = read_some(socket)?;
        }
    }
    Ok(())
}

/// Negotiates and returns the path of all further requests.
fn negotiate(address: SocketAddr, hub: &str) -> Result<String> {
    let (status, body) = ask(address, &format!("{hub}/negotiate?negotiateVersion=1"), "")?;
    ensure!(status == 200, "the negotiation is answered with {status}");
    let begin = memmem::find(&body, TOKEN).context("the negotiation brings no connection token")?;
    let token = body.get(begin + TOKEN.len()..).and_then(|rest| rest.split(|&byte| byte == b'"').next());
    let token = std::str::from_utf8(token.unwrap_or_default())?;
    Ok(format!("{hub}?id={token}"))
}

/// Sends the hub handshake over a connection that is then closed.
fn post(address: SocketAddr, path: &str) -> Result<()> {
    let (status, _) = ask(address, path, std::str::from_utf8(HANDSHAKE)?)?;
    ensure!((200..300).contains(&status), "the hub handshake is answered with {status}");
    Ok(())
}

/// Posts a body. Returns status and body of the response.
fn ask(address: SocketAddr, path: &str, body: &str) -> Result<(u16, Vec<u8>)> {
    let mut socket = open(address)?;
    let headers = "Content-Type: text/plain;charset=UTF-8\r\nConnection: close\r\n";
    socket.write_all(&request("POST", path, &address.to_string(), headers, body))?;
    let (mut answer, early) = read_head(&mut socket)?;
    let body = read_body(&mut socket, &mut answer, &early)?;
    Ok((answer.status, body))
}

/// Reads a head and returns the bytes after it.
fn read_head(socket: &mut TcpStream) -> Result<(Answer, Vec<u8>)> {
    let mut heard = Vec::new();
    loop {
        heard.extend(read_some(socket)?);
        if let Some((answer, rest)) = Answer::begin(&heard)? {
            return Ok((answer, rest.to_vec()));
        }
    }
}

/// Reads the rest of a body, which must be the last data.
fn read_body(socket: &mut TcpStream, answer: &mut Answer, early: &[u8]) -> Result<Vec<u8>> {
    let (mut body, mut bytes) = (Vec::new(), early.to_vec());
    loop {
        let rest = answer.take(&bytes, |part| {
            body.extend_from_slice(part);
            Ok(())
        })?;
        ensure!(rest.is_empty(), "more came than was asked for");
        if answer.is_over() {
            return Ok(body);
        }
        bytes = read_some(socket)?;
    }
}

fn read_some(socket: &mut TcpStream) -> Result<Vec<u8>> {
    let mut scratch = [0; 1024];
    let count = socket.read(&mut scratch).context("no whole answer came")?;
    ensure!(count > 0, "the server closed instead of answering");
    Ok(scratch.get(..count).unwrap_or_default().to_vec())
}
