//! Follows of clients: their calls, and the effects of a changed record or client.

use std::collections::HashMap;

use bytes::Bytes;
use bytestring::ByteString;
use serde::Deserialize;
use tokio::sync::{broadcast, oneshot};
use trunkline_protocol::fleet::{MovedFollow, Wanted};
use trunkline_protocol::hub::{
    CallScan, Completion, HubMessage, HubProtocol, MessageKind, Outcome, Payload, PayloadError, StreamItem,
    whole_messages,
};
use trunkline_protocol::service::{
    Payloads, Position, RecordAct, RecordPage, RecordReply, RecordRequest, RecordStart, RecordedSet,
};

use super::command::{RecordEvent, RecordedCommand};
use super::connection::{Client, SetName};
use super::content::Content;
use super::delivery::framed::message_frame;
use super::delivery::send_run::SendRun;
use super::delivery::{BatchMode, Flush};
use super::followers::{FOLLOWS_MAX, FollowKey, FollowStage, FollowedSet, Follower};
use super::record_news::{RecordNews, payloads_of};
use super::shard_core::ShardCore;
use super::shared::seams::RequestOrigin;
use super::slot::Slot;
use crate::engine::upstream::HubIndex;

/// Seconds that a follow waits for the client's membership, and a first read for the record.
const OPEN_WAIT_S: u32 = 5;

/// Seconds without a message after which a follower's node checks for a lost last one.
const CHECK_AFTER_S: u32 = 5;

/// Maximum number of such checks of a shard per second.
const CHECKS_MAX: usize = 256;

/// Maximum length of the invocation id of a follow, which is kept as long as the follow. Clients use counters or UUIDs.
const STREAM_ID_MAX_BYTES: usize = 128;

/// Claim with a group that its user may follow without being a member.
pub(crate) const FOLLOW_CLAIM: &str = "trunkline.follow";

/// Argument of a follow.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FollowTerms {
    group: Option<String>,
    #[serde(default)]
    user: bool,
    after: Option<String>,
    last: Option<u64>,
}

/// A recorded message with the frames of its followers, each made once.
struct ItemFrames<'a> {
    position: String,
    payloads: &'a Payloads,
    items: HashMap<HubProtocol, Result<Payload, PayloadError>>,
    /// Frames by invocation id. Clients use counters, so their ids are often equal.
    frames: HashMap<(HubProtocol, ByteString), Bytes>,
}

impl<'a> ItemFrames<'a> {
    fn new(position: Position, payloads: &'a Payloads) -> Self {
        Self { position: position.to_string(), payloads, items: HashMap::new(), frames: HashMap::new() }
    }

    fn frame(&mut self, protocol: HubProtocol, invocation_id: &ByteString) -> Bytes {
        let key = (protocol, invocation_id.clone());
        if let Some(frame) = self.frames.get(&key) {
            return frame.clone();
        }
        let item = self.items.entry(protocol).or_insert_with(|| match self.payloads.get(protocol) {
            Some(payload) => protocol.followed_item(&self.position, payload),
            None => protocol.reset_item("unreadable", None),
        });
        let frame = match item {
            Ok(item) => item_frame(protocol, invocation_id, item.clone()),
            // Payloads of back ends are checked only for their framing.
            Err(_) => reset_frame(protocol, invocation_id, ("unreadable", None)),
        };
        self.frames.insert(key, frame.clone());
        frame
    }
}

fn item_frame(protocol: HubProtocol, invocation_id: &ByteString, item: Payload) -> Bytes {
    let item = StreamItem { headers: Vec::new(), invocation_id: invocation_id.clone(), item };
    message_frame(protocol, &HubMessage::StreamItem(item))
}

fn reset_frame(protocol: HubProtocol, invocation_id: &ByteString, (reset, oldest): (&str, Option<&str>)) -> Bytes {
    match protocol.reset_item(reset, oldest) {
        Ok(item) => item_frame(protocol, invocation_id, item),
        // Two texts can be encoded in any protocol.
        Err(_) => Bytes::new(),
    }
}

impl ShardCore {
    /// Whether a call of this method follows a record: its name belongs to the node in hubs with records.
    pub(super) fn is_follow(&self, slot: Slot, target: &str) -> bool {
        let is_method = self.context.shared.settings.history.is_method(target);
        let hub = self.connections.live(slot).filter(|_| is_method).and_then(|client| self.hub_of(client));
        hub.is_some_and(|hub| hub.has_history())
    }

    /// Handles a call of the method that follows.
    pub(crate) fn follow(&mut self, slot: Slot, protocol: HubProtocol, call: &CallScan<'_>, message: &[u8]) {
        let Some(id) = call.invocation_id.as_deref().map(ByteString::from) else { return };
        if let Err(problem) = self.begin_follow(slot, protocol, (call.kind, &id), message) {
            self.answer_with_error(slot, &id, &problem);
        }
    }

    fn begin_follow(
        &mut self,
        slot: Slot,
        protocol: HubProtocol,
        (kind, id): (MessageKind, &ByteString),
        message: &[u8],
    ) -> Result<(), String> {
        let method = &self.context.shared.settings.history.method;
        if kind != MessageKind::StreamInvocation {
            return Err(format!("'{method}' is a stream of recorded messages: call it as a stream."));
        }
        let Some(client) = self.connections.live(slot) else { return Ok(()) };
        let expected = format!("'{method}' takes one argument, such as {{\"group\": \"red\", \"after\": \"0\"}}");
        let terms = read_terms(protocol, message).map_err(|error| format!("{expected}: {error}"))?;
        let start = RecordStart::from_options(terms.after.as_deref(), terms.last);
        let start = start.map_err(|(name, problem)| format!("{expected}: {name} {problem}."))?;
        let user = self.connections.user_of(client);
        let set = match (terms.group, terms.user, user) {
            (Some(group), false, _) => RecordedSet::group(group),
            (None, true, Some(user)) => RecordedSet::user(user),
            (None, true, None) => {
                return Err("The connection has no user: connect with an access token to follow its messages.".into());
            }
            _ => return Err(format!("{expected}, or {{\"user\": true}}.")),
        };
        let name_max = self.context.shared.settings.groups.name_max_bytes;
        if set.name.len() > name_max {
            return Err(format!("The name has {} bytes, but at most {name_max} are allowed.", set.name.len()));
        }
        if id.len() > STREAM_ID_MAX_BYTES {
            return Err(format!(
                "The invocation id has {} bytes, but at most {STREAM_ID_MAX_BYTES} are allowed.",
                id.len()
            ));
        }
        let (hub, connection) = (client.home().hub(), client.id.clone());
        let is_recorded = self.hub_of(client).is_some_and(|hub| hub.history_of(&set).is_some());
        if !is_recorded {
            return Err(format!(
                "{} is not recorded: the operator's rules ([[history]]) name none like it.",
                name_of_set(&set)
            ));
        }
        let is_by_token = !set.is_user && holds_claim(client, &set.name);
        let is_member = is_by_token || self.is_member(slot, hub, &set);
        let key = (hub, set);
        let mut follows = 0;
        for (known, follower) in self.followers.of_connection(slot, &connection) {
            follows += 1;
            if follower.invocation_id == *id {
                return Err(format!("A stream with the invocation id {id} is open already."));
            }
            if *known == key {
                return Err(format!("The connection follows {} already.", name_of_set(&known.1)));
            }
        }
        if follows >= FOLLOWS_MAX {
            return Err(format!("The connection follows {follows} records, the maximum."));
        }
        let until = self.tick + OPEN_WAIT_S;
        let stage = if is_member { FollowStage::Reads(0) } else { FollowStage::Waits(until) };
        let (invocation_id, opens_until) = (id.clone(), Some(until));
        self.add_follower(key, Follower { slot, connection, invocation_id, start, stage, is_by_token, opens_until });
        Ok(())
    }

    fn add_follower(&mut self, key: FollowKey, follower: Follower) {
        if self.followers.add(key.clone(), follower) {
            self.begin_interest(&key);
        }
        self.read_due(&key);
    }

    fn begin_interest(&self, key: &FollowKey) {
        if let Some(interest) = &self.context.shared.interest {
            interest.enter(key.0, wanted(&key.1));
        }
    }

    /// Opens the news of a record for a reader. `opened` gets them once other nodes send new messages here.
    pub(crate) fn open_news(&mut self, key: FollowKey, opened: oneshot::Sender<broadcast::Receiver<RecordNews>>) {
        let (news, is_first) = self.followers.add_reader(key.clone());
        if is_first {
            self.begin_interest(&key);
        }
        let open = move || drop(opened.send(news));
        match &self.context.shared.interest {
            Some(interest) => interest.when_confirmed(key.0, wanted(&key.1), Box::new(open)),
            None => open(),
        }
    }

    fn is_member(&self, slot: Slot, hub: HubIndex, set: &RecordedSet) -> bool {
        let name = if set.is_user { SetName::User(&set.name) } else { SetName::Group(&set.name) };
        self.connections.live(slot).is_some_and(|client| self.connections.sets().has(client, hub, name))
    }

    /// Ends a follow that the client cancels. Returns `false` for other calls.
    pub(super) fn cancel_follow(&mut self, slot: Slot, invocation_id: &str) -> bool {
        let Some(id) = self.connections.live(slot).map(|client| client.id.clone()) else { return false };
        let mut follows =
            self.followers.of_connection(slot, &id).map(|(key, follower)| (key.clone(), follower.clone()));
        let found = follows.find(|(_, follower)| *follower.invocation_id == *invocation_id);
        drop(follows);
        let Some((key, follower)) = found else { return false };
        self.change_set(&key, |_, set| drop(set.followers.swap_remove(&slot)));
        self.complete_follow(&follower, None);
        true
    }

    /// Changes a set of followers with the clients at hand.
    fn change_set(&mut self, key: &FollowKey, change: impl FnOnce(&mut Self, &mut FollowedSet)) {
        let Some(mut set) = self.followers.take(key) else { return };
        change(self, &mut set);
        self.put_set_back(key, set);
    }

    fn put_set_back(&mut self, key: &FollowKey, set: FollowedSet) {
        if !self.followers.put_back(key, set)
            && let Some(interest) = &self.context.shared.interest
        {
            interest.leave(key.0, wanted(&key.1));
        }
    }

    /// Starts the next read of a set, if any is due.
    fn read_due(&mut self, key: &FollowKey) {
        let now = self.tick;
        let Some(set) = self.followers.set_mut(key) else { return };
        let Some(start) = set.next_read(now) else { return };
        set.active_at = now;
        self.begin_read(key, start);
    }

    fn begin_read(&mut self, key: &FollowKey, start: RecordStart) {
        let shared = self.context.shared.clone();
        let (Some(set), Some(hub)) = (self.followers.set_mut(key), shared.hubs.at(key.0)) else { return };
        let (Some(recorder), Some(shard)) =
            (shared.recorder().cloned(), shared.shards().get(usize::from(self.context.index)).cloned())
        else {
            return;
        };
        set.reading = Some(start);
        let request = RecordRequest {
            set: key.1.clone(),
            act: RecordAct::Read,
            start: start.to_string().into(),
            ..RecordRequest::default()
        };
        let (name, key, interest) = (hub.key().to_owned(), key.clone(), shared.interest.clone());
        tokio::spawn(async move {
            if let Some(interest) = interest {
                // Other nodes must send new messages of the record here before the record is read.
                let (confirmed, wait) = oneshot::channel();
                interest.when_confirmed(
                    key.0,
                    wanted(&key.1),
                    Box::new(move || {
                        confirmed.send(()).ok();
                    }),
                );
                wait.await.ok();
            }
            let reply = recorder.request_record(&name, request, RequestOrigin::Here).await;
            shard.post(move |state| state.core.take_page(&key, start, &reply));
        });
    }

    fn take_page(&mut self, key: &FollowKey, start: RecordStart, reply: &RecordReply) {
        let now = self.tick;
        self.change_set(key, |core, set| {
            (set.reading, set.active_at) = (None, now);
            let Some(page) = &reply.page else { return core.note_unread(set, start, &reply.problem) };
            let messages: Vec<_> =
                page.messages.iter().filter_map(|message| Some((message, payloads_of(message)?))).collect();
            let position = |number| Position { epoch: page.epoch, number };
            let mut frames: Vec<_> = messages
                .iter()
                .map(|(it, payloads)| (it.number, ItemFrames::new(position(it.number), payloads)))
                .collect();
            set.followers.retain(|_, follower| core.serve_page(follower, start, (page, &mut frames)));
            set.catch_up(now);
        });
        self.read_due(key);
    }

    /// Tries a failed read again at the next tick. A first read fails after a while.
    fn note_unread(&mut self, set: &mut FollowedSet, start: RecordStart, problem: &str) {
        let next = FollowStage::Reads(self.tick + 1);
        for follower in
            set.followers.values_mut().filter(|it| it.start == start && matches!(it.stage, FollowStage::Reads(_)))
        {
            follower.stage = next;
        }
        let now = self.tick;
        set.followers.retain(|_, follower| {
            let is_over = follower.opens_until.is_some_and(|until| now >= until) && follower.stage == next;
            if is_over {
                self.complete_follow(follower, Some(&format!("The record can't be read: {problem}.")));
            }
            !is_over
        });
    }

    /// Sends a follower its part of a page. Returns `false` if the follow has ended.
    fn serve_page(
        &mut self,
        follower: &mut Follower,
        start: RecordStart,
        (page, frames): (&RecordPage, &mut [(u64, ItemFrames<'_>)]),
    ) -> bool {
        let Some(part) = follower.part(start, page) else { return true };
        if self.client_of(follower).is_none() {
            return false;
        }
        if let Some(reset) = part.reset {
            let oldest = page.oldest.map(|number| Position { epoch: page.epoch, number }.to_string());
            self.put_follow(follower, |protocol, id| reset_frame(protocol, id, (reset, oldest.as_deref())));
        }
        let first = part.messages.first().map_or(u64::MAX, |message| message.number);
        let mut reached = match first {
            u64::MAX => page.after + page.messages.len() as u64,
            first => first - 1,
        };
        for (number, item) in frames.iter_mut().filter(|(number, _)| *number >= first) {
            if self.is_crowded(follower) {
                follower.read_up_to(page, reached);
                follower.stage = FollowStage::Reads(self.tick + 1);
                return true;
            }
            self.put_follow(follower, |protocol, id| item.frame(protocol, id));
            reached = *number;
        }
        follower.read_up_to(page, reached);
        let is_over = page.is_finished && follower.stage == FollowStage::Live;
        if is_over {
            self.complete_follow(follower, None);
        }
        !is_over
    }

    /// Delivers a message of a record: plain to the members, as an item to followers.
    pub(super) fn apply_recorded(&mut self, recorded: &RecordedCommand, mode: BatchMode) {
        let RecordedCommand { hub, set, position, event, origin } = recorded;
        let key = (*hub, set.clone());
        let mut followed = if self.followers.is_empty() { None } else { self.followers.take(&key) };
        if let RecordEvent::Message(send) = event {
            let following = followed.iter().flat_map(|set| set.followers.values());
            let following = following.filter(|follower| !matches!(follower.stage, FollowStage::Waits(_)));
            let slots: Vec<_> = following.map(|follower| follower.slot).collect();
            let run = SendRun::new((send.message.clone(), *origin));
            self.delivery.send_beside(&mut self.connections, *hub, (&send.to, &slots), &run, mode);
        }
        let Some(set) = &mut followed else { return };
        (set.active_at, set.newest) = (self.tick, *position);
        set.report(*position, event);
        match event {
            RecordEvent::Message(send) => {
                let mut item = ItemFrames::new(*position, &send.payloads);
                set.followers.retain(|_, follower| {
                    follower.begin_with(*position);
                    if follower.stage == FollowStage::Live && self.is_crowded(follower) {
                        follower.stage = FollowStage::Reads(self.tick + 1);
                        return self.client_of(follower).is_some();
                    }
                    if follower.takes(*position) {
                        self.put_follow(follower, |protocol, id| item.frame(protocol, id));
                    }
                    true
                });
            }
            RecordEvent::Finished => set.followers.retain(|_, follower| {
                let is_over = follower.stage == FollowStage::Live && follower.start == RecordStart::after(*position);
                match is_over {
                    true => self.complete_follow(follower, None),
                    false if follower.stage == FollowStage::Live => follower.stage = FollowStage::Reads(0),
                    false => {}
                }
                !is_over
            }),
            RecordEvent::Deleted => {
                for follower in set.followers.values_mut().filter(|it| !matches!(it.stage, FollowStage::Waits(_))) {
                    (follower.start, follower.stage) = (RecordStart::After(0, 0), FollowStage::Live);
                    self.put_follow(follower, |protocol, id| reset_frame(protocol, id, ("deleted", None)));
                }
            }
        }
        if let Some(set) = followed {
            self.put_set_back(&key, set);
            self.read_due(&key);
        }
    }

    /// Ends follows after the client has left the group, and begins waiting follows after it has joined.
    pub(super) fn follow_groups(&mut self, slot: Slot) {
        let Some(client) = self.connections.live(slot) else { return };
        let of_client: Vec<_> = self.followers.of_connection(slot, &client.id).map(|(key, _)| key.clone()).collect();
        for key in of_client {
            let is_member = self.is_member(slot, key.0, &key.1);
            self.change_set(&key, |core, set| {
                let Some(follower) = set.followers.get_mut(&slot).filter(|follower| !follower.is_by_token) else {
                    return;
                };
                match (follower.stage, is_member) {
                    (FollowStage::Waits(_), true) => follower.stage = FollowStage::Reads(0),
                    (FollowStage::Waits(_), false) | (_, true) => {}
                    (_, false) => {
                        core.complete_follow(
                            follower,
                            Some(&format!("The connection has left {}.", name_of_set(&key.1))),
                        );
                        set.followers.swap_remove(&slot);
                    }
                }
            });
            self.read_due(&key);
        }
    }

    /// Ends late and lost follows, and reads where a message may be missing.
    pub(super) fn tick_follows(&mut self) {
        let (now, mut checks) = (self.tick, 0);
        for key in self.followers.tick() {
            self.change_set(&key, |core, set| {
                set.followers.retain(|_, follower| match follower.stage {
                    _ if core.client_of(follower).is_none() => false,
                    FollowStage::Waits(until) if until <= now => {
                        let text = format!("The connection is no member of {}.", name_of_set(&key.1));
                        core.complete_follow(follower, Some(&text));
                        false
                    }
                    _ => true,
                });
            });
            self.read_due(&key);
            let Some(set) = self.followers.set_mut(&key) else { continue };
            let live = set.followers.values().find(|follower| follower.stage == FollowStage::Live);
            let is_quiet = set.reading.is_none() && set.active_at + CHECK_AFTER_S <= now && checks < CHECKS_MAX;
            if let Some(start) = live.map(|follower| follower.start).filter(|_| is_quiet) {
                checks += 1;
                set.active_at = now;
                self.begin_read(&key, start);
            }
        }
    }

    /// Takes the follows of a connection that moves to another node.
    pub(super) fn take_follows(&mut self, slot: Slot) -> Vec<MovedFollow> {
        let Some(client) = self.connections.live(slot) else { return Vec::new() };
        let follows =
            self.followers.of_connection(slot, &client.id).map(|(key, follower)| (key.clone(), follower.clone()));
        let follows: Vec<_> = follows.collect();
        let moved = |(key, follower): (FollowKey, Follower)| {
            self.change_set(&key, |_, set| drop(set.followers.swap_remove(&slot)));
            let (set, invocation_id) = (key.1, follower.invocation_id);
            MovedFollow {
                set,
                invocation_id,
                start: follower.start.to_string().into(),
                is_by_token: follower.is_by_token,
            }
        };
        follows.into_iter().map(moved).collect()
    }

    /// Continues the follows of a connection that has come from another node.
    pub(super) fn continue_follows(&mut self, slot: Slot, follows: Vec<MovedFollow>) {
        for MovedFollow { set, invocation_id, start, is_by_token } in follows.into_iter().take(FOLLOWS_MAX) {
            let Some(client) = self.connections.live(slot) else { return };
            let (key, connection) = ((client.home().hub(), set), client.id.clone());
            let Ok(start) = start.parse() else { continue };
            let is_member = is_by_token || self.is_member(slot, key.0, &key.1);
            let until = self.tick + OPEN_WAIT_S;
            let stage = if is_member { FollowStage::Reads(0) } else { FollowStage::Waits(until) };
            self.add_follower(
                key,
                Follower { slot, connection, invocation_id, start, stage, is_by_token, opens_until: None },
            );
        }
    }

    /// Client of a follow; `None` if the connection is gone.
    fn client_of(&self, follower: &Follower) -> Option<&Client> {
        self.connections.live(follower.slot).filter(|client| *client.id == *follower.connection)
    }

    /// Whether a follower has to wait until its client has read more.
    fn is_crowded(&self, follower: &Follower) -> bool {
        self.client_of(follower).is_none_or(|client| {
            let waiting = client.cold().resumption().map_or(0, |resumption| resumption.ownership().waiting_bytes());
            !client.life().is_open()
                || !client.wire().has_socket()
                || client.wire().bytes() + waiting > self.delivery.budget.limit_bytes / 2
        })
    }

    fn put_follow(&mut self, follower: &Follower, frame: impl FnOnce(HubProtocol, &ByteString) -> Bytes) {
        let mode = self.mode(Flush::Deferred);
        let Some(client) = self.connections.live_mut(follower.slot).filter(|client| *client.id == *follower.connection)
        else {
            return;
        };
        if let Content::Hub(protocol) = client.content() {
            let frame = frame(protocol, &follower.invocation_id);
            self.delivery.put_counted(follower.slot, client, (&frame, None), mode);
        }
    }

    fn complete_follow(&mut self, follower: &Follower, error: Option<&str>) {
        self.put_follow(follower, |protocol, id| {
            let outcome = error.map_or(Outcome::Void, |error| Outcome::Error(error.into()));
            let completion = Completion { headers: Vec::new(), invocation_id: id.clone(), outcome };
            message_frame(protocol, &HubMessage::Completion(completion))
        });
    }
}

fn read_terms(protocol: HubProtocol, message: &[u8]) -> Result<FollowTerms, String> {
    let body = whole_messages(protocol, message).next().map(|message| Bytes::copy_from_slice(message.body));
    match protocol.decode(&body.unwrap_or_default()).map_err(|error| error.to_string())? {
        Some(HubMessage::StreamInvocation(call)) => match &*call.arguments {
            [terms] => protocol.value(terms).map_err(|error| error.to_string()),
            arguments => Err(format!("the call has {} arguments", arguments.len())),
        },
        _ => Err("the call can't be read".into()),
    }
}

/// Whether the token of a client has the claim for a group.
fn holds_claim(client: &Client, group: &str) -> bool {
    let opening = client.cold().read_opening().unwrap_or_default();
    opening.claims.iter().any(|(name, value)| name == FOLLOW_CLAIM && value == group)
}

fn wanted(set: &RecordedSet) -> Wanted<'_> {
    if set.is_user { Wanted::User(&set.name) } else { Wanted::Group(&set.name) }
}

/// Name of a group or user in texts for people.
pub(crate) fn name_of_set(set: &RecordedSet) -> String {
    if set.is_user { "the user".into() } else { format!("the group '{}'", set.name) }
}
