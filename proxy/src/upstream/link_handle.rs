//! A link as the rest of the proxy sees it: any shard may write to it, for as long as its session lives.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use trunkline_link::{LinkOutbox, OutboxPolicy};
use trunkline_protocol::service::{Answer, Attachment, Class, ECHO_KEY, LinkKind, Offer, Ping};
use trunkline_protocol::service::{ServiceMessage, Session, SessionError, encode_connection_data, encode_traced_data};

use super::capability::LinkCapabilities;
use super::{AppServerId, Asker, HubIdentity, HubIndex, LinkId};
use crate::auth::{Signer, TokenSigner};

/// Value of the echo that [`LinkHandle::fence`] waits for.
const FENCE: &str = "fence";

/// The near end of a slot's session; it lives across the sockets of a link.
#[derive(Debug)]
pub(crate) struct LinkHandle {
    id: LinkId,
    hub: Arc<HubIdentity>,
    app: AppServerId,
    outbox: LinkOutbox,
    capabilities: &'static LinkCapabilities,
    knows_causes: AtomicBool,
    knows_handovers: AtomicBool,
    knows_moves: AtomicBool,
    knows_traces: AtomicBool,
    knows_idle_handovers: AtomicBool,
    /// Words of the app server about a link that it dialled itself.
    dialled_in: Option<Box<DialledIn>>,
    /// Whether its clients are on their way to other links.
    is_leaving: AtomicBool,
    /// Fires when it is to end.
    given_up: CancellationToken,
    fences: Mutex<Fences>,
}

/// Callers that wait for an echo; one echo is under way at a time.
#[derive(Debug, Default)]
struct Fences {
    asked: Vec<oneshot::Sender<()>>,
    next: Vec<oneshot::Sender<()>>,
}

/// A link that an app server has dialled, as Azure's SDK does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DialledIn {
    /// Kind of link that it wants.
    pub kind: LinkKind,
    /// Host that it has dialled: of several proxies under different names it sends each message to all.
    pub endpoint: Box<str>,
    /// Signer of the token that has let it in.
    pub signer: TokenSigner,
    /// Whether another node has carried it here: the host is not one of this node.
    pub is_carried: bool,
    /// Whether its clients may come back to their connection.
    pub allows_reconnect: bool,
}

impl LinkHandle {
    /// A link whose session begins. At most `unsent_max_bytes` wait for the socket before its clients are paused; what
    /// the session keeps in all is bounded by its ring.
    #[must_use]
    pub(crate) fn new(hub: Arc<HubIdentity>, app: AppServerId, unsent_max_bytes: usize, session: Session) -> Self {
        Self::beginning(hub, app, unsent_max_bytes, Some(session))
    }

    /// A link that an app server has dialled. Its session ends with its socket, and with the pool that is retired.
    #[must_use]
    pub(crate) fn dialled_in(
        hub: Arc<HubIdentity>,
        app: AppServerId,
        unsent_max_bytes: usize,
        session: Session,
        dialled_in: DialledIn,
        retired: &CancellationToken,
    ) -> Self {
        let (dialled_in, given_up) = (Some(Box::new(dialled_in)), retired.child_token());
        let capabilities = &LinkCapabilities::DIALLED_IN;
        Self { capabilities, dialled_in, given_up, ..Self::beginning(hub, app, unsent_max_bytes, Some(session)) }
    }

    fn beginning(hub: Arc<HubIdentity>, app: AppServerId, unsent_max_bytes: usize, session: Option<Session>) -> Self {
        Self {
            dialled_in: None,
            is_leaving: AtomicBool::new(false),
            given_up: CancellationToken::new(),
            fences: Mutex::default(),
            id: LinkId::next(),
            hub,
            app,
            capabilities: &LinkCapabilities::DIALLED,
            outbox: LinkOutbox::new(OutboxPolicy::pausing(unsent_max_bytes), session),
            knows_causes: AtomicBool::new(false),
            knows_handovers: AtomicBool::new(false),
            knows_moves: AtomicBool::new(false),
            knows_traces: AtomicBool::new(false),
            knows_idle_handovers: AtomicBool::new(false),
        }
    }

    /// No link at all: the home of a client connection that waits for its first one.
    #[must_use]
    pub(crate) fn nowhere(hub: Arc<HubIdentity>) -> Self {
        Self::beginning(hub, AppServerId::NONE, 0, None)
    }

    #[must_use]
    pub(crate) fn id(&self) -> LinkId {
        self.id
    }

    #[must_use]
    pub(crate) fn hub(&self) -> HubIndex {
        self.hub.index()
    }

    /// Identity of its hub.
    #[must_use]
    pub(crate) fn hub_identity(&self) -> &Arc<HubIdentity> {
        &self.hub
    }

    /// The app server at its far end.
    #[must_use]
    pub(crate) fn app(&self) -> AppServerId {
        self.app
    }

    /// The send queue, for the task that keeps the link.
    #[must_use]
    pub(crate) fn outbox(&self) -> &LinkOutbox {
        &self.outbox
    }

    /// Whether its clients are to be paused, because too much waits for the socket or to be acknowledged.
    #[must_use]
    pub(crate) fn is_full(&self) -> bool {
        self.outbox.is_full()
    }

    /// Whether it has a socket.
    #[must_use]
    pub(crate) fn is_open(&self) -> bool {
        self.outbox.is_open()
    }

    /// Whether its session is over.
    #[must_use]
    pub(crate) fn is_closed(&self) -> bool {
        self.outbox.is_closed()
    }

    /// Whether the app server reads the causes of closes.
    #[must_use]
    pub(crate) fn knows_causes(&self) -> bool {
        self.knows_causes.load(Ordering::Relaxed)
    }

    /// Whether the app server takes the ends of connections that another one had.
    #[must_use]
    pub(crate) fn knows_handovers(&self) -> bool {
        self.knows_handovers.load(Ordering::Relaxed)
    }

    /// Whether the app server hands a connection over only if nothing of it runs, where it is asked so.
    #[must_use]
    pub(crate) fn knows_idle_handovers(&self) -> bool {
        self.knows_idle_handovers.load(Ordering::Relaxed)
    }

    /// Whether the app server lets client connections move to other nodes.
    #[must_use]
    pub(crate) fn knows_moves(&self) -> bool {
        self.knows_moves.load(Ordering::Relaxed)
    }

    /// Capabilities of the app server at its peer end.
    #[must_use]
    pub(crate) fn capabilities(&self) -> &'static LinkCapabilities {
        self.capabilities
    }

    /// Whether clients whose home it is may move to another node: by dial-in those that may come back at all, since a
    /// pause and a resume by another node's link are known to each app server there.
    #[must_use]
    pub(crate) fn lets_clients_move(&self) -> bool {
        self.dialled_in.as_ref().map_or_else(|| self.knows_moves(), |dialled_in| dialled_in.allows_reconnect)
    }

    /// Host that the app server has dialled; `None` for a link that the node has dialled.
    #[must_use]
    pub(crate) fn endpoint(&self) -> Option<&str> {
        self.dialled_in.as_ref().map(|dialled_in| &*dialled_in.endpoint)
    }

    /// Signer of the token that admitted the link; `None` for a link that the node has dialled.
    #[must_use]
    pub(crate) fn token_signer(&self) -> Option<&TokenSigner> {
        self.dialled_in.as_ref().map(|dialled_in| &dialled_in.signer)
    }

    /// Whether it came in by way of another node, with which it ends.
    #[must_use]
    pub(crate) fn is_carried(&self) -> bool {
        self.dialled_in.as_ref().is_some_and(|dialled_in| dialled_in.is_carried)
    }

    /// Whether it may be a home of clients.
    #[must_use]
    pub(crate) fn may_carry_clients(&self) -> bool {
        let is_weak = self.dialled_in.as_ref().is_some_and(|dialled_in| dialled_in.kind == LinkKind::Weak);
        !is_weak && !self.is_leaving.load(Ordering::Relaxed)
    }

    /// Lets no more clients have it as their home. `false` if that was so already.
    pub(crate) fn begin_leave(&self) -> bool {
        !self.is_leaving.swap(true, Ordering::Relaxed)
    }

    /// Ends it, if an app server has dialled it.
    pub(crate) fn give_up(&self) {
        self.given_up.cancel();
    }

    /// Token that fires when it is to end.
    #[must_use]
    pub(crate) fn given_up(&self) -> &CancellationToken {
        &self.given_up
    }

    /// Whether the app server has acknowledged all that it was ever sent here.
    #[must_use]
    pub(crate) fn has_delivered_all(&self) -> bool {
        // In this order: a session that ends empties the ring last.
        self.outbox.ring_bytes() == 0 && !self.is_closed()
    }

    /// Bytes that are kept until the app server has them, what waits included.
    #[must_use]
    pub(crate) fn ring_bytes(&self) -> usize {
        self.outbox.ring_bytes()
    }

    /// Waits until there is room again, or the session is over. Cancel-safe.
    pub(crate) async fn room(&self) {
        self.outbox.room().await;
    }

    /// Waits for an echo of an app server that dials in: it has read all earlier messages of this node then, and this
    /// node has read all of its messages before the echo.
    pub(crate) async fn fence(&self) {
        let (passed, has_passed) = oneshot::channel();
        {
            let mut fences = self.fences.lock().unwrap_or_else(PoisonError::into_inner);
            fences.next.retain(|waiting| !waiting.is_closed());
            fences.next.push(passed);
            if fences.asked.is_empty() {
                self.ask_echo(&mut fences);
            }
        }
        drop(has_passed.await);
    }

    /// Takes a ping of the app server, which may be the echo that [`fence`](Self::fence) waits for.
    pub(crate) fn take_echo(&self, ping: &Ping) {
        if ping.get(ECHO_KEY).is_some_and(|value| value == FENCE) {
            self.ask_echo(&mut self.fences.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Releases the callers of the received echo, and sends the next echo if new callers wait.
    fn ask_echo(&self, fences: &mut Fences) {
        fences.asked = std::mem::take(&mut fences.next);
        if !fences.asked.is_empty() {
            self.outbox.echo(&Ping { pairs: vec![(ECHO_KEY.into(), FENCE.into())] });
        }
    }

    /// Queues a message. Never refused: who fills a link is stopped by [`room`](Self::room) instead.
    pub(crate) fn send(&self, message: &ServiceMessage) {
        self.append(Class::Reserved, |buffer| message.encode(buffer));
    }

    /// Queues a message, as [`send`](Self::send) does; `false` if the session is over.
    #[must_use]
    pub(crate) fn queue(&self, message: &ServiceMessage) -> bool {
        self.outbox.push(Class::Reserved, |buffer| message.encode(buffer)).is_ok()
    }

    /// Queues bytes of a client connection.
    pub(crate) fn send_data(&self, connection_id: &str, payload: &[u8], data_type: i64) {
        self.append(Class::Ordinary, |buffer| encode_connection_data(connection_id, payload, data_type, buffer));
    }

    /// Queues bytes of a client connection that a trace follows, under the mark of the first message, if they have one.
    /// Returns whether the app server reports on them: others get them as ever.
    pub(crate) fn send_traced(&self, mark: Option<i64>, (id, payload): (&str, &[u8]), data_type: i64) -> bool {
        let mark = mark.filter(|_| self.knows_traces.load(Ordering::Relaxed));
        match mark {
            Some(mark) => self.append(Class::Ordinary, |out| encode_traced_data(mark, id, payload, data_type, out)),
            None => self.send_data(id, payload, data_type),
        }
        mark.is_some()
    }

    fn append(&self, class: Class, encode: impl FnOnce(&mut bytes::BytesMut)) {
        // A link that is over has no clients any more; what it is told has no receiver.
        let _ = self.outbox.push(class, encode);
    }

    /// Attaches the socket of a dial that succeeded; with it, how many frames it gets again.
    ///
    /// # Errors
    /// When the answer makes no sense.
    pub(crate) fn attach(
        &self,
        offer: &Offer,
        answer: &Answer,
        now_ms: u64,
    ) -> Result<Option<(Attachment, u64)>, SessionError> {
        self.knows_causes.store(answer.capabilities.knows_causes, Ordering::Relaxed);
        self.knows_handovers.store(answer.capabilities.knows_handovers, Ordering::Relaxed);
        self.knows_moves.store(answer.capabilities.knows_moves, Ordering::Relaxed);
        self.knows_traces.store(answer.capabilities.knows_traces, Ordering::Relaxed);
        self.knows_idle_handovers.store(answer.capabilities.knows_idle_handovers, Ordering::Relaxed);
        self.outbox.attach_answer(offer, answer, now_ms)
    }
}

impl Asker for LinkHandle {
    fn hub(&self) -> HubIndex {
        self.hub.index()
    }

    fn app(&self) -> AppServerId {
        self.app
    }

    fn dial_in_link(&self) -> Option<LinkId> {
        self.dialled_in.as_ref().map(|_| self.id)
    }

    fn signer(&self) -> Option<&Signer> {
        self.token_signer().map(|signer| &signer.signer)
    }

    fn answer(&self, message: &ServiceMessage) {
        self.send(message);
    }
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::key::AccessKey;
    use trunkline_protocol::service::{Capabilities, Role, SessionId, SessionSettings};

    use super::*;

    const RING_BYTES: usize = 1000;

    impl LinkHandle {
        /// A link that an app server has dialled, and that is open.
        pub(crate) fn opened_by_dial_in(hub: &Arc<HubIdentity>, app: AppServerId) -> Self {
            let (kind, endpoint) = (LinkKind::Default, "here".into());
            let signer = TokenSigner { key: AccessKey::random(), signer: Signer::Fleet };
            let dialled_in = DialledIn { kind, endpoint, signer, is_carried: false, allows_reconnect: false };
            let session = Session::new(SessionId::FIRST, Role::Proxy, SessionSettings::new(RING_BYTES, 1000), 0);
            let link = Self::dialled_in(hub.clone(), app, usize::MAX, session, dialled_in, &CancellationToken::new());
            let answer = Answer { received: 0, capabilities: Capabilities::default() };
            link.attach(&link.outbox.offer().unwrap(), &answer, 0).unwrap().unwrap();
            link
        }

        /// A link that is open, for tests of what writes to it.
        pub(crate) fn opened(hub: &Arc<HubIdentity>, app: AppServerId) -> Self {
            Self::opened_with(hub, app, Capabilities::plain())
        }

        /// A link that is open to an app server of an older version.
        pub(crate) fn opened_by_older(hub: &Arc<HubIdentity>, app: AppServerId) -> Self {
            Self::opened_with(hub, app, Capabilities { knows_idle_handovers: false, ..Capabilities::plain() })
        }

        fn opened_with(hub: &Arc<HubIdentity>, app: AppServerId, capabilities: Capabilities) -> Self {
            let session = Session::new(SessionId::FIRST, Role::Proxy, SessionSettings::new(RING_BYTES, 1000), 0);
            let link = Self::new(hub.clone(), app, usize::MAX, session);
            let capabilities = Capabilities { resume_ring_bytes: Some(RING_BYTES), ..capabilities };
            link.attach(&link.outbox.offer().unwrap(), &Answer { received: 0, capabilities }, 0).unwrap().unwrap();
            link
        }
    }
}
