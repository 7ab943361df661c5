//! Links of another app that send at full speed: each thread writes the same frames to one link in a loop.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, ensure};
use bytes::BytesMut;
use trunkline_bench::product::app_server_token;
use trunkline_generator::frame::{self, Opcode};
use trunkline_generator::{connect, upgrade};
use trunkline_protocol::service::{GroupBroadcastData, LinkHandshakeRequest, ServiceMessage};

const LINKS: usize = 16;

const HUB: &str = "busy";

/// Frames of one write.
const FRAMES: usize = 2_000;

pub(crate) struct BusyLinks(Vec<(TcpStream, JoinHandle<()>)>);

impl BusyLinks {
    /// Opens the links and begins to send to a group without members.
    pub(crate) fn begin(proxy: SocketAddr) -> Result<Self> {
        let to_nobody = ServiceMessage::GroupBroadcastData(GroupBroadcastData {
            group: "nobody".into(),
            ..GroupBroadcastData::default()
        });
        let mut bodies = BytesMut::new();
        (0..FRAMES).for_each(|_| to_nobody.encode(&mut bodies));
        let mut write = Vec::new();
        frame::put(Opcode::Binary, &bodies, &mut write);
        let open = |_| {
            let link = open_link(proxy, HUB)?;
            let (mut writer, write) = (link.try_clone()?, write.clone());
            Ok((link, thread::spawn(move || while writer.write_all(&write).is_ok() {})))
        };
        Ok(Self((0..LINKS).map(open).collect::<Result<_>>()?))
    }

    pub(crate) fn end(self) -> Result<()> {
        for (link, writer) in self.0 {
            ensure!(!writer.is_finished(), "the node has closed a busy link");
            link.shutdown(Shutdown::Both)?;
            drop(writer.join());
        }
        Ok(())
    }
}

/// Opens a link of an app server that dials in for a hub.
pub(crate) fn open_link(proxy: SocketAddr, hub: &str) -> Result<TcpStream> {
    let mut link = connect::open(proxy)?;
    let headers = format!("Authorization: Bearer {}\r\nX-ASRS-Server-Id: {hub}\r\n", app_server_token(hub)?);
    link.write_all(upgrade::request(&proxy.to_string(), &format!("/server/?hub={hub}"), &headers).as_bytes())?;
    let mut answer = Vec::new();
    while upgrade::accepted(&answer)?.is_none() {
        let mut byte = [0];
        link.read_exact(&mut byte).context("the answer to an upgrade")?;
        answer.extend(byte);
    }
    let mut request = BytesMut::new();
    ServiceMessage::HandshakeRequest(LinkHandshakeRequest { version: 1, ..LinkHandshakeRequest::default() })
        .encode(&mut request);
    let mut write = Vec::new();
    frame::put(Opcode::Binary, &request, &mut write);
    link.write_all(&write)?;
    Ok(link)
}
