//! Schedule: some seconds of traffic and faults, then a calm phase until everything has arrived.

use trunkline_protocol::service::{Class, SessionId};

use crate::ledger::{Check, Violation, broken};
use crate::mutant::Mutant;
use crate::slot::{APP, PROXY, Reason, WINDOW_MS};
use crate::world::World;

/// Steps of a schedule before the calm phase.
const STEPS: u64 = 150;
/// Time limit of the calm phase: dead sockets are detected, lost sessions ended, links redialled.
const CALM_MS: u64 = 12 * WINDOW_MS;

/// Percentage of schedules that idle after the calm phase.
const IDLE_PERCENT: u64 = 10;

/// Counts of a schedule, to detect schedules without events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Frames that were queued.
    pub queued: u64,
    /// Frames that were delivered.
    pub delivered: u64,
    /// Sessions resumed over another socket.
    pub resumed: u64,
    /// Sessions ended by an end.
    pub ended: u64,
    /// Sessions ended by the proxy after the window.
    pub window_passed: u64,
    /// Sessions ended by the app server, because its ring was full or the proxy was silent for two windows.
    pub given_up: u64,
}

impl std::ops::Add for Outcome {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            queued: self.queued + other.queued,
            delivered: self.delivered + other.delivered,
            resumed: self.resumed + other.resumed,
            ended: self.ended + other.ended,
            window_passed: self.window_passed + other.window_passed,
            given_up: self.given_up + other.given_up,
        }
    }
}

/// Runs the schedule of a seed.
///
/// # Errors
/// The broken rule.
pub fn run(seed: u64, mutant: Option<Mutant>, is_traced: bool) -> Result<Outcome, Violation> {
    let mut world = World::new(seed, mutant, is_traced);
    // Some schedules have few faults on purpose: rare faults reveal other bugs than frequent ones.
    let harm = [0, 1, 4, 12][world.random.index(4)];
    for _ in 0..STEPS {
        let by_ms = match world.random.below(100) {
            0..60 => world.random.below(4),
            60..90 => world.random.below(60),
            90..98 => world.random.below(400),
            _ => world.random.below(2_500),
        };
        world.advance(by_ms)?;
        if world.random.percent(harm) {
            world.harm();
        }
        world.work()?;
    }
    world.calm()?;
    Ok(world.outcome())
}

impl World {
    /// Performs actions at random ends of random slots.
    fn work(&mut self) -> Check {
        for slot in 0..self.slots.len() {
            for end in [PROXY, APP] {
                if !self.is_awake(end) || self.random.percent(30) {
                    continue;
                }
                let acts = self.random.next();
                if acts & 3 == 0 {
                    self.push(slot, end)?;
                }
                if acts & 4 == 0 {
                    self.transmit(slot, end)?;
                }
                if acts & 8 == 0 {
                    self.read(slot, end)?;
                }
                if acts & 16 == 0 {
                    self.take(slot, end);
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, index: usize, end: usize) -> Check {
        for _ in 0..1 + self.random.below(6) {
            let class = if self.random.percent(15) { Class::Reserved } else { Class::Ordinary };
            let padding = self.random.index(60);
            let (slot, mut around) = self.parts(index, end);
            if let Some(held) = slot.held[end].as_mut() {
                held.push(class, padding, &mut around)?;
                held.check_ring(around.now_ms);
            }
        }
        Ok(())
    }

    fn take(&mut self, slot: usize, end: usize) {
        let (now_ms, count) = (self.now_ms, self.random.index(8));
        if let Some(held) = self.slots[slot].held[end].as_mut() {
            held.take(count, now_ms);
        }
    }

    fn harm(&mut self) {
        let slot = self.random.index(self.slots.len());
        match self.random.below(15) {
            12 => self.begin_pool(),
            13..15 => self.refuse(slot),
            0..6 => self.cut(slot),
            6..8 => self.stall(slot),
            8 => self.freeze(PROXY),
            9 => self.freeze(APP),
            10 => self.restart_proxy(),
            _ => self.restart_app(),
        }
    }

    fn cut(&mut self, slot: usize) {
        let now_ms = self.now_ms;
        self.note(|| format!("slot {slot}: cut"));
        if let Some(socket) = self.slots[slot].sockets.last_mut() {
            socket.cut(now_ms, &mut self.random);
        }
    }

    fn stall(&mut self, slot: usize) {
        let until_ms = self.now_ms + self.random.below(3 * WINDOW_MS);
        self.note(|| format!("slot {slot}: stalled until {until_ms}"));
        if let Some(socket) = self.slots[slot].sockets.last_mut() {
            socket.stall(until_ms);
        }
    }

    fn freeze(&mut self, end: usize) {
        self.frozen[end].times += 1;
        self.frozen_until_ms[end] = self.now_ms + 1 + self.random.below(4 * WINDOW_MS);
        self.note(|| format!("end {end} is frozen until {}", self.frozen_until_ms[end]));
    }

    fn restart_proxy(&mut self) {
        self.note(|| "the proxy restarts".into());
        self.boot += 1;
        self.pool = 0;
        self.restart(PROXY);
        self.begin_sessions();
    }

    /// Begins a session of the proxy's pool in each slot.
    fn begin_sessions(&mut self) {
        let first = SessionId::first_of(self.pool);
        for index in 0..self.slots.len() {
            let instance = self.instance;
            let (slot, mut around) = self.parts(index, PROXY);
            (slot.pending, slot.dial_at_ms, slot.instance) = (None, around.now_ms, instance);
            slot.begin(first, &mut around);
        }
    }

    /// The proxy gives up the app server, whose process goes on, and finds it again.
    fn begin_pool(&mut self) {
        self.note(|| "the proxy begins a new pool".into());
        if self.mutant != Some(Mutant::RestartsNumbers) {
            self.pool += 1;
        }
        self.kill_sessions(PROXY);
        self.begin_sessions();
    }

    /// The way to the app server refuses dials of a slot.
    fn refuse(&mut self, slot: usize) {
        let until_ms = self.now_ms + self.random.below(6 * WINDOW_MS);
        self.note(|| format!("slot {slot}: dials are refused until {until_ms}"));
        self.slots[slot].refused_until_ms = until_ms;
    }

    fn restart_app(&mut self) {
        self.note(|| "the app server restarts".into());
        self.instance += 1;
        self.restart(APP);
        self.slots.iter_mut().for_each(|slot| (slot.boot, slot.newest) = (0, None));
    }

    /// Kills a process: its sessions vanish and its sockets end.
    fn restart(&mut self, end: usize) {
        let now_ms = self.now_ms;
        (self.frozen_until_ms[end], self.thawed_ms[end]) = (now_ms, now_ms);
        self.kill_sessions(end);
    }

    fn kill_sessions(&mut self, end: usize) {
        let now_ms = self.now_ms;
        for slot in &mut self.slots {
            if let Some(link) = slot.held[end].take().and_then(|held| held.link) {
                slot.sockets[link.socket].close(end, now_ms, &mut self.random);
            }
        }
    }

    /// Stops the faults: within limited time both ends of each slot must share a session, with nothing in flight.
    fn calm(&mut self) -> Check {
        self.is_calm = true;
        self.slots.iter_mut().for_each(|slot| slot.refused_until_ms = 0);
        for end in [PROXY, APP] {
            self.frozen_until_ms[end] = self.frozen_until_ms[end].min(self.now_ms + 1);
        }
        let until_ms = self.now_ms + CALM_MS;
        self.note(|| "calm".into());
        while self.now_ms < until_ms {
            self.settle(20)?;
            if self.is_settled() {
                return if self.random.percent(IDLE_PERCENT) { self.idle() } else { Ok(()) };
            }
        }
        broken(format!("after {CALM_MS} ms of calm not everything has arrived"))
    }

    /// Idles: sockets stay open, and only pings are sent.
    fn idle(&mut self) -> Check {
        let sockets = |world: &Self| world.slots.iter().map(|slot| slot.sockets.len()).collect::<Vec<_>>();
        // By then, stalls have ended, half-open sockets are detected, and no abandoned upgrade can arrive late and take
        // a socket.
        let quiet_ms = self.now_ms + 5 * WINDOW_MS;
        while self.now_ms < quiet_ms {
            self.settle(40)?;
        }
        let before = sockets(self);
        let until_ms = self.now_ms + 2 * WINDOW_MS;
        while self.now_ms < until_ms {
            self.settle(40)?;
        }
        if before == sockets(self) && self.is_settled() { Ok(()) } else { broken("an idle link was lost") }
    }

    fn settle(&mut self, by_ms: u64) -> Check {
        self.advance(by_ms)?;
        for slot in 0..self.slots.len() {
            for end in [PROXY, APP] {
                self.transmit(slot, end)?;
                self.read(slot, end)?;
                self.take(slot, end);
            }
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        self.slots.iter().all(|slot| match &slot.held {
            [Some(proxy), Some(app)] => {
                let ledger = &self.ledgers[proxy.ledger];
                proxy.ledger == app.ledger && proxy.is_settled(ledger, PROXY) && app.is_settled(ledger, APP)
            }
            _ => false,
        })
    }

    fn outcome(&self) -> Outcome {
        let flows = || self.ledgers.iter().flat_map(|ledger| &ledger.flows);
        let by = |wanted: fn(&Reason) -> bool| self.ended.iter().filter(|&reason| wanted(reason)).count() as u64;
        Outcome {
            queued: flows().map(|flow| flow.queued).sum(),
            delivered: flows().map(|flow| flow.delivered).sum(),
            resumed: self.resumed,
            ended: self.ended.len() as u64,
            window_passed: by(|reason| {
                matches!(reason, Reason::Verdict(trunkline_protocol::service::SessionEndReason::WindowPassed))
            }),
            given_up: by(|reason| matches!(reason, Reason::Verdict(_)))
                - by(|reason| {
                    matches!(reason, Reason::Verdict(trunkline_protocol::service::SessionEndReason::WindowPassed))
                }),
        }
    }
}
