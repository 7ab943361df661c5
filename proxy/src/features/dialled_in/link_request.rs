//! Requests for more links to dialled-in app servers: a ping with the name of the node that needs a link.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tokio::time::sleep;
use tracing::info;
use trunkline_protocol::dial_in::TARGET_PING;
use trunkline_protocol::service::{Ping, ServiceMessage};

use crate::engine::upstream::{LinkHandle, Pool};

/// Number of links to one app server at which requests stop, because more would not help.
const LINKS_MAX: usize = 20;

const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Consecutive checks that must find all links full before another is requested; bursts are shorter.
const FULL_LOOKS: u32 = 3;

/// Time for the app server to add a link, and for its clients to move.
const REST: Duration = Duration::from_secs(10);

/// Message that requests a link to the node with this boot id.
pub(crate) fn link_request(boot: &str) -> ServiceMessage {
    ServiceMessage::Ping(Ping { pairs: vec![(ByteString::from_static(TARGET_PING), boot.into())] })
}

/// Requests another link when all links of a pool stay full. Runs for each link; only the pool's first one
/// sends.
pub(super) async fn ask_while_full(boot: &str, pool: &Pool, link: &Arc<LinkHandle>) -> Infallible {
    let mut full_looks = 0;
    loop {
        sleep(LOOK_INTERVAL).await;
        let homes = pool.homes();
        let is_first = homes.first().is_some_and(|first| Arc::ptr_eq(first, link));
        let needs_more = is_first && homes.len() < LINKS_MAX && homes.iter().all(|home| home.is_full());
        full_looks = if needs_more { full_looks + 1 } else { 0 };
        if full_looks >= FULL_LOOKS && !pool.is_draining() {
            let (hub, app, links) = (pool.hub.name(), &pool.app.name, homes.len());
            info!(hub, %app, links, "all links of an app server are full: requesting another link");
            link.send(&link_request(boot));
            full_looks = 0;
            sleep(REST).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::select;
    use tokio::time::Instant;
    use trunkline_protocol::manifest::HubManifest;

    use super::*;
    use crate::engine::upstream::{AppServer, AppTarget, HubOrigin, HubRegistry};
    use crate::ground::auth::Signer;
    use crate::ground::limits::SignerShare;

    /// Pool with two test links.
    fn pool() -> (Pool, [Arc<LinkHandle>; 2]) {
        let share = SignerShare::new(Signer::Fleet, false);
        let settings = HubManifest::new("bench", "/client");
        let hub = HubRegistry::default().register_as(HubOrigin::DialIn, settings, &share).unwrap();
        let (id, instance) = (7.into(), "vm_1".into());
        let app =
            AppServer { id, instance, name: "vm".into(), target: AppTarget::DialsIn(None), group: Arc::default() };
        let links = [(); 2].map(|()| Arc::new(LinkHandle::opened_by_dial_in(&hub.identity, id)));
        let pool = Pool::new(hub.identity.clone(), Arc::new(app), 0, Arc::default());
        for link in &links {
            pool.add_link(link);
        }
        (pool, links)
    }

    /// Bytes queued in a link after this many seconds.
    async fn waiting_after(seconds: u64, pool: &Pool, link: &Arc<LinkHandle>) -> usize {
        let until = Instant::now() + Duration::from_secs(seconds);
        select! {
            never = ask_while_full("n1", pool, link) => match never {},
            // sleep: time is virtual, and the test shows that nothing is sent
            () = tokio::time::sleep_until(until) => link.ring_bytes(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_link_is_asked_for_once_when_all_are_full_for_a_while() {
        let (pool, [first, second]) = pool();
        let request = link_request("n1").to_frame().len();
        let fill = |link: &LinkHandle| {
            while !link.is_full() {
                link.send_data("ann", &[0; 100], 0);
            }
            link.ring_bytes()
        };
        let full = fill(&first);
        assert_eq!(waiting_after(20, &pool, &first).await, full, "one has room");
        fill(&second);
        assert_eq!(waiting_after(2, &pool, &first).await, full, "a burst may be over soon");
        assert_eq!(waiting_after(12, &pool, &first).await, full + request);
        let full_second = second.ring_bytes();
        assert_eq!(waiting_after(60, &pool, &second).await, full_second, "the first asks for all");
    }
}
