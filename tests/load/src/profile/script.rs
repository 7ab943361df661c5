//! Execution of a profile file: each client runs its steps.
//!
//! Counts one answer per call, and the messages named by each `expect`. Calls of a repeated step are sent on schedule,
//! whether or not earlier ones are answered.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::clock::{SECOND_US, counts_from};
use crate::connection::{Connection, Receiver};
use crate::engine::{Harvest, Part, Profile, admit};
use crate::ledger::Counts;
use crate::profile::script_file::{Blanks, Invoke, ScriptFile, Step, Times};
use crate::run::Run;
use crate::stamp::Stamp;

#[derive(Debug)]
pub(crate) struct Script {
    run: Rc<Run>,
    file: ScriptFile,
    actors: Vec<Actor>,
    counts: RefCell<Counts>,
    /// Messages still awaited. After an early end, their outcome is unknown.
    open: Cell<u64>,
    missing: RefCell<Vec<String>>,
}

#[derive(Debug, Default)]
struct Actor {
    /// Invocations by the server not consumed by an `expect`, by method.
    heard: RefCell<HashMap<String, u64>>,
    hears: Notify,
    calls: Cell<u64>,
}

impl Script {
    pub(crate) fn new(run: Rc<Run>, file: ScriptFile) -> Rc<Self> {
        let actors = (0..run.client_count()).map(|_| Actor::default()).collect();
        Rc::new(Self { run, file, actors, counts: RefCell::default(), open: Cell::new(0), missing: RefCell::default() })
    }

    async fn act(self: Rc<Self>, client: usize, until_us: u64) {
        let mut endless = JoinSet::new();
        for step in self.file.steps.clone() {
            if self.run.clock.now_us() >= until_us {
                break;
            }
            match step {
                Step::Connect {} => {
                    if self.run.connection(client).is_none() && !admit(&self, client).await {
                        return;
                    }
                }
                Step::Invoke(invoke) if matches!(invoke.times, Times::Endless(_)) => {
                    endless.spawn_local(Rc::clone(&self).invoke(client, invoke, u64::MAX, until_us));
                }
                Step::Invoke(invoke) => {
                    let times = if let Times::Count(times) = invoke.times { times } else { 1 };
                    Rc::clone(&self).invoke(client, invoke, times, until_us).await;
                }
                Step::Wait { ms } => sleep(Duration::from_millis(ms)).await,
                Step::Expect { method, times, within_ms } => self.expect(client, &method, times, within_ms).await,
                Step::Close {} => {
                    if let Some(connection) = self.run.connection(client) {
                        self.run.set_connection(client, None);
                        connection.close();
                    }
                }
            }
        }
        endless.join_all().await;
    }

    /// Calls repeatedly and waits for all answers.
    async fn invoke(self: Rc<Self>, client: usize, invoke: Invoke, times: u64, until_us: u64) {
        let mut answering = JoinSet::new();
        let mut due_us = self.run.clock.now_us();
        for _ in 0..times {
            if due_us >= until_us {
                break;
            }
            self.run.clock.wait_until(due_us).await;
            let Some(connection) = self.run.connection(client) else { break };
            answering.spawn_local(Rc::clone(&self).call(client, connection, invoke.clone(), due_us));
            while answering.try_join_next().is_some() {}
            due_us = due_us.saturating_add(invoke.interval_ms.unwrap_or(0) * (SECOND_US / 1_000));
        }
        answering.join_all().await;
    }

    async fn call(self: Rc<Self>, client: usize, connection: Rc<Connection>, invoke: Invoke, due_us: u64) {
        let now_us = self.run.clock.now_us();
        let from_us = counts_from(due_us, now_us);
        let blanks = self.blanks(client, from_us);
        let arguments: Vec<_> = invoke.arguments.iter().map(|argument| blanks.fill(argument)).collect();
        self.run.tally().sent(now_us, due_us);
        self.count(|counts| (counts.sent, counts.expected) = (counts.sent + 1, counts.expected + 1));
        self.open.update(|open| open + 1);
        let result = self.run.call(&connection, &invoke.method, &arguments).await;
        self.open.update(|open| open - 1);
        if result.is_some() {
            let now_us = self.run.clock.now_us();
            self.run.tally().received(now_us, now_us - from_us);
            self.count(|counts| counts.received += 1);
        }
    }

    fn blanks(&self, client: usize, from_us: u64) -> Blanks {
        let number = self.actors.get(client).map_or(0, |actor| actor.calls.replace(actor.calls.get() + 1));
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let stamp = Stamp { room: 0, sender: small(client as u64), number: small(number), from_us };
        Blanks {
            run: self.run.id.to_string(),
            client: client as u64,
            group: self.run.index(client) as u64 % u64::from(self.run.arguments.groups) + 1,
            number,
            stamp: stamp.text(self.run.id, self.run.arguments.payload as usize),
        }
    }

    async fn expect(&self, client: usize, method: &str, times: u64, within_ms: u64) {
        let Some(actor) = self.actors.get(client) else { return };
        self.count(|counts| counts.expected += times);
        let all = async {
            while actor.heard.borrow().get(method).is_none_or(|&heard| heard < times) {
                actor.hears.notified().await;
            }
        };
        // Missing messages are counted, so a timeout is not an error.
        self.open.update(|open| open + times);
        let _ = timeout(Duration::from_millis(within_ms), all).await;
        self.open.update(|open| open - times);
        let mut heard = actor.heard.borrow_mut();
        let left = heard.entry(method.to_owned()).or_default();
        let came = times.min(*left);
        *left -= came;
        self.count(|counts| counts.received += came);
        if came < times {
            let line = format!("client {client} waits for {times} of {method}, and gets {came}");
            self.missing.borrow_mut().push(line);
        }
    }

    fn count(&self, act: impl FnOnce(&mut Counts)) {
        act(&mut self.counts.borrow_mut());
    }
}

impl Receiver for Script {
    fn invoked(&self, client: usize, connection: &Rc<Connection>, body: &[u8]) {
        let (Some((method, _)), Some(actor)) = (connection.decode(body), self.actors.get(client)) else { return };
        *actor.heard.borrow_mut().entry(method.to_string()).or_default() += 1;
        actor.hears.notify_one();
        if let Some(stamp) = self.run.stamps.find(body) {
            let now_us = self.run.clock.now_us();
            self.run.tally().received(now_us, now_us.saturating_sub(stamp.from_us));
        }
    }

    fn answered_again(&self, _: usize) {
        self.count(|counts| counts.duplicated += 1);
    }
}

impl Profile for Script {
    fn run(&self) -> &Rc<Run> {
        &self.run
    }

    async fn join(&self, _: usize, _: &Rc<Connection>) -> bool {
        true
    }

    fn left(&self, _: usize) {}

    async fn work(self: Rc<Self>, until_us: u64) {
        let mut acting = JoinSet::new();
        for client in 0..self.run.client_count() {
            if self.run.connection(client).is_some() {
                acting.spawn_local(Rc::clone(&self).act(client, until_us));
            }
        }
        acting.join_all().await;
        self.run.clock.wait_until(until_us).await;
    }

    fn is_complete(&self) -> bool {
        true
    }

    async fn close_books(&self, _: Part) {}

    fn harvest(&self) -> Harvest {
        let counts = *self.counts.borrow();
        let expected = counts.expected - self.open.get();
        let counts = Counts { expected, lost: expected - counts.received, ..counts };
        let missing = self.missing.borrow().iter().take(20).cloned().collect();
        Harvest { counts, missing, ..Harvest::default() }
    }
}
