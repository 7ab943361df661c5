//! Core of the fleet: its parts, each with its own state, and the few steps that concern several of them.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tracing::info;
use trunkline_protocol::fleet::{Greeting, InterestUpdate, NodeMessage, ToldRevocation};
use trunkline_protocol::service::ServiceMessage;

use super::accepted_link::AcceptedLinks;
use super::app_presence::AppPresence;
use super::fleet_member::FleetMember;
use super::fleet_membership::{Membership, url};
use super::member_name::note_address;
use super::node_link::NodeLink;
use super::node_question::{Answers, NodeQuestions};
use super::passage::Passage;
use super::peer_request::{PeerRequest, PeerResponse};
use super::user_group_copy::introduce_user_groups;
use crate::clock::unix_seconds;
use crate::limits::SignerShare;
use crate::net::address::Address;
use crate::shard::Shared;
use crate::upstream::HubOrigin;

/// This node's part in the fleet; its clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Fleet(Arc<FleetParts>);

#[derive(Debug)]
struct FleetParts {
    members: Membership,
    passage: Passage,
    questions: NodeQuestions,
    /// App servers that have dialled in.
    presence: AppPresence,
    accepted: AcceptedLinks,
    /// Runtime of the thread on which the fleet runs.
    runtime: OnceLock<Handle>,
}

impl Fleet {
    /// Part of a node whose admin port has this address.
    #[must_use]
    pub(crate) fn new(shared: Arc<Shared>, admin: SocketAddr) -> Self {
        let fleet = Self(Arc::new(FleetParts {
            members: Membership::new(shared.clone(), admin),
            passage: Passage::new(shared.clone()),
            questions: NodeQuestions::default(),
            presence: AppPresence::default(),
            accepted: AcceptedLinks::default(),
            runtime: OnceLock::new(),
        }));
        if shared.settings.fleet.has_peers() || shared.settings.rest.is_on() {
            shared.join_fleet(Arc::new(fleet.clone()));
        }
        fleet
    }

    /// Members that this node sees, and how they see this one.
    #[must_use]
    pub(crate) fn members(&self) -> &Membership {
        &self.0.members
    }

    /// Messages that this node passes on, and their counters.
    #[must_use]
    pub(crate) fn passage(&self) -> &Passage {
        &self.0.passage
    }

    /// Questions between nodes, and the API by which this one answers.
    #[must_use]
    pub(crate) fn questions(&self) -> &NodeQuestions {
        &self.0.questions
    }

    /// App servers that dial in, here and elsewhere.
    pub(super) fn presence(&self) -> &AppPresence {
        &self.0.presence
    }

    /// Sessions that other nodes have begun.
    pub(super) fn accepted(&self) -> &AcceptedLinks {
        &self.0.accepted
    }

    /// Runtime of the thread on which the fleet runs, once it does.
    pub(super) fn runtime(&self) -> &OnceLock<Handle> {
        &self.0.runtime
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        self.0.members.shared()
    }

    /// Asks these members by the body of a message: at once, so that questions keep their order. The future waits for
    /// the answers.
    pub(super) fn ask(
        &self,
        asked: Vec<Arc<FleetMember>>,
        hub: &str,
        body: &[u8],
    ) -> impl Future<Output = Answers<Option<ServiceMessage>>> + use<> {
        let share = self.share_of_hub(hub);
        self.0.questions.ask((&self.0.passage, self.0.members.clock()), asked, (hub, &share), body)
    }

    /// Share of those who ask about connections of the hub with this key.
    fn share_of_hub(&self, key: &str) -> SignerShare {
        let admission = &self.shared().admission;
        admission.share_of(&admission.signing_keys.owner_of(HubOrigin::name_in(key)))
    }

    /// Asks all members for something of their API.
    pub(crate) async fn request_all(&self, request: &PeerRequest, within: Duration) -> Answers<PeerResponse> {
        self.request(self.0.members.all().to_vec(), request, within).await
    }

    /// Asks some members for something of their API.
    pub(crate) async fn request(
        &self,
        asked: Vec<Arc<FleetMember>>,
        request: &PeerRequest,
        within: Duration,
    ) -> Answers<PeerResponse> {
        self.0.questions.request(self.0.members.clock(), asked, request, within).await
    }

    /// Takes a node that greets; `None` when there are too many.
    pub(super) fn meet(&self, greeting: &Greeting, address: Option<&Address>) -> Option<Arc<FleetMember>> {
        let (member, is_new) = self.0.members.meet(greeting, address)?;
        if is_new {
            self.0.presence.note_change();
        }
        Some(member)
    }

    /// Notes the link that this node dials to a member. All further news go there, too, behind the revocations of
    /// tokens: a node that starts is ready once it has the state of all others, and so their revocations.
    pub(super) fn begin_outgoing(&self, member: &FleetMember, link: &Arc<NodeLink>) {
        for told in self.shared().admission.revocations.all(unix_seconds()) {
            link.tell(&NodeMessage::Revocation(told));
        }
        member.set_outgoing(Some(link.clone()));
        note_address(self.shared(), member);
        self.0.members.state_changed();
    }

    /// Sends a member all that it has to know first: the state of this node, and its interest.
    pub(super) fn introduce(&self, member: &FleetMember, link: &Arc<NodeLink>) {
        let members = &self.0.members;
        self.0.presence.introduce(members, link);
        link.tell(&NodeMessage::State(members.state()));
        for hub in self.shared().hubs.living().iter() {
            link.tell(&NodeMessage::Interest(members.interest_in(hub)));
        }
        link.tell(&NodeMessage::Interest(InterestUpdate::Complete));
        introduce_user_groups(self.shared(), link);
        let address = member.address().map(|address| url(&address));
        info!(peer = member.name(), address, "linked to a node of the fleet");
        members.state_changed();
    }

    /// Sends a revocation to all members; those that join later are sent it first of all.
    pub(crate) fn spread_revocation(&self, told: &ToldRevocation) {
        self.0.members.tell_all(&NodeMessage::Revocation(told.clone()));
    }

    /// A session to or from a member is over: nothing waits for its answers any more.
    pub(super) fn link_over(&self, member: &FleetMember) {
        if member.links().outgoing().is_none() {
            self.0.questions.lost(member.boot());
            // Who can't be dialled and has no socket either is gone.
            if let Some(incoming) = member.links().incoming().filter(|incoming| !incoming.is_open()) {
                incoming.give_up();
            }
            self.shared().client_results.node_gone(member.boot());
        }
        self.0.presence.note_change();
        self.0.members.state_changed();
    }
}
