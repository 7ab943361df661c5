//! Pings of an app server that has dialled in, and the answers that it wants. Pure.
//!
//! ```text
//!  status=1          ─► status=1|0, clientcount, servercount, capacity
//!  servers=""        ─► servers=<ticks>:<id>;<id>
//!  shutdown=fin:0|1|2 ─► shutdown=finack, and its clients go elsewhere, or stay
//!  #clientInHub, #client, none, an echo of ours: nothing
//! ```

use bytestring::ByteString;
use trunkline_protocol::dial_in::{FIN_ACK, FIN_MIGRATE, SHUTDOWN_PING, STATUS_PING};
use trunkline_protocol::service::Ping;

const SERVERS: &str = "servers";

/// .NET counts time in these units, from the year 1 on.
const TICKS_PER_SECOND: u64 = 10_000_000;
const SECONDS_BEFORE_1970: u64 = 62_135_596_800;

/// Wish of an app server that it tells by a ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Status,
    Servers,
    /// It is about to stop.
    Leave(Leaving),
}

/// How an app server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    /// It waits until its clients go by themselves, and takes no new ones.
    Waiting,
    /// Its clients are to go on elsewhere: it would end them.
    Migrating,
}

/// Load of this node, as an app server weighs its endpoints by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeLoad {
    pub(super) has_clients: bool,
    pub(super) clients: u64,
    pub(super) servers: u64,
    /// Maximum number of clients; `None` if there is none.
    pub(super) capacity: Option<u64>,
}

/// Reads the wishes in a ping.
pub(super) fn wishes(ping: &Ping) -> impl Iterator<Item = Wish> {
    ping.pairs.iter().filter_map(|(key, value)| match (&**key, &**value) {
        (STATUS_PING, _) => Some(Wish::Status),
        (SERVERS, _) => Some(Wish::Servers),
        (SHUTDOWN_PING, "fin:0" | FIN_MIGRATE) => Some(Wish::Leave(Leaving::Migrating)),
        (SHUTDOWN_PING, fin) if fin.starts_with("fin:") => Some(Wish::Leave(Leaving::Waiting)),
        _ => None,
    })
}

/// Answer to a question for the status.
pub(super) fn status(load: NodeLoad) -> Ping {
    let mut answer = ping(STATUS_PING, if load.has_clients { "1" } else { "0" });
    let mut add = |key: &'static str, value: u64| answer.pairs.push((key.into(), value.to_string().into()));
    add("clientcount", load.clients);
    add("servercount", load.servers);
    load.capacity.into_iter().for_each(|capacity| add("capacity", capacity));
    answer
}

/// Answer to a question for the app servers. All endpoints have to give one text, so the ids are sorted.
pub(super) fn servers(mut ids: Vec<String>, unix_s: u64) -> Ping {
    ids.sort_unstable();
    ids.dedup();
    let ticks = unix_s.saturating_add(SECONDS_BEFORE_1970).saturating_mul(TICKS_PER_SECOND);
    ping(SERVERS, format!("{ticks}:{}", ids.join(";")))
}

/// Answer to the notice that an app server is about to stop.
pub(super) fn finack() -> Ping {
    ping(SHUTDOWN_PING, FIN_ACK)
}

fn ping(key: &'static str, value: impl Into<ByteString>) -> Ping {
    Ping { pairs: vec![(key.into(), value.into())] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&'static str, &'static str)]) -> Vec<Wish> {
        wishes(&Ping { pairs: pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect() }).collect()
    }

    #[test]
    fn each_ping_of_the_reference_is_known_and_others_want_nothing() {
        assert_eq!(of(&[("status", "1"), ("clientcount", "3")]), [Wish::Status]);
        assert_eq!(of(&[("servers", "")]), [Wish::Servers]);
        assert_eq!(of(&[("shutdown", "fin:0")]), [Wish::Leave(Leaving::Migrating)]);
        assert_eq!(of(&[("shutdown", "fin:1")]), [Wish::Leave(Leaving::Migrating)]);
        assert_eq!(of(&[("shutdown", "fin:2")]), [Wish::Leave(Leaving::Waiting)]);
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
