//! Limits of client resources: sockets, requests, messages, outboxes and groups.

use std::num::NonZeroU32;
use std::time::Duration;

use trunkline_protocol::limits::GROUP_NAME_MAX_BYTES;

use super::option_group::{ANY_U32, settings};

/// Default limit of connections and negotiates per address, if addresses are trusted: a quarter of the sockets that an
/// address can open to one listener. No NAT needs more. Without the limit, one machine could use up all resources of
/// the node.
const PER_ADDRESS_MAX: u32 = 16 * 1024;

settings! {
    /// Limits of the client listeners; `None` for no limit.
    #[derive(Debug, Clone)]
    pub struct FrontendLimits {
        /// Sockets of clients on this node; who comes then gets 503 and `Retry-After`. 0 for no limit.
        #[flag("connections-max", Count(ANY_U32))]
        // Several gigabytes of memory, and more than one process should hold.
        pub connections: Option<NonZeroU32> = NonZeroU32::new(1_000_000),

        /// Client connections from one address, or from one /64 of IPv6; who comes then gets 429. 0 for no limit.
        /// Behind a load balancer it needs `--trust`, or all clients have the balancer's address. A number that is
        /// given counts for sockets without a client connection, too. [default: 16384 with `--trust`, else 0]
        #[flag("connections-per-address-max", Count(ANY_U32))]
        pub connections_per_address: Option<u32> = None,

        /// How long a client may take for the head of a request, and for its first one after it has connected.
        #[flag("header-timeout", Seconds(1..=3600))]
        pub header_timeout: Duration = Duration::from_secs(15),

        /// How long a client may keep a connection open between two requests. Clients of Server-Sent Events and
        /// long polling send a ping every 15 seconds: leave room.
        #[flag("keep-alive-timeout", Seconds(1..=3600))]
        // Default of Kestrel.
        pub keep_alive_timeout: Duration = Duration::from_secs(130),

        /// Largest head of a request, from 8KiB to 384KiB; beyond it, and beyond 90 headers, 431.
        // The HTTP server needs at least 8 KiB. App servers (hyper) accept about 400 KiB, including headers added by
        // the node.
        #[flag("head-max-bytes", Bytes(8 * 1024..=384 * 1024))]
        // Azure's limit for headers is 16 KiB, and tokens are sent in the URL.
        pub head_max_bytes: usize = 32 * 1024,

        /// Largest body of a request to a hub; beyond it 413.
        #[flag("body-max-bytes", Bytes(0..=u64::MAX))]
        // Default of the official server.
        pub body_max_bytes: u64 = 30_000_000,

        /// How long a body may stand still because of its client: a body of a request whose rest does not come (408,
        /// 400 at a hub), and an answer that is not read (reset). A body for a hub must also come faster than 240 bytes
        /// a second.
        #[flag("body-timeout", Seconds(1..=3600))]
        // Default of most reverse proxies.
        pub body_timeout: Duration = Duration::from_secs(60),

        /// New client connections of this node in a second, counted when they negotiate, or connect without it. 0 for
        /// no limit. A burst of a second's worth passes at once, more of it waits up to `--connect-wait-ms`, the rest
        /// gets 503 and `Retry-After`.
        #[flag("connects-per-second", Count(ANY_U32))]
        pub connects_per_second: Option<NonZeroU32> = None,

        /// How long a new client connection may wait for its turn under `--connects-per-second`.
        #[flag("connect-wait-ms", Milliseconds(0..=60_000))]
        // Shorter than the timeout of any client.
        pub connect_wait: Duration = Duration::from_millis(1_000),

        /// Negotiates of one address, or of one /64 of IPv6, that have not led to a connection on this node within some
        /// 20 seconds; who asks then gets 429 and `Retry-After`. 0 for no limit. With several nodes most connections
        /// land elsewhere, so leave room. [default: 16384 with `--trust`, else 0]
        #[flag("pending-per-address-max", Count(ANY_U32))]
        pub pending_per_address: Option<u32> = None,

        /// Messages of one client connection in a second; beyond a second's worth it is read more slowly. Pings, and
        /// frames so small that they are no part of a message worth its header, count as messages. 0 for no limit.
        #[flag("messages-per-second", Count(ANY_U32))]
        // A few per cent of a core. Only a client in a loop sends this many, and its messages are small. Bytes need no
        // such limit, because they cost the sender as much as the node.
        pub messages_per_second: Option<NonZeroU32> = NonZeroU32::new(20_000),

        /// Bytes of one client connection in a second; beyond a second's worth it is read more slowly. 0 for no limit.
        #[flag("bytes-per-second", Bytes(ANY_U32))]
        pub bytes_per_second: Option<NonZeroU32> = None,

        /// Memory that messages of clients may take which have begun and not ended, on this node; beyond it the clients
        /// with the largest are closed. Each shard has an equal share of it. 0 for no limit.
        #[flag("unfinished-total-max-bytes", BytesLimit(1024 * 1024))]
        // Some 250 messages of 1 MiB.
        pub unfinished_total_bytes: usize = 256 * 1024 * 1024,

        /// Memory that headers, claims and queries of open connections may take, of those with more than 4 KiB; such a
        /// client gets 431 beyond it, others are not concerned. 0 for no limit.
        #[flag("heads-total-max-bytes", BytesLimit(1024 * 1024))]
        // Eight thousand heads of the maximum size.
        pub heads_total_bytes: usize = 256 * 1024 * 1024,

        /// Largest message of a client to an app server that dials in; only the app knows its hub's limit. Raise it
        /// where an app has raised `MaximumReceiveMessageSize` further. `--message-max-bytes` counts besides.
        #[flag("dial-in-message-max-bytes", Bytes(1024..=16 * 1024 * 1024))]
        // Azure's limit. ASP.NET Core accepts 32 KiB unless the app sets a higher limit.
        pub dial_in_message_max_bytes: usize = 1024 * 1024,

        /// Sockets from one address that are no client connection (yet). Nodes carry requests of many clients by
        /// theirs, so this is limited only where somebody says so.
        pub sockets_per_address: Option<NonZeroU32> = None,
    }
}

settings! {
    /// Limits of what waits to be written to clients, in bytes.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct OutboxLimits {
        /// Bytes that may wait for one client.
        #[flag(
            "outbox-max-bytes",
            Bytes(4096..=u64::MAX),
            "What may wait for one client before it counts as slow: it is closed when it takes nothing for \
             --slow-client-timeout. A hub may have sends to many dropped instead"
        )]
        // Some seconds of traffic on a busy hub, and small enough for thousands of slow clients.
        pub client_bytes: usize = 4 * 1024 * 1024,

        /// How long a slow client may take nothing before it is closed: a client over `--outbox-max-bytes`, or one for
        /// which a method of its app server waits.
        #[flag("slow-client-timeout", WholeSeconds(1..=3600))]
        // A phone changes networks within seconds.
        pub slow_client_timeout_s: u32 = 30,

        /// Bytes that may wait for all clients; `usize::MAX` for no limit.
        #[flag(
            "outbox-total-max-bytes",
            BytesLimit(4096),
            "What may wait for all clients of this node; beyond it those for whom most waits are closed. Each \
             shard has an equal share of it. 0 for no limit"
        )]
        // A few hundred clients that stopped reading. A shared frame counts once per waiting client, so actual memory
        // use is lower.
        pub total_bytes: usize = 1024 * 1024 * 1024,

        /// Send to each client by a system call of its own. Otherwise what many clients get leaves by one call for some
        /// hundred of them, where the system lets a node make an io_uring: on Linux from 6.1 on, outside of sandboxes
        /// that forbid it, as containers by default do. The log says which it is.
        #[flag("no-vectored-sends", Off)]
        pub vectored_sends: bool = true,
    }
}

settings! {
    /// Limits of groups. An app may let its clients choose them, and a name is kept as long as it has a member.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct GroupLimits {
        /// Largest name of a group; a join beyond it fails, and says so to the app. The SDK has the same limit,
        /// `Hub::group_name_max_bytes`. 0 for no limit.
        #[flag("group-name-max-bytes", BytesLimit(0))]
        pub name_max_bytes: usize = GROUP_NAME_MAX_BYTES,

        /// Groups that one client connection may be in; a join beyond it fails, and says so to the app. 0 for no limit.
        /// Clients may often choose their groups, and each name is kept on the node.
        #[flag("groups-per-client-max", CountLimit)]
        // More than apps use, and a few megabytes with the longest names.
        pub per_client: usize = 4096,
    }
}

impl FrontendLimits {
    /// Sets the limits per address that were not configured, if the node `knows_balancers` in front of it, or has none.
    /// Behind an unlisted balancer, all clients would have the balancer's address.
    #[must_use]
    pub fn by_address(mut self, knows_balancers: bool) -> Self {
        self.sockets_per_address = self.connections_per_address.and_then(NonZeroU32::new);
        if knows_balancers {
            self.connections_per_address.get_or_insert(PER_ADDRESS_MAX);
            self.pending_per_address.get_or_insert(PER_ADDRESS_MAX);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_address(given: [Option<u32>; 2], knows_balancers: bool) -> [Option<u32>; 3] {
        let [connections_per_address, pending_per_address] = given;
        let limits = FrontendLimits { connections_per_address, pending_per_address, ..FrontendLimits::DEFAULT };
        let limits = limits.by_address(knows_balancers);
        let sockets = limits.sockets_per_address.map(NonZeroU32::get);
        [limits.connections_per_address, sockets, limits.pending_per_address]
    }

    #[test]
    fn clients_are_limited_by_address_unless_that_may_be_a_balancers() {
        assert_eq!(by_address([None; 2], false), [None; 3]);
        assert_eq!(by_address([None; 2], true), [Some(16_384), None, Some(16_384)]);
        for knows_balancers in [false, true] {
            assert_eq!(by_address([Some(7), Some(0)], knows_balancers), [Some(7), Some(7), Some(0)]);
        }
    }
}
