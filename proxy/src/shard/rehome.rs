//! Give client connections another home when theirs is over: a link of the same app server if there is one, else of
//! another. While there is none they wait, unread, and their keep-alives go on.
//!
//! ```text
//!  home lost ──► pending calls are answered with an error ──► another home? ─ yes ──► opened there, read on
//!                                                                   └─ no ──► homeless ──► a link opens, or it is time
//! ```
//!
//! What an app server had taken is never given to another one; what a client has sent meanwhile waits in its socket.

use std::rc::Rc;

use bytes::BytesMut;
use bytestring::ByteString;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{Completion, HandshakeRequest, HubMessage, Outcome};
use trunkline_protocol::manifest::{ITEMS_HEADER, MIGRATE_TO_HEADER};
use trunkline_protocol::service::{CloseConnection, ServiceMessage};

use super::{Ending, Shard};
use crate::shard::delivery::{Pace, frame_for};
use crate::shard::directory::{Content, Hold, Serial, Slot, Status};
use crate::upstream::{AppServerId, HomeLink, HubIndex, LinkHandle, LinkId};

/// What a handshake in a service message is marked with.
pub(crate) const DATA_TYPE_HANDSHAKE: i64 = 1;

/// What a caller is told whose app server is gone.
const CALL_LOST: &str =
    "The app server that ran this call is gone. Whether it was carried out is not known; it is not run again.";

/// What a caller is told whose app server has handed its connection over.
const CALL_UNFINISHED: &str = "The app server that ran this call was stopped before the call had ended.";

/// A client connection without an app server.
#[derive(Debug)]
pub(super) struct Homeless {
    slot: Slot,
    serial: Serial,
    since: u32,
}

/// A client connection that an app server may still hold, though it lives elsewhere.
#[derive(Debug)]
pub(super) struct MovedAway {
    hub: HubIndex,
    app: AppServerId,
    id: ByteString,
    until: u32,
}

impl Shard {
    /// The session of a link is over: those whose home it was get another one.
    pub(super) fn lose_homes(self: &Rc<Self>, link: LinkId, cause: Cause) {
        let slots = self.directory.borrow().at_home(link);
        slots.into_iter().for_each(|slot| self.lose_home(slot, cause));
    }

    /// The home of a client connection is lost.
    pub(crate) fn lose_home(self: &Rc<Self>, slot: Slot, cause: Cause) {
        let can_move = {
            let directory = self.directory.borrow();
            let Some(client) = directory.get(slot).filter(|client| !client.is_closing()) else { return };
            client.can_move()
        };
        if !can_move {
            return self.end(slot, &Ending::home_lost(cause));
        }
        self.fail_calls(slot, CALL_LOST);
        self.find_home(slot);
    }

    /// A link is open: who waits for one may have it, and its app server learns who lives elsewhere by now.
    pub(super) fn take_link(self: &Rc<Self>, link: &LinkHandle) {
        self.tell_moved_away(link);
        let waiting = std::mem::take(&mut *self.homeless.borrow_mut());
        for Homeless { slot, serial, since } in waiting {
            if self.is_homeless(slot, serial) && !self.try_home(slot) {
                self.homeless.borrow_mut().push(Homeless { slot, serial, since });
            }
        }
    }

    /// Looks for homes again, which may have been full; ends who has waited for too long. Once a second.
    pub(super) fn look_after_homeless(self: &Rc<Self>) {
        let now = self.tick();
        self.moved_away.borrow_mut().retain(|moved| moved.until > now);
        let waiting = std::mem::take(&mut *self.homeless.borrow_mut());
        let patience = self.shared.settings.rehoming.hold_timeout_s;
        for Homeless { slot, serial, since } in waiting {
            if !self.is_homeless(slot, serial) || self.try_home(slot) {
                continue;
            }
            if now.saturating_sub(since) >= patience {
                self.end(slot, &Ending::no_app_server());
            } else {
                self.homeless.borrow_mut().push(Homeless { slot, serial, since });
            }
        }
    }

    fn is_homeless(&self, slot: Slot, serial: Serial) -> bool {
        let is = self.with_client(slot, serial, |client| client.holds().contains(Hold::Homeless));
        is.unwrap_or(false)
    }

    /// An app server is about to leave: those at home there are not read any more, and it is asked to hand each of them
    /// over once their calls have ended.
    pub(super) fn leave_app(self: &Rc<Self>, hub: HubIndex, app: AppServerId) {
        let slots = self.directory.borrow().at_app(hub, app);
        for slot in slots {
            let mut directory = self.directory.borrow_mut();
            let Some(client) = directory.get_mut(slot).filter(|client| !client.is_closing()) else { continue };
            if !client.can_move() || client.holds().contains(Hold::Leaving) {
                continue;
            }
            client.hold(Hold::Leaving);
            client.home.send(&moved_to(&client.id, ""));
        }
    }

    /// Its app server hands a client connection over, with what the app gives along.
    pub(super) fn hand_over(self: &Rc<Self>, slot: Slot, headers: &[(ByteString, Vec<ByteString>)]) {
        {
            let mut directory = self.directory.borrow_mut();
            let Some(client) = directory.get_mut(slot).filter(|client| !client.is_closing()) else { return };
            if !client.holds().contains(Hold::Leaving) {
                return;
            }
            let items = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(ITEMS_HEADER));
            client.kept.items = items.and_then(|(_, values)| values.first()).map(|items| Box::from(&**items));
        }
        self.fail_calls(slot, CALL_UNFINISHED);
        self.find_home(slot);
    }

    /// Answers all pending calls of a client with an error.
    fn fail_calls(self: &Rc<Self>, slot: Slot, text: &'static str) {
        let now = self.tick();
        self.deliver(Pace::Gather, |delivery| {
            let Some(client) = delivery.directory.get_mut(slot) else { return };
            let ids = client.kept.calls.fail();
            client.release(Hold::Calls, now);
            let Content::Hub(protocol) = client.content else { return };
            for invocation_id in ids {
                self.counters.calls_failed.increment();
                let outcome = Outcome::Error(ByteString::from_static(text));
                let completion = HubMessage::Completion(Completion { headers: Vec::new(), invocation_id, outcome });
                let mut message = BytesMut::new();
                protocol.encode(&completion, &mut message);
                delivery.outlet.put_counted(slot, client, &frame_for(protocol, &message));
            }
        });
    }

    /// Gives a client connection another home, or lets it wait for one.
    fn find_home(self: &Rc<Self>, slot: Slot) {
        if self.try_home(slot) {
            return;
        }
        let since = self.tick();
        let mut directory = self.directory.borrow_mut();
        let Some(client) = directory.get_mut(slot) else { return };
        client.hold(Hold::Homeless);
        self.homeless.borrow_mut().push(Homeless { slot, serial: client.serial, since });
    }

    /// Gives a client connection another home, if there is one.
    fn try_home(self: &Rc<Self>, slot: Slot) -> bool {
        let hubs = self.shared.hubs.all();
        loop {
            let found = {
                let directory = self.directory.borrow();
                let Some(client) = directory.get(slot) else { return true };
                hubs.get(client.home.hub().get()).and_then(|hub| hub.choose_home_near(client.home.app()))
            };
            let Some(home) = found else { return false };
            self.settle(slot, &home);
            // Lost while it was chosen: its place in the pool is empty by now.
            if !home.is_closed() {
                return true;
            }
        }
    }

    /// Opens a client connection at another home.
    fn settle(&self, slot: Slot, home: &HomeLink) {
        let now = self.tick();
        let hubs = self.shared.hubs.all();
        let mut directory = self.directory.borrow_mut();
        let Some(client) = directory.get_mut(slot) else { return };
        let Content::Hub(protocol) = client.content else { return };
        let (was_at, is_open) = (client.home.app(), client.is_open());
        let from = self.shared.hubs.instance(was_at);
        // Where its client has no answer to its hub handshake, it begins anew.
        let Some(open) = client.kept.open_again(is_open.then_some(&*from)) else { return };
        home.send(&ServiceMessage::OpenConnection(open));
        home.send_data(&client.id, &HandshakeRequest { protocol, version: 1 }.encode(), DATA_TYPE_HANDSHAKE);
        if let (Status::Opening { .. }, Some(hub)) = (client.status, hubs.get(home.hub().get())) {
            client.status = opening_until(now, hub.settings().handshake_timeout_ms);
        }
        for hold in [Hold::App, Hold::Leaving, Hold::Homeless] {
            client.release(hold, now);
        }
        if was_at != home.app() && was_at != AppServerId::NONE {
            // Nobody but its own app server is listened to.
            client.kept.calls.forget_failed();
            let until = now.saturating_add(moved_remembered_s(self.shared.settings.links.resume_window_ms));
            let id = ByteString::from(&*client.id);
            self.moved_away.borrow_mut().push(MovedAway { hub: home.hub(), app: was_at, id, until });
        }
        directory.move_to(slot, home);
        self.counters.rehomed.increment();
    }

    /// An app server is there again that clients were moved away from: for them this is no end.
    fn tell_moved_away(&self, link: &LinkHandle) {
        let directory = self.directory.borrow();
        self.moved_away.borrow_mut().retain(|moved| {
            if moved.hub != link.hub() || moved.app != link.app() {
                return true;
            }
            let place = self.shared.routes.find(&moved.id).filter(|place| place.shard == self.index);
            let client = place.and_then(|place| directory.get(place.slot)).filter(|client| *client.id == *moved.id);
            // It may have come back.
            if client.is_none_or(|client| client.home.app() != moved.app) {
                let instance = client.map(|client| self.shared.hubs.instance(client.home.app()));
                link.send(&moved_to(&moved.id, instance.as_deref().unwrap_or_default()));
            }
            false
        });
    }
}

/// How many seconds an app server may hold connections that were moved away from it: it waits for a link's return for
/// twice the window of links, and a link is dialled again now and then after that.
fn moved_remembered_s(resume_window_ms: u64) -> u32 {
    let window_s = u32::try_from(resume_window_ms.div_ceil(1000)).unwrap_or(u32::MAX);
    window_s.saturating_mul(2).saturating_add(5)
}

/// How long a client connection may wait for the answer to its hub handshake.
#[must_use]
pub(crate) fn opening_until(now: u32, handshake_timeout_ms: u64) -> Status {
    let patience = u32::try_from(handshake_timeout_ms.div_ceil(1000)).unwrap_or(u32::MAX);
    Status::Opening { until: now.saturating_add(patience).saturating_add(1) }
}

/// Tells an app server that a connection goes on elsewhere.
fn moved_to(id: &str, instance: &str) -> ServiceMessage {
    let headers = vec![(MIGRATE_TO_HEADER.into(), vec![instance.into()])];
    ServiceMessage::CloseConnection(CloseConnection { connection_id: id.into(), error: None, headers })
}
