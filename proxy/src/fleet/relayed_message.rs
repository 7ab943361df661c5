//! Relayed messages: frames, epochs and possible recipients.

use bytes::{Bytes, BytesMut};
use trunkline_protocol::fleet::{Wanted, encode_relay};
use trunkline_protocol::service::{Audience, ServiceMessage, Stamped};

use crate::engine::shard::Shared;

/// Relay frame of a message that entered the fleet in this epoch; 0 if epochs don't matter.
pub(super) fn relayed(hub: &str, message: &ServiceMessage, epoch: i64) -> BytesMut {
    let mut frame = BytesMut::new();
    encode_relay(hub, &stamped(message, epoch), &mut frame);
    frame
}

/// Message body, wrapped with its epoch after the first move.
pub(super) fn stamped(message: &ServiceMessage, epoch: i64) -> Bytes {
    let body = message.to_body();
    if epoch > 0 { ServiceMessage::Stamped(Stamped { epoch, body }).to_body() } else { body }
}

/// Calls `act` with the recipients of a message.
pub(super) fn with_wanted<R>(message: &ServiceMessage, act: impl FnOnce(&[Wanted<'_>]) -> R) -> R {
    match message.audience() {
        Some(Audience::Groups([group])) => act(&[Wanted::Group(group)]),
        Some(Audience::Groups(groups)) => act(&groups.iter().map(|group| Wanted::Group(group)).collect::<Vec<_>>()),
        Some(Audience::Users([user])) => act(&[Wanted::User(user)]),
        Some(Audience::Users(users)) => act(&users.iter().map(|user| Wanted::User(user)).collect::<Vec<_>>()),
        _ => act(&[Wanted::Everyone]),
    }
}

/// Whether a query concerns one connection, held by this node.
pub(super) fn is_about_own(shared: &Shared, message: &ServiceMessage) -> bool {
    let Some(Audience::Connections([id])) = message.audience() else { return false };
    match message {
        // If a connection moves between two nodes, the final owner keeps the sign-in.
        ServiceMessage::RefreshAuth(_) => shared.routes.is_here_alone(id),
        _ => shared.routes.find(id).is_some(),
    }
}
