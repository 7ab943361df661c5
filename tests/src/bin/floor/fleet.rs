//! The two crowds of a run, each with the server that it is at. They end with this value, or with this process.

use std::time::Duration;

use anyhow::Result;
use trunkline_tests::bench::process::Speaker;

use crate::Settings;
use crate::crowd::{At, Window};

/// Both crowds.
#[derive(Debug)]
pub(crate) struct Fleet {
    floor: Speaker,
    proxy: Speaker,
}

impl Fleet {
    /// Starts everything and connects all clients.
    pub(crate) fn start(settings: &Settings) -> Result<Self> {
        Ok(Self { floor: crowd(At::Floor, settings)?, proxy: crowd(At::Proxy, settings)? })
    }

    /// Measures one window.
    pub(crate) fn measure(&mut self, at: At, length: Duration) -> Result<Window> {
        let crowd = match at {
            At::Floor => &mut self.floor,
            At::Proxy => &mut self.proxy,
        };
        Ok(serde_json::from_str(&crowd.ask(&length.as_millis().to_string())?)?)
    }
}

fn crowd(at: At, settings: &Settings) -> Result<Speaker> {
    let (at, name) = match at {
        At::Floor => ("floor", "crowd at the floor"),
        At::Proxy => ("proxy", "crowd at the proxy"),
    };
    let Settings { clients, payload, shards, rate, .. } = settings;
    let [clients, payload, shards] = [clients.to_string(), payload.to_string(), shards.to_string()];
    let mut arguments = vec!["crowd", "--at", at, "--clients", &clients, "--payload", &payload, "--shards", &shards];
    let rate = rate.map(|rate| rate.to_string());
    if let Some(rate) = &rate {
        arguments.extend(["--rate", rate]);
    }
    Speaker::start(name, &arguments)
}
