//! Dialler of one address: greets the node there and maintains the link to it.
//!
//! ```text
//!  greet ─┬─ this node itself ─────────────────────────────────────────────► checks again periodically
//!         ├─ a node that is linked by another address ──► becomes alternative, checks again periodically
//!         ├─ no answer, a stranger, another fleet, no common version ──► logs once, retries
//!         └─ a node of the fleet ──► link, resumed over any number of sockets ──► ended: greet again
//! ```

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info};
use trunkline_channel::{NOT_FRESH, OpenChannelError};
use trunkline_link::{Keeper, LinkEnd, LinkSocket, SessionDriver, window_passed};
use trunkline_protocol::fleet::{Greeting, GreetingError, WireVersions};
use trunkline_protocol::limits::GREETING_MAX_BYTES;
use trunkline_protocol::service::{Backoff, Offer, Role};
use trunkline_protocol::wire::{FLEET_GREET_PATH, FLEET_LINK_PATH, NODE_HEADER};

use super::address_book::{AddressProblemKind, AddressState};
use super::crash::Refusals;
use super::fleet_core::Fleet;
use super::fleet_member::FleetMember;
use super::node_link::{DropCause, LinkOver, NODE_LINK_WINDOW_MS, NodeLink, node_carrier};
use super::node_sink::{LinkDirection, NodeSink};
use crate::engine::upstream::{Dialled, LinkUpgradeError, link_request, open_link};
use crate::ground::net::address::Address;
use crate::ground::net::connector::root_cause;
use crate::ground::net::http_client::{HttpClient, HttpError};

/// Timeout of a greeting and of a link upgrade.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// Check interval of an address that leads to this node or to a linked node.
const ALIAS_INTERVAL: Duration = Duration::from_secs(10);

/// Time of refused connections after which a node is considered gone.
const REFUSED_MAX: Duration = Duration::from_secs(5);

/// Failed attempts before a problem is logged, about one second.
const NOTED_TRIES: u32 = 5;

/// Refused attempts before a warning, about five seconds: a node may be restarting.
const NOTED_REFUSED_TRIES: u32 = 8;

/// Failed attempts, about half a minute, after which an address reported only by members is removed.
const LEARNT_TRIES_MAX: u32 = 20;

#[derive(Debug, thiserror::Error)]
pub(super) enum GreetError {
    #[error("{}", words(.0))]
    Http(#[from] HttpError),
    #[error("the node is about to stop")]
    Leaving,
    #[error("not a node of this version: {0} to a greeting")]
    Status(StatusCode),
    #[error(transparent)]
    Greeting(#[from] GreetingError),
    #[error("the node supports versions {} to {} of the node messages, but this node {} to {}: upgrade the older one",
        .0.oldest, .0.newest, WireVersions::CURRENT.oldest, WireVersions::CURRENT.newest)]
    Version(WireVersions),
    #[error("there are too many members")]
    TooMany,
}

/// Reason why a link has no socket.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Upgrade(#[from] LinkUpgradeError),
    #[error("no answer within {} s", GREETING_TIMEOUT.as_secs())]
    Timeout,
}

/// Attempts before an error is logged.
fn noted_tries(error: &GreetError) -> u32 {
    match error {
        GreetError::Http(error) if is_refused(error) => NOTED_REFUSED_TRIES,
        _ => NOTED_TRIES,
    }
}

fn is_refused(error: &HttpError) -> bool {
    matches!(error, HttpError::Connect(source) if source.kind() == ErrorKind::ConnectionRefused)
}

/// Whether there was no connection or no response.
fn is_silence(error: &GreetError) -> bool {
    match error {
        // Errors of the operating system have no inner cause.
        GreetError::Http(HttpError::Connect(source)) => source.get_ref().is_none(),
        error => matches!(error, GreetError::Http(HttpError::Timeout(_))),
    }
}

fn problem_kind(error: &GreetError) -> AddressProblemKind {
    let channel_error = match error {
        GreetError::Http(HttpError::Connect(source)) => channel_error(source),
        GreetError::Http(_) | GreetError::Leaving | GreetError::TooMany => None,
        GreetError::Status(_) | GreetError::Greeting(_) | GreetError::Version(_) => {
            return AddressProblemKind::NotOfFleet;
        }
    };
    match channel_error {
        Some(OpenChannelError::Refused(refused)) if refused.status == NOT_FRESH => AddressProblemKind::ClockDiffers,
        Some(OpenChannelError::Unproven | OpenChannelError::Refused(_)) => AddressProblemKind::NotOfFleet,
        _ => AddressProblemKind::Unreachable,
    }
}

fn channel_error(source: &std::io::Error) -> Option<&OpenChannelError> {
    source.get_ref()?.downcast_ref()
}

/// Message for the operator: the problem at the address, and what to check.
fn words(error: &HttpError) -> String {
    let HttpError::Connect(source) = error else { return error.to_string() };
    match channel_error(source) {
        Some(OpenChannelError::Unproven) => "it does not have this fleet's access key".into(),
        // Checked before the headers: the admin port of a node with clock skew also sends the node header.
        Some(OpenChannelError::Refused(refused)) if refused.status == NOT_FRESH => refused.reason.clone(),
        Some(OpenChannelError::Refused(refused)) if refused.headers.contains_key(NODE_HEADER) => {
            // The admin port of a node of another fleet gives the same answer.
            "the node refuses a channel at this port: it is its client port instead of its admin port (its --admin), \
             or the node has another access key or no --peers"
                .into()
        }
        Some(OpenChannelError::Refused(refused)) if refused.status == StatusCode::NOT_FOUND => {
            "no channel: the node has another access key or no --peers, or the address is not an admin port".into()
        }
        Some(OpenChannelError::Refused(refused)) => format!("not an admin port of a node: it {refused}"),
        Some(error @ OpenChannelError::Http(_)) => error.to_string(),
        _ => root_cause(source),
    }
}

enum Greeted {
    Itself,
    /// Already linked through this address.
    Linked(Option<Arc<Address>>),
    Unlinked(Arc<FleetMember>),
}

pub(super) struct Dialler {
    pub(super) fleet: Fleet,
    pub(super) address: Address,
}

impl Dialler {
    /// Dials until the address is neither configured nor answered.
    pub(super) async fn run(self) {
        let (mut backoff, mut tries, mut alternative) = (Backoff::default(), 0, None);
        let mut keeper = Keeper::default();
        while !self.fleet.members().has_left() {
            if tries > LEARNT_TRIES_MAX && !self.fleet.members().addresses.is_given(&self.address) {
                return self.fleet.members().addresses.forget(&self.address);
            }
            let greeted = self.greet().await;
            self.fleet.members().addresses.set_tried(&self.address);
            drop(alternative.take());
            match greeted {
                Ok(Greeted::Itself | Greeted::Linked(_)) => {
                    if let Ok(Greeted::Linked(Some(linked))) = &greeted {
                        alternative = linked.also_at(&self.address);
                    }
                    (backoff, tries) = (Backoff::default(), 0);
                    sleep(ALIAS_INTERVAL).await;
                    if !self.fleet.members().addresses.is_given(&self.address) {
                        return self.fleet.members().addresses.forget(&self.address);
                    }
                }
                Ok(Greeted::Unlinked(member)) => {
                    (backoff, tries) = (Backoff::default(), 0);
                    self.keep_link(&member, &mut keeper).await;
                }
                Err(error) => {
                    tries += 1;
                    self.note_failure(&error, tries);
                    sleep(backoff.next_wait()).await;
                }
            }
        }
    }

    async fn greet(&self) -> Result<Greeted, GreetError> {
        let request = Request::post(FLEET_GREET_PATH)
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(self.fleet.members().greeting().to_json()))
            .map_err(HttpError::from)?;
        let answer = self.client().fetch(&self.address, request, GREETING_MAX_BYTES, GREETING_TIMEOUT).await?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::SERVICE_UNAVAILABLE => return Err(GreetError::Leaving),
            status => return Err(GreetError::Status(status)),
        }
        let greeting = Greeting::from_json(answer.body())?;
        let boot = &greeting.boot;
        self.fleet.members().addresses.set(&self.address, AddressState::Node);
        if *boot == self.fleet.shared().boot {
            return Ok(Greeted::Itself);
        }
        if WireVersions::CURRENT.common(greeting.wire).is_none() {
            return Err(GreetError::Version(greeting.wire));
        }
        self.fleet.members().record_addresses(&greeting);
        if let Some(linked) = self.fleet.members().find(boot).filter(|member| member.links.outgoing().is_some()) {
            return Ok(Greeted::Linked(linked.address()));
        }
        self.fleet.meet(&greeting, Some(&self.address)).map(Greeted::Unlinked).ok_or(GreetError::TooMany)
    }

    /// Greets a linked node to discover further members.
    pub(super) async fn greet_again(&self) {
        if let Err(error) = self.greet().await {
            debug!(peer = %self.address, %error, "cannot greet a member again");
        }
    }

    /// Notes a problem. The first attempts are not noted, because nodes start together.
    fn note_failure(&self, error: &GreetError, tries: u32) {
        let (problem, book) = (error.to_string(), &self.fleet.members().addresses);
        if is_silence(error) && book.is_spare(&self.address) {
            book.set(&self.address, AddressState::Trying);
            return;
        }
        if tries >= noted_tries(error) {
            book.set(&self.address, AddressState::Problem(problem_kind(error), problem));
        }
    }

    async fn keep_link(&self, member: &Arc<FleetMember>, keeper: &mut Keeper) {
        let link =
            Arc::new(NodeLink::new(self.fleet.members().next_session(), Role::Proxy, self.fleet.members().clock));
        self.fleet.begin_outgoing(member, &link);
        let (refusals, begun) = (Refusals::default(), Instant::now());
        let mut session = MemberSession { dialler: self, member, link: &link, refusals, was_open: false, begun };
        let LinkOver { reason, is_gone } = keeper.keep(&mut session).await;
        let undelivered = link.end_link();
        if is_gone {
            member.set_left();
            self.fleet.members().note_gone(member);
        }
        // The clients of a draining node have left.
        if !member.is_draining() {
            let lost = undelivered.uncertain.count + undelivered.unsent.count;
            self.fleet.fleet_relay().counters.drop_messages(DropCause::Lost, lost);
        }
        member.set_outgoing(None);
        self.fleet.link_over(member);
        // For a draining node, the state change is logged instead.
        match is_gone || self.fleet.members().has_left() {
            true => debug!(peer = member.name(), reason, "link to a node closed"),
            false => info!(peer = member.name(), reason, "link to a node closed"),
        }
    }

    fn client(&self) -> HttpClient {
        HttpClient::without_pool(self.fleet.shared().ways.node_channels.clone())
    }
}

/// Session of the link to a member, for the keeper.
struct MemberSession<'a> {
    dialler: &'a Dialler,
    member: &'a Arc<FleetMember>,
    link: &'a Arc<NodeLink>,
    refusals: Refusals,
    was_open: bool,
    begun: Instant,
}

impl MemberSession<'_> {
    async fn upgrade(&self, offer: &Offer) -> Result<Dialled, LinkError> {
        let Dialler { fleet, address } = self.dialler;
        let request = link_request(FLEET_LINK_PATH, &fleet.shared().boot, self.member.boot(), offer);
        let answer = self.dialler.client().send(address, request.map_err(HttpError::from)?).await?;
        Ok(open_link(answer, offer).await?)
    }

    /// Counts refused dials. Returns the end of a session whose node has been refusing dials for too long.
    fn handle_refusal(&mut self) -> ControlFlow<LinkOver> {
        let Self { dialler: Dialler { fleet, .. }, member, refusals, .. } = self;
        member.set_refused();
        // A member with a link to this node is alive, even if its address refuses connections.
        if !member.links.has_incoming_socket() {
            fleet.members().note_gone(member);
        }
        match refusals.note_refusal(fleet.shared(), member) > REFUSED_MAX {
            true => ControlFlow::Break(LinkOver::gone("nothing listens at its address")),
            false => ControlFlow::Continue(()),
        }
    }
}

impl SessionDriver for MemberSession<'_> {
    type Socket = Dialled;
    type Error = LinkError;
    type Over = LinkOver;

    fn offer(&self) -> Result<Offer, LinkOver> {
        self.link.outbox().offer().ok_or_else(|| LinkOver::because("the session has ended"))
    }

    async fn dial(&self, offer: &Offer) -> Result<Dialled, LinkError> {
        let Dialler { fleet, address } = self.dialler;
        address.set_listed(fleet.members().addresses.is_given(address));
        timeout(GREETING_TIMEOUT, self.upgrade(offer)).await.unwrap_or(Err(LinkError::Timeout))
    }

    fn handle_failure(&mut self, error: LinkError) -> ControlFlow<LinkOver> {
        match &error {
            LinkError::Upgrade(LinkUpgradeError::OtherInstance) => {
                self.refusals.report(self.dialler.fleet.shared(), self.member);
                return ControlFlow::Break(LinkOver::gone("the node has restarted"));
            }
            LinkError::Upgrade(LinkUpgradeError::UnknownSession) => {
                return ControlFlow::Break(LinkOver::because("the session is unknown to the node"));
            }
            LinkError::Http(http) if is_refused(http) => self.handle_refusal()?,
            _ => self.refusals.end_refusals(),
        }
        debug!(peer = self.member.name(), %error, "cannot open a node link yet");
        if !self.was_open && self.begun.elapsed().as_millis() > u128::from(NODE_LINK_WINDOW_MS) {
            return ControlFlow::Break(LinkOver::because("a greeting node can't be linked"));
        }
        ControlFlow::Continue(())
    }

    async fn carry(&mut self, dialled: Dialled, offer: Offer) -> ControlFlow<LinkOver> {
        let Self { dialler: Dialler { fleet, .. }, member, link, .. } = *self;
        self.refusals.end_refusals();
        member.set_reached();
        let (attachment, replayed) = match link.outbox().attach_answer(&offer, &dialled.answer, link.clock.now_ms()) {
            Ok(Some(attached)) => attached,
            Ok(None) => return ControlFlow::Break(LinkOver::because("the session has ended")),
            Err(error) => return ControlFlow::Break(LinkOver::because(error)),
        };
        debug!(peer = member.name(), replayed, "node link opened");
        if !std::mem::replace(&mut self.was_open, true) {
            fleet.introduce(member, link);
        }
        let (mut incoming, stop) = link.begin_socket(offer.received.unwrap_or_default());
        let LinkSocket { reader, mut writer } = dialled.socket;
        let carrier = node_carrier(link, &fleet.fleet_relay().counters, attachment, stop);
        let mut sink = NodeSink::new(fleet, member, link, LinkDirection::ByUs);
        let end = carrier.run(&mut incoming, reader, &mut writer, &mut sink, link.given_up()).await;
        link.end_socket(incoming);
        link.outbox().detach(attachment, link.clock.now_ms());
        if let Some(words) = end.close_frame(Role::Proxy) {
            writer.close_socket(words).await;
        }
        if end.is_resumable() { ControlFlow::Continue(()) } else { ControlFlow::Break(LinkOver::from(&end)) }
    }

    async fn over(&self) -> LinkOver {
        tokio::select! {
            () = self.link.given_up() => LinkOver::from(&LinkEnd::Shutdown),
            cause = window_passed(self.link.outbox(), self.link.clock) => LinkOver::because(cause),
        }
    }

    fn wait_max(&self) -> Duration {
        self.refusals.longest_wait()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName};
    use trunkline_channel::RefusedUpgrade;

    use super::*;

    #[test]
    fn the_problem_at_an_address_is_described() {
        let channel = |error| HttpError::Connect(std::io::Error::new(std::io::ErrorKind::PermissionDenied, error));
        let other = GreetError::from(channel(OpenChannelError::Unproven));
        assert_eq!(other.to_string(), "it does not have this fleet's access key");
        assert_eq!(problem_kind(&other), AddressProblemKind::NotOfFleet);
        let answers_with = |status, headers, reason: &str| {
            let refused = OpenChannelError::Refused(RefusedUpgrade { status, headers, reason: reason.into() });
            let error = GreetError::from(channel(refused));
            (problem_kind(&error), error.to_string())
        };
        let answers = |headers: HeaderMap| {
            let (kind, text) = answers_with(StatusCode::NOT_FOUND, headers, "not found");
            assert_eq!(kind, AddressProblemKind::NotOfFleet);
            text
        };
        let of_clients = HeaderMap::from_iter([(HeaderName::from_static(NODE_HEADER), "n1".parse().unwrap())]);
        assert!(answers(of_clients.clone()).starts_with("the node refuses a channel at this port"));
        let late = (AddressProblemKind::ClockDiffers, "compare the clocks".to_owned());
        assert_eq!(answers_with(NOT_FRESH, of_clients, "compare the clocks"), late);
        assert!(answers(HeaderMap::new()).starts_with("no channel"));
        let refused = || HttpError::Connect(std::io::ErrorKind::ConnectionRefused.into());
        assert_eq!(GreetError::from(refused()).to_string(), "connection refused");
        assert_eq!(problem_kind(&refused().into()), AddressProblemKind::Unreachable);
        assert!(noted_tries(&refused().into()) > noted_tries(&other), "a node that is restarted is no news yet");
        let version = GreetError::Version(WireVersions { oldest: 7, newest: 9 });
        let told = "the node supports versions 7 to 9 of the node messages, but this node 1 to 1: upgrade the older \
                    one";
        assert_eq!(version.to_string(), told);
    }
}
