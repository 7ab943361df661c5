//! Clients excluded from each message: they are connected, but receive nothing.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use trunkline_generator::connect;
use trunkline_generator::frame_protocol::Hub;
use trunkline_generator::idlers::Idlers;
use trunkline_generator::workload::Workload;

use super::connect::{HUB, call};
use crate::broadcast::LEFT_OUT;

const WHO_AM_I: &[u8] = b"{\"type\":1,\"invocationId\":\"1\",\"target\":\"WhoAmI\",\"arguments\":[]}\x1e";

/// All excluded clients with their connection ids.
pub(super) struct LeftOut {
    clients: Idlers<Hub>,
    ids: Vec<String>,
}

impl LeftOut {
    /// Connects the clients and queries their ids.
    pub(super) fn gather(address: SocketAddr) -> Result<Self> {
        let mut ids = Vec::new();
        let clients = Idlers::gather(LEFT_OUT, |_| {
            let (mut socket, early) = connect::to_hub(address, HUB, "")?;
            let (answer, early) = call(&mut socket, early, WHO_AM_I, Hub::Json)?;
            let answer: serde_json::Value = serde_json::from_slice(answer.strip_suffix(b"\x1e").unwrap_or(&answer))?;
            let id = answer.pointer("/result/connectionId").and_then(|id| id.as_str());
            ids.push(id.context("a client is not told its id")?.to_owned());
            Ok((socket, Hub::Json, early))
        })?;
        Ok(Self { clients, ids })
    }

    pub(super) fn ids(&self) -> &[String] {
        &self.ids
    }

    /// Checks that only pings have arrived.
    pub(super) fn inspect(&mut self) -> Result<()> {
        self.clients.inspect().context("clients that are left out")
    }
}
