//! Carry out the orders of one turn of a link, in their order.

use std::rc::Rc;

use trunkline_protocol::service::{ClientInvocation, ConnectionData, ErrorCompletion, FlowOperation, ServiceMessage};

use super::{Ending, Shard};
use crate::delivery::{Delivery, GroupOrder, Order, Pace, Receivers, Who, frame_for};
use crate::directory::{SetName, Slot, Status};
use crate::link::{AppServerId, HubIndex, LinkHandle};

impl Shard {
    /// Carries out orders, and writes what they left to be written.
    pub fn carry_out(self: &Rc<Self>, orders: Vec<Order>) {
        // A lone frame is written at once; the frames of a longer turn leave together.
        let pace = if orders.len() == 1 { Pace::Direct } else { Pace::Gather };
        for order in orders {
            self.carry_out_one(order, pace);
        }
        self.finish_turn();
    }

    fn carry_out_one(self: &Rc<Self>, order: Order, pace: Pace) {
        match order {
            Order::Send { hub, to, message } => self.deliver(pace, |delivery| delivery.send(hub, &to, &message)),
            Order::Data { app, data } => self.deliver(pace, |delivery| send_data(delivery, app, &data)),
            Order::Group { connection_id, change, ack } => {
                let is_found = self.deliver(pace, |delivery| {
                    let slot = delivery.find(&connection_id)?;
                    change_groups(delivery, slot, &change)
                });
                if let (Some(()), Some(ack)) = (is_found, ack) {
                    ack.found();
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
            Order::Close { connection_id, app, error } => self.close_one(&connection_id, app, error.as_deref()),
            Order::CloseMany { hub, to, reason, ack } => {
                let slots = self.slots(hub, &to);
                if !slots.is_empty() {
                    ack.found();
                }
                self.end_all(&slots, &Ending::ordered(reason.as_deref()));
            }
            Order::Ask { link, question } => self.ask(&link, question, pace),
            Order::Flow { connection_id, operation } => self.control_flow(&connection_id, operation),
            Order::LinkLost(link) => {
                let slots = self.directory.borrow().at_home(link);
                self.end_all(&slots, &Ending::link_lost());
            }
            Order::Drain => {
                let slots = self.directory.borrow().everyone();
                self.end_all(&slots, &Ending::drained());
            }
        }
    }

    fn end_all(self: &Rc<Self>, slots: &[Slot], ending: &Ending) {
        slots.iter().for_each(|&slot| self.end(slot, ending));
    }

    /// A close by its own app server follows that server's farewell; anybody else's gets one of ours.
    fn close_one(self: &Rc<Self>, connection_id: &str, app: AppServerId, error: Option<&str>) {
        let found = self.deliver(Pace::Direct, |delivery| {
            let slot = delivery.find(connection_id)?;
            Some((slot, delivery.directory.get(slot)?.home.app() == app))
        });
        let Some((slot, is_own)) = found else { return };
        let reason = error.filter(|error| !error.is_empty());
        let ending = if is_own { Ending::by_app() } else { Ending::ordered(reason) };
        self.end(slot, &ending);
    }

    /// Its own app server is told first, so that it knows what the client's answer is for.
    fn ask(&self, link: &LinkHandle, question: ClientInvocation, pace: Pace) {
        let is_asked = self.deliver(pace, |delivery| {
            let slot = delivery.find(&question.connection_id)?;
            let client = delivery.directory.get_mut(slot).filter(|client| client.is_open())?;
            let frame = frame_for(client.protocol, question.payloads.get(client.protocol)?);
            if client.home.app() != link.app() {
                client.home.send(&ServiceMessage::ClientInvocation(question.clone()));
            }
            delivery.outlet.put(slot, client, &frame);
            Some(())
        });
        if is_asked.is_none() {
            link.send(&no_such_connection(question));
        }
    }

    fn control_flow(&self, connection_id: &str, operation: FlowOperation) {
        self.deliver(Pace::Direct, |delivery| {
            let slot = delivery.find(connection_id)?;
            let client = delivery.directory.get_mut(slot)?;
            match operation {
                FlowOperation::Pause => drop(client.pause.get_or_insert_default()),
                FlowOperation::Resume => {
                    // Its silence while we didn't read it is not held against it.
                    client.last_heard = delivery.outlet.tick;
                    if let Some(pause) = client.pause.take() {
                        pause.notify_waiters();
                    }
                }
                FlowOperation::PauseAck | FlowOperation::Offline => {}
            }
            Some(())
        });
    }

    /// The places of all who are meant and are here.
    fn slots(&self, hub: HubIndex, to: &Receivers) -> Vec<Slot> {
        self.deliver(Pace::Direct, |delivery| {
            let set = |delivery: &Delivery<'_>, name| -> Vec<Slot> {
                delivery.directory.members(hub, name).iter().map(|member| member.slot).collect()
            };
            let mut slots: Vec<Slot> = match &to.who {
                Who::Everyone => set(delivery, SetName::Hub),
                Who::Connections(ids) => ids.iter().filter_map(|id| delivery.find(id)).collect(),
                Who::Groups(names) => names.iter().flat_map(|name| set(delivery, SetName::Group(name))).collect(),
                Who::Users(names) => names.iter().flat_map(|name| set(delivery, SetName::User(name))).collect(),
            };
            let excluded: Vec<Slot> = to.excluded.iter().filter_map(|id| delivery.find(id)).collect();
            slots.retain(|slot| !excluded.contains(slot));
            slots
        })
    }
}

/// What an app server is told that asks a client which is not here. Text of the official server.
#[must_use]
pub fn no_such_connection(question: ClientInvocation) -> ServiceMessage {
    let ClientInvocation { invocation_id, connection_id, caller_server_id, .. } = question;
    let error = format!("Connection '{connection_id}' does not exist.").into();
    ServiceMessage::ErrorCompletion(ErrorCompletion { invocation_id, connection_id, caller_server_id, error })
}

/// Bytes for one connection: taken only from its own app server, so that no call is answered twice.
fn send_data(delivery: &mut Delivery<'_>, app: AppServerId, data: &ConnectionData) {
    let Some(slot) = delivery.find(&data.connection_id) else {
        return delivery.outlet.counters.unknown_receivers.increment();
    };
    let Some(client) = delivery.directory.get_mut(slot) else { return };
    if client.home.app() != app || client.is_closing() {
        return delivery.outlet.counters.unknown_receivers.increment();
    }
    // The first bytes are the answer to the hub handshake.
    client.status = Status::Open;
    let frame = frame_for(client.protocol, &data.payload);
    delivery.outlet.put(slot, client, &frame);
}

fn change_groups(delivery: &mut Delivery<'_>, slot: Slot, change: &GroupOrder) -> Option<()> {
    let client = delivery.directory.get(slot)?;
    if client.is_closing() {
        return None;
    }
    let hub = client.home.hub();
    match change {
        GroupOrder::Join(group) => delivery.directory.join(slot, hub, SetName::Group(group)),
        GroupOrder::Leave(group) => delivery.directory.leave(slot, hub, SetName::Group(group)),
        GroupOrder::LeaveAll => delivery.directory.leave_groups(slot),
    }
    Some(())
}
