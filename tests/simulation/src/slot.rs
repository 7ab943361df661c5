//! Slot of a pool: a proxy's end, an app server's end, their sockets and dials.

use trunkline_protocol::service::{Backoff, Role, Session, SessionId, SessionSettings};

use crate::end::{Around, Held};
use crate::ledger::{Check, Content, Ledger};
use crate::mutant::Mutant;
use crate::wire::{Dial, Socket};

/// Indexes of the ends.
pub(crate) const PROXY: usize = 0;
pub(crate) const APP: usize = 1;

pub(crate) const WINDOW_MS: u64 = 1_000;
pub(crate) const RING_BYTES: usize = 700;

/// Limits of the simulated sessions: small, so that every limit is reached with little time and few frames.
pub(crate) fn settings(end: usize, mutant: Option<Mutant>) -> SessionSettings {
    let mut settings = SessionSettings::new(RING_BYTES, WINDOW_MS);
    match mutant {
        Some(Mutant::GivesUpTooEarly) if end == APP => settings.window_ms /= 4,
        Some(Mutant::EndsWithTheSocket) if end == PROXY => settings.window_ms = 1,
        _ => {}
    }
    settings
}

/// Reason why a session ended, from the simulation's perspective.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Verdict(trunkline_protocol::service::SessionEndReason),
    Refused,
    Superseded,
    InstanceGone,
    NewBoot,
}

#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) held: [Option<Held>; 2],
    pub(crate) sockets: Vec<Socket>,
    pub(crate) dials: Vec<Dial>,
    /// Current dial of the proxy, and its timeout.
    pub(crate) pending: Option<(usize, u64)>,
    pub(crate) backoff: Backoff,
    pub(crate) dial_at_ms: u64,
    /// Time until which the way to the app server refuses this slot's dials.
    pub(crate) refused_until_ms: u64,
    /// Instance at the other end of the proxy's session.
    pub(crate) instance: u64,
    /// Boot id of the sessions held by the app server, and the newest session.
    pub(crate) boot: u64,
    pub(crate) newest: Option<SessionId>,
}

impl Slot {
    pub(crate) fn new() -> Self {
        Self {
            held: [None, None],
            sockets: Vec::new(),
            dials: Vec::new(),
            pending: None,
            backoff: Backoff::default(),
            dial_at_ms: 0,
            refused_until_ms: 0,
            instance: 0,
            boot: 0,
            newest: None,
        }
    }

    /// Starts a session at the proxy.
    pub(crate) fn begin(&mut self, id: SessionId, around: &mut Around<'_>) {
        let session = Session::new(id, Role::Proxy, settings(PROXY, around.mutant), around.now_ms);
        around.ledgers.push(Ledger::default());
        self.held[PROXY] = Some(Held::new(session, around.ledgers.len() - 1, around.now_ms, around.frozen));
    }

    /// Ends a session at one end and records the contents of its ring.
    pub(crate) fn end(&mut self, around: &mut Around<'_>) -> Check<Option<SessionId>> {
        let end = around.end;
        let Some(held) = self.held[end].take() else { return Ok(None) };
        let (id, acknowledged) = (held.session.id(), held.session.counters().acknowledged());
        let mut leftover = held.session.end();
        if around.mutant == Some(Mutant::ForgetsUnsent) {
            leftover.unsent = Default::default();
        }
        let ledger = &mut around.ledgers[held.ledger];
        ledger.is_ended[end] = true;
        let content = Content { ledger: held.ledger, sender: end, number: 0 };
        ledger.flows[end].end(content, acknowledged, &leftover)?;
        Ok(Some(id))
    }
}
