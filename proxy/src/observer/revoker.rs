//! Revoker: an operator voids access tokens before their end, at all nodes of the fleet.
//!
//! ```text
//!  order ─► kept here ─► message to each node ─► question to each node ─► connections of the user close there
//!                              │                          └─► ack: it is kept there
//!                              └─ waits in the link of a node that is away; one that links later is sent all
//! ```
//!
//! The message and the question go over the same link, so a node that answers refuses the tokens.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Semaphore;
use tracing::info;
use trunkline_protocol::fleet::ToldRevocation;

use super::node_inspector::NodeInspector;
use super::peer::Peers;
use crate::auth::RevocationRefused;
use crate::clock::{unix_ms, unix_seconds};
use crate::fleet::PeerRequest;
use crate::shard::Shared;

/// Path at which nodes ask each other.
pub(crate) const REVOKE_OWN_PATH: &str = "/api/revocations/own";

/// Revocations under way at a time. One that waits for a silent node takes some seconds.
const UNDER_WAY_MAX: usize = 32;

/// Revocation of access tokens, in the API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RevokedTokens {
    /// Id of the user whose tokens they are; `None` for those of everybody.
    pub user: Option<String>,
    /// Audience that they name; `None` for any.
    pub audience: Option<String>,
    /// Name of the app whose key has signed them; `None` for any key.
    pub app: Option<String>,
    /// Second since 1970 up to which they were issued.
    pub issued_before: u64,
    /// Second since 1970 after which the revocation is forgotten.
    pub kept_until: u64,
}

/// Order of an operator to revoke tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RevocationOrder {
    #[serde(flatten)]
    pub(crate) tokens: RevokedTokens,
    /// Whether the open connections of the user are closed, too.
    pub(crate) close: bool,
    /// Moment of that, in milliseconds since 1970, by the node that was asked: all note the same one, so that none does
    /// it twice. 0 from a node of an older version.
    pub(crate) closed_ms: u64,
}

/// Outcome of a revocation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RevocationReport {
    /// Tokens that are void from now on.
    #[serde(flatten)]
    pub tokens: RevokedTokens,
    /// Nodes that refuse them, this one included.
    pub nodes: u64,
    /// Names of the nodes that did not answer.
    pub missing: Vec<String>,
    /// Client connections that were closed.
    pub clients: u64,
}

/// Revocations that a node keeps, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RevocationList {
    /// As many as were asked for.
    pub revocations: Vec<RevokedTokens>,
    /// Number of all that the node keeps.
    pub total: u64,
}

/// Reason why nothing was revoked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RevocationError {
    #[error(transparent)]
    Refused(#[from] RevocationRefused),
    #[error("{UNDER_WAY_MAX} revocations are under way, and no more can be")]
    TooMany,
    #[error("this node is stopping")]
    Stopping,
}

/// Answer of a node that keeps a revocation.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct RevokedAnswer {
    /// Client connections that it has closed.
    pub(crate) clients: u64,
}

impl RevokedTokens {
    fn told(&self) -> ToldRevocation {
        let name = |name: &Option<String>| name.as_deref().map(Into::into);
        ToldRevocation {
            user: name(&self.user),
            audience: name(&self.audience),
            app: name(&self.app),
            issued_before_s: self.issued_before,
            kept_until_s: self.kept_until,
            // Nodes that are there are asked to close them, and answer how many.
            closed_ms: 0,
        }
    }
}

impl From<ToldRevocation> for RevokedTokens {
    fn from(told: ToldRevocation) -> Self {
        let ToldRevocation { user, audience, app, issued_before_s, kept_until_s, .. } = told;
        let [user, audience, app] = [user, audience, app].map(|name| name.map(|name| name.to_string()));
        Self { user, audience, app, issued_before: issued_before_s, kept_until: kept_until_s }
    }
}

/// Revoker of this node; its clones are one.
#[derive(Debug, Clone)]
pub(super) struct Revoker(Arc<RevokerState>);

#[derive(Debug)]
struct RevokerState {
    shared: Arc<Shared>,
    node: Arc<NodeInspector>,
    peers: Arc<Peers>,
    under_way: Arc<Semaphore>,
}

impl Revoker {
    pub(super) fn new(shared: Arc<Shared>, node: Arc<NodeInspector>, peers: Arc<Peers>) -> Self {
        let under_way = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        Self(Arc::new(RevokerState { shared, node, peers, under_way }))
    }

    /// Revokes tokens at all nodes.
    ///
    /// # Errors
    /// When they are revoked nowhere.
    pub(super) async fn revoke(&self, order: RevocationOrder) -> Result<RevocationReport, RevocationError> {
        let permit = self.0.under_way.clone().try_acquire_owned().map_err(|_| RevocationError::TooMany)?;
        let revoker = self.0.clone();
        // In a task of its own: a caller that goes away leaves nothing revoked by half.
        let revoking = tokio::spawn(async move {
            let _permit = permit;
            revoker.revoke(order).await
        });
        revoking.await.unwrap_or(Err(RevocationError::Stopping))
    }

    /// Revokes tokens at this node alone.
    ///
    /// # Errors
    /// When they are not.
    pub(super) async fn revoke_own(&self, order: &RevocationOrder) -> Result<RevokedAnswer, RevocationError> {
        self.0.revoke_own(order).await
    }

    /// Lists the newest revocations, of a user if one is named.
    pub(super) fn list(&self, user: Option<&str>, limit: usize) -> RevocationList {
        let mut kept = self.0.shared.admission.revocations.all(unix_seconds());
        let total = kept.len() as u64;
        kept.retain(|told| user.is_none_or(|user| told.user.as_deref() == Some(user)));
        RevocationList { revocations: kept.into_iter().take(limit).map(Into::into).collect(), total }
    }
}

impl RevokerState {
    async fn revoke(&self, order: RevocationOrder) -> Result<RevocationReport, RevocationError> {
        let order = RevocationOrder { closed_ms: unix_ms(), ..order };
        self.shared.admission.revocations.revoke(&order.tokens.told(), unix_seconds())?;
        self.peers.spread_revocation(&order.tokens.told());
        let request = PeerRequest::post(REVOKE_OWN_PATH, json!(order).to_string().into());
        let (own, answers) = tokio::join!(self.close(&order), self.peers.ask_all(&request));
        let mut report = RevocationReport { nodes: 1, clients: own, tokens: order.tokens, ..Default::default() };
        for (member, answer) in &answers {
            match answer.as_ref().ok().and_then(|answer| answer.read::<RevokedAnswer>().ok()) {
                Some(RevokedAnswer { clients }) => {
                    report.nodes += 1;
                    report.clients += clients;
                }
                None => report.missing.push(member.name().to_owned()),
            }
        }
        let RevocationReport { tokens, nodes, missing, clients } = &report;
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
            "an operator has revoked access tokens"
        );
        Ok(report)
    }

    async fn revoke_own(&self, order: &RevocationOrder) -> Result<RevokedAnswer, RevocationError> {
        self.shared.admission.revocations.revoke(&order.tokens.told(), unix_seconds())?;
        Ok(RevokedAnswer { clients: self.close(order).await })
    }

    /// Closes the connections of the user here, if the order says so.
    async fn close(&self, order: &RevocationOrder) -> u64 {
        match order.tokens.user.as_deref().filter(|_| order.close) {
            Some(user) => {
                // First: what arrives behind those that are closed now has to find it.
                let at_ms = if order.closed_ms > 0 { order.closed_ms } else { unix_ms() };
                self.shared.admission.revocations.note_close(&order.tokens.told(), at_ms);
                self.node.close_revoked(user).await
            }
            None => 0,
        }
    }
}
