//! Consumer of the frames of a dialled-in app server.
//!
//! The link reaches clients on all nodes: a frame is applied here as far as it concerns this node, and forwarded to
//! other nodes. Invalid frames are skipped, as the SDK does with ours.

use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::future::join_all;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};
use trunkline_link::{FrameSink, ManySend};
use trunkline_process::LinePermit;
use trunkline_protocol::service::{
    Ack, AckStatus, Audience, ClientInvocation, FrameHead, GroupBroadcastData, MessageClass, MultiGroupBroadcastData,
    MultiUserData, Ping, RecordAct, RecordReply, RecordRequest, RecordedSet, ServiceMessage, UserData,
};

use super::dial_in_ping::{self, Leaving, NodeLoad, PingAction};
use crate::engine::link::{ShardSink, give_to_all, read_filtered};
use crate::engine::shard::{MEMBERSHIP_S, RequestOrigin, SendOrigin, Shard, ShardCommand, no_such_connection};
use crate::engine::upstream::{AppServerId, HubIndex, LinkHandle, LinkId, Pool, ReplyTo};
use crate::ground::auth::Signer;
use crate::ground::bounded::Permit;
use crate::ground::clock::unix_seconds;
use crate::ground::limits::{LinkAnswers, QuestionRefusal};

/// Maximum number of pairs read from a ping.
const PAIRS_MAX: usize = 16;

/// Limit of the bytes queued for an app server that does not read. Client data stops far below it; replies
/// don't.
const ANSWERS_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Maximum number of questions with large answers in a batch, because each may take some 100 µs.
const QUESTIONS_PER_BATCH_MAX: usize = 16;

/// Number of app servers above which sending their names counts as work of the app.
const LONG_LIST: usize = 256;

/// Interval at which a link with many questions in progress checks for their answers.
const ANSWER_CHECK_INTERVAL: Duration = Duration::from_millis(1);

/// Maximum number of checks before the link is read further.
const ANSWER_CHECKS_MAX: usize = 1000;

pub(super) struct DialInSink<'a> {
    shard: &'a Rc<Shard>,
    pool: &'a Arc<Pool>,
    link: Arc<LinkHandle>,
    inner: ShardSink<'a>,
    /// Send being assembled from the frames of this batch. All its frames share one epoch.
    sends: Option<ManySend<'a>>,
    /// Appends of this batch to records of groups and users.
    appends: Vec<Pin<Box<dyn Future<Output = RecordReply> + Send>>>,
    /// Set when the app server migrates its clients. Shards are notified at the end of the batch.
    is_migrating: bool,
    /// Requests in the pings of this batch, each once. Answered at the end of the batch.
    actions: Vec<PingAction>,
    /// Questions with large answers in this batch.
    questions: usize,
    /// Set when the link is closed for its unread answers. It gets no further ones.
    is_cut_off: bool,
}

impl<'a> DialInSink<'a> {
    pub(super) fn new(shard: &'a Rc<Shard>, pool: &'a Arc<Pool>, link: &Arc<LinkHandle>) -> Self {
        let inner = ShardSink::new(shard, pool, link.clone());
        let (link, actions) = (link.clone(), Vec::new());
        Self {
            shard,
            pool,
            link,
            inner,
            sends: None,
            appends: Vec::new(),
            is_migrating: false,
            actions,
            questions: 0,
            is_cut_off: false,
        }
    }

    pub(super) fn in_turns(self, signer: &Signer) -> Self {
        Self { inner: self.inner.in_turns(signer), ..self }
    }

    fn take_message(&mut self, mut message: ServiceMessage) -> Result<(), String> {
        if !self.name_connection(&mut message) {
            let (ack_id, message) = (message.ack_id().unwrap_or_default(), Some(ByteString::new()));
            let ack = Ack { ack_id, status: AckStatus::NotFound, message, payload: None };
            self.link.answer(&ServiceMessage::Ack(ack));
            return Ok(());
        }
        let Some(message) = self.record(message) else { return Ok(()) };
        let (shared, link, others) = (self.shard.shared(), &self.link, self.shard.shared().other_nodes());
        let is_here = |id: &ByteString| shared.routes.find(id).is_some();
        // Messages for a moving connection go to both nodes.
        let is_elsewhere = |id: &ByteString| !shared.routes.is_here_alone(id);
        let class = match class_of(&message) {
            // An undeliverable send closes no client.
            Err(problem) if matches!(message, ServiceMessage::Filtered(_)) => {
                self.inner.handle_skipped(&FrameHead::read(&message.to_body()), &problem);
                return Ok(());
            }
            class => class?,
        };
        let has_epoch = class == MessageClass::Send || matches!(message, ServiceMessage::ClientInvocation(_));
        // The target connection may be moving.
        let epoch = match has_epoch {
            true => self.sends.get_or_insert_with(|| shared.fleet.moves.begin_send()).epoch(),
            false => 0,
        };
        match (class, message.audience()) {
            (MessageClass::Send, Some(Audience::Connections(ids))) => {
                if ids.iter().any(is_elsewhere) {
                    others.pass_on(link, &message, epoch);
                }
            }
            (MessageClass::Send, _) => {
                others.pass_on(link, &message, epoch);
                if !others.is_for_us(link) {
                    return Ok(());
                }
            }
            (MessageClass::Change, Some(Audience::Connections(ids))) => {
                if ids.iter().any(is_elsewhere) {
                    others.pass_on(link, &message, epoch);
                    if !ids.iter().any(is_here) {
                        return Ok(());
                    }
                }
            }
            (MessageClass::Change, _) => others.pass_on(link, &message, epoch),
            (MessageClass::Order | MessageClass::Question, _) => return self.ask(message),
            _ => {
                if let ServiceMessage::ClientInvocation(request) = &message
                    && is_elsewhere(&request.connection_id)
                {
                    self.invoke_elsewhere(request, epoch);
                    return Ok(());
                }
            }
        }
        let origin = SendOrigin::Sender(shared.fleet.origin, epoch);
        self.inner.route(origin, None, message)
    }

    /// Appends a send to the records of its groups or users. Returns what remains for sets that are not recorded.
    fn record(&mut self, message: ServiceMessage) -> Option<ServiceMessage> {
        let hub = self.shard.shared().hubs.of_pool(self.pool).filter(|hub| hub.has_history());
        let (Some(hub), Some(recorder)) = (hub, self.shard.shared().recorder().cloned()) else { return Some(message) };
        let (sets, rest): (Vec<_>, Vec<_>) = match &message {
            ServiceMessage::GroupBroadcastData(it) => (vec![RecordedSet::group(it.group.clone())], Vec::new()),
            ServiceMessage::UserData(it) => (vec![RecordedSet::user(it.user_id.clone())], Vec::new()),
            ServiceMessage::MultiGroupBroadcastData(it) => {
                it.groups.iter().cloned().map(RecordedSet::group).partition(|set| hub.history_of(set).is_some())
            }
            ServiceMessage::MultiUserData(it) => {
                it.user_ids.iter().cloned().map(RecordedSet::user).partition(|set| hub.history_of(set).is_some())
            }
            _ => return Some(message),
        };
        if sets.iter().all(|set| hub.history_of(set).is_none()) {
            return Some(message);
        }
        for set in sets {
            let send = to_one_set(&message, &set).to_body();
            let request = RecordRequest { set, act: RecordAct::Append, body: send, ..RecordRequest::default() };
            self.appends.push(recorder.request_record(hub.key(), request, RequestOrigin::Here));
        }
        let names: Vec<_> = rest.into_iter().map(|set| set.name).collect();
        match message {
            _ if names.is_empty() => None,
            ServiceMessage::MultiUserData(it) => {
                Some(ServiceMessage::MultiUserData(MultiUserData { user_ids: names, ..it }))
            }
            ServiceMessage::MultiGroupBroadcastData(it) => {
                Some(ServiceMessage::MultiGroupBroadcastData(MultiGroupBroadcastData { groups: names, ..it }))
            }
            _ => None,
        }
    }

    /// Waits for the records of a batch. The protocol has no answer to a send, so failures are logged and counted.
    async fn await_appends(&mut self) {
        for reply in join_all(mem::take(&mut self.appends)).await {
            if reply.refused.is_some()
                && let Some(LinePermit { left_out }) = self.pool.may_warn()
            {
                let (hub, app) = (self.pool.hub.name(), &self.pool.app.name);
                warn!(hub, %app, reason = &*reply.problem, left_out, "message of an app server not recorded or sent");
            }
        }
    }

    /// Replaces the connection token in a message with the connection id, because an app server has only the token.
    /// Returns `false` if no connection of this hub has it.
    fn name_connection(&self, message: &mut ServiceMessage) -> bool {
        let name = match message {
            ServiceMessage::RefreshAuth(it) => &mut it.connection,
            ServiceMessage::GetConnectionClaims(it) => &mut it.subject,
            _ => return true,
        };
        let shared = self.shard.shared();
        let id = shared.hubs.of_pool(self.pool).and_then(|hub| shared.connection_of_token(&hub, name));
        id.is_some_and(|id| {
            *name = id;
            true
        })
    }

    /// Handles a client invocation after a delay, once the app server can take the reply.
    fn take_later(&self, question: ClientInvocation) {
        let hold = self.pool.asked.hold(&question.payloads, Instant::now());
        let (shard, pool, link) = (self.shard.clone(), self.pool.clone(), self.link.clone());
        spawn_local(async move {
            sleep(hold).await;
            let mut sink = DialInSink::new(&shard, &pool, &link);
            // Already parsed and checked.
            drop(sink.take_message(ServiceMessage::ClientInvocation(question)));
            sink.end_batch(0).await;
        });
    }

    /// Invokes a client that is on another node or moving.
    fn invoke_elsewhere(&self, request: &ClientInvocation, epoch: i64) {
        let (shared, link) = (self.shard.shared(), &self.link);
        if shared.routes.find(&request.connection_id).is_some() {
            shared.other_nodes().invoke_later(link, request.clone());
        } else if !shared.other_nodes().invoke(link, request, epoch) {
            link.send(&no_such_connection(request.clone()));
        }
    }

    /// Queries this node and the other nodes. The app server gets one reply.
    fn ask(&mut self, message: ServiceMessage) -> Result<(), String> {
        let reply_to: Arc<dyn ReplyTo> = if !has_large_answer(&message) {
            self.link.clone()
        } else if self.is_cut_off {
            return Ok(());
        } else {
            self.questions += 1;
            match QuestionReply::begin_question(&self.link) {
                Ok(reply_to) => reply_to,
                Err(refusal) => {
                    self.refuse(&message, &refusal);
                    return Ok(());
                }
            }
        };
        let gathered = self.shard.shared().other_nodes().ask_too(&self.link, &reply_to, &message);
        let reply_to = gathered.as_ref().unwrap_or(&reply_to);
        self.inner.route(SendOrigin::Sender(self.link.app, 0), Some(reply_to), message)
    }

    /// Answers a question with an error.
    fn refuse(&self, question: &ServiceMessage, refusal: &QuestionRefusal) {
        let signer = self.link.token_signer().map_or("", |token| token.signer.label());
        self.shard.shared().limits.refusals.count("queries", signer);
        if let Some(LinePermit { left_out }) = self.pool.may_warn() {
            let (hub, app) = (self.pool.hub.name(), &self.pool.app.name);
            warn!(hub, %app, reason = %refusal, left_out, "query of an app server refused");
        }
        let (ack_id, message) = (question.ack_id().unwrap_or_default(), Some(refusal.to_string().into()));
        let ack = Ack { ack_id, status: AckStatus::InternalServerError, message, payload: None };
        self.link.answer(&ServiceMessage::Ack(ack));
    }

    /// Whether too many answers wait for the app server.
    fn has_unread(&self) -> bool {
        self.link.ring_bytes() > ANSWERS_MAX_BYTES || self.link.answers().is_some_and(LinkAnswers::are_over)
    }

    /// Closes the link of an app server that does not read.
    fn cut_off_unread(&mut self) {
        if self.is_cut_off || !self.has_unread() {
            return;
        }
        self.is_cut_off = true;
        if !self.link.given_up.is_cancelled() {
            let (hub, app) = (self.pool.hub.name(), &self.pool.app.name);
            warn!(hub, %app, "app server does not read answers to its queries: closing its link");
            self.link.give_up();
        }
    }

    fn answer_ping(&mut self, action: PingAction) {
        let answer = match action {
            PingAction::Status => dial_in_ping::status(self.load()),
            PingAction::Servers => {
                let shared = self.shard.shared();
                let mut ids: Vec<_> = self.pools().iter().map(|pool| pool.app.instance.clone()).collect();
                ids.extend(shared.other_nodes().app_servers(self.pool.hub.key()));
                if ids.len() > LONG_LIST {
                    self.inner.note_work();
                }
                dial_in_ping::servers(ids, unix_seconds())
            }
            PingAction::Leave(how) => {
                self.leave(how);
                dial_in_ping::finack()
            }
        };
        self.link.answer(&ServiceMessage::Ping(answer));
    }

    fn pools(&self) -> Arc<Vec<Arc<Pool>>> {
        self.shard.shared().hubs.of_pool(self.pool).map(|hub| hub.pools()).unwrap_or_default()
    }

    fn load(&self) -> NodeLoad {
        let shared = self.shard.shared();
        let clients = shared.sockets();
        let servers = self.pools().iter().map(|pool| pool.open_links() as u64).sum();
        let capacity = shared.settings.limits.connections.map(|most| u64::from(most.get()));
        NodeLoad { has_clients: clients > 0, clients, servers, capacity }
    }

    /// Stops assigning new clients to the app server. Existing clients may move.
    fn leave(&mut self, how: Leaving) {
        if self.pool.begin_drain() {
            let (hub, app) = (self.pool.hub.name(), &self.pool.app.name);
            info!(hub, %app, ?how, "app server about to stop: it gets no new clients");
        }
        // An earlier notice may have asked to wait.
        self.is_migrating |= how == Leaving::Migrating && self.pool.begin_reassigning();
    }
}

/// Send to a single group or user, from a send to several.
fn to_one_set(message: &ServiceMessage, set: &RecordedSet) -> ServiceMessage {
    let name = set.name.clone();
    match message {
        ServiceMessage::MultiUserData(it) => {
            ServiceMessage::UserData(UserData { user_id: name, payloads: it.payloads.clone() })
        }
        ServiceMessage::MultiGroupBroadcastData(it) => ServiceMessage::GroupBroadcastData(GroupBroadcastData {
            group: name,
            payloads: it.payloads.clone(),
            ..GroupBroadcastData::default()
        }),
        message => message.clone(),
    }
}

/// Whether a question may have an answer of many kilobytes.
fn has_large_answer(message: &ServiceMessage) -> bool {
    use ServiceMessage as M;
    matches!(message, M::GroupMemberQuery(_) | M::UserConnectionQuery(_) | M::GetConnectionClaims(_))
}

/// Sets the default lifetime of one year on a user's group membership, which applies to future connections. Zero limits
/// it to current connections.
fn with_time(mut message: ServiceMessage) -> ServiceMessage {
    if let ServiceMessage::UserJoinGroup(change) | ServiceMessage::UserJoinGroupWithAck(change) = &mut message {
        change.ttl_s = change.ttl_s.or(Some(MEMBERSHIP_S));
    }
    message
}

/// Message class for an app server; a send with a filter is a send. Fails if only proxies or nodes send such a message,
/// or if its filter is invalid.
fn class_of(message: &ServiceMessage) -> Result<MessageClass, String> {
    use ServiceMessage as M;
    let class = match message {
        M::Filtered(filtered) => match read_filtered(filtered)?.1.class() {
            MessageClass::Send => MessageClass::Send,
            _ => MessageClass::Service,
        },
        M::ConnectionMoved(_) | M::RefreshConnectionWithAck(_) | M::Stamped(_) => MessageClass::Service,
        message => message.class(),
    };
    match class {
        MessageClass::Service => Err(format!("an app server must not send {} ({})", message.name(), message.number())),
        class => Ok(class),
    }
}

impl FrameSink for DialInSink<'_> {
    fn count(&mut self, message: Option<&ServiceMessage>, bytes: usize) {
        self.inner.count(message, bytes);
    }

    fn handle_ping(&mut self, ping: &Ping) {
        self.inner.handle_ping(ping);
        self.link.take_echo(ping);
        for action in dial_in_ping::actions(ping).take(PAIRS_MAX) {
            if !self.actions.contains(&action) {
                self.actions.push(action);
            }
        }
    }

    fn handle_frame(&mut self, _body: &Bytes, message: Option<ServiceMessage>) -> Result<(), String> {
        match message {
            Some(ServiceMessage::ClientInvocation(question)) => {
                self.take_later(question);
                Ok(())
            }
            Some(message) => self.take_message(with_time(message)),
            None => Ok(()),
        }
    }

    fn handle_skipped(&mut self, head: &FrameHead, problem: &str) {
        self.inner.handle_skipped(head, problem);
    }

    async fn begin_batch(&mut self) {
        if let Some(room) = self.shard.shared().other_nodes().room(&self.link) {
            let _ = self.link.given_up.run_until_cancelled(room).await;
        }
        self.inner.begin_batch().await;
    }

    fn is_batch_full(&mut self, frames: usize) -> bool {
        let has_unread = || frames > 0 && !self.is_cut_off && self.link.ring_bytes() > ANSWERS_MAX_BYTES;
        self.questions >= QUESTIONS_PER_BATCH_MAX || has_unread() || self.inner.is_batch_full(frames)
    }

    async fn end_batch(&mut self, bytes: usize) {
        self.inner.end_batch(bytes).await;
        if !self.appends.is_empty() {
            self.await_appends().await;
        }
        (self.sends, self.questions) = (None, 0);
        let actions = mem::take(&mut self.actions);
        if !actions.is_empty() && !self.is_cut_off && !self.has_unread() {
            actions.into_iter().for_each(|action| self.answer_ping(action));
        }
        self.cut_off_unread();
        if mem::take(&mut self.is_migrating) {
            let (hub, app) = (self.link.hub(), self.link.app);
            give_to_all(self.shard, &ShardCommand::AppShuttingDown { hub, app }).await;
        }
    }

    async fn yield_after_batch(&mut self) {
        self.inner.yield_after_batch().await;
        let link = self.link.clone();
        for _ in 0..ANSWER_CHECKS_MAX {
            if !link.answers().is_some_and(LinkAnswers::are_many) || link.given_up.is_cancelled() {
                return;
            }
            sleep(ANSWER_CHECK_INTERVAL).await;
        }
    }
}

/// Reply handle of a question with a large answer, which counts as in progress until it is dropped.
#[derive(Debug)]
pub(super) struct QuestionReply {
    link: Arc<LinkHandle>,
    _permit: Option<Permit<Signer>>,
}

impl QuestionReply {
    /// Begins a question of an app server. Fails if the link or its key has too many.
    pub(super) fn begin_question(link: &Arc<LinkHandle>) -> Result<Arc<dyn ReplyTo>, QuestionRefusal> {
        let permit = link.answers().map(LinkAnswers::begin).transpose()?;
        Ok(Arc::new(Self { link: link.clone(), _permit: permit }))
    }
}

impl Drop for QuestionReply {
    fn drop(&mut self) {
        self.link.answers().into_iter().for_each(LinkAnswers::end);
    }
}

impl ReplyTo for QuestionReply {
    fn hub(&self) -> HubIndex {
        self.link.hub()
    }

    fn app(&self) -> AppServerId {
        self.link.app
    }

    fn dial_in_link(&self) -> Option<LinkId> {
        self.link.dial_in_link()
    }

    fn signer(&self) -> Option<&Signer> {
        self.link.signer()
    }

    fn answer(&self, message: &ServiceMessage) {
        self.link.answer(message);
    }
}
