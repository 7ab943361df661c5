//! Core of the fleet: owns the parts, and runs the steps that involve several of them.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;
use tracing::info;
use trunkline_protocol::fleet::{Greeting, InterestUpdate, NodeMessage, SharedRevocation};
use trunkline_protocol::service::ServiceMessage;

use super::accepted_link::AcceptedLinks;
use super::app_presence::AppPresence;
use super::fleet_member::FleetMember;
use super::fleet_membership::{Membership, note_address, url};
use super::fleet_relay::{FleetRelay, introduce_user_groups};
use super::node_link::NodeLink;
use super::node_question::{ANSWER_TIMEOUT, Answers, NodeQuestions};
use super::node_queue::ROOM_TIMEOUT;
use super::own_interest::OwnInterest;
use super::peer_request::{PeerRequest, PeerResponse};
use super::record_lane::RecordLanes;
use crate::engine::shard::{Seams, SetInterest, Shared};
use crate::features::admission::Admission;
#[cfg(test)]
use crate::features::store::MemoryEngine;
use crate::features::store::{Broker, Store, StoreAway};
use crate::features::user_group::UserGroups;
use crate::ground::auth::AccessSettings;
use crate::ground::clock::unix_seconds;
use crate::ground::config::Settings;
use crate::ground::limits::SignerShare;
use crate::ground::net::address::Address;
use crate::ground::net::connector::Connector;

/// State of a node behind the seams of the engine: created before the shards, then shared with the features.
#[derive(Debug, Clone)]
pub(crate) struct NodeStores {
    pub admission: Arc<Admission>,
    pub user_groups: Arc<UserGroups>,
    /// Store of what must outlive the last node; `None` without one.
    pub store: Option<Arc<Store>>,
    /// Way to other nodes through the store's connection, if the fleet uses it.
    pub broker: Option<Arc<Broker>>,
    /// Subscriptions of this node at other nodes; `None` for a node without peers.
    pub(super) interest: Option<Arc<OwnInterest>>,
}

impl NodeStores {
    /// `issuers` fetches keys of token issuers.
    pub(crate) fn new(settings: &Settings, access: AccessSettings, issuers: Connector) -> Self {
        let admission = Admission::new(&settings.keys, access, issuers);
        let user_groups = UserGroups::of_node(settings, &admission.signing_keys);
        let interest = settings.fleet.has_peers().then(Arc::default);
        let store = Store::of_node(settings, (&admission, &user_groups));
        let broker = store.as_ref().filter(|_| settings.fleet.by_nats).map(Broker::new);
        Self { admission, user_groups, store, broker, interest }
    }

    /// Lets the fleet use an engine in memory as its broker, and for nothing else. Returns the broker's store.
    #[cfg(test)]
    pub(crate) fn carry_by(&mut self, engine: &MemoryEngine, settings: &Settings) -> Arc<Store> {
        let of_others = Self::new(settings, AccessSettings::default(), Connector::default());
        let store = Store::in_memory(engine, &settings.keys, (&of_others.admission, &of_others.user_groups));
        self.broker = Some(Broker::new(&store));
        store
    }

    /// Creates the stores of a node with access keys only.
    pub(crate) fn with_keys_alone(settings: &Settings) -> Self {
        Self::new(settings, AccessSettings::default(), Connector::default())
    }

    pub(crate) fn seams(&self) -> Seams {
        let interest = self.interest.clone().map(|interest| interest as Arc<dyn SetInterest>);
        Seams { access: self.admission.clone(), user_groups: self.user_groups.clone(), interest }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Fleet(Arc<FleetParts>);

#[derive(Debug)]
struct FleetParts {
    stores: NodeStores,
    members: Membership,
    fleet_relay: FleetRelay,
    questions: NodeQuestions,
    presence: AppPresence,
    records: RecordLanes,
    accepted: AcceptedLinks,
    runtime: OnceLock<Handle>,
}

impl Fleet {
    pub(crate) fn new(shared: Arc<Shared>, stores: NodeStores, admin: SocketAddr) -> Self {
        let fleet = Self(Arc::new(FleetParts {
            members: Membership::new(shared.clone(), stores.interest.clone(), admin),
            stores,
            fleet_relay: FleetRelay::new(shared.clone()),
            questions: NodeQuestions::default(),
            presence: AppPresence::default(),
            records: RecordLanes::new(shared.settings.history.max_bytes),
            accepted: AcceptedLinks::default(),
            runtime: OnceLock::new(),
        }));
        if shared.settings.fleet.has_peers() || shared.settings.rest.is_on() || fleet.store().is_some() {
            shared.join_fleet(Arc::new(fleet.clone()));
        }
        shared.record_by(Arc::new(fleet.clone()));
        fleet
    }

    pub(crate) fn members(&self) -> &Membership {
        &self.0.members
    }

    pub(crate) fn admission(&self) -> &Arc<Admission> {
        &self.0.stores.admission
    }

    pub(crate) fn user_groups(&self) -> &Arc<UserGroups> {
        &self.0.stores.user_groups
    }

    pub(crate) fn store(&self) -> Option<&Arc<Store>> {
        self.0.stores.store.as_ref()
    }

    #[cfg(test)]
    pub(crate) fn stores(&self) -> &NodeStores {
        &self.0.stores
    }

    pub(crate) fn broker(&self) -> Option<&Arc<Broker>> {
        self.0.stores.broker.as_ref()
    }

    /// Writes a membership change into the store, if there is one.
    pub(super) fn keep_in_store(
        &self,
        hub: &str,
        message: &ServiceMessage,
    ) -> impl Future<Output = Result<(), StoreAway>> + use<> {
        let store = self.store().filter(|_| message.outlasts_connections()).cloned();
        let kept = store.map(|store| (store, hub.to_owned(), message.clone()));
        async move {
            match kept {
                Some((store, hub, message)) => store.keep_first(&hub, &message).await,
                None => Ok(()),
            }
        }
    }

    pub(crate) fn fleet_relay(&self) -> &FleetRelay {
        &self.0.fleet_relay
    }

    pub(crate) fn questions(&self) -> &NodeQuestions {
        &self.0.questions
    }

    pub(crate) fn records(&self) -> &RecordLanes {
        &self.0.records
    }

    pub(super) fn presence(&self) -> &AppPresence {
        &self.0.presence
    }

    pub(super) fn accepted(&self) -> &AcceptedLinks {
        &self.0.accepted
    }

    pub(super) fn runtime(&self) -> &OnceLock<Handle> {
        &self.0.runtime
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.members.shared
    }

    /// Sends a query to these members, queued immediately to preserve order.
    pub(super) fn ask(
        &self,
        asked: Vec<Arc<FleetMember>>,
        hub: &str,
        body: &[u8],
    ) -> impl Future<Output = Answers<Option<ServiceMessage>>> + use<> {
        self.ask_within(asked, hub, (body, ANSWER_TIMEOUT))
    }

    pub(super) fn ask_within(
        &self,
        asked: Vec<Arc<FleetMember>>,
        hub: &str,
        (body, within): (&[u8], Duration),
    ) -> impl Future<Output = Answers<Option<ServiceMessage>>> + use<> {
        let share = self.share_of_hub(hub);
        let clock = self.0.members.clock;
        self.0.questions.ask((&self.0.fleet_relay, clock), asked, (hub, &share), (body, within))
    }

    /// Permit share for queries about connections of this hub.
    pub(super) fn share_of_hub(&self, key: &str) -> SignerShare {
        let shared = self.shared();
        shared.share_of(&self.0.fleet_relay.owner_of(key))
    }

    /// Waits until an app has room at these members, so that its senders are slowed down and lose nothing.
    pub(super) async fn room(&self, share: &SignerShare, asked: impl FnOnce() -> Vec<Arc<FleetMember>>) {
        if !self.is_crowded(share) {
            return;
        }
        let until = Instant::now() + ROOM_TIMEOUT;
        for member in asked() {
            member.links.room(share, until).await;
        }
    }

    /// Whether an app has used up its share of the queue for any member.
    pub(super) fn is_crowded(&self, share: &SignerShare) -> bool {
        self.0.members.all().iter().any(|member| member.links.are_crowded(share))
    }

    pub(crate) async fn request_all(&self, request: &PeerRequest, within: Duration) -> Answers<PeerResponse> {
        self.request(self.0.members.all().to_vec(), request, within).await
    }

    pub(crate) async fn request(
        &self,
        asked: Vec<Arc<FleetMember>>,
        request: &PeerRequest,
        within: Duration,
    ) -> Answers<PeerResponse> {
        self.0.questions.request(self.0.members.clock, asked, request, within).await
    }

    /// Adds a greeting node. `None` at the member limit.
    pub(super) fn meet(&self, greeting: &Greeting, address: Option<&Address>) -> Option<Arc<FleetMember>> {
        let (member, is_new) = self.0.members.meet(greeting, address)?;
        if is_new {
            self.0.presence.note_change();
        }
        Some(member)
    }

    /// Sets the outgoing link of a member. Token revocations are sent first: a starting node is ready once it has the
    /// state, and so the revocations, of all others.
    pub(super) fn begin_outgoing(&self, member: &FleetMember, link: &Arc<NodeLink>) {
        for told in self.admission().revocations.all(unix_seconds()) {
            link.notify(&NodeMessage::Revocation(told));
        }
        member.set_outgoing(Some(link.clone()));
        note_address(self.shared(), member);
        self.0.members.state_changed();
    }

    /// Sends a new member this node's state and interest.
    pub(super) fn introduce(&self, member: &FleetMember, link: &Arc<NodeLink>) {
        let members = &self.0.members;
        self.0.presence.introduce(members, link);
        link.notify(&NodeMessage::State(members.state()));
        for hub in self.shared().hubs.living().iter() {
            link.notify(&NodeMessage::Interest(members.interest_in(hub)));
        }
        link.notify(&NodeMessage::Interest(InterestUpdate::Complete));
        introduce_user_groups(self.user_groups(), link);
        let address = member.address().map(|address| url(&address));
        info!(peer = member.name(), address, "linked to a node of the fleet");
        members.state_changed();
    }

    /// Sends a revocation to all members. Later members receive it first of all.
    pub(crate) fn spread_revocation(&self, told: &SharedRevocation) {
        self.0.members.send_to_members(&NodeMessage::Revocation(told.clone()));
    }

    /// Handles the end of a session: pending answers fail.
    pub(super) fn link_over(&self, member: &FleetMember) {
        if member.links.outgoing().is_none() {
            self.0.questions.lost(member.boot());
            // A node that can't be dialled and has no socket is gone.
            if let Some(incoming) = member.links.incoming().filter(|incoming| !incoming.is_open()) {
                incoming.give_up();
            }
            self.shared().client_results.node_gone(member.boot());
        }
        self.0.presence.note_change();
        self.0.members.state_changed();
    }
}
