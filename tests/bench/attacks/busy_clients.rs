//! Clients of another app that send at full speed: each thread writes the same messages to one client's socket in a
//! loop. Their app server accepts them and drops their messages.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::{Bytes, BytesMut};
use trunkline_bench::product::dial_in_target;
use trunkline_generator::connect;
use trunkline_generator::frame::{self, Frame, Frames, Opcode};
use trunkline_protocol::service::{ConnectionData, FrameBuffer, Ping, ServiceMessage};

use super::busy_links::open_link;

const CLIENTS: usize = 50;

const HUB: &str = "busy";

/// Messages of one write.
const MESSAGES: usize = 200;

const MESSAGE: &[u8] = b"{\"type\":1,\"target\":\"Nothing\",\"arguments\":[]}\x1e";

/// Interval of the app server's pings.
const PING_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) struct BusyClients {
    link: TcpStream,
    app_server: JoinHandle<Result<()>>,
    clients: Vec<(TcpStream, JoinHandle<()>)>,
}

impl BusyClients {
    /// Opens the clients and begins to send.
    pub(crate) fn begin(proxy: SocketAddr) -> Result<Self> {
        let link = open_link(proxy, HUB)?;
        let of_app_server = link.try_clone()?;
        let app_server = thread::spawn(move || serve(of_app_server));
        let mut write = Vec::new();
        (0..MESSAGES).for_each(|_| frame::put(Opcode::Text, MESSAGE, &mut write));
        let target = dial_in_target(HUB)?;
        let open = |_| {
            let (client, _) = connect::to_hub(proxy, &target, "")?;
            client.set_write_timeout(None)?;
            Ok((client.try_clone()?, client, write.clone()))
        };
        let clients = (0..CLIENTS).map(open).collect::<Result<Vec<_>>>()?;
        let send = |(client, mut writer, write): (TcpStream, TcpStream, Vec<u8>)| {
            (client, thread::spawn(move || while writer.write_all(&write).is_ok() {}))
        };
        Ok(Self { link, app_server, clients: clients.into_iter().map(send).collect() })
    }

    pub(crate) fn end(self) -> Result<()> {
        for (client, writer) in self.clients {
            ensure!(!writer.is_finished(), "the node has closed a busy client");
            client.shutdown(Shutdown::Both)?;
            drop(writer.join());
        }
        ensure!(!self.app_server.is_finished(), "the node has closed the link of the busy clients");
        self.link.shutdown(Shutdown::Both)?;
        drop(self.app_server.join());
        Ok(())
    }
}

/// Accepts the clients, then reads and drops everything.
fn serve(mut link: TcpStream) -> Result<()> {
    let (mut frames, mut messages, mut accepted) = (Frames::default(), FrameBuffer::default(), 0);
    let (mut buffer, mut pinged_at) = (vec![0; 256 * 1024], Instant::now());
    loop {
        let count = link.read(&mut buffer)?;
        ensure!(count > 0, "the node has closed the link");
        if accepted < CLIENTS {
            frames.take(buffer.get(..count).unwrap_or_default(), |frame: &Frame<'_>| -> Result<()> {
                if frame.opcode == Opcode::Binary {
                    messages.push(Bytes::copy_from_slice(frame.payload));
                }
                Ok(())
            })?;
            while let Some(body) = messages.next_body()? {
                if let Some(ServiceMessage::OpenConnection(open)) = ServiceMessage::decode(&body)? {
                    let connection_id = open.connection_id;
                    let payload = Bytes::from_static(b"{}\x1e");
                    let data = ConnectionData { connection_id, payload, ..ConnectionData::default() };
                    send(&mut link, &ServiceMessage::ConnectionData(data))?;
                    accepted += 1;
                }
            }
        }
        if pinged_at.elapsed() >= PING_INTERVAL {
            pinged_at = Instant::now();
            send(&mut link, &ServiceMessage::Ping(Ping::default()))?;
        }
    }
}

fn send(link: &mut TcpStream, message: &ServiceMessage) -> Result<()> {
    let (mut body, mut write) = (BytesMut::new(), Vec::new());
    message.encode(&mut body);
    frame::put(Opcode::Binary, &body, &mut write);
    Ok(link.write_all(&write)?)
}
