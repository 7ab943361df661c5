//! A proxy process, an app server process and their slots, in virtual time.
//!
//! ```text
//!  faults ──► World ──► Slot ─┬─ Held (proxy) ◄──► Socket ◄──► Held (app server)
//!             time            └─ dials, refusals, ends of sessions
//! ```

mod acts;

use trunkline_protocol::service::{SessionEndReason, SessionEvent, SessionId};

use crate::end::{Around, Frozen, Held};
use crate::ledger::{Check, Ledger, broken};
use crate::mutant::Mutant;
use crate::random::Random;
use crate::slot::{APP, PROXY, Reason, Slot, WINDOW_MS};

/// Tolerance in milliseconds after a deadline.
const SLACK_MS: u64 = 2 * TICK_MS + 2;

/// Interval of silence ticks.
const TICK_MS: u64 = WINDOW_MS / 20;
const TICK_STEP: usize = 50;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now_ms: u64,
    pub(crate) random: Random,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) ledgers: Vec<Ledger>,
    /// Number of starts of the proxy and the app server.
    pub(crate) boot: u64,
    pub(crate) instance: u64,
    /// Number of the proxy's pool.
    pub(crate) pool: u32,
    pub(crate) frozen_until_ms: [u64; 2],
    pub(crate) thawed_ms: [u64; 2],
    /// Total frozen time of each end, and the number of freezes.
    pub(crate) frozen: [Frozen; 2],
    pub(crate) is_traced: bool,
    pub(crate) is_calm: bool,
    pub(crate) ended: Vec<Reason>,
    pub(crate) resumed: u64,
}

impl World {
    pub(crate) fn new(seed: u64, mutant: Option<Mutant>, is_traced: bool) -> Self {
        let mut random = Random::new(seed);
        let count = 1 + random.index(3);
        let mut world = Self {
            now_ms: 0,
            random,
            mutant,
            slots: (0..count).map(|_| Slot::new()).collect(),
            ledgers: Vec::new(),
            boot: 1,
            instance: 0,
            pool: 0,
            frozen_until_ms: [0, 0],
            thawed_ms: [0, 0],
            frozen: [Frozen::default(); 2],
            is_traced,
            is_calm: false,
            ended: Vec::new(),
            resumed: 0,
        };
        for index in 0..count {
            let (slot, mut around) = world.parts(index, PROXY);
            slot.begin(SessionId::FIRST, &mut around);
        }
        world
    }

    /// A slot with the environment for its actions.
    pub(crate) fn parts(&mut self, slot: usize, end: usize) -> (&mut Slot, Around<'_>) {
        let around = Around {
            end,
            now_ms: self.now_ms,
            mutant: self.mutant,
            frozen: self.frozen[end],
            ledgers: &mut self.ledgers,
        };
        (&mut self.slots[slot], around)
    }

    #[expect(clippy::print_stdout, reason = "the trace of a schedule that is replayed")]
    pub(crate) fn note(&self, text: impl FnOnce() -> String) {
        if self.is_traced {
            println!("{:>7} ms  {}", self.now_ms, text());
        }
    }

    pub(crate) fn is_awake(&self, end: usize) -> bool {
        self.frozen_until_ms[end] <= self.now_ms
    }

    /// Advances time and runs everything due.
    pub(crate) fn advance(&mut self, by_ms: u64) -> Check {
        let until_ms = self.now_ms + by_ms;
        loop {
            // Overdue work that can't be done now is checked again a millisecond later.
            let next_ms = self.next_due_ms().max(self.now_ms + 1);
            if next_ms > until_ms {
                break;
            }
            self.pass(next_ms);
            self.handle_due()?;
        }
        self.pass(until_ms);
        Ok(())
    }

    fn pass(&mut self, now_ms: u64) {
        for end in [PROXY, APP] {
            self.frozen[end].ms += self.frozen_until_ms[end].min(now_ms).saturating_sub(self.now_ms);
        }
        self.now_ms = now_ms;
    }

    /// Silence of the peer while this end was awake. A freeze may have cost a tick.
    fn silent_ms(&self, held: &Held, end: usize) -> u64 {
        let Frozen { ms, times } = self.frozen[end];
        (self.now_ms - held.heard_ms) - (ms - held.heard_frozen.ms) + (times - held.heard_frozen.times) * TICK_MS
    }

    fn next_due_ms(&self) -> u64 {
        let mut next_ms = u64::MAX;
        let mut may = |at_ms: u64| next_ms = next_ms.min(at_ms);
        for slot in &self.slots {
            for end in [PROXY, APP] {
                let at_ms = slot.held[end].as_ref().and_then(|held| held.session.poll_timeout());
                may(at_ms.unwrap_or(u64::MAX).max(self.frozen_until_ms[end]));
            }
            for dial in slot.dials.iter().filter(|dial| !dial.is_done) {
                may(dial.arrives_ms.max(self.frozen_until_ms[if dial.reply.is_some() { PROXY } else { APP }]));
            }
            let at_ms = match slot.pending {
                Some((_, give_up_ms)) => give_up_ms,
                None if slot.held[PROXY].as_ref().is_some_and(|held| !held.session.is_attached()) => slot.dial_at_ms,
                None => u64::MAX,
            };
            may(at_ms.max(self.frozen_until_ms[PROXY]));
        }
        next_ms
    }

    fn handle_due(&mut self) -> Check {
        for end in [PROXY, APP] {
            if self.frozen_until_ms[end] == self.now_ms {
                self.thawed_ms[end] = self.now_ms;
            }
        }
        for slot in 0..self.slots.len() {
            for end in [PROXY, APP] {
                if self.is_awake(end) {
                    self.handle_timeout(slot, end)?;
                    self.transmit(slot, end)?;
                }
            }
            self.handle_dials(slot)?;
            self.check_overdue(slot)?;
        }
        Ok(())
    }

    fn handle_timeout(&mut self, slot: usize, end: usize) -> Check {
        let (now_ms, mutant) = (self.now_ms, self.mutant);
        let Some(silent_ms) = self.slots[slot].held[end].as_ref().map(|held| self.silent_ms(held, end)) else {
            return Ok(());
        };
        let Some(held) = self.slots[slot].held[end].as_mut() else { return Ok(()) };
        let Some(due_ms) = held.session.poll_timeout().filter(|&at_ms| at_ms <= now_ms) else { return Ok(()) };
        if mutant == Some(Mutant::IgnoresTheWindow) && end == PROXY && !held.session.is_attached() {
            return Ok(());
        }
        held.check_ring(now_ms);
        let is_made_up = mutant == Some(Mutant::MakesUpForTicks);
        let mut made_up = (due_ms..now_ms).step_by(TICK_STEP).filter(|_| is_made_up);
        let verdict = made_up.find_map(|at_ms| held.session.handle_timeout(at_ms));
        let verdict = verdict.or_else(|| held.session.handle_timeout(now_ms));
        let is_right = match verdict {
            None => true,
            Some(SessionEvent::PeerSilent) => silent_ms >= WINDOW_MS,
            Some(SessionEvent::End(SessionEndReason::WindowPassed)) => {
                end == PROXY && held.lost_ms.is_some_and(|lost_ms| now_ms - lost_ms >= WINDOW_MS)
            }
            Some(SessionEvent::End(SessionEndReason::GivenUp)) => {
                end == APP && silent_ms >= WINDOW_MS && held.full_ms.is_some()
            }
            Some(SessionEvent::End(SessionEndReason::Forgotten)) => end == APP && silent_ms >= 2 * WINDOW_MS,
            Some(SessionEvent::End(SessionEndReason::NotResumable)) => false,
        };
        if !is_right {
            return broken(format!("{verdict:?} of end {end} after {silent_ms} ms of silence"));
        }
        match verdict {
            Some(SessionEvent::PeerSilent) if mutant == Some(Mutant::TrustsTheDead) => Ok(()),
            Some(SessionEvent::End(_)) if mutant == Some(Mutant::NeverGivesUp) && end == APP => Ok(()),
            Some(SessionEvent::PeerSilent) => self.lose_socket(slot, end),
            Some(SessionEvent::End(cause)) => self.end_session(slot, end, Reason::Verdict(cause)),
            None => Ok(()),
        }
    }

    /// Checks for missed deadlines.
    fn check_overdue(&self, slot: usize) -> Check {
        let grace_ms = |end: usize| self.thawed_ms[end] + SLACK_MS;
        if let Some(Held { lost_ms: Some(lost_ms), .. }) = &self.slots[slot].held[PROXY]
            && self.is_awake(PROXY)
            && self.now_ms > (lost_ms + WINDOW_MS + SLACK_MS).max(grace_ms(PROXY))
        {
            return broken("the proxy keeps a session for longer than the window");
        }
        if let Some(held) = &self.slots[slot].held[APP]
            && self.is_awake(APP)
            && let Some(full_ms) = held.full_ms
            && self.now_ms > (held.heard_ms + WINDOW_MS).max(full_ms).max(self.thawed_ms[APP] + WINDOW_MS) + SLACK_MS
        {
            return broken("the app server keeps a full session for longer than the window");
        }
        if let Some(Held { lost_ms: Some(_), heard_ms, .. }) = &self.slots[slot].held[APP]
            && self.is_awake(APP)
            && self.now_ms > heard_ms.max(&self.thawed_ms[APP]) + 2 * WINDOW_MS + SLACK_MS
        {
            return broken("the app server keeps a session without a socket for longer than two windows");
        }
        Ok(())
    }
}
