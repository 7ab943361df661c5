//! A downward frame, and who gets it: link frame → members → sockets.
//!
//! The path that the product exists for. Nothing here waits, locks, or allocates per recipient: a payload was
//! encoded once by the app server, is framed once here, and is shared by all who get it. A recipient for whom
//! nothing waits is written to directly; what its socket refuses is queued, within a budget.

mod order;
mod watches;

use std::io;

use bytes::Bytes;
use slab::Slab;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::service::{Payloads, RawKind};

use crate::metrics::Counters;
use crate::shard::directory::{Client, Content, Directory, Place, Routes, SetName, Slot};
use crate::transport::websocket::{self, Opcode};
use crate::upstream::HubIndex;

pub(crate) use order::{Act, GroupOrder, Order, PendingAck, Receivers, Who};
pub(crate) use watches::{Report, WATCHES_MAX, Watches};

/// Of the room of a client that is too slow, one part in so many is made free at once.
const DROPPED_PART: usize = 8;

/// How frames of one turn leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Each at once: the turn has only one.
    Direct,
    /// Together at the end of the turn, in one system call per recipient.
    Gather,
}

/// One message in the form of each protocol's transport frame: JSON and raw text, MessagePack and raw bytes.
#[derive(Debug, Clone)]
pub(crate) struct Framed {
    text: Option<Bytes>,
    binary: Option<Bytes>,
}

impl Framed {
    /// Frames each payload once.
    #[must_use]
    pub(crate) fn new(payloads: &Payloads) -> Self {
        let frame = |protocol, kind| {
            let payload = payloads.get(protocol).or_else(|| payloads.get_raw(kind));
            payload.map(|payload| frame_for(protocol, payload))
        };
        Self { text: frame(HubProtocol::Json, RawKind::Text), binary: frame(HubProtocol::MessagePack, RawKind::Binary) }
    }

    /// The frame for clients whose transport carries this; `None` leaves them out.
    #[must_use]
    pub(crate) fn get(&self, content: Content) -> Option<&Bytes> {
        match content {
            Content::Hub(HubProtocol::Json) => self.text.as_ref(),
            Content::Hub(HubProtocol::MessagePack) => self.binary.as_ref(),
            Content::Raw => self.text.as_ref().or(self.binary.as_ref()),
        }
    }
}

/// The transport frame around hub messages of this protocol.
#[must_use]
pub(crate) fn frame_for(protocol: HubProtocol, payload: &[u8]) -> Bytes {
    let opcode = match protocol {
        HubProtocol::Json => Opcode::Text,
        HubProtocol::MessagePack => Opcode::Binary,
    };
    websocket::frame(opcode, payload)
}

/// The transport frame around a message of a raw endpoint.
#[must_use]
pub(crate) fn raw_frame(kind: RawKind, payload: &[u8]) -> Bytes {
    let opcode = match kind {
        RawKind::Text => Opcode::Text,
        RawKind::Binary => Opcode::Binary,
    };
    websocket::frame(opcode, payload)
}

/// What is left to do after frames were given out; its lists are used again, turn after turn.
#[derive(Debug, Default)]
pub(crate) struct Aftermath {
    /// Have frames that leave at the end of the turn.
    pub dirty: Vec<Slot>,
    /// Their sockets take no more for now.
    pub blocked: Vec<Slot>,
    /// Went over their budget: to be closed.
    pub slow: Vec<Slot>,
}

/// What clients were given; summed up on the way, so that a recipient costs an addition and nothing shared.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Given {
    deliveries: u64,
    bytes: u64,
}

/// Gives frames to the clients of one shard.
#[derive(Debug)]
pub(crate) struct Delivery<'a> {
    pub directory: &'a mut Directory,
    /// Where everyone of the node is.
    pub routes: &'a Routes,
    /// Which shard this is.
    pub shard: u16,
    pub outlet: Outlet<'a>,
}

/// How one recipient is given a frame.
#[derive(Debug)]
pub(crate) struct Outlet<'a> {
    /// At once or together.
    pub pace: Pace,
    /// What may wait for one client, in bytes.
    pub limit_bytes: usize,
    pub tick: u32,
    /// What is left to do.
    pub aftermath: &'a mut Aftermath,
    pub counters: &'a Counters,
    /// Whose messages somebody looks at.
    pub watches: &'a Watches,
}

impl Delivery<'_> {
    /// Gives one message to all who are meant and are here.
    pub(crate) fn send(&mut self, hub: HubIndex, to: &Receivers, message: &Framed) {
        let mark = self.exclude(hub, to);
        let mut given = Given::default();
        match &to.who {
            Who::Everyone => self.send_to_set(hub, SetName::Hub, mark, message, &mut given),
            Who::Groups(names) => {
                names.iter().for_each(|name| self.send_to_set(hub, SetName::Group(name), mark, message, &mut given))
            }
            Who::Users(names) => {
                names.iter().for_each(|name| self.send_to_set(hub, SetName::User(name), mark, message, &mut given))
            }
            Who::Connections(ids) => ids.iter().for_each(|id| self.send_to_one(hub, id, message, &mut given)),
        }
        self.outlet.counters.sends.receivers.observe(given.deliveries);
        self.outlet.count(hub, given);
    }

    fn send_to_set(&mut self, hub: HubIndex, name: SetName<'_>, mark: u64, message: &Framed, given: &mut Given) {
        // Asked once for all recipients: none of them pays for those who are watched.
        if self.outlet.watches.are_any() {
            self.note(hub, name, mark, message);
        }
        let (members, clients) = self.directory.members_and_clients(hub, name);
        for member in members {
            if let Some(client) = clients.get_mut(member.slot as usize)
                && client.is_open()
                && !client.is_excluded(mark)
                && let Some(frame) = message.get(client.content)
            {
                given.add(frame);
                self.outlet.put_droppable(member.slot, client, frame);
            }
        }
    }

    /// Notes a send to many for those of its recipients that are watched.
    #[cold]
    fn note(&self, hub: HubIndex, name: SetName<'_>, mark: u64, message: &Framed) {
        for slot in self.outlet.watches.slots() {
            if let Some(client) = self.directory.get(slot)
                && self.directory.is_member(client, hub, name)
                && client.is_open()
                && !client.is_excluded(mark)
                && let Some(frame) = message.get(client.content)
            {
                self.outlet.watches.note_down(slot, frame);
            }
        }
    }

    fn send_to_one(&mut self, hub: HubIndex, id: &str, message: &Framed, given: &mut Given) {
        let Some(slot) = self.find(hub, id) else { return };
        if let Some(client) = self.directory.get_mut(slot)
            && client.is_open()
            && let Some(frame) = message.get(client.content)
        {
            given.add(frame);
            self.outlet.put(slot, client, frame);
        }
    }

    /// Marks who is left out. The mark is fresh, so that nobody has it by chance.
    fn exclude(&mut self, hub: HubIndex, to: &Receivers) -> u64 {
        let mark = self.directory.next_mark();
        for id in &to.excluded {
            if let Some(client) = self.find(hub, id).and_then(|slot| self.directory.get_mut(slot)) {
                client.exclude(mark);
            }
        }
        for user in &to.excluded_users {
            let (members, clients) = self.directory.members_and_clients(hub, SetName::User(user));
            members.iter().for_each(|member| exclude(clients, member.slot, mark));
        }
        mark
    }

    /// The place of a connection, if it is here and of this hub.
    #[must_use]
    pub(crate) fn find(&self, hub: HubIndex, id: &str) -> Option<Slot> {
        let Place { shard, slot } = self.routes.find(id)?;
        (shard == self.shard && self.is_at(slot, hub, id)).then_some(slot)
    }

    /// Whether this connection of this hub is at this place.
    #[must_use]
    pub(crate) fn is_at(&self, slot: Slot, hub: HubIndex, id: &str) -> bool {
        self.directory.get(slot).is_some_and(|client| *client.id == *id && client.home.hub() == hub)
    }
}

fn exclude(clients: &mut Slab<Client>, slot: Slot, mark: u64) {
    if let Some(client) = clients.get_mut(slot as usize) {
        client.exclude(mark);
    }
}

impl Given {
    /// One more was given this frame.
    pub(crate) fn add(&mut self, frame: &Bytes) {
        self.deliveries += 1;
        self.bytes += websocket::payload_bytes(frame) as u64;
    }
}

impl Outlet<'_> {
    /// Counts what clients of a hub were given: once for all of a send.
    pub(crate) fn count(&self, hub: HubIndex, given: Given) {
        let counters = self.counters.hub(hub.get());
        counters.deliveries.add_alone(given.deliveries);
        counters.bytes_down.add_alone(given.bytes);
    }

    /// Gives one client what its app server has for it alone, and counts that.
    pub(crate) fn put_counted(&mut self, slot: Slot, client: &mut Client, frame: &Bytes) {
        let mut given = Given::default();
        given.add(frame);
        self.count(client.home.hub(), given);
        self.put(slot, client, frame);
    }

    /// Gives one frame to one client, which must get it or be closed.
    pub(crate) fn put(&mut self, slot: Slot, client: &mut Client, frame: &Bytes) {
        if self.watches.are_any() {
            self.watches.note_down(slot, frame);
        }
        if self.is_to_wait(slot, client, frame) {
            if self.has_room(client, frame.len()) {
                client.outbox.push(frame.clone());
                self.wait(slot, client, frame.len());
            } else {
                self.aftermath.slow.push(slot);
            }
        }
    }

    /// Gives one of many the frame that all of them get. Where the hub wants that, a client that is too slow for it
    /// misses it.
    pub(crate) fn put_droppable(&mut self, slot: Slot, client: &mut Client, frame: &Bytes) {
        if self.is_to_wait(slot, client, frame) {
            if self.has_room(client, frame.len()) {
                client.outbox.push_droppable(frame.clone());
                self.wait(slot, client, frame.len());
            } else if client.may_miss {
                self.counters.dropped.increment();
            } else {
                self.aftermath.slow.push(slot);
            }
        }
    }

    /// Writes a frame at once where nothing stands before it; else it has to wait.
    fn is_to_wait(&mut self, slot: Slot, client: &mut Client, frame: &Bytes) -> bool {
        client.last_sent = self.tick;
        let is_to_wait = self.pace == Pace::Gather || !client.outbox.is_empty();
        if !is_to_wait {
            self.write(slot, client, frame);
        }
        is_to_wait
    }

    fn has_room(&self, client: &mut Client, bytes: usize) -> bool {
        self.fits(client.outbox.bytes(), bytes) || self.make_room(client, bytes)
    }

    /// Where nothing waits a frame of any size may: the limit is for those who do not read, and none of it was offered yet.
    fn fits(&self, waiting: usize, bytes: usize) -> bool {
        waiting == 0 || waiting + bytes <= self.limit_bytes
    }

    /// Drops what may be dropped, some more than is needed: that is not for each frame to do again.
    #[cold]
    fn make_room(&self, client: &mut Client, bytes: usize) -> bool {
        let before = client.outbox.bytes();
        if client.may_miss {
            let missing = (before + bytes).saturating_sub(self.limit_bytes);
            let dropped = client.outbox.drop_oldest(missing.max(self.limit_bytes / DROPPED_PART));
            self.counters.dropped.add(dropped.frames);
        }
        let after = client.outbox.bytes();
        if client.is_flushing {
            self.counters.outbox_bytes.follow(before, after);
        }
        self.fits(after, bytes)
    }

    /// A frame was queued: it leaves at the end of the turn, or when the socket takes it.
    fn wait(&mut self, slot: Slot, client: &mut Client, bytes: usize) {
        if client.is_flushing {
            self.counters.outbox_bytes.follow(0, bytes);
        } else if !client.is_dirty {
            client.is_dirty = true;
            self.aftermath.dirty.push(slot);
        }
    }

    fn write(&mut self, slot: Slot, client: &mut Client, frame: &Bytes) {
        let written = match client.socket.try_write(&[io::IoSlice::new(frame)]) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            // Its reader sees the end and does the rest.
            Err(_) => return client.socket.cut(),
        };
        if written < frame.len() {
            client.outbox.push(frame.slice(written..));
            self.aftermath.blocked.push(slot);
        }
    }
}
