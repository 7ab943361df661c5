//! A client that listens, sends numbers of its own, and comes back whenever it is sent away.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::time::{interval, sleep, timeout};
use trunkline_tests::raw::{RECORD_SEPARATOR, RawClient};

use crate::ledger::Hearing;
use crate::world::{Act, World};

/// How long a try to connect may take, and the pause before the next one.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
const CONNECT_PAUSE: Duration = Duration::from_millis(100);

/// One connection of a client.
struct Life {
    client: RawClient,
    hearing: Hearing,
    /// Numbers that it sent, and the next that is due to come back.
    sent: u64,
    echoed: u64,
}

/// Lives again and again until the run is over.
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

/// Connects, at one proxy after the other; `None` when the run is over before.
async fn come(world: &Arc<World>, number: usize, life: u32, first: usize) -> Option<(Life, usize)> {
    for proxy in first.. {
        if world.is_over() {
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
    let hearing = Hearing::begin(&world.ledger, number, life, group);
    world.enrol(number, Some((id, life)));
    Ok(Life { client, hearing, sent: 0, echoed: 0 })
}

impl Life {
    /// Whether it lasted until the run was over.
    async fn run(mut self, world: &World, echo_interval: Duration) -> bool {
        let mut echoes = interval(echo_interval);
        let is_whole = loop {
            tokio::select! {
                () = world.reached(Act::Over) => break true,
                record = self.client.next_record() => match record {
                    Ok(record) => self.take(world, &record),
                    Err(_) => break false,
                },
                _ = echoes.tick() => {
                    if *world.act.borrow() == Act::Playing && self.send_number().await.is_err() {
                        break false;
                    }
                }
            }
        };
        world.tally.lost(self.hearing.lost(is_whole));
        if is_whole {
            world.tally.lost_upward(self.sent - self.echoed);
        }
        is_whole
    }

    async fn send_number(&mut self) -> Result<()> {
        let call = json!({ "type": 1, "target": "EchoBack", "arguments": [self.sent] });
        self.client.send_text(format!("{call}{RECORD_SEPARATOR}")).await?;
        self.sent += 1;
        Ok(())
    }

    fn take(&mut self, world: &World, record: &Value) {
        let argument = &record["arguments"][0];
        match record["target"].as_str() {
            Some("Echoed") => {
                // What comes twice, or too early, is told from what is lost by nobody here: both are wrong.
                let number = argument.as_u64().unwrap_or(u64::MAX);
                world.tally.lost_upward(number.abs_diff(self.echoed));
                self.echoed = number.saturating_add(1);
            }
            Some("Message") => {
                let text = argument.as_str().unwrap_or_default();
                let numbers =
                    text.split_once(' ').and_then(|(speech, n)| Some((speech.parse().ok()?, n.parse().ok()?)));
                if let Some((speech, number)) = numbers {
                    world.tally.arrived(self.hearing.hear(speech, number));
                }
            }
            // A close: the end of the socket follows.
            _ => {}
        }
    }
}
