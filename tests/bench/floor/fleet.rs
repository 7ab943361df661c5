//! The two crowds of a run, each with its server. Ended on drop, and with this process.

use std::time::Duration;

use anyhow::Result;
use trunkline_bench::child::Speaker;

use crate::arguments::At;
use crate::crowd::Window;
use crate::part::Part;
use crate::settings::Settings;
use crate::transport::Transport;

#[derive(Debug)]
pub(crate) struct Fleet {
    base: Speaker,
    subject: Speaker,
}

impl Fleet {
    /// Starts everything and connects all clients.
    pub(crate) fn start(settings: &Settings) -> Result<Self> {
        let at = if settings.compares_proxies() { At::Proxy } else { At::Floor };
        let base =
            Settings { stalled: 0, idle: 0, singly: false, transport: Transport::WebSockets, ..settings.clone() };
        Ok(Self { base: crowd(at, &base)?, subject: crowd(At::Proxy, settings)? })
    }

    pub(crate) fn measure(&mut self, part: Part, length: Duration) -> Result<Window> {
        let crowd = match part {
            Part::Base | Part::BaseAgain => &mut self.base,
            Part::Subject => &mut self.subject,
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
    let (rate, stalled) = (rate.map(|rate| rate.to_string()), settings.stalled.to_string());
    let (burst, idle) = (settings.burst.to_string(), settings.idle.to_string());
    let (links, proxies) = (settings.links.to_string(), settings.proxies.to_string());
    arguments.extend(["--stalled", &stalled, "--idle", &idle, "--burst", &burst, "--work", settings.work.name()]);
    arguments.extend(["--to", settings.to.name(), "--speech", settings.speech.name()]);
    arguments.extend(["--transport", settings.transport.name()]);
    arguments.extend(["--links", &links, "--proxies", &proxies]);
    let under_way = settings.under_way.to_string();
    arguments.extend(["--under-way", &under_way]);
    if settings.pinned {
        arguments.push("--pinned");
    }
    if settings.singly {
        arguments.push("--singly");
    }
    if let Some(rate) = &rate {
        arguments.extend(["--rate", rate]);
    }
    Speaker::start(name, &arguments)
}
