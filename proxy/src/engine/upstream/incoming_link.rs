//! Link requested by an app server through dial-in, before its handshake.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::upgrade::OnUpgrade;

use super::Hub;
use crate::ground::auth::TokenSigner;
use crate::ground::limits::LinkPermit;

#[derive(Debug)]
pub(crate) struct IncomingLink {
    pub upgrade: OnUpgrade,
    pub hub: Arc<Hub>,
    /// Id of the app server, shared by all its links.
    pub instance: String,
    /// Address of the app server; `None` if another node carries the link.
    pub from: Option<IpAddr>,
    /// Host that the app server dialled.
    pub endpoint: String,
    pub signer: TokenSigner,
    /// Whether another node carries the link.
    pub is_carried: bool,
    /// Reason to refuse the handshake, if already known.
    pub refusal: Option<String>,
    /// Permit of the link, held until its socket is closed.
    pub permit: Arc<LinkPermit>,
}
