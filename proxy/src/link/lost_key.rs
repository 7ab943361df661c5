//! Loss of the key that has let an app server in: what it opened ends with it.
//!
//! ```text
//!  keys read anew ─► each link of that key ─► no client is given to it ─► said why ─► closed
//! ```
//!
//! The first link to notice takes all those of its hub that have the same key out of the choice of homes: else clients
//! would be given to one that ends a moment later.

use tracing::warn;
use trunkline_protocol::service::{ServiceError, ServiceMessage};

use crate::auth::TokenSigner;
use crate::shard::Shard;
use crate::upstream::{LinkHandle, Pool};

/// Text for an app server, of which WebSockets take 123 bytes in a close frame.
pub(super) const KEY_GONE: &str = "the key that has signed the token of this connection was taken away";

/// Close code of WebSockets for what is against the rules of the near end.
pub(super) const CLOSE_POLICY: u16 = 1008;

/// Waits until the key that has let a link in is taken away, and says so to its app server. One of the fleet is waited
/// for in vain.
pub(super) async fn lose_key(shard: &Shard, pool: &Pool, link: &LinkHandle) {
    let Some(signer) = link.token_signer() else {
        return std::future::pending().await;
    };
    shard.shared().admission.signing_keys.taken_away(signer, pool.hub().name()).await;
    take_from_homes(shard, pool, signer);
    link.send(&ServiceMessage::ServiceError(ServiceError { error: KEY_GONE.into() }));
}

/// Lets no clients have any link of a hub as their home that this key has opened; says so once for each app server.
fn take_from_homes(shard: &Shard, pool: &Pool, signer: &TokenSigner) {
    let Some(hub) = shard.shared().hubs.of_pool(pool) else { return };
    for pool in hub.pools().iter() {
        let all = pool.links();
        let of_key = all.iter().filter(|link| link.token_signer() == Some(signer));
        let links = of_key.filter(|link| link.begin_leave()).count();
        if links > 0 {
            let (hub, app, key) = (hub.name(), &pool.app().name, &signer.signer);
            warn!(hub, %app, %key, links, "links end: the key with which the app server has dialled in was taken away");
        }
    }
}
