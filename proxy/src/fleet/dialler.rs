//! Dialler of one address: greets the node there and maintains the link to it.
//!
//! ```text
//!  greet ─┬─ this node itself ─────────────────────────────────────────────► checks again periodically
//!         ├─ a node that is linked by another address ──► becomes alternative, checks again periodically
//!         ├─ no answer, a stranger, another fleet, no common version ──► logs once, retries
//!         └─ a node of the fleet ──► link, resumed over any number of sockets ──► ended: greet again
//! ```

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::{CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{Request, StatusCode};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::Role as Side;
use tracing::{debug, info};
use trunkline_channel::{NOT_FRESH, OpenChannelError};
use trunkline_link::{LinkEnd, LinkSocket, MalformedHeader, read_answer, window_passed, write_offer};
use trunkline_protocol::fleet::{Greeting, GreetingError, WireVersions};
use trunkline_protocol::id::random_bytes;
use trunkline_protocol::limits::GREETING_MAX_BYTES;
use trunkline_protocol::service::{Answer, Attachment, Backoff, Offer, Role};
use trunkline_protocol::wire::{BOOT_HEADER, FLEET_GREET_PATH, FLEET_LINK_PATH, INSTANCE_HEADER, NODE_HEADER};

use super::address_book::{AddressProblemKind, AddressState};
use super::crash::Refusals;
use super::fleet_core::Fleet;
use super::fleet_member::FleetMember;
use super::node_link::{DropCause, LinkOver, NODE_LINK_WINDOW_MS, NodeLink, node_carrier};
use super::node_sink::{LinkDirection, NodeSink};
use crate::engine::upstream::{UpstreamWebSocket, into_websocket};
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
    #[error("the node has restarted")]
    OtherStart,
    #[error("the session is unknown to the node")]
    UnknownSession,
    #[error("the node answers {0} instead of an upgrade")]
    Status(StatusCode),
    #[error("the node's response is invalid: {0}")]
    Header(#[from] MalformedHeader),
    #[error("the upgrade failed: {0}")]
    Upgrade(#[from] hyper::Error),
    #[error("no answer within {} s", GREETING_TIMEOUT.as_secs())]
    Timeout,
}

impl LinkError {
    fn is_refused(&self) -> bool {
        matches!(self, Self::Http(error) if is_refused(error))
    }
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
                    self.keep_link(&member).await;
                }
                Err(error) => {
                    tries += 1;
                    self.note_failure(&error, tries);
                    sleep(wait(&mut backoff)).await;
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

    async fn keep_link(&self, member: &Arc<FleetMember>) {
        let link =
            Arc::new(NodeLink::new(self.fleet.members().next_session(), Role::Proxy, self.fleet.members().clock));
        self.fleet.begin_outgoing(member, &link);
        let LinkOver { reason, is_gone } = self.keep_session(member, &link).await;
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

    async fn keep_session(&self, member: &Arc<FleetMember>, link: &Arc<NodeLink>) -> LinkOver {
        let (mut backoff, mut was_open, mut refusals) = (Backoff::default(), false, Refusals::default());
        let begun = Instant::now();
        loop {
            let Some(offer) = link.outbox().offer() else { return LinkOver::because("the session has ended") };
            self.address.set_listed(self.fleet.members().addresses.is_given(&self.address));
            let dialled = tokio::select! {
                biased;
                over = over(link) => return over,
                dialled = timeout(GREETING_TIMEOUT, self.dial(member, &offer)) => dialled.unwrap_or(Err(LinkError::Timeout)),
            };
            match dialled {
                Ok((socket, answer)) => {
                    backoff = Backoff::default();
                    refusals.end_refusals();
                    member.set_reached();
                    match link.outbox().attach_answer(&offer, &answer, link.clock.now_ms()) {
                        Ok(Some((attachment, replayed))) => {
                            debug!(peer = member.name(), replayed, "node link opened");
                            if !std::mem::replace(&mut was_open, true) {
                                self.fleet.introduce(member, link);
                            }
                            let end = self.carry(member, link, &offer, attachment, socket).await;
                            if !end.is_resumable() {
                                return LinkOver::from(&end);
                            }
                        }
                        Ok(None) => return LinkOver::because("the session has ended"),
                        Err(error) => return LinkOver::because(error),
                    }
                }
                Err(error @ LinkError::OtherStart) => {
                    refusals.report(self.fleet.shared(), member);
                    return LinkOver::gone(error);
                }
                Err(error @ LinkError::UnknownSession) => return LinkOver::because(error),
                Err(error) => {
                    if error.is_refused() {
                        member.set_refused();
                        // A member with a link to this node is alive, even if its address refuses connections.
                        if !member.links.has_incoming_socket() {
                            self.fleet.members().note_gone(member);
                        }
                        if refusals.note_refusal(self.fleet.shared(), member) > REFUSED_MAX {
                            return LinkOver::gone("nothing listens at its address");
                        }
                    } else {
                        refusals.end_refusals();
                    }
                    debug!(peer = member.name(), %error, "cannot open a node link yet");
                    if !was_open && begun.elapsed().as_millis() > u128::from(NODE_LINK_WINDOW_MS) {
                        return LinkOver::because("a greeting node can't be linked");
                    }
                }
            }
            tokio::select! {
                over = over(link) => return over,
                () = sleep(wait(&mut backoff).min(refusals.longest_wait())) => {}
            }
        }
    }

    async fn carry(
        &self,
        member: &Arc<FleetMember>,
        link: &Arc<NodeLink>,
        offer: &Offer,
        attachment: Attachment,
        socket: LinkSocket<UpstreamWebSocket>,
    ) -> LinkEnd {
        let (mut incoming, stop) = link.begin_socket(offer.received.unwrap_or_default());
        let LinkSocket { reader, mut writer } = socket;
        let carrier = node_carrier(link, &self.fleet.fleet_relay().counters, attachment, stop);
        let mut sink = NodeSink::new(&self.fleet, member, link, LinkDirection::ByUs);
        let end = carrier.run(&mut incoming, reader, &mut writer, &mut sink, link.given_up()).await;
        link.end_socket(incoming);
        link.outbox().detach(attachment, link.clock.now_ms());
        if let Some(words) = end.close_frame(Role::Proxy) {
            drop(timeout(Duration::from_secs(1), writer.close_socket(words)).await);
        }
        end
    }

    async fn dial(
        &self,
        member: &FleetMember,
        offer: &Offer,
    ) -> Result<(LinkSocket<UpstreamWebSocket>, Answer), LinkError> {
        let mut request = Request::get(FLEET_LINK_PATH)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, generate_key())
            .header(BOOT_HEADER, &self.fleet.shared().boot)
            .header(INSTANCE_HEADER, member.boot())
            .body(Body::empty())
            .map_err(HttpError::from)?;
        write_offer(offer, request.headers_mut());
        let answer = self.client().send(&self.address, request).await?;
        match answer.status() {
            StatusCode::SWITCHING_PROTOCOLS => {}
            StatusCode::CONFLICT => return Err(LinkError::OtherStart),
            StatusCode::GONE => return Err(LinkError::UnknownSession),
            status => return Err(LinkError::Status(status)),
        }
        let told = read_answer(answer.headers(), offer)?;
        Ok((LinkSocket::network(into_websocket(hyper::upgrade::on(answer).await?, Side::Client).await), told))
    }

    fn client(&self) -> HttpClient {
        HttpClient::without_pool(self.fleet.shared().ways.node_channels.clone())
    }
}

/// Waits until a disconnected link ends; returns the reason.
async fn over(link: &NodeLink) -> LinkOver {
    tokio::select! {
        () = link.given_up() => LinkOver::from(&LinkEnd::Shutdown),
        cause = window_passed(link.outbox(), link.clock) => LinkOver::because(cause),
    }
}

fn wait(backoff: &mut Backoff) -> Duration {
    Duration::from_millis(backoff.next_wait_ms(u16::from_ne_bytes(random_bytes())))
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
