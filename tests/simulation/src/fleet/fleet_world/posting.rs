//! Messages that enter at a node, their relays, and the answers.

use std::collections::BTreeSet;

use bytes::Bytes;
use trunkline_protocol::service::{Ack, AckStatus, Class, ServiceMessage, SessionId};

use super::FleetWorld;
use crate::fleet::fleet_mutant::FleetMutant;
use crate::fleet::post::{Post, Recipients, body_of};
use crate::fleet::process::{Fate, MemberKey, OpenAsk};
use crate::ledger::{Check, broken};

const ANSWER_TIMEOUT_MS: u64 = 5_000;

/// Maximum number of pending requests per node.
const ASKS_MAX: usize = 64;

/// Whether a message requests answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PostKind {
    Relayed,
    Asked,
}

impl FleetWorld {
    pub(crate) fn post(&mut self, process: usize, hub: usize, to: Recipients, kind: PostKind) -> Check {
        let padding = self.random.index(160);
        let node = &mut self.processes[process];
        node.posted += 1;
        let post = Post { entry: process, number: node.posted, hub, to };
        let is_asked = kind == PostKind::Asked && node.asks.len() < ASKS_MAX;
        node.asked += u64::from(is_asked);
        let question = is_asked.then_some(node.asked);
        self.outcome.posts += 1;
        self.outcome.delivered += self.processes[process].deliver(post)?;
        let body = post.to_body(padding);
        let mut asked = BTreeSet::new();
        for key in self.processes[process].keys() {
            if self.pass_on(process, key, post, &body, question)? == Fate::Queued {
                asked.insert(key);
            }
        }
        if let Some(question) = question {
            let open = OpenAsk { post, until_ms: self.now_ms + ANSWER_TIMEOUT_MS, open: asked };
            self.processes[process].asks.insert(question, open);
        }
        Ok(())
    }

    /// Makes a node send a message to a peer, and checks its decision.
    fn pass_on(
        &mut self,
        process: usize,
        key: MemberKey,
        post: Post,
        body: &Bytes,
        question: Option<u64>,
    ) -> Check<Fate> {
        let (now_ms, mutant) = (self.now_ms, self.mutant);
        let telling = self.processes[key.0].tellings.get(&(post.hub, post.to.bucket())).copied().unwrap_or_default();
        let has_promised = self.processes[key.0].has_promised(post, now_ms, mutant);
        let node = &mut self.processes[process];
        let Some(peer) = node.peers.get(&key) else { return Ok(Fate::Unwanted) };
        let Some(end) = &peer.outgoing else { return Ok(Fate::Unwanted) };
        let is_stale = !peer.taken.is_fresh(now_ms);
        let duty = peer.taken.duty(post.hub, post.to.bucket(), telling, now_ms)?;
        let (queued, dropped, is_full) = (end.session.queued(), node.dropped, !end.session.has_place(Class::Ordinary));
        let fate = node.pass_on(key, post, body, question, now_ms, mutant)?;
        let Some(end) = node.peers.get(&key).and_then(|peer| peer.outgoing.as_ref()) else {
            return broken("a link ends while it is used");
        };
        let frames = end.session.queued() - queued;
        let is_right = match fate {
            Fate::Queued => frames == 1 && !is_full && duty,
            Fate::Dropped => frames == 0 && is_full && duty && node.dropped == dropped + 1,
            Fate::Unwanted => frames == 0 && !duty,
        };
        if !is_right {
            return broken(format!(
                "{process} has {fate:?} {post:?} for {key:?}, {frames} frames, {} counted; by what it was told it has \
                 to send: {duty}, is that old: {is_stale}, is the ring full: {is_full}",
                node.dropped - dropped
            ));
        }
        if fate == Fate::Unwanted && has_promised {
            return broken(format!("{process} spares {key:?} {post:?}, of which a client there has been told"));
        }
        self.outcome.promised += u64::from(has_promised);
        self.outcome.queued += u64::from(fate == Fate::Queued);
        self.outcome.dropped += u64::from(fate == Fate::Dropped);
        self.outcome.spared += u64::from(fate == Fate::Unwanted);
        self.outcome.stale += u64::from(is_stale);
        Ok(fate)
    }

    /// Applies a relayed message at a node: each message of a session once, in queue order.
    pub(super) fn apply(
        &mut self,
        process: usize,
        key: MemberKey,
        session: SessionId,
        hub: &str,
        frame: &Bytes,
    ) -> Check<Bytes> {
        let Some(post) = Post::read(hub, frame) else { return broken("a frame that nobody posted") };
        let sender = self.processes[key.0].peers.get_mut(&(process, key.1)).and_then(|peer| peer.outgoing.as_mut());
        if let Some(end) = sender.filter(|end| end.session.id() == session)
            && end.owed.pop_front() != Some(post)
        {
            return broken(format!("{process} applies {post:?} of {key:?} twice, or out of order"));
        }
        let count = self.processes[process].deliver(post)?;
        self.outcome.delivered += count;
        self.outcome.needless += u64::from(count == 0);
        self.applied.insert(Self::applied_key(process, post), count);
        if self.is(FleetMutant::PassesRelaysOn) {
            for onward in self.processes[process].keys() {
                self.processes[process].pass_on(onward, post, frame, None, self.now_ms, self.mutant)?;
            }
        }
        let ack_id = i64::try_from(post.number).unwrap_or_default();
        let message = Some(count.to_string().into());
        Ok(body_of(&ServiceMessage::Ack(Ack { ack_id, status: AckStatus::Ok, message, payload: None })))
    }

    pub(super) fn take_answer(&mut self, process: usize, key: MemberKey, question: u64, frame: &Bytes) -> Check {
        let Ok(Some(ServiceMessage::Ack(ack))) = ServiceMessage::decode(frame) else { return broken("no answer") };
        // Late answers are ignored.
        let Some(ask) = self.processes[process].asks.get_mut(&question) else { return Ok(()) };
        if !ask.open.remove(&key) {
            return broken(format!("{key:?} answers question {question} of {process}, which it was not asked"));
        }
        let post = ask.post;
        let count = self.applied.get(&Self::applied_key(key.0, post)).copied();
        if u64::try_from(ack.ack_id) != Ok(post.number) || count != ack.message.and_then(|text| text.parse().ok()) {
            return broken(format!("{key:?} answers {} to {post:?}, {count:?} clients have it", ack.ack_id));
        }
        self.outcome.answered += 1;
        Ok(())
    }

    /// Ends requests when all nodes have answered, or on timeout.
    pub(super) fn close_asks(&mut self, process: usize) -> Check {
        let now_ms = self.now_ms;
        let mut missing = 0;
        self.processes[process].asks.retain(|_, ask| {
            let is_over = ask.open.is_empty() || ask.until_ms <= now_ms;
            missing += if is_over { ask.open.len() as u64 } else { 0 };
            !is_over
        });
        self.outcome.missing += missing;
        Ok(())
    }

    /// Ends the wait for a peer after the end of its link.
    pub(super) fn asks_lost(&mut self, process: usize, key: MemberKey) {
        let mut missing = 0;
        for ask in self.processes[process].asks.values_mut() {
            missing += u64::from(ask.open.remove(&key));
        }
        self.outcome.missing += missing;
    }
}
