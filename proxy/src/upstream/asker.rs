//! Asker of a command: its sender, as far as answers and rules need it.

use std::fmt;

use trunkline_protocol::service::ServiceMessage;

use super::{AppServerId, HubIndex, LinkId};
use crate::auth::Signer;

/// Sender of commands that gets their answers: the app server at the far end of a link, or another node.
pub(crate) trait Asker: fmt::Debug + Send + Sync {
    /// The hub that its commands concern.
    fn hub(&self) -> HubIndex;

    /// Its app server; [`AppServerId::OTHER_NODE`] for another node, which is nobody's own app server.
    fn app(&self) -> AppServerId;

    /// The link of dial-in that its commands come by; `None` for any other sender.
    fn dial_in_link(&self) -> Option<LinkId> {
        None
    }

    /// Signer of the token with which it came; `None` for whoever has shown none here.
    fn signer(&self) -> Option<&Signer> {
        None
    }

    /// Sends it an answer. Never waits.
    fn answer(&self, message: &ServiceMessage);
}
