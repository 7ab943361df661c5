//! Removal of the key that authenticated an app server: links opened with the key are closed.
//!
//! ```text
//!  keys reloaded ─► each link of that key ─► no new clients ─► reason sent ─► closed
//! ```
//!
//! The first link to notice stops assignments to all links of its hub with that key. Otherwise clients would be
//! assigned to a link about to close.

use tracing::warn;
use trunkline_protocol::service::{ServiceError, ServiceMessage};

use crate::admission::SigningKeys;
use crate::auth::TokenSigner;
use crate::shard::Shard;
use crate::upstream::{LinkHandle, Pool};

/// Reason sent to an app server. A WebSocket close frame holds 123 bytes of it.
pub(super) const KEY_GONE: &str = "the key that signed the token of this connection was removed";

/// WebSocket close code for a policy violation.
pub(super) const CLOSE_POLICY: u16 = 1008;

/// Waits until the key of a link is removed, and sends the reason to its app server. Never returns for fleet
/// links.
pub(super) async fn lose_key(shard: &Shard, keys: &SigningKeys, pool: &Pool, link: &LinkHandle) {
    let Some(signer) = link.token_signer() else {
        return std::future::pending().await;
    };
    keys.taken_away(signer, pool.hub().name()).await;
    take_from_homes(shard, pool, signer);
    link.send(&ServiceMessage::ServiceError(ServiceError { error: KEY_GONE.into() }));
}

/// Stops assigning clients to the hub's links with this key, and warns once per app server.
fn take_from_homes(shard: &Shard, pool: &Pool, signer: &TokenSigner) {
    let Some(hub) = shard.shared().hubs.of_pool(pool) else { return };
    for pool in hub.pools().iter() {
        let all = pool.links();
        let of_key = all.iter().filter(|link| link.token_signer() == Some(signer));
        let links = of_key.filter(|link| link.begin_leave()).count();
        if links > 0 {
            let (hub, app, key) = (hub.name(), &pool.app().name, &signer.signer);
            warn!(hub, %app, %key, links, "closing links: the key of the app server was removed");
        }
    }
}
