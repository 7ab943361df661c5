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

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::info;
use trunkline_protocol::fleet::SharedRevocation;

use super::act::{ActLimit, silent};
use super::api_error::ApiError;
use super::node_inspector::NodeInspector;
use super::peer::Peers;
use crate::features::admission::Revocations;
use crate::fleet::PeerRequest;
use crate::ground::clock::{unix_ms, unix_seconds};

/// Path of requests between nodes.
pub(crate) const REVOKE_OWN_PATH: &str = "/api/revocations/own";

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
    acts: ActLimit,
}

impl Revoker {
    pub(super) fn new(revocations: Arc<Revocations>, node: Arc<NodeInspector>, peers: Arc<Peers>) -> Self {
        Self(Arc::new(RevokerState { revocations, node, peers, acts: ActLimit::new("revocations") }))
    }

    /// Revokes access tokens at all nodes. Fails if no node has revoked them.
    pub(crate) async fn revoke(&self, order: RevocationOrder) -> Result<RevocationReport, ApiError> {
        let _permit = self.0.acts.take()?;
        self.0.revoke(order).await
    }

    /// Revokes access tokens at this node, for another node.
    pub(crate) async fn revoke_own(&self, order: &RevocationOrder) -> Result<RevokedAnswer, ApiError> {
        self.0.store(&order.tokens)?;
        Ok(RevokedAnswer { clients: self.0.close_revoked(order).await })
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
    async fn revoke(&self, order: RevocationOrder) -> Result<RevocationReport, ApiError> {
        let order = RevocationOrder { closed_ms: unix_ms(), ..order };
        self.store(&order.tokens)?;
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
        let missing = silent(missing);
        let text = "access tokens revoked by an operator";
        info!(user, audience, app, issued_before, clients, nodes, missing, stored, "{text}");
        Ok(report)
    }

    fn store(&self, tokens: &RevokedTokens) -> Result<(), ApiError> {
        let refused = self.revocations.revoke(&tokens.told(), unix_seconds());
        refused.map_err(|refused| ApiError::new(StatusCode::CONFLICT, refused.to_string()))
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
