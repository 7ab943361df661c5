//! Revoker: invalidates access tokens before they expire, at all nodes of the fleet.
//!
//! ```text
//!  order ─► stored here ─► message to each node ─► query to each node ─► connections of the user close there
//!                                │                          └─► ack: it is stored there
//!                                └─ waits in the link of a disconnected node; a node that links later gets all
//! ```
//!
//! A node that answers already rejects the tokens, because message and query share a link.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Semaphore;
use tracing::info;
use trunkline_protocol::fleet::SharedRevocation;

use super::node_inspector::NodeInspector;
use super::peer::Peers;
use crate::features::admission::{RevocationRefused, Revocations};
use crate::fleet::PeerRequest;
use crate::ground::clock::{unix_ms, unix_seconds};

/// Path of requests between nodes.
pub(crate) const REVOKE_OWN_PATH: &str = "/api/revocations/own";

/// Maximum number of concurrent revocations. A silent node delays one by some seconds.
const UNDER_WAY_MAX: usize = 32;

/// Revocation of access tokens, in the API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RevokedTokens {
    /// User id of the tokens; `None` for all users.
    pub user: Option<String>,
    /// Audience of the tokens; `None` for any.
    pub audience: Option<String>,
    /// Name of the app with the signing key; `None` for any key.
    pub app: Option<String>,
    /// Latest issue time of revoked tokens, in seconds since 1970.
    pub issued_before: u64,
    /// Time at which the revocation expires, in seconds since 1970.
    pub kept_until: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RevocationOrder {
    #[serde(flatten)]
    pub(crate) tokens: RevokedTokens,
    /// Whether to close the user's open connections, too.
    pub(crate) close: bool,
    /// Time of the close in milliseconds since 1970, set by the receiving node. All nodes record this time, so none
    /// closes twice.
    pub(crate) closed_ms: u64,
}

/// Result of a revocation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RevocationReport {
    /// Tokens that are now rejected.
    #[serde(flatten)]
    pub tokens: RevokedTokens,
    /// Nodes that reject them, including this one.
    pub nodes: u64,
    /// Names of nodes without an answer.
    pub missing: Vec<String>,
    /// Number of closed client connections.
    pub clients: u64,
    /// Whether the store has the revocation; `None` without a store. It is written later if not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<bool>,
}

/// Revocations stored by a node, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RevocationList {
    /// Revocations, up to the requested number.
    pub revocations: Vec<RevokedTokens>,
    /// Total number stored by the node.
    pub total: u64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RevocationError {
    #[error(transparent)]
    Refused(#[from] RevocationRefused),
    #[error("{UNDER_WAY_MAX} revocations are in progress, which is the limit")]
    TooMany,
    #[error("this node is stopping")]
    Stopping,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct RevokedAnswer {
    pub(crate) clients: u64,
}

impl RevokedTokens {
    fn told(&self) -> SharedRevocation {
        let name = |name: &Option<String>| name.as_deref().map(Into::into);
        SharedRevocation {
            user: name(&self.user),
            audience: name(&self.audience),
            app: name(&self.app),
            issued_before_s: self.issued_before,
            kept_until_s: self.kept_until,
            // Existing nodes are queried to close them and report the number.
            closed_ms: 0,
        }
    }
}

impl From<SharedRevocation> for RevokedTokens {
    fn from(told: SharedRevocation) -> Self {
        let SharedRevocation { user, audience, app, issued_before_s, kept_until_s, .. } = told;
        let [user, audience, app] = [user, audience, app].map(|name| name.map(|name| name.to_string()));
        Self { user, audience, app, issued_before: issued_before_s, kept_until: kept_until_s }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Revoker(Arc<RevokerState>);

#[derive(Debug)]
struct RevokerState {
    revocations: Arc<Revocations>,
    node: Arc<NodeInspector>,
    peers: Arc<Peers>,
    under_way: Arc<Semaphore>,
}

impl Revoker {
    pub(super) fn new(revocations: Arc<Revocations>, node: Arc<NodeInspector>, peers: Arc<Peers>) -> Self {
        let under_way = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        Self(Arc::new(RevokerState { revocations, node, peers, under_way }))
    }

    /// Revokes access tokens at all nodes. Fails if no node has revoked them.
    pub(crate) async fn revoke(&self, order: RevocationOrder) -> Result<RevocationReport, RevocationError> {
        let permit = self.0.under_way.clone().try_acquire_owned().map_err(|_| RevocationError::TooMany)?;
        let revoker = self.0.clone();
        // Runs in its own task, so a disconnecting caller can't interrupt it halfway.
        let revoking = tokio::spawn(async move {
            let _permit = permit;
            revoker.revoke(order).await
        });
        revoking.await.unwrap_or(Err(RevocationError::Stopping))
    }

    /// Revokes access tokens at this node, for another node.
    pub(crate) async fn revoke_own(&self, order: &RevocationOrder) -> Result<RevokedAnswer, RevocationError> {
        self.0.revoke_own(order).await
    }

    /// Lists the newest revocations of this node, optionally of one user.
    pub(crate) fn list(&self, user: Option<&str>, limit: usize) -> RevocationList {
        let mut kept = self.0.revocations.all(unix_seconds());
        let total = kept.len() as u64;
        kept.retain(|told| user.is_none_or(|user| told.user.as_deref() == Some(user)));
        RevocationList { revocations: kept.into_iter().take(limit).map(Into::into).collect(), total }
    }
}

impl RevokerState {
    async fn revoke(&self, order: RevocationOrder) -> Result<RevocationReport, RevocationError> {
        let order = RevocationOrder { closed_ms: unix_ms(), ..order };
        self.revocations.revoke(&order.tokens.told(), unix_seconds())?;
        // To all peers, including peers that link later.
        self.peers.fleet.spread_revocation(&order.tokens.told());
        let request = PeerRequest::post(REVOKE_OWN_PATH, json!(order).to_string().into());
        let told = order.tokens.told();
        let stored = self.peers.keep_revocation(&told);
        let others = self.peers.gather::<RevokedAnswer>(&request);
        let (own, (others, missing), stored) = tokio::join!(self.close_revoked(&order), others, stored);
        let clients = own + others.iter().map(|answer| answer.clients).sum::<u64>();
        let report =
            RevocationReport { tokens: order.tokens, nodes: 1 + others.len() as u64, missing, clients, stored };
        let RevocationReport { tokens, nodes, missing, clients, stored } = &report;
        let RevokedTokens { user, audience, app, issued_before, .. } = tokens;
        let silent = (!missing.is_empty()).then(|| missing.join(", "));
        info!(
            user,
            audience,
            app,
            issued_before,
            clients,
            nodes,
            missing = silent,
            stored,
            "access tokens revoked by an operator"
        );
        Ok(report)
    }

    async fn revoke_own(&self, order: &RevocationOrder) -> Result<RevokedAnswer, RevocationError> {
        self.revocations.revoke(&order.tokens.told(), unix_seconds())?;
        Ok(RevokedAnswer { clients: self.close_revoked(order).await })
    }

    /// Closes the user's connections here if the order requests it.
    async fn close_revoked(&self, order: &RevocationOrder) -> u64 {
        match order.tokens.user.as_deref().filter(|_| order.close) {
            Some(user) => {
                // Recorded before closing, so that connections that arrive in the meantime find it.
                self.revocations.note_close(&order.tokens.told(), order.closed_ms);
                self.node.close_revoked(user).await
            }
            None => 0,
        }
    }
}
