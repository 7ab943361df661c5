//! Reply handle of a command: its sender, as needed for answers and rules.

use std::fmt;

use trunkline_protocol::service::ServiceMessage;

use super::{AppServerId, HubIndex, LinkId};
use crate::auth::Signer;

/// Sender of commands that receives their answers: the app server at the other end of a link, or another node.
pub(crate) trait ReplyTo: fmt::Debug + Send + Sync {
    fn hub(&self) -> HubIndex;

    /// App server of the sender; [`AppServerId::OTHER_NODE`] for another node.
    fn app(&self) -> AppServerId;

    /// Dial-in link of the commands; `None` for any other sender.
    fn dial_in_link(&self) -> Option<LinkId> {
        None
    }

    /// Signer of the sender's token; `None` without a token.
    fn signer(&self) -> Option<&Signer> {
        None
    }

    /// Sends an answer. Never waits.
    fn answer(&self, message: &ServiceMessage);
}
