//! Housekeeping of the fleet: diallers, beats, reports to other nodes, and removal of members.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};
use trunkline_protocol::fleet::{Agreement, BEAT_INTERVAL_MS, InterestUpdate, NodeMessage};
use trunkline_protocol::id::random_bytes;

use super::address_book::RESOLVE_INTERVAL;
use super::dialler::Dialler;
use super::fleet_core::Fleet;
use super::fleet_member::{FleetMember, MemberState};
use super::fleet_membership::{Membership, keep_names};
use super::own_interest::OwnInterest;
use crate::ground::net::address::Address;
use crate::ground::net::resolver::Resolver;

/// Minimum interval between interest updates. Each is a message to every node, many in a connection storm.
const NEWS_INTERVAL: Duration = Duration::from_millis(2);

/// Maximum time for other nodes to announce themselves before this one goes on alone.
const INTRODUCTION_TIMEOUT: Duration = Duration::from_secs(15);

/// Interval between removals of ended interest.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

pub(crate) async fn keep_fleet(fleet: Fleet, resolver: Resolver) {
    let members = fleet.members();
    if members.is_alone() {
        return fleet.keep_records().await;
    }
    // This function runs once.
    drop(fleet.runtime().set(Handle::current()));
    let keeper = Housekeeper { fleet: &fleet, members };
    tokio::join!(
        keeper.keep_diallers(&resolver),
        keeper.keep_announced(),
        keep_names(members),
        keeper.keep_beats(),
        keeper.keep_state_published(),
        keeper.keep_interest(),
        fleet.presence().keep(members),
        fleet.keep_records()
    );
}

struct Housekeeper<'a> {
    fleet: &'a Fleet,
    members: &'a Membership,
}

impl Housekeeper<'_> {
    /// Announces this node through the broker, if the fleet has one, and dials the others.
    async fn keep_announced(&self) {
        if let Some(broker) = self.fleet.broker() {
            let keep = broker.keep(&self.members.shared, |address| self.members.note_announced(address));
            tokio::select! {
                () = keep => {}
                () = self.members.left() => {}
            }
        }
    }

    /// Starts a dialler for each new address, until the node leaves.
    async fn keep_diallers(&self, resolver: &Resolver) {
        let Some(mut learnt) = self.members.take_learnt() else { return };
        let peers = &self.members.shared.settings.fleet.peers;
        if let Some(broker) = self.fleet.broker().filter(|_| peers.is_empty()) {
            // All nodes that are there have to be tried before this one is ready.
            drop(timeout(INTRODUCTION_TIMEOUT, broker.introduced()).await);
        }
        self.members.begin_search();
        let (mut diallers, mut resolving) = (JoinSet::new(), interval(RESOLVE_INTERVAL));
        resolving.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let new = tokio::select! {
                () = self.members.left() => return diallers.detach_all(),
                Some(address) = learnt.recv() => vec![address],
                _ = resolving.tick() => self.members.addresses.resolve(peers, resolver).await,
                // Diallers of removed addresses.
                Some(_) = diallers.join_next() => Vec::new(),
            };
            for address in new {
                diallers.spawn(Dialler { fleet: self.fleet.clone(), address }.run());
            }
        }
    }

    /// Sends a beat to each node, removes departed members and checks agreement.
    async fn keep_beats(&self) {
        let mut beats = interval(Duration::from_millis(BEAT_INTERVAL_MS));
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut agreement = Agreement::default();
        loop {
            beats.tick().await;
            for member in self.members.all().iter() {
                member.links.living().for_each(|link| link.beat());
                self.note_state(member);
            }
            for member in self.members.remove_gone() {
                info!(peer = member.name(), boot = member.boot(), "node left the fleet");
                self.fleet.presence().note_change();
            }
            self.note_agreement(&mut agreement);
            if !agreement.agrees() {
                self.greet_again();
            }
            // Phase changes are not signalled.
            self.members.state_changed();
        }
    }

    fn note_state(&self, member: &FleetMember) {
        let now_ms = self.members.now_ms();
        let (member_state, lag_ms) = (member.state(now_ms), member.links.lag_ms(now_ms));
        let is_missed = matches!(member_state, MemberState::Late | MemberState::Unreachable);
        // A new member is not linked yet, and a draining member is about to leave.
        if !(is_missed && member.may_be_away()) && member.has_changed(member_state) {
            info!(peer = member.name(), state = member_state.label(), lag_ms, "node changed its state");
        }
        if member.links.outgoing().is_some_and(|link| link.is_open() && !link.is_full()) {
            let dropped = member.take_dropped();
            if dropped > 0 {
                warn!(peer = member.name(), dropped, "node accepts messages again, and has missed some");
            }
        }
    }

    /// Greets a member with a different view to discover its members. Nodes that greeted a third node simultaneously
    /// don't know each other.
    fn greet_again(&self) {
        let own = self.members.view();
        let members = self.members.all();
        let differing: Vec<_> = members.iter().filter(|member| member.view().is_some_and(|view| view != own)).collect();
        let chance = usize::from(u16::from_ne_bytes(random_bytes()));
        let chosen = chance.checked_rem(differing.len()).and_then(|index| differing.get(index)?.address());
        if let Some(address) = chosen {
            let dialler = Dialler { fleet: self.fleet.clone(), address: Address::clone(&address) };
            tokio::spawn(async move { dialler.greet_again().await });
        }
    }

    fn note_agreement(&self, agreement: &mut Agreement) {
        let (own, now_ms) = (self.members.view(), self.members.now_ms());
        let members = self.members.all();
        // Includes members that this node can't send to; they may still count it.
        let telling = members.iter().filter(|member| member.links.has_incoming_socket());
        agreement.update(own, telling.filter_map(|member| member.view()), now_ms);
        self.members.set_agrees(agreement.agrees());
    }

    /// Reports state changes to the other nodes.
    async fn keep_state_published(&self) {
        loop {
            if let Some(state) = self.members.next_state().await {
                self.members.send_to_members(&NodeMessage::State(state));
            }
        }
    }

    /// Publishes this node's subscriptions: additions immediately, removals in batches.
    async fn keep_interest(&self) {
        let Some(interest) = self.members.interest().cloned() else { return };
        let mut sweeps = interval(SWEEP_INTERVAL);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next_settling = interest.settle(self.members.now_ms());
            tokio::select! {
                () = interest.has_news() => {
                    self.send_updates(&interest);
                    sleep(NEWS_INTERVAL).await;
                }
                () = self.until_ms(next_settling) => {}
                _ = sweeps.tick() => self.send_sweep(&interest),
            }
        }
    }

    /// Waits until a time on the clock of node links; forever if `None`.
    async fn until_ms(&self, at_ms: Option<u64>) {
        match at_ms {
            Some(at_ms) => sleep(Duration::from_millis(at_ms.saturating_sub(self.members.now_ms()))).await,
            None => std::future::pending().await,
        }
    }

    /// Publishes new interest. Runs only on the fleet's thread, because messages from other threads could overtake it.
    fn send_updates(&self, interest: &OwnInterest) {
        let Some((round, mut news)) = interest.take_news() else { return };
        news.sort_by_key(|(hub, _)| hub.get());
        let hubs = &self.members.shared.hubs;
        for part in news.chunk_by(|(one, _), (other, _)| one == other) {
            let Some(hub) = part.first().and_then(|(hub, _)| hubs.at(*hub)) else { continue };
            let buckets = part.iter().map(|&(_, bucket)| bucket).collect();
            self.members
                .send_to_members(&NodeMessage::Interest(InterestUpdate::Added { hub: hub.key().into(), buckets }));
        }
        let now_ms = self.members.now_ms();
        interest.mark_sent(
            round,
            news,
            self.members.all().iter().filter_map(|member| member.awaited(now_ms)).collect(),
        );
    }

    fn send_sweep(&self, interest: &OwnInterest) {
        // An update sent after the sweep would add subscriptions that the sweep has removed.
        self.send_updates(interest);
        for index in interest.sweep() {
            if let Some(hub) = self.members.shared.hubs.at(index) {
                self.members.send_to_members(&NodeMessage::Interest(self.members.interest_in(&hub)));
            }
        }
    }
}
