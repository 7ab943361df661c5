//! Link that an app server has asked for by dial-in, before its handshake.

use std::sync::Arc;

use hyper::upgrade::OnUpgrade;

use super::Hub;
use crate::auth::TokenSigner;

/// Link that an app server has asked for: the upgrade is on its way.
#[derive(Debug)]
pub(crate) struct IncomingLink {
    pub upgrade: OnUpgrade,
    pub hub: Arc<Hub>,
    /// Id of the app server, the same for all its links.
    pub instance: String,
    /// Host that it has dialled.
    pub endpoint: String,
    /// Signer of its token.
    pub signer: TokenSigner,
    /// Whether another node has carried it here.
    pub is_carried: bool,
    /// Reason to refuse the handshake, known before it.
    pub refusal: Option<String>,
}
