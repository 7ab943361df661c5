//! Carry out the orders of one turn of a link, in their order.

use std::rc::Rc;
use std::time::Duration;

use trunkline_protocol::service::{ClientInvocation, ErrorCompletion, FlowOperation, RawKind, ServiceMessage};

use super::{Ending, Shard};
use crate::shard::delivery::{Act, Delivery, GroupOrder, Order, Pace, Receivers, Who, frame_for, raw_frame};
use crate::shard::directory::{Client, Content, Hold, SetName, Slot, Status};
use crate::upstream::{HubIndex, LinkHandle};

/// A list for more orders is not kept.
const ORDERS_KEPT_MAX: usize = 2048;

impl Shard {
    /// Carries out orders, and writes what they left to be written.
    pub(crate) fn carry_out(self: &Rc<Self>, mut orders: Vec<Order>) {
        // A lone frame is written at once; the frames of a longer turn leave together.
        let pace = if orders.len() == 1 { Pace::Direct } else { Pace::Gather };
        for order in orders.drain(..) {
            self.carry_out_one(order, pace);
        }
        self.finish_turn();
        if (self.spare_orders.borrow().capacity()..=ORDERS_KEPT_MAX).contains(&orders.capacity()) {
            *self.spare_orders.borrow_mut() = orders;
        }
    }

    /// An empty list for the orders of a turn: growing one anew is what a turn of many small frames would pay most for.
    #[must_use]
    pub(crate) fn spare_orders(&self) -> Vec<Order> {
        std::mem::take(&mut *self.spare_orders.borrow_mut())
    }

    fn carry_out_one(self: &Rc<Self>, order: Order, pace: Pace) {
        match order {
            Order::Send { hub, to, message } => self.deliver(pace, |delivery| delivery.send(hub, &to, &message)),
            Order::One { hub, app, connection_id, slot, act } => {
                let found = self.deliver(pace, |delivery| {
                    let is_here = delivery.is_at(slot, hub, &connection_id);
                    is_here.then(|| delivery.directory.get(slot).is_some_and(|client| client.home.app() == app))
                });
                match found {
                    Some(is_own) => self.act(slot, is_own, act, pace),
                    None => self.nobody(act),
                }
            }
            Order::UserGroup { hub, user, change, ack } => {
                let slots = self.slots(hub, &Who::Users(vec![user]).into());
                for &slot in &slots {
                    self.deliver(pace, |delivery| change_groups(delivery, slot, &change));
                }
                if let (false, Some(ack)) = (slots.is_empty(), ack) {
                    ack.found();
                }
            }
            Order::Check { hub, who, within_group, ack } => {
                let mut slots = self.slots(hub, &who.into());
                if let Some(group) = within_group {
                    let members = self.slots(hub, &Who::Groups(vec![group]).into());
                    slots.retain(|slot| members.contains(slot));
                }
                if !slots.is_empty() {
                    ack.found();
                }
            }
            Order::CloseMany { hub, to, reason, ack } => {
                let slots = self.slots(hub, &to);
                if !slots.is_empty() {
                    ack.found();
                }
                self.end_all(&slots, &Ending::ordered(reason.as_deref()));
            }
            Order::LinkLost(link, cause) => self.lose_homes(link, cause),
            Order::LinkOpened(link) => self.take_link(&link),
            Order::AppLeaves { hub, app } => self.leave_app(hub, app),
            Order::Drain(spread) => self.drain(spread),
        }
    }

    fn end_all(self: &Rc<Self>, slots: &[Slot], ending: &Ending) {
        slots.iter().for_each(|&slot| self.end(slot, ending));
    }

    /// Does something to a connection that is here; `is_own` if its own app server wants it.
    fn act(self: &Rc<Self>, slot: Slot, is_own: bool, act: Act, pace: Pace) {
        match act {
            Act::Data { payload, kind } if is_own => {
                let calls_max = self.shared.settings.rehoming.pending_calls_max;
                self.deliver(pace, |delivery| self.send_data(delivery, slot, &payload, kind, calls_max));
            }
            // Only its own app server may answer its calls, so that none is answered twice.
            Act::Data { .. } => self.counters.unknown_receivers.increment(),
            Act::Group { change, ack } => {
                self.deliver(pace, |delivery| change_groups(delivery, slot, &change));
                if let Some(ack) = ack {
                    ack.found();
                }
            }
            // Its own app server has sent a farewell; for anybody else we do.
            Act::Close { error, cause } => {
                let error = error.as_deref().filter(|error| !error.is_empty());
                self.end(slot, &if is_own { Ending::by_app(error, cause) } else { Ending::ordered(error) });
            }
            // From any other than its own it is an answer that comes too late.
            Act::HandOver { headers } if is_own => self.hand_over(slot, &headers),
            Act::HandOver { .. } => {}
            Act::Ask { link, question } => self.ask(slot, is_own, &link, question, pace),
            Act::Flow(operation) => self.control_flow(slot, operation),
        }
    }

    fn nobody(&self, act: Act) {
        match act {
            Act::Ask { link, question } => link.send(&no_such_connection(question)),
            // The ack that goes with it says that nobody was found.
            Act::Group { .. } => {}
            Act::HandOver { .. } => {}
            Act::Data { .. } | Act::Close { .. } | Act::Flow(_) => self.counters.unknown_receivers.increment(),
        }
    }

    /// Bytes for one connection; the first are the answer to its hub handshake, if it had one.
    fn send_data(&self, delivery: &mut Delivery<'_>, slot: Slot, payload: &[u8], kind: RawKind, calls_max: usize) {
        let Some(client) = delivery.directory.get_mut(slot).filter(|client| !client.is_closing()) else { return };
        let is_handshake = matches!(client.status, Status::Opening { .. });
        client.status = Status::Open;
        let frame = match client.content {
            Content::Hub(protocol) if client.kept.calls.are_none() => frame_for(protocol, payload),
            Content::Hub(protocol) => {
                let payload = client.kept.calls.pass(protocol, payload);
                if client.holds().contains(Hold::Calls) && !client.kept.calls.is_full(calls_max) {
                    client.release(Hold::Calls, delivery.outlet.tick);
                }
                if payload.is_empty() {
                    return;
                }
                frame_for(protocol, &payload)
            }
            Content::Raw => raw_frame(kind, payload),
        };
        if is_handshake {
            self.app_has_answered(client);
            return delivery.outlet.put(slot, client, &frame);
        }
        delivery.outlet.put_counted(slot, client, &frame);
    }

    /// How long its app server took for the hub handshake of a client.
    fn app_has_answered(&self, client: &Client) {
        let took = Duration::from_micros(self.now_us().saturating_sub(client.kept.opened_us));
        self.counters.handshakes_of_apps.observe_duration(took);
    }

    /// Its own app server is told first, so that it knows what the client's answer is for.
    fn ask(&self, slot: Slot, is_own: bool, link: &LinkHandle, question: ClientInvocation, pace: Pace) {
        let is_asked = self.deliver(pace, |delivery| {
            let client = delivery.directory.get_mut(slot).filter(|client| client.is_open())?;
            let Content::Hub(protocol) = client.content else { return None };
            let frame = frame_for(protocol, question.payloads.get(protocol)?);
            if !is_own {
                client.home.send(&ServiceMessage::ClientInvocation(question.clone()));
            }
            delivery.outlet.put_counted(slot, client, &frame);
            Some(())
        });
        if is_asked.is_none() {
            link.send(&no_such_connection(question));
        }
    }

    fn control_flow(&self, slot: Slot, operation: FlowOperation) {
        let now = self.tick();
        let mut directory = self.directory.borrow_mut();
        let Some(client) = directory.get_mut(slot) else { return };
        match operation {
            FlowOperation::Pause => client.hold(Hold::App),
            FlowOperation::Resume => client.release(Hold::App, now),
            FlowOperation::PauseAck | FlowOperation::Offline => {}
        }
    }

    /// The places of all who are meant and are here.
    fn slots(&self, hub: HubIndex, to: &Receivers) -> Vec<Slot> {
        self.deliver(Pace::Direct, |delivery| {
            let set = |delivery: &Delivery<'_>, name| -> Vec<Slot> {
                delivery.directory.members(hub, name).iter().map(|member| member.slot).collect()
            };
            let mut slots: Vec<Slot> = match &to.who {
                Who::Everyone => set(delivery, SetName::Hub),
                Who::Connections(ids) => ids.iter().filter_map(|id| delivery.find(hub, id)).collect(),
                Who::Groups(names) => names.iter().flat_map(|name| set(delivery, SetName::Group(name))).collect(),
                Who::Users(names) => names.iter().flat_map(|name| set(delivery, SetName::User(name))).collect(),
            };
            let excluded: Vec<Slot> = to.excluded.iter().filter_map(|id| delivery.find(hub, id)).collect();
            slots.retain(|slot| !excluded.contains(slot));
            slots
        })
    }
}

/// What an app server is told that asks a client which is not here. Text of the official server.
#[must_use]
pub(crate) fn no_such_connection(question: ClientInvocation) -> ServiceMessage {
    let ClientInvocation { invocation_id, connection_id, caller_server_id, .. } = question;
    let error = format!("Connection '{connection_id}' does not exist.").into();
    ServiceMessage::ErrorCompletion(ErrorCompletion { invocation_id, connection_id, caller_server_id, error })
}

fn change_groups(delivery: &mut Delivery<'_>, slot: Slot, change: &GroupOrder) {
    let Some(client) = delivery.directory.get(slot).filter(|client| !client.is_closing()) else { return };
    let hub = client.home.hub();
    match change {
        GroupOrder::Join(group) => delivery.directory.join(slot, hub, SetName::Group(group)),
        GroupOrder::Leave(group) => delivery.directory.leave(slot, hub, SetName::Group(group)),
        GroupOrder::LeaveAll => delivery.directory.leave_groups(slot),
    }
}
