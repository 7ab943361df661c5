//! One run of a fleet's node: its clients, visible members, and messages to peers.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use trunkline_protocol::fleet::{
    AckTracker, Agreement, Awaited, Greeting, HubInterest, InterestUpdate, NodeMessage, NodePhase, NodeState,
    PeerInterest, WireVersions, encode_ask, encode_relay, view_of,
};
use trunkline_protocol::limits::INTEREST_STALE_MS;
use trunkline_protocol::service::{Backoff, Class, SessionId};

use super::client::Client;
use super::fleet_mutant::FleetMutant;
use super::node_end::NodeEnd;
use super::post::{HUBS, Post, Recipients};
use crate::ledger::{Check, broken};
use crate::random::Random;

/// Number of addresses per node, all of the same admin port.
pub(crate) const ADDRESSES_PER_NODE: usize = 2;

/// Link to a member: the process, and the index of the link, which is nonzero only with a mutant.
pub(crate) type MemberKey = (usize, usize);

/// Direction of a node link, as seen by an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Outgoing,
    Incoming,
}

/// Another node from a node's perspective.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    pub(crate) outgoing: Option<NodeEnd>,
    pub(crate) incoming: Option<NodeEnd>,
    pub(crate) interest: PeerInterest,
    /// View reported by the peer.
    pub(crate) view: Option<u64>,
    /// Number of sessions started by this node.
    pub(crate) sessions: u64,
    /// Newest session started by the other node.
    pub(crate) newest: Option<SessionId>,
    pub(crate) met_ms: u64,
    /// Reported interest of the peer, according to the ledger.
    pub(crate) taken: Taken,
}

/// Interest received from a peer in the current session: an independent record to compare the node with.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    is_complete: bool,
    told: BTreeSet<(usize, u16)>,
    /// Time of the last beat answered after it.
    pub(crate) asked_ms: Option<u64>,
}

impl Taken {
    pub(crate) fn take(&mut self, update: &InterestUpdate) {
        match update {
            InterestUpdate::Whole { hub, map } => {
                // Maps in the simulation are short lists of buckets.
                let bytes = map.to_bytes();
                let buckets = bytes.as_chunks().0.iter().map(|pair| u16::from_be_bytes(*pair));
                let hub = HUBS.iter().position(|name| *hub == **name).unwrap_or_default();
                self.told.retain(|(of, _)| *of != hub);
                self.told.extend(buckets.map(|bucket| (hub, bucket)));
            }
            InterestUpdate::Added { hub, buckets } => {
                let hub = HUBS.iter().position(|name| *hub == **name).unwrap_or_default();
                self.told.extend(buckets.iter().map(|bucket| (hub, *bucket)));
            }
            InterestUpdate::Complete => self.is_complete = true,
        }
    }

    /// Whether the interest is complete and recent.
    pub(crate) fn is_fresh(&self, now_ms: u64) -> bool {
        self.is_complete && self.asked_ms.is_some_and(|asked_ms| now_ms - asked_ms <= INTEREST_STALE_MS)
    }

    /// Whether a message must, or must not, be sent to the peer, given since when its bucket is announced or withdrawn.
    pub(crate) fn duty(&self, hub: usize, bucket: u16, telling: Telling, now_ms: u64) -> Check<bool> {
        if !self.is_fresh(now_ms) {
            return Ok(true);
        }
        let is_told = self.told.contains(&(hub, bucket));
        if self.asked_ms > Some(telling.since_ms) && is_told != telling.is_told {
            return broken(format!("{telling:?}, and an answer behind it tells otherwise: {:?}", self.asked_ms));
        }
        Ok(is_told)
    }
}

/// Address that a node dials.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contact {
    pub(crate) dial_at_ms: u64,
    pub(crate) backoff: Backoff,
    /// Whether an operator configured the address, so that it is never removed.
    pub(crate) is_given: bool,
    pub(crate) failures: u32,
    /// Process that was greeted there and has to be linked.
    pub(crate) greeted: Option<usize>,
    pub(crate) process: Option<usize>,
}

#[derive(Debug)]
pub(crate) struct OpenAsk {
    pub(crate) post: Post,
    pub(crate) until_ms: u64,
    /// Nodes that have not answered.
    pub(crate) open: BTreeSet<MemberKey>,
}

/// Whether a bucket is announced to other nodes, and since when.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Telling {
    pub(crate) is_told: bool,
    pub(crate) since_ms: u64,
}

/// Result of sending a message to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Queued,
    Dropped,
    Unwanted,
}

/// One run of a node.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) id: usize,
    pub(crate) slot: usize,
    pub(crate) phase: NodePhase,
    pub(crate) is_alive: bool,
    pub(crate) frozen_until_ms: u64,
    pub(crate) leaves_at_ms: u64,
    pub(crate) beat_at_ms: u64,
    pub(crate) sweep_at_ms: u64,
    pub(crate) clients: Vec<Client>,
    pub(crate) peers: BTreeMap<MemberKey, Peer>,
    pub(crate) contacts: BTreeMap<usize, Contact>,
    pub(crate) asks: BTreeMap<u64, OpenAsk>,
    pub(crate) asked: u64,
    pub(crate) posted: u64,
    /// Next session to start, with any peer.
    pub(crate) next_session: SessionId,
    pub(crate) agreement: Agreement,
    /// Number of messages that it counted as dropped.
    pub(crate) dropped: u64,
    /// Ledger of announced interest, by hub and bucket.
    pub(crate) tellings: BTreeMap<(usize, u16), Telling>,
    /// Acknowledgements of interest by the other nodes.
    pub(crate) ack_tracker: AckTracker<(usize, u16), usize>,
    /// Time of the last answered beat of each process that receives the interest.
    pub(crate) echoed: BTreeMap<usize, u64>,
    hubs: [HubInterest; HUBS.len()],
}

/// Interest announced by a node at one moment.
#[derive(Debug)]
pub(crate) struct NewsRound {
    number: u64,
    keys: Vec<(usize, u16)>,
    pub(crate) updates: Vec<InterestUpdate>,
}

impl Process {
    pub(crate) fn new(id: usize, slot: usize, now_ms: u64) -> Self {
        Self {
            id,
            slot,
            phase: NodePhase::Ready,
            is_alive: true,
            frozen_until_ms: 0,
            leaves_at_ms: u64::MAX,
            beat_at_ms: now_ms,
            sweep_at_ms: now_ms,
            clients: Vec::new(),
            peers: BTreeMap::new(),
            contacts: BTreeMap::new(),
            asks: BTreeMap::new(),
            asked: 0,
            posted: 0,
            next_session: SessionId::FIRST,
            agreement: Agreement::default(),
            dropped: 0,
            tellings: BTreeMap::new(),
            ack_tracker: AckTracker::default(),
            echoed: BTreeMap::new(),
            hubs: Default::default(),
        }
    }

    pub(crate) fn is_awake(&self, now_ms: u64) -> bool {
        self.is_alive && self.frozen_until_ms <= now_ms
    }

    pub(crate) fn keys(&self) -> Vec<MemberKey> {
        self.peers.keys().copied().collect()
    }

    pub(crate) fn end(&mut self, key: MemberKey, direction: Direction) -> &mut Option<NodeEnd> {
        let peer = self.peers.entry(key).or_default();
        match direction {
            Direction::Outgoing => &mut peer.outgoing,
            Direction::Incoming => &mut peer.incoming,
        }
    }

    /// Whether the outgoing link of a member has a socket.
    pub(crate) fn is_linked(&self, key: MemberKey) -> bool {
        let end = self.peers.get(&key).and_then(|peer| peer.outgoing.as_ref());
        end.is_some_and(|end| end.socket.is_some())
    }

    /// Member with a different view, if the views have differed for long enough.
    pub(crate) fn differing(&self, mutant: Option<FleetMutant>, random: &mut Random) -> Option<usize> {
        let own = self.view(mutant);
        let others = self.peers.iter().filter(|(_, peer)| peer.view.is_some_and(|view| view != own));
        let others: Vec<_> = others.map(|((process, _), _)| *process).collect();
        if self.agreement.agrees() || others.is_empty() { None } else { Some(others[random.index(others.len())]) }
    }

    pub(crate) fn enter(&mut self, hub: usize, membership: Recipients) {
        if self.hubs[hub].enter(membership.bucket()) {
            self.ack_tracker.note_key((hub, membership.bucket()));
        }
    }

    pub(crate) fn leave(&mut self, hub: usize, membership: Recipients) {
        self.hubs[hub].leave(membership.bucket());
    }

    pub(crate) fn add_client(&mut self, client: Client) {
        for membership in client.memberships() {
            self.enter(client.hub, membership);
        }
        self.clients.push(client);
    }

    pub(crate) fn remove_client(&mut self, index: usize) {
        let client = self.clients.swap_remove(index);
        for membership in client.memberships() {
            self.leave(client.hub, membership);
        }
    }

    /// Takes additions since the last call, which count as announced from now on.
    pub(crate) fn take_news(&mut self, now_ms: u64) -> NewsRound {
        let (number, news) = self.ack_tracker.take_news();
        for &(hub, bucket) in &news {
            self.tellings.insert((hub, bucket), Telling { is_told: true, since_ms: now_ms });
        }
        let of = |hub| news.iter().filter(move |(of, _)| *of == hub).map(|(_, bucket)| *bucket).collect::<Vec<_>>();
        let added = HUBS.iter().enumerate().map(|(hub, name)| (*name, of(hub)));
        let added = added.filter(|(_, buckets)| !buckets.is_empty());
        let updates = added.map(|(hub, buckets)| InterestUpdate::Added { hub: hub.into(), buckets }).collect();
        NewsRound { number, keys: news, updates }
    }

    /// Waits for peers that rely on older interest to acknowledge a round.
    pub(crate) fn await_peers(&mut self, round: NewsRound, now_ms: u64, mutant: Option<FleetMutant>) {
        let is = |broken| mutant == Some(broken);
        let stale_ms = if is(FleetMutant::WaitsTooShort) { INTEREST_STALE_MS / 2 } else { INTEREST_STALE_MS };
        let mut awaited = Vec::new();
        for (&peer, echoed_ms) in &self.echoed {
            let (until_ms, link) = (echoed_ms + stale_ms + 1, self.peers.get_mut(&(peer, 0)));
            let end = link.and_then(|peer| peer.outgoing.as_mut());
            let is_deaf = end.as_ref().is_none_or(|end| end.socket.is_none());
            let is_forgotten = is(FleetMutant::WaitsForNobody) || (is(FleetMutant::WaitsForSocketsAlone) && is_deaf);
            if until_ms > now_ms && !is_forgotten {
                let beat = end.map_or(u64::MAX, |end| end.beat_behind(now_ms));
                let beat = if is(FleetMutant::TakesOlderAnswers) { beat.saturating_sub(1) } else { beat };
                awaited.push(Awaited { peer, beat, until_ms });
            }
        }
        self.ack_tracker.mark_sent(round.number, round.keys, awaited);
    }

    /// Whether a client here may already have a confirmed membership for this message.
    pub(crate) fn has_promised(&mut self, post: Post, now_ms: u64, mutant: Option<FleetMutant>) -> bool {
        self.ack_tracker.settle(now_ms);
        let round = self.ack_tracker.round_of(&(post.hub, post.to.bucket()));
        let is_untold = self.ack_tracker.has_news() && round == self.ack_tracker.newest();
        let is_heard = round.is_none() || (is_untold && mutant == Some(FleetMutant::AnswersBeforeTelling));
        is_heard && self.clients.iter().any(|client| client.wants(post))
    }

    /// Withdraws buckets without members.
    pub(crate) fn sweep(&mut self, now_ms: u64, mutant: Option<FleetMutant>) -> Vec<InterestUpdate> {
        let mut updates = Vec::new();
        for (hub, interest) in self.hubs.iter().enumerate() {
            let has_changed = interest.sweep();
            let mut map = interest.map();
            let tellings = self.tellings.iter_mut().filter(|((of, _), telling)| *of == hub && telling.is_told);
            for ((_, bucket), telling) in tellings {
                // Additions that are still unannounced remain valid.
                if !map.contains(*bucket) {
                    *telling = Telling { is_told: false, since_ms: now_ms };
                }
            }
            if has_changed {
                if mutant == Some(FleetMutant::SweepsTooEarly) {
                    let everyone = Recipients::Everyone.bucket();
                    map = (0..=u16::MAX).filter(|bucket| *bucket != everyone && map.contains(*bucket)).collect();
                }
                updates.push(InterestUpdate::Whole { hub: HUBS[hub].into(), map });
            }
        }
        updates
    }

    pub(crate) fn introduction(&self, is_first: bool, mutant: Option<FleetMutant>) -> Vec<NodeMessage> {
        let wholes = self.hubs.iter().zip(HUBS).map(|(interest, hub)| {
            NodeMessage::Interest(InterestUpdate::Whole { hub: hub.into(), map: interest.map() })
        });
        let forgets = mutant == Some(FleetMutant::ForgetsInterestOfNewSessions) && !is_first;
        let mut messages: Vec<_> = wholes.filter(|_| !forgets).collect();
        messages.push(NodeMessage::Interest(InterestUpdate::Complete));
        messages.push(NodeMessage::State(self.state(mutant)));
        messages
    }

    /// Members with links in both directions, and the node itself.
    pub(crate) fn members(&self) -> BTreeSet<usize> {
        let linked = self.peers.iter().filter(|(_, peer)| peer.outgoing.is_some() && peer.incoming.is_some());
        linked.map(|((process, _), _)| *process).chain([self.id]).collect()
    }

    pub(crate) fn view(&self, mutant: Option<FleetMutant>) -> u64 {
        let names: Vec<_> = self.members().into_iter().map(boot_id).collect();
        if mutant == Some(FleetMutant::HashesInOrder) {
            // Each node starts with itself.
            let (before, after): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| *name < boot_id(self.id));
            let name = [after, before].concat().join(" ");
            return view_of([&*name].into_iter());
        }
        view_of(names.iter().map(String::as_str))
    }

    pub(crate) fn state(&self, mutant: Option<FleetMutant>) -> NodeState {
        let members = u32::try_from(self.members().len()).unwrap_or(u32::MAX);
        NodeState { phase: self.phase, members, view: self.view(mutant) }
    }

    pub(crate) fn agree(&mut self, now_ms: u64, mutant: Option<FleetMutant>) -> Option<bool> {
        let own = self.view(mutant);
        let linked = self.peers.values().filter(|peer| peer.outgoing.is_some() && peer.incoming.is_some());
        self.agreement.update(own, linked.filter_map(|peer| peer.view), now_ms)
    }

    pub(crate) fn greeting(&self) -> Greeting {
        let told = self.members();
        // One address per member, because the size of the greeting is limited.
        let led = self.contacts.iter().filter_map(|(address, contact)| Some((contact.process?, *address)));
        let addresses: BTreeMap<_, _> = led.filter(|(process, _)| told.contains(process)).collect();
        let known = addresses.into_values().map(url);
        Greeting {
            name: format!("node {}", self.slot),
            boot: boot_id(self.id),
            version: "0".into(),
            wire: WireVersions::CURRENT,
            address: Some(url(self.slot * ADDRESSES_PER_NODE)),
            advertised: None,
            known: known.collect(),
        }
    }

    /// Dials the addresses in another node's greeting.
    pub(crate) fn record_greeting(&mut self, greeting: &Greeting, now_ms: u64) -> Check {
        for url in greeting.address.iter().chain(&greeting.known) {
            let Some(address) = address_of(url) else { return broken(format!("a greeting tells {url:?}")) };
            let contact = self.contacts.entry(address);
            let contact = contact.or_insert_with(|| Contact { dial_at_ms: now_ms, ..Contact::default() });
            if greeting.address.as_ref() == Some(url) {
                contact.process = process_of(&greeting.boot);
            }
        }
        Ok(())
    }

    /// Sends a message to a peer if it may have recipients.
    pub(crate) fn pass_on(
        &mut self,
        key: MemberKey,
        post: Post,
        body: &Bytes,
        question: Option<u64>,
        now_ms: u64,
        mutant: Option<FleetMutant>,
    ) -> Check<Fate> {
        let Some(Peer { outgoing: Some(end), interest, .. }) = self.peers.get_mut(&key) else {
            return Ok(Fate::Unwanted);
        };
        // At the time of confirmation, no interest is stale.
        let asked_ms = if mutant == Some(FleetMutant::IgnoresStaleness) { 0 } else { now_ms };
        let is_wanted = interest.may_want(HUBS[post.hub], &[post.to.wanted()], asked_ms);
        if !is_wanted && mutant != Some(FleetMutant::IgnoresInterest) {
            return Ok(Fate::Unwanted);
        }
        if !end.session.has_place(Class::Ordinary) && mutant != Some(FleetMutant::OverfillsRings) {
            self.dropped += u64::from(mutant != Some(FleetMutant::DropsUncounted));
            return Ok(Fate::Dropped);
        }
        let pushed = end.push(post, |out| match question {
            Some(question) => encode_ask(question, HUBS[post.hub], body, out),
            None => encode_relay(HUBS[post.hub], body, out),
        });
        pushed.map(|()| Fate::Queued)
    }

    /// Delivers a message to its local recipients and returns their number.
    pub(crate) fn deliver(&mut self, post: Post) -> Check<u64> {
        let mut count = 0;
        for client in self.clients.iter_mut().filter(|client| client.wants(post)) {
            client.take(post)?;
            count += 1;
        }
        Ok(count)
    }
}

pub(crate) fn boot_id(process: usize) -> String {
    format!("boot {process}")
}

pub(crate) fn process_of(boot: &str) -> Option<usize> {
    boot.strip_prefix("boot ")?.parse().ok()
}

fn url(address: usize) -> String {
    format!("http://node-{address}:8090")
}

fn address_of(url: &str) -> Option<usize> {
    url.strip_prefix("http://node-")?.strip_suffix(":8090")?.parse().ok()
}
