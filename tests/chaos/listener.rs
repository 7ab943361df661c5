//! Client that listens, sends numbers itself, and reconnects whenever its connection ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::time::{interval, sleep, timeout};
use trunkline_tests::harness::raw::{RECORD_SEPARATOR, RawClient};

use crate::ledger::{Arrival, ReceivedMessages};
use crate::speaker::FENCE;
use crate::world::World;

/// Time limit of a connect, and pause before the next one.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
const CONNECT_PAUSE: Duration = Duration::from_millis(100);

/// One connection of a client.
struct Life {
    client: RawClient,
    received: ReceivedMessages,
    /// Number to be echoed next, and the send times of it and later ones.
    echoed: u64,
    under_way: VecDeque<Instant>,
    fences: usize,
}

/// Connects again and again until everything has arrived.
pub(crate) async fn listen(world: Arc<World>, number: usize, echo_interval: Duration) {
    let mut at = number % world.proxies.len();
    let mut gone: Option<Instant> = None;
    for life in 0.. {
        let Some((begun, proxy)) = come(&world, number, life, at).await else { return };
        if let Some(gone) = gone {
            world.tally.recovered(gone.elapsed());
        }
        world.tally.here.fetch_add(1, Ordering::SeqCst);
        let is_whole = begun.run(&world, echo_interval).await;
        world.tally.here.fetch_sub(1, Ordering::SeqCst);
        world.enrol(number, None);
        if is_whole {
            return;
        }
        world.tally.disconnected(proxy);
        gone = Some(Instant::now());
        at = (proxy + 1) % world.proxies.len();
    }
}

/// Connects to the proxies in turn. Returns `None` if the run becomes quiet first.
async fn come(world: &Arc<World>, number: usize, life: u32, first: usize) -> Option<(Life, usize)> {
    for proxy in first.. {
        if world.is_quiet() {
            return None;
        }
        let proxy = proxy % world.proxies.len();
        if let Ok(Ok(life)) = timeout(CONNECT_PATIENCE, begin(world, number, life, proxy)).await {
            return Some((life, proxy));
        }
        sleep(CONNECT_PAUSE).await;
    }
    None
}

async fn begin(world: &Arc<World>, number: usize, life: u32, proxy: usize) -> Result<Life> {
    let mut client = RawClient::join(world.proxy(proxy), "/bench").await?;
    let who = client.call("WhoAmI", json!([])).await?;
    let id = who["result"]["connectionId"].as_str().context("a connection id")?.to_owned();
    let group = world.group_of(number);
    client.call("Join", json!([format!("group {group}")])).await?;
    let received = ReceivedMessages::begin(&world.ledger, number, life, group);
    world.enrol(number, Some((id, life)));
    Ok(Life { client, received, echoed: 0, under_way: VecDeque::new(), fences: world.fences })
}

impl Life {
    /// Runs until everything has arrived: all fences, and the last number sent. Returns whether the connection lasted
    /// that long.
    async fn run(mut self, world: &World, echo_interval: Duration) -> bool {
        let mut echoes = interval(echo_interval);
        let mut is_last_sent = false;
        let is_whole = loop {
            if is_last_sent && self.fences == 0 && self.under_way.is_empty() {
                break true;
            }
            tokio::select! {
                () = world.quiet(), if !is_last_sent => {
                    is_last_sent = true;
                    if self.send_number().await.is_err() {
                        break false;
                    }
                }
                record = self.client.next_record() => match record {
                    Ok(record) => self.take(world, &record),
                    Err(_) => break false,
                },
                _ = echoes.tick(), if !is_last_sent => {
                    if self.send_number().await.is_err() {
                        break false;
                    }
                }
            }
        };
        self.received.lost(is_whole).into_iter().for_each(|confirmed| world.tally.lost(confirmed));
        is_whole
    }

    async fn send_number(&mut self) -> Result<()> {
        let number = self.echoed + self.under_way.len() as u64;
        let call = json!({ "type": 1, "target": "EchoBack", "arguments": [number] });
        self.under_way.push_back(Instant::now());
        self.client.send_text(format!("{call}{RECORD_SEPARATOR}")).await
    }

    fn take(&mut self, world: &World, record: &Value) {
        let argument = &record["arguments"][0];
        match record["target"].as_str() {
            Some("Echoed") => {
                let number = argument.as_u64().unwrap_or(u64::MAX);
                if number < self.echoed {
                    world.tally.arrived(Arrival::Duplicate);
                }
                while self.echoed < number
                    && let Some(sent) = self.under_way.pop_front()
                {
                    world.tally.lost_upward(sent);
                    self.echoed += 1;
                }
                if number == self.echoed && self.under_way.pop_front().is_some() {
                    self.echoed += 1;
                }
            }
            Some("Message") if *argument == FENCE => self.fences = self.fences.saturating_sub(1),
            Some("Message") => {
                let text = argument.as_str().unwrap_or_default();
                let numbers = text.split_once(' ').and_then(|(sent, n)| Some((sent.parse().ok()?, n.parse().ok()?)));
                if let Some((sent, number)) = numbers {
                    world.tally.arrived(self.received.receive(sent, number));
                }
            }
            // The message is a close, so the socket ends next.
            _ => {}
        }
    }
}
