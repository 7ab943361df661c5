//! *echo* and *shared echo*: the server sends each client pings at an interval, and the client answers immediately.
//!
//! The server measures round trips, and each ping reports the ones completed since the previous ping. Both ends count:
//! the server counts sent pings and received answers, the client received pings. In the shared kind, the answer
//! contains the connection id, and the server looks it up.

use std::cell::RefCell;
use std::rc::Rc;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::connection::{Connection, Receiver};
use crate::engine::{Harvest, Part, Profile};
use crate::ledger::Counts;
use crate::published::{Figure, Mean, Published};
use crate::run::Run;
use crate::tracks::{Arrival, Tracks};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EchoKind {
    Own,
    Shared,
}

/// Counts of one client and its server.
#[derive(Debug, Default)]
struct Asked {
    /// Connection id of the first ping, which all others must have.
    id: Option<String>,
    tracks: Option<Tracks>,
    latency: Mean,
    /// Distinct pings that were received and answered.
    pings_received: u64,
    duplicated: u64,
    reordered: u64,
    misdelivered: u64,
    /// Final counts of the server.
    pings_sent: Option<u64>,
    pongs_received: Option<u64>,
}

impl Asked {
    /// Records a received ping. Returns whether to answer it.
    fn arrived(&mut self, id: &str, sequence: u32) -> bool {
        if self.id.get_or_insert_with(|| id.to_owned()) != id {
            self.misdelivered += 1;
            return false;
        }
        match self.tracks.get_or_insert_with(|| Tracks::from_now(&[0])).arrived(0, sequence) {
            Arrival::InOrder => {}
            Arrival::Late => self.reordered += 1,
            Arrival::Duplicate => {
                self.duplicated += 1;
                return false;
            }
            Arrival::Unexpected => {
                self.misdelivered += 1;
                return false;
            }
        }
        self.pings_received += 1;
        true
    }

    fn counts(&self) -> Counts {
        // The server reports nothing about a lost client; the lost connection is counted separately.
        let pings_sent = self.pings_sent.unwrap_or(self.pings_received);
        let pongs_received = self.pongs_received.unwrap_or(self.pings_received);
        let (sent, received) = (pings_sent + self.pings_received, self.pings_received + pongs_received);
        Counts {
            sent,
            expected: sent,
            received,
            lost: sent.saturating_sub(received),
            duplicated: self.duplicated,
            reordered: self.reordered,
            misdelivered: self.misdelivered,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Echo {
    run: Rc<Run>,
    kind: EchoKind,
    asked: RefCell<Vec<Asked>>,
}

impl Echo {
    pub(crate) fn new(run: Rc<Run>, kind: EchoKind) -> Rc<Self> {
        let asked = (0..run.client_count()).map(|_| Asked::default()).collect();
        Rc::new(Self { asked: RefCell::new(asked), kind, run })
    }

    fn with<T>(&self, client: usize, act: impl FnOnce(&mut Asked) -> T) -> Option<T> {
        self.asked.borrow_mut().get_mut(client).map(act)
    }

    fn answer(&self, connection: &Connection, id: &Value, sequence: &Value, micros: &Value) {
        match self.kind {
            EchoKind::Own => connection.send("Pong", &[sequence.clone(), micros.clone()]),
            EchoKind::Shared => connection.send("SharedPong", &[id.clone(), sequence.clone(), micros.clone()]),
        }
    }

    fn took(&self, client: usize, latencies: &Value) {
        let (now_us, mut tally) = (self.run.clock.now_us(), self.run.tally());
        for latency_us in latencies.as_array().into_iter().flatten().filter_map(Value::as_u64) {
            tally.received(now_us, latency_us);
            self.with(client, |asked| asked.latency.add(latency_us));
        }
    }

    /// Calls a method for all connected clients simultaneously.
    async fn ask_all(&self, method: &'static str, arguments: &[Value]) -> Vec<(usize, Option<Value>)> {
        let mut asking = JoinSet::new();
        for (client, connection) in self.run.connected() {
            let (run, arguments) = (Rc::clone(&self.run), arguments.to_vec());
            asking.spawn_local(async move { (client, run.call(&connection, method, &arguments).await) });
        }
        asking.join_all().await
    }

    fn stopped(&self, client: usize, result: &Value) {
        let count = |name: &str| result.get(name).and_then(Value::as_u64).unwrap_or(0);
        self.with(client, |asked| {
            asked.pongs_received = Some(count("pongs"));
            asked.duplicated += count("duplicated");
            asked.reordered += count("reordered");
            asked.misdelivered += count("misdelivered");
        });
        self.took(client, result.get("latenciesMicros").unwrap_or(&Value::Null));
    }
}

impl Receiver for Echo {
    fn invoked(&self, client: usize, connection: &Rc<Connection>, body: &[u8]) {
        let Some((target, arguments)) = connection.decode(body) else { return };
        let ("Ping", [id, sequence, micros, latencies]) = (&*target, arguments.as_slice()) else { return };
        let number = sequence.as_u64().and_then(|sequence| u32::try_from(sequence).ok());
        let (Some(text), Some(number)) = (id.as_str(), number) else { return };
        if self.with(client, |asked| asked.arrived(text, number)) == Some(true) {
            self.answer(connection, id, sequence, micros);
            self.run.tally().answered(self.run.clock.now_us());
            self.took(client, latencies);
        }
    }
}

impl Profile for Echo {
    fn run(&self) -> &Rc<Run> {
        &self.run
    }

    async fn join(&self, _: usize, _: &Rc<Connection>) -> bool {
        true
    }

    fn left(&self, _: usize) {}

    async fn work(self: Rc<Self>, until_us: u64) {
        self.ask_all("StartEcho", &[json!(self.run.arguments.interval)]).await;
        self.run.clock.wait_until(until_us).await;
    }

    fn is_complete(&self) -> bool {
        let asked = self.asked.borrow();
        asked.iter().all(|asked| asked.pings_sent.is_none_or(|sent| sent == asked.pings_received))
    }

    async fn close_books(&self, part: Part) {
        match part {
            Part::Stop => {
                for (client, result) in self.ask_all("PauseEcho", &[]).await {
                    self.with(client, |asked| asked.pings_sent = result.and_then(|result| result.as_u64()));
                }
            }
            // The last answers were written before this call over the same connections, so they are counted before it.
            Part::Count => {
                for (client, result) in self.ask_all("StopEcho", &[]).await {
                    if let Some(result) = result {
                        self.stopped(client, &result);
                    }
                }
            }
        }
    }

    fn harvest(&self) -> Harvest {
        let asked = self.asked.borrow();
        let mut counts = Counts::default();
        asked.iter().for_each(|asked| counts += asked.counts());
        let missing = asked.iter().enumerate().filter(|(_, asked)| asked.counts().lost > 0).take(20);
        let missing =
            missing.map(|(client, asked)| format!("client {client} misses {}", asked.counts().lost)).collect();
        let published = Published::of(Figure::EchoLatency, asked.iter().map(|asked| asked.latency));
        Harvest { counts, missing, published: Some(published), ..Harvest::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(log: &[(&str, u32)]) -> Asked {
        let mut asked = Asked::default();
        log.iter().for_each(|(id, sequence)| _ = asked.arrived(id, *sequence));
        asked
    }

    #[test]
    fn a_question_that_is_lost_is_missed_even_if_it_was_the_last() {
        let mut asked = asked(&[("a", 0), ("a", 1)]);
        (asked.pings_sent, asked.pongs_received) = (Some(3), Some(2));
        assert_eq!(asked.counts(), Counts { sent: 5, expected: 5, received: 4, lost: 1, ..Counts::default() });
    }

    #[test]
    fn an_answer_that_is_lost_is_missed() {
        let mut asked = asked(&[("a", 0), ("a", 1)]);
        (asked.pings_sent, asked.pongs_received) = (Some(2), Some(1));
        assert_eq!(asked.counts().lost, 1);
    }

    #[test]
    fn each_fault_is_told_from_the_others() {
        let asked = asked(&[("a", 1), ("a", 0), ("a", 0), ("b", 2)]);
        let counts = asked.counts();
        assert_eq!((counts.reordered, counts.duplicated, counts.misdelivered, counts.lost), (1, 1, 1, 0));
    }
}
