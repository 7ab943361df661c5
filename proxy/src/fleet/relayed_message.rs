//! Messages as they are passed on: their frames, with the epoch, and whom they may concern.

use bytes::{Bytes, BytesMut};
use trunkline_protocol::fleet::{Wanted, encode_relay};
use trunkline_protocol::service::{Audience, ServiceMessage, Stamped};

use crate::shard::Shared;

/// Frame of a message that entered the fleet in this epoch of this node, or of one that no epoch concerns.
pub(super) fn relayed(hub: &str, message: &ServiceMessage, epoch: i64) -> BytesMut {
    let mut frame = BytesMut::new();
    encode_relay(hub, &stamped(message, epoch), &mut frame);
    frame
}

/// Body of a message, with its epoch around it from the first move on.
pub(super) fn stamped(message: &ServiceMessage, epoch: i64) -> Bytes {
    let body = message.to_body();
    if epoch > 0 { ServiceMessage::Stamped(Stamped { epoch, body }).to_body() } else { body }
}

/// Does something with the recipients of a message.
pub(super) fn with_wanted<R>(message: &ServiceMessage, act: impl FnOnce(&[Wanted<'_>]) -> R) -> R {
    match message.audience() {
        Some(Audience::Groups([group])) => act(&[Wanted::Group(group)]),
        Some(Audience::Groups(groups)) => act(&groups.iter().map(|group| Wanted::Group(group)).collect::<Vec<_>>()),
        Some(Audience::Users([user])) => act(&[Wanted::User(user)]),
        Some(Audience::Users(users)) => act(&users.iter().map(|user| Wanted::User(user)).collect::<Vec<_>>()),
        _ => act(&[Wanted::Everyone]),
    }
}

/// Whether a question is about a single connection that is at this node.
pub(super) fn is_about_own(shared: &Shared, message: &ServiceMessage) -> bool {
    let Some(Audience::Connections([id])) = message.audience() else { return false };
    match message {
        // Of two nodes between which a connection moves, the one that has it in the end keeps its log-in.
        ServiceMessage::RefreshAuth(_) => shared.routes.is_here_alone(id),
        _ => shared.routes.find(id).is_some(),
    }
}
