//! Upgrades: the proxy dials, the app server decides and answers; each step may be late or lost.

use trunkline_protocol::service::{
    LinkHandshakeRequest, LinkHandshakeResponse, Role, ServiceMessage, Session, SessionId, UpgradeDecision,
    UpgradeRefusal, decide_upgrade,
};

use crate::end::Held;
use crate::ledger::{Check, broken};
use crate::mutant::Mutant;
use crate::slot::{APP, PROXY, Reason, Slot, settings};
use crate::wire::{Dial, NEVER, Reply, Socket};
use crate::world::World;

/// Time limit for the answer to an upgrade.
const DIAL_TIMEOUT_MS: u64 = 300;

impl World {
    /// Handles arrived dials and answers, timeouts, and new dials.
    pub(crate) fn handle_dials(&mut self, slot: usize) -> Check {
        for index in 0..self.slots[slot].dials.len() {
            let Dial { arrives_ms, is_done, ref reply, .. } = self.slots[slot].dials[index];
            if is_done || arrives_ms > self.now_ms {
                continue;
            }
            match reply.clone() {
                None if self.is_awake(APP) => self.judge(slot, index)?,
                Some(reply) if self.is_awake(PROXY) => self.take_reply(slot, index, reply)?,
                _ => {}
            }
        }
        if self.is_awake(PROXY) {
            self.dial(slot);
        }
        Ok(())
    }

    fn latency_ms(&mut self) -> u64 {
        match self.random.below(20) {
            _ if self.is_calm => self.random.below(10),
            0 => NEVER,
            1..3 => self.random.below(3_000),
            _ => self.random.below(40),
        }
    }

    fn dial(&mut self, index: usize) {
        let (now_ms, boot, mutant) = (self.now_ms, self.boot, self.mutant);
        let (latency_ms, chance) = (self.latency_ms(), self.random.chance());
        let Slot { held, sockets, dials, pending, backoff, dial_at_ms, refused_until_ms, instance, .. } =
            &mut self.slots[index];
        let Some(held) = &held[PROXY] else { return };
        if pending.is_some_and(|(_, give_up_ms)| give_up_ms <= now_ms) {
            *pending = None;
            *dial_at_ms = now_ms + backoff.next_wait_ms(chance);
        }
        if pending.is_some() || held.session.is_attached() || *dial_at_ms > now_ms {
            return;
        }
        if *refused_until_ms > now_ms {
            *dial_at_ms = now_ms + backoff.next_wait_ms(chance);
            return;
        }
        let mut offer = held.session.offer();
        offer.received = match (mutant, offer.received) {
            (Some(Mutant::ReplaysFromOneBefore), Some(received)) => Some(received.saturating_sub(1)),
            (Some(Mutant::ReplaysFromOneBehind), Some(received)) => Some(received + 1),
            (_, received) => received,
        };
        sockets.push(Socket::default());
        dials.push(Dial {
            offer,
            ledger: held.ledger,
            boot,
            instance: *instance,
            socket: sockets.len() - 1,
            arrives_ms: now_ms.saturating_add(latency_ms),
            reply: None,
            is_done: latency_ms == NEVER,
        });
        *pending = Some((dials.len() - 1, now_ms + DIAL_TIMEOUT_MS));
    }

    /// Handles an upgrade that has reached the app server.
    fn judge(&mut self, index: usize, dial: usize) -> Check {
        let latency_ms = self.latency_ms();
        let reply = self.judged(index, dial)?;
        self.check_pools()?;
        self.note(|| format!("slot {index}: {:?} is answered: {reply:?}", self.slots[index].dials[dial].offer));
        let arrives_ms = self.now_ms.saturating_add(latency_ms);
        let dial = &mut self.slots[index].dials[dial];
        (dial.reply, dial.arrives_ms, dial.is_done) = (Some(reply), arrives_ms, latency_ms == NEVER);
        Ok(())
    }

    fn judged(&mut self, index: usize, dial: usize) -> Check<Reply> {
        let Dial { boot, instance, ledger, socket, ref offer, .. } = self.slots[index].dials[dial];
        let offer = offer.clone();
        if instance != self.instance {
            return Ok(Reply::OtherInstance);
        }
        if boot < self.slots[index].boot {
            return Ok(Reply::Refused(UpgradeRefusal::Unknown));
        }
        if boot > self.slots[index].boot {
            self.end_session(index, APP, Reason::NewBoot)?;
            (self.slots[index].boot, self.slots[index].newest) = (boot, None);
        }
        let of_pool = self.slots.iter().filter(|slot| slot.boot == boot);
        let outdated = of_pool.filter_map(|slot| slot.newest).max().map(SessionId::before_pool);
        loop {
            let slot = &self.slots[index];
            let live = slot.held[APP].as_ref().map(|held| &held.session);
            let mut judgement = decide_upgrade(&offer, live, slot.newest.max(outdated));
            if self.mutant == Some(Mutant::BeginsUnknownSessions)
                && judgement == UpgradeDecision::Refuse(UpgradeRefusal::Unknown)
                && slot.held[APP].is_none()
            {
                judgement = UpgradeDecision::Begin;
            }
            match judgement {
                UpgradeDecision::Refuse(refusal) => return Ok(Reply::Refused(refusal)),
                UpgradeDecision::EndSocketFirst => self.lose_socket(index, APP)?,
                UpgradeDecision::Resume => break,
                UpgradeDecision::Begin => {
                    self.end_session(index, APP, Reason::Superseded)?;
                    if std::mem::replace(&mut self.ledgers[ledger].was_begun, true) {
                        return broken("a session is begun twice");
                    }
                    let session = Session::new(offer.session, Role::AppServer, settings(APP, self.mutant), self.now_ms);
                    self.slots[index].held[APP] = Some(Held::new(session, ledger, self.now_ms, self.frozen[APP]));
                    self.slots[index].newest = Some(offer.session);
                    self.end_earlier_pools(offer.session, boot)?;
                    break;
                }
            }
        }
        let (slot, around) = self.parts(index, APP);
        let Some(held) = slot.held[APP].as_mut() else { return broken("no session to attach") };
        if held.session.is_attached() {
            return broken("a session has two sockets");
        }
        let (attachment, answer) = held
            .session
            .handle_offer(&offer, around.now_ms)
            .or_else(|error| broken(format!("the app server can't take {offer:?}: {error}")))?;
        held.attached(attachment, socket, answer.received, &around)?;
        slot.sockets[socket].write(APP, &ServiceMessage::HandshakeRequest(LinkHandshakeRequest::default()).to_frame());
        Ok(Reply::Accepted(answer))
    }

    /// Ends what the app server has of earlier pools of the proxy. Later, none may be left: a session without a socket
    /// would hold back sends.
    fn end_earlier_pools(&mut self, session: SessionId, boot: u64) -> Check {
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            let is_earlier = slot.newest.is_some_and(|newest| newest.is_of_earlier_pool(session));
            if slot.boot != boot || !is_earlier || slot.held[APP].is_none() {
                continue;
            }
            if self.mutant == Some(Mutant::KeepsEarlierPools) {
                continue;
            }
            self.end_session(index, APP, Reason::Superseded)?;
        }
        Ok(())
    }

    /// Whether the app server has a session of an earlier pool than its newest one of the same proxy process.
    fn check_pools(&self) -> Check {
        let live = || self.slots.iter().filter_map(|slot| Some((slot.boot, slot.held[APP].as_ref()?.session.id())));
        let is_left = live().any(|(boot, id)| live().any(|(at, other)| at == boot && id.is_of_earlier_pool(other)));
        if is_left { broken("the app server has sessions of two pools") } else { Ok(()) }
    }

    /// Handles an answer that has reached the proxy.
    fn take_reply(&mut self, index: usize, dial: usize, reply: Reply) -> Check {
        let now_ms = self.now_ms;
        let Slot { sockets, dials, pending, .. } = &mut self.slots[index];
        dials[dial].is_done = true;
        let socket = dials[dial].socket;
        if pending.is_none_or(|(counts, _)| counts != dial) {
            sockets[socket].close(PROXY, now_ms, &mut self.random);
            return Ok(());
        }
        *pending = None;
        match reply {
            Reply::Accepted(answer) => self.attach(index, dial, &answer),
            Reply::OtherInstance => {
                self.slots[index].instance = self.instance;
                self.end_session(index, PROXY, Reason::InstanceGone)
            }
            Reply::Refused(refusal) => {
                let held = self.slots[index].held[PROXY].as_ref();
                let is_known = held.is_some_and(|held| {
                    self.slots[index].held[APP].as_ref().is_some_and(|there| there.ledger == held.ledger)
                });
                if is_known || refusal == UpgradeRefusal::Stale {
                    return broken(format!("a session that both ends hold is refused: {refusal}"));
                }
                self.end_session(index, PROXY, Reason::Refused)
            }
        }
    }

    fn attach(&mut self, index: usize, dial: usize, answer: &trunkline_protocol::service::Answer) -> Check {
        let (slot, around) = self.parts(index, PROXY);
        let (socket, offer) = (slot.dials[dial].socket, slot.dials[dial].offer.clone());
        let Some(held) = slot.held[PROXY].as_mut() else { return Ok(()) };
        let attachment = held
            .session
            .handle_answer(&offer, answer, around.now_ms)
            .or_else(|error| broken(format!("the proxy can't take {answer:?}: {error}")))?;
        let Some(attachment) = attachment else { return broken("a dial that counts is of another session") };
        // The proxy counts from its own number, even if a mutant changed it on the wire.
        let told = match around.mutant {
            Some(Mutant::ReplaysFromOneBefore | Mutant::ReplaysFromOneBehind) => held.taken,
            _ => offer.received.unwrap_or_default(),
        };
        held.attached(attachment, socket, told, &around)?;
        slot.backoff.reset();
        slot.sockets[socket]
            .write(PROXY, &ServiceMessage::HandshakeResponse(LinkHandshakeResponse::default()).to_frame());
        self.resumed += u64::from(offer.received.is_some());
        self.note(|| format!("slot {index}: the proxy is attached to socket {socket}"));
        Ok(())
    }
}
