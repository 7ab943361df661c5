//! Pings from a dialled-in app server, and the replies. Pure.
//!
//! ```text
//!  status=1          ─► status=1|0, clientcount, servercount, capacity
//!  servers=""        ─► servers=<ticks>:<id>;<id>
//!  shutdown=fin:0|1|2 ─► shutdown=finack; its clients move or stay
//!  #clientInHub, #client, empty, returned echo: no reply
//! ```

use bytestring::ByteString;
use trunkline_protocol::dial_in::{FIN_ACK, FIN_MIGRATE, SHUTDOWN_PING, STATUS_PING};
use trunkline_protocol::service::Ping;

const SERVERS: &str = "servers";

/// .NET ticks of 100 ns, counted from the year 1.
const TICKS_PER_SECOND: u64 = 10_000_000;
const SECONDS_BEFORE_1970: u64 = 62_135_596_800;

/// Request that an app server makes with a ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PingAction {
    Status,
    Servers,
    /// Announces a shutdown of the app server.
    Leave(Leaving),
}

/// Shutdown mode of an app server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    /// Waits for its clients to disconnect and accepts no new ones.
    Waiting,
    /// Its clients should move; otherwise it closes them.
    Migrating,
}

/// Load of this node, used by app servers to weight endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeLoad {
    pub(super) has_clients: bool,
    pub(super) clients: u64,
    pub(super) servers: u64,
    /// Maximum number of clients; `None` means unlimited.
    pub(super) capacity: Option<u64>,
}

/// Parses the requests in a ping.
pub(super) fn actions(ping: &Ping) -> impl Iterator<Item = PingAction> {
    ping.pairs.iter().filter_map(|(key, value)| match (&**key, &**value) {
        (STATUS_PING, _) => Some(PingAction::Status),
        (SERVERS, _) => Some(PingAction::Servers),
        (SHUTDOWN_PING, "fin:0" | FIN_MIGRATE) => Some(PingAction::Leave(Leaving::Migrating)),
        (SHUTDOWN_PING, fin) if fin.starts_with("fin:") => Some(PingAction::Leave(Leaving::Waiting)),
        _ => None,
    })
}

pub(super) fn status(load: NodeLoad) -> Ping {
    let mut answer = ping(STATUS_PING, if load.has_clients { "1" } else { "0" });
    let mut add = |key: &'static str, value: u64| answer.pairs.push((key.into(), value.to_string().into()));
    add("clientcount", load.clients);
    add("servercount", load.servers);
    load.capacity.into_iter().for_each(|capacity| add("capacity", capacity));
    answer
}

/// Reply to a request for the app servers. Sorted, because all endpoints have to return identical text.
pub(super) fn servers(mut ids: Vec<String>, unix_s: u64) -> Ping {
    ids.sort_unstable();
    ids.dedup();
    let ticks = unix_s.saturating_add(SECONDS_BEFORE_1970).saturating_mul(TICKS_PER_SECOND);
    ping(SERVERS, format!("{ticks}:{}", ids.join(";")))
}

pub(super) fn finack() -> Ping {
    ping(SHUTDOWN_PING, FIN_ACK)
}

fn ping(key: &'static str, value: impl Into<ByteString>) -> Ping {
    Ping { pairs: vec![(key.into(), value.into())] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&'static str, &'static str)]) -> Vec<PingAction> {
        actions(&Ping { pairs: pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect() }).collect()
    }

    #[test]
    fn each_ping_of_the_reference_is_known_and_others_want_nothing() {
        assert_eq!(of(&[("status", "1"), ("clientcount", "3")]), [PingAction::Status]);
        assert_eq!(of(&[("servers", "")]), [PingAction::Servers]);
        assert_eq!(of(&[("shutdown", "fin:0")]), [PingAction::Leave(Leaving::Migrating)]);
        assert_eq!(of(&[("shutdown", "fin:1")]), [PingAction::Leave(Leaving::Migrating)]);
        assert_eq!(of(&[("shutdown", "fin:2")]), [PingAction::Leave(Leaving::Waiting)]);
        assert_eq!(of(&[("#clientInHub", "1"), ("#client", "1")]), []);
        assert_eq!(of(&[("shutdown", "finack"), ("echo", "1"), ("d-m", "1")]), []);
    }

    #[test]
    fn answers_are_those_of_the_reference() {
        let load = NodeLoad { has_clients: true, clients: 3, servers: 5, capacity: Some(1000) };
        let pairs = |ping: Ping| ping.pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
        assert_eq!(pairs(status(load)), ["status=1", "clientcount=3", "servercount=5", "capacity=1000"]);
        let idle = NodeLoad { has_clients: false, clients: 0, servers: 5, capacity: None };
        assert_eq!(pairs(status(idle)), ["status=0", "clientcount=0", "servercount=5"]);
        let ids = ["b", "a", "b"].map(str::to_owned).to_vec();
        assert_eq!(pairs(servers(ids, 1)), ["servers=621355968010000000:a;b"]);
        assert_eq!(pairs(finack()), ["shutdown=finack"]);
    }
}
