//! Client that sends numbered messages to everyone, to groups and to single clients, one call after another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use trunkline_tests::harness::raw::{RECORD_SEPARATOR, RawClient};

use crate::ledger::{Audience, Fate, SentMessages};
use crate::world::World;

/// Time limit for a call to be answered or to fail.
const ANSWER_PATIENCE: Duration = Duration::from_secs(90);

const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
const CONNECT_PAUSE: Duration = Duration::from_millis(100);

/// Sends until the run becomes quiet.
pub(crate) async fn speak(world: Arc<World>, number: usize, pause: Duration) {
    let mut at = number;
    while !world.is_quiet() {
        let proxy = at % world.proxies.len();
        if let Ok(Ok(client)) = timeout(CONNECT_PATIENCE, RawClient::join(world.proxy(proxy), "/bench")).await {
            let sent = world.ledger.begin();
            let speaking = Speaking { world: &world, client, sent: &sent, calls: 0 };
            if speaking.run(number, pause).await.is_err() {
                world.tally.disconnected(proxy);
            }
        }
        at += 1;
        sleep(CONNECT_PAUSE).await;
    }
}

/// Last text that each app server broadcasts.
pub(crate) const FENCE: &str = "fence";

/// Makes each app server broadcast a fence after everything else that it has sent.
///
/// A proxy uses its links in turn, so as many clients as links reach every app server.
pub(crate) async fn broadcast_fences(world: &World) -> Result<()> {
    let mut clients = Vec::new();
    for _ in 0..world.fences {
        clients.push(RawClient::join(world.proxy(0), "/bench").await?);
    }
    for client in &mut clients {
        client.call("Broadcast", json!([FENCE])).await?;
    }
    Ok(())
}

struct Speaking<'a> {
    world: &'a World,
    client: RawClient,
    sent: &'a SentMessages,
    calls: usize,
}

impl Speaking<'_> {
    /// Returns an error when the connection ends.
    async fn run(mut self, offset: usize, pause: Duration) -> Result<()> {
        let mut turns = interval(pause);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.world.is_quiet() {
            turns.tick().await;
            let (audience, target, first) = self.choose(self.calls * 31 + offset);
            let number = self.sent.send(audience);
            let text = json!(format!("{} {number}", self.sent.id));
            let arguments: Vec<Value> = first.into_iter().chain([text]).collect();
            let fate = self.call(target, &json!(arguments)).await;
            self.sent.settle(number, *fate.as_ref().unwrap_or(&Fate::Unknown));
            fate?;
        }
        Ok(())
    }

    /// Next audience: all kinds in turn.
    fn choose(&self, chance: usize) -> (Audience, &'static str, Option<Value>) {
        let group = chance % self.world.groups();
        let to_group = (Audience::Group(group), "SendToGroup", Some(json!(format!("group {group}"))));
        match self.calls % 3 {
            0 => (Audience::All, "Broadcast", None),
            1 => to_group,
            _ => match self.world.somebody(chance) {
                Some((id, audience)) => (audience, "SendTo", Some(json!(id))),
                None => to_group,
            },
        }
    }

    async fn call(&mut self, target: &str, arguments: &Value) -> Result<Fate> {
        let id = self.calls.to_string();
        self.calls += 1;
        let call = json!({ "type": 1, "invocationId": id, "target": target, "arguments": arguments });
        let counts = &self.world.tally.calls;
        let bump = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        let client = &mut self.client;
        let answer = timeout(ANSWER_PATIENCE, async {
            client.send_text(format!("{call}{RECORD_SEPARATOR}")).await?;
            loop {
                let record = client.next_record().await?;
                match (record["type"].as_u64(), record["invocationId"].as_str()) {
                    (Some(3), Some(answered)) if answered == id => return Ok(record),
                    (Some(3), _) => drop(bump(&counts.answered_twice)),
                    (Some(7), _) => bail!("told to leave"),
                    _ => {}
                }
            }
        });
        match answer.await {
            Ok(Ok(record)) if record.get("error").is_none() => {
                bump(&counts.answered);
                Ok(Fate::Confirmed)
            }
            Ok(Ok(_)) => {
                bump(&counts.failed);
                Ok(Fate::Unknown)
            }
            Ok(Err(error)) => {
                bump(&counts.cut_short);
                Err(error)
            }
            Err(late) => {
                bump(&counts.silent);
                Err(late.into())
            }
        }
    }
}
