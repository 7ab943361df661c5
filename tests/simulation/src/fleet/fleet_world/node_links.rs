//! Node links: greetings, upgrades, and ends of sessions.

use trunkline_protocol::fleet::{Greeting, WireVersions};
use trunkline_protocol::service::{Class, Role, UpgradeDecision, decide_upgrade};

use super::{FleetWorld, LinkEnd};
use crate::fleet::fleet_mutant::FleetMutant;
use crate::fleet::node_end::{LINK_WINDOW_MS, LinkSocket, NodeEnd};
use crate::fleet::process::{ADDRESSES_PER_NODE, Contact, Direction, MemberKey, Taken, process_of};
use crate::ledger::{Check, broken};
use crate::wire::Socket;

/// Interval for checking an address that leads to a link or to the node itself.
const CONTENT_MS: u64 = 3_000;

/// Consecutive failures after which an address learned from members is removed.
const FAILURES_MAX: u32 = 5;

const GREETED_MS: u64 = 100;

/// Percentage of failing dials and lost answers during the fault phase.
const FAILURE_PERCENT: u64 = 4;

impl FleetWorld {
    pub(super) fn dial_all(&mut self, process: usize) -> Check {
        let now_ms = self.now_ms;
        let contacts = &self.processes[process].contacts;
        let due: Vec<_> =
            contacts.iter().filter(|(_, contact)| contact.dial_at_ms <= now_ms).map(|(address, _)| *address).collect();
        for address in due {
            let wait_ms = self.dial(process, address)?;
            let chance = self.random.chance();
            let Some(contact) = self.processes[process].contacts.get_mut(&address) else { continue };
            if wait_ms.is_some() {
                contact.backoff.reset();
                contact.failures = 0;
            } else {
                contact.failures += 1;
            }
            contact.dial_at_ms = now_ms + wait_ms.unwrap_or_else(|| contact.backoff.next_wait_ms(chance));
        }
        let is_kept = |contact: &Contact| contact.is_given || contact.failures < FAILURES_MAX;
        self.processes[process].contacts.retain(|_, contact| is_kept(contact));
        Ok(())
    }

    /// Greets a member with a different view again, because it may see members that this node has lost.
    pub(super) fn greet_again(&mut self, process: usize) -> Check {
        let far = self.processes[process].differing(self.mutant, &mut self.random);
        match far.filter(|&far| self.is_awake(far) && self.is_joined(process, far)) {
            Some(far) if !self.is(FleetMutant::NeverGreetsAgain) => self.greet(process, far).map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Takes the next step at an address, a greeting or a link. On success, returns when the following step is due.
    fn dial(&mut self, process: usize, address: usize) -> Check<Option<u64>> {
        let lane = if self.is(FleetMutant::LinksAddresses) { address % ADDRESSES_PER_NODE } else { 0 };
        let node = &mut self.processes[process];
        let Some(contact) = node.contacts.get_mut(&address) else { return Ok(None) };
        let (known, greeted) = (contact.process, contact.greeted.take());
        if known.is_some_and(|known| node.is_linked((known, lane))) {
            return Ok(Some(CONTENT_MS));
        }
        let reached = self.at(address).filter(|&far| self.is_awake(far) && self.is_joined(process, far));
        let Some(far) = reached.filter(|_| self.is_calm || !self.random.percent(FAILURE_PERCENT)) else {
            return Ok(None);
        };
        if greeted == Some(far) {
            return Ok(self.link(process, (far, lane))?.then_some(CONTENT_MS));
        }
        let Some(far) = self.greet(process, far)? else { return broken("a greeting without a process") };
        let is_content = far == process && !self.is(FleetMutant::LinksItself);
        let contact = self.processes[process].contacts.entry(address).or_default();
        let former = contact.process.replace(far).filter(|&former| former != far);
        if is_content {
            return Ok(Some(CONTENT_MS));
        }
        contact.greeted = Some(far);
        if let Some(former) = former {
            self.end_link(process, (former, lane), Direction::Outgoing, LinkEnd::Restarted)?;
            self.end_link(process, (former, lane), Direction::Incoming, LinkEnd::Restarted)?;
        }
        // Other nodes may greet meanwhile.
        Ok(Some(1 + self.random.below(GREETED_MS)))
    }

    /// Exchanges greetings with the answering process and returns the process that it claims to be.
    fn greet(&mut self, process: usize, far: usize) -> Check<Option<usize>> {
        let read = |json: Vec<u8>| Greeting::from_json(&json).or_else(|error| broken(format!("a greeting: {error}")));
        let ours = read(self.processes[process].greeting().to_json())?;
        let now_ms = self.now_ms;
        if far != process {
            self.processes[far].record_greeting(&ours, now_ms)?;
            self.meet(far, process);
        }
        let theirs = read(self.processes[far].greeting().to_json())?;
        if theirs.wire.common(WireVersions::CURRENT).is_none() {
            return broken("no common version");
        }
        if far != process {
            self.processes[process].record_greeting(&theirs, now_ms)?;
            self.meet(process, far);
        }
        Ok(process_of(&theirs.boot))
    }

    fn meet(&mut self, process: usize, other: usize) {
        let now_ms = self.now_ms;
        let peer = self.processes[process].peers.entry((other, 0)).or_default();
        peer.met_ms = now_ms;
    }

    /// Opens or resumes the link to a process. Returns whether it has a socket.
    fn link(&mut self, process: usize, key: MemberKey) -> Check<bool> {
        let (now_ms, mutant, far_key) = (self.now_ms, self.mutant, (process, key.1));
        if self.processes[process].end(key, Direction::Outgoing).is_none() {
            let introduction = self.begin_outgoing(process, key)?;
            let Some(end) = self.processes[process].end(key, Direction::Outgoing) else { return Ok(false) };
            for message in introduction {
                if !end.notify(&message, mutant)? {
                    return broken("an introduction does not fit the ring");
                }
            }
        }
        let Some(end) = self.processes[process].end(key, Direction::Outgoing) else { return Ok(false) };
        let offer = end.session.offer();
        let decision = self.decide(key.0, far_key, &offer)?;
        if !decision {
            self.end_link(process, key, Direction::Outgoing, LinkEnd::Refused)?;
            return Ok(false);
        }
        let socket = self.sockets.len();
        self.sockets.push(LinkSocket { pipe: Socket::default(), is_over: false });
        let Some(peer_kind) = self.processes[key.0].end(far_key, Direction::Incoming) else {
            return broken("no session to attach");
        };
        let (attachment, answer) = peer_kind
            .session
            .handle_offer(&offer, now_ms)
            .or_else(|error| broken(format!("{offer:?} can't be taken: {error}")))?;
        peer_kind.attached(socket, attachment, answer.received);
        if !self.is_calm && self.random.percent(FAILURE_PERCENT) {
            self.note(|| format!("{process}: the answer of {key:?} is lost"));
            self.sockets[socket].pipe.close(0, now_ms, &mut self.random);
            if offer.received.is_none() {
                self.end_link(process, key, Direction::Outgoing, LinkEnd::Unanswered)?;
            }
            return Ok(false);
        }
        let Some(end) = self.processes[process].end(key, Direction::Outgoing) else { return Ok(false) };
        let attached = end
            .session
            .handle_answer(&offer, &answer, now_ms)
            .or_else(|error| broken(format!("{answer:?} can't be taken: {error}")))?;
        let Some(attachment) = attached else { return broken("the answer is of another session") };
        end.attached(socket, attachment, offer.received.unwrap_or_default());
        self.outcome.resumed += u64::from(offer.received.is_some());
        self.note(|| format!("{process}: linked to {key:?}, session {}", offer.session));
        Ok(true)
    }

    fn begin_outgoing(&mut self, process: usize, key: MemberKey) -> Check<Vec<trunkline_protocol::fleet::NodeMessage>> {
        let (now_ms, mutant) = (self.now_ms, self.mutant);
        let process = &mut self.processes[process];
        let peer = process.peers.entry(key).or_default();
        let is_first = peer.sessions == 0;
        peer.sessions += 1;
        let id = process.next_session;
        process.next_session = id.next();
        peer.outgoing = Some(NodeEnd::new(id, Role::Proxy, now_ms));
        Ok(process.introduction(is_first, mutant))
    }

    /// Whether the peer accepts the offer; it then has a session to attach.
    fn decide(&mut self, process: usize, key: MemberKey, offer: &trunkline_protocol::service::Offer) -> Check<bool> {
        loop {
            let now_ms = self.now_ms;
            let peer = self.processes[process].peers.entry(key).or_default();
            match decide_upgrade(offer, peer.incoming.as_ref().map(|end| &end.session), peer.newest) {
                UpgradeDecision::Refuse(refusal) => {
                    let is_known = peer.incoming.as_ref().is_some_and(|end| end.session.id() == offer.session);
                    return if is_known {
                        broken(format!("a session that both hold is refused: {refusal}"))
                    } else {
                        Ok(false)
                    };
                }
                UpgradeDecision::EndSocketFirst => {
                    if let Some(end) = &mut peer.incoming {
                        end.detach(&mut self.sockets, now_ms, &mut self.random)?;
                    }
                }
                UpgradeDecision::Resume => return Ok(true),
                UpgradeDecision::Begin => {
                    self.end_link(process, key, Direction::Incoming, LinkEnd::Superseded)?;
                    let peer = self.processes[process].peers.entry(key).or_default();
                    peer.incoming = Some(NodeEnd::new(offer.session, Role::AppServer, now_ms));
                    peer.newest = Some(offer.session);
                    return Ok(true);
                }
            }
        }
    }

    /// Ends the session at one end of a link, if any, and checks the reason.
    pub(super) fn end_link(&mut self, process: usize, key: MemberKey, direction: Direction, reason: LinkEnd) -> Check {
        let now_ms = self.now_ms;
        let Some(mut end) = self.processes[process].end(key, direction).take() else { return Ok(()) };
        self.note(|| format!("{process}: the {direction:?} link of {key:?} ends: {reason:?}"));
        self.check_end(process, key, direction, &end, reason)?;
        if let Some((socket, _)) = end.socket {
            self.sockets[socket].is_over = true;
        }
        end.detach(&mut self.sockets, now_ms, &mut self.random)?;
        self.outcome.ended += 1;
        let keeps = self.is(FleetMutant::KeepsInterestOfOldSessions);
        let peer = self.processes[process].peers.entry(key).or_default();
        if direction == Direction::Incoming {
            (peer.taken, peer.view) = (Taken::default(), None);
            if !keeps {
                peer.interest = trunkline_protocol::fleet::PeerInterest::default();
            }
            return Ok(());
        }
        let queued = end.session.queued() - end.session.counters().acknowledged();
        let undelivered = end.session.end();
        if undelivered.uncertain.count + undelivered.unsent.count != queued {
            return broken(format!("{queued} frames were not acknowledged, {undelivered:?} are left over"));
        }
        self.outcome.lost += end.owed.len() as u64;
        self.asks_lost(process, key);
        Ok(())
    }

    fn check_end(&self, process: usize, key: MemberKey, direction: Direction, end: &NodeEnd, reason: LinkEnd) -> Check {
        use trunkline_protocol::service::SessionEndReason as Why;
        let far = &self.processes[key.0];
        let peer_kind = far.peers.get(&(process, key.1)).and_then(|peer| match direction {
            Direction::Outgoing => peer.incoming.as_ref(),
            Direction::Incoming => peer.outgoing.as_ref(),
        });
        let is_held = peer_kind.is_some_and(|peer_kind| peer_kind.session.id() == end.session.id());
        let is_good = match reason {
            LinkEnd::Verdict(Why::WindowPassed) => {
                direction == Direction::Outgoing && end.socket.is_none() && self.now_ms - end.lost_ms >= LINK_WINDOW_MS
            }
            LinkEnd::Verdict(Why::GivenUp) => {
                direction == Direction::Incoming && !end.session.has_place(Class::Ordinary)
            }
            LinkEnd::Verdict(Why::Forgotten) => direction == Direction::Incoming,
            LinkEnd::Verdict(Why::NotResumable) => false,
            LinkEnd::Refused | LinkEnd::Superseded | LinkEnd::Closed => !is_held,
            LinkEnd::Left => true,
            LinkEnd::Unanswered => direction == Direction::Outgoing && end.owed.is_empty(),
            LinkEnd::Restarted => !far.is_alive,
            LinkEnd::Overfull => !end.session.has_place(Class::Reserved),
        };
        if is_good { Ok(()) } else { broken(format!("{process} ends the {direction:?} link of {key:?}: {reason:?}")) }
    }
}
