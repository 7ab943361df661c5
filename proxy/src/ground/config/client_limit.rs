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
        /// Maximum number of client sockets on this node; further clients get 503 and `Retry-After`. If apps have keys,
        /// clients of one key have a share. 0 for no limit.
        #[flag("connections-max", Count(ANY_U32))]
        // Several gigabytes of memory, and more than one process should hold.
        pub connections: Option<NonZeroU32> = NonZeroU32::new(1_000_000),

        /// Maximum number of client connections from one address, or from one /64 of IPv6; further clients get 429. 0
        /// for no limit. Behind a load balancer the flag needs `--trust`, or all clients have the balancer's address. A
        /// given number also limits sockets without a client connection. [default: 16384 with `--trust`, else 0]
        #[flag("connections-per-address-max", Count(ANY_U32))]
        pub connections_per_address: Option<u32> = None,

        /// Time limit for the head of a request, also for the first one of a new connection.
        #[flag("header-timeout", Seconds(1..=3600))]
        pub header_timeout: Duration = Duration::from_secs(15),

        /// Time for which a connection may be idle between two requests. Clients with Server-Sent Events and long
        /// polling send a ping every 15 seconds: choose clearly more.
        #[flag("keep-alive-timeout", Seconds(1..=3600))]
        // Default of Kestrel.
        pub keep_alive_timeout: Duration = Duration::from_secs(130),

        /// Maximum size of a request head, from 8KiB to 384KiB; larger heads, and more than 90 headers, get 431.
        // The HTTP server needs at least 8 KiB. App servers (hyper) accept about 400 KiB, including headers added by
        // the node.
        #[flag("head-max-bytes", Bytes(8 * 1024..=384 * 1024))]
        // Azure's limit for headers is 16 KiB, and tokens are sent in the URL.
        pub head_max_bytes: usize = 32 * 1024,

        /// Maximum size of a request body for a hub; larger bodies get 413.
        #[flag("body-max-bytes", Bytes(0..=u64::MAX))]
        // Default of the official server.
        pub body_max_bytes: u64 = 30_000_000,

        /// Time for which a client may stall a body: a request body that does not arrive (408, 400 at a hub), or a
        /// response that is not read (reset). A body for a hub must also arrive faster than 240 bytes a second.
        #[flag("body-timeout", Seconds(1..=3600))]
        // Default of most reverse proxies.
        pub body_timeout: Duration = Duration::from_secs(60),

        /// New client connections per second of this node, counted at negotiation, or at connect without one. 0 for no
        /// limit. A burst of one second's worth passes immediately, further connections wait up to `--connect-wait-ms`,
        /// and the rest get 503 and `Retry-After`.
        #[flag("connects-per-second", Count(ANY_U32))]
        pub connects_per_second: Option<NonZeroU32> = None,

        /// Maximum time for which a new client connection waits because of `--connects-per-second`.
        #[flag("connect-wait-ms", Milliseconds(0..=60_000))]
        // Shorter than the timeout of any client.
        pub connect_wait: Duration = Duration::from_millis(1_000),

        /// Maximum number of negotiations of one address, or of one /64 of IPv6, in about 20 seconds without a
        /// connection to this node; further ones get 429 and `Retry-After`. 0 for no limit. With several nodes most
        /// connections reach another node, so choose a larger number. [default: 16384 with `--trust`, else 0]
        #[flag("pending-per-address-max", Count(ANY_U32))]
        pub pending_per_address: Option<u32> = None,

        /// Messages per second of one client connection; above one second's worth the client is read more slowly.
        /// Pings, and fragments hardly larger than their header, count as messages. 0 for no limit.
        #[flag("messages-per-second", Count(ANY_U32))]
        // A few per cent of a core. Only a client in a loop sends this many, and its messages are small. Bytes need no
        // such limit, because they cost the sender as much as the node.
        pub messages_per_second: Option<NonZeroU32> = NonZeroU32::new(20_000),

        /// Bytes per second of one client connection; above one second's worth the client is read more slowly. 0 for no
        /// limit.
        #[flag("bytes-per-second", Bytes(ANY_U32))]
        pub bytes_per_second: Option<NonZeroU32> = None,

        /// Maximum memory for incomplete messages of all clients on this node; beyond it the largest ones close
        /// their clients, of the app key with the most bytes first. Each shard has an equal share. 0 for no limit.
        #[flag("unfinished-total-max-bytes", BytesLimit(1024 * 1024))]
        // Some 250 messages of 1 MiB.
        pub unfinished_total_bytes: usize = 256 * 1024 * 1024,

        /// Maximum memory for headers, claims and queries of open connections, counting those over 4 KiB. If a new one
        /// does not fit, connections of the app, then of the address, with the most are closed for it; it gets 431 if
        /// its own app and address have the most. Other clients are not affected. 0 for no limit.
        #[flag("heads-total-max-bytes", BytesLimit(1024 * 1024))]
        // Eight thousand heads of the maximum size.
        pub heads_total_bytes: usize = 256 * 1024 * 1024,

        /// Maximum size of a client message to an app server that dials in, which does not report its hub's limit.
        /// Raise it if an app has raised `MaximumReceiveMessageSize` further. `--message-max-bytes` applies, too.
        #[flag("dial-in-message-max-bytes", Bytes(1024..=16 * 1024 * 1024))]
        // Azure's limit. ASP.NET Core accepts 32 KiB unless the app sets a higher limit.
        pub dial_in_message_max_bytes: usize = 1024 * 1024,

        /// Sockets from one address without a client connection. Nodes relay requests of many clients over few sockets,
        /// so only a given number is a limit.
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
            "Maximum bytes queued for one client before it counts as slow: it is closed if it reads nothing for \
             --slow-client-timeout. A hub may drop sends to several clients instead"
        )]
        // Some seconds of traffic on a busy hub, and small enough for thousands of slow clients.
        pub client_bytes: usize = 4 * 1024 * 1024,

        /// Time for which a client may read nothing while data waits for it, before it is closed. A client of a hub
        /// that drops sends to slow clients is closed only over `--outbox-max-bytes`.
        #[flag("slow-client-timeout", WholeSeconds(1..=3600))]
        // A phone changes networks within seconds.
        pub slow_client_timeout_s: u32 = 30,

        /// Bytes that may wait for all clients; `usize::MAX` for no limit.
        #[flag(
            "outbox-total-max-bytes",
            BytesLimit(4096),
            "Maximum bytes queued for all clients of this node; beyond it the largest queues are closed, of the app \
             key with the most bytes first. Each shard has an equal share. 0 for no limit"
        )]
        // A few hundred clients that stopped reading. A shared frame counts once per waiting client, so actual memory
        // use is lower.
        pub total_bytes: usize = 1024 * 1024 * 1024,

        /// Use a separate system call to send to each client. By default sends to many clients use one system call for
        /// several hundred of them, if the system allows io_uring: on Linux 6.1 or newer, outside of sandboxes that
        /// forbid it, as containers do by default. The log shows which method is used.
        #[flag("no-vectored-sends", Off)]
        pub vectored_sends: bool = true,

        /// Compress messages (permessage-deflate) to and from WebSocket clients that offer it. A message to many
        /// clients is compressed once per shard. It reveals something of secrets in messages that also hold text of
        /// others: see the security page. A hub can opt out.
        #[flag("compress", On)]
        pub compress: bool = false,

        /// Smallest message that `--compress` compresses. Shorter ones hardly get smaller.
        #[flag("compress-min-bytes", Bytes(1..=u64::MAX))]
        pub compress_min_bytes: usize = 256,
    }
}

settings! {
    /// Limits of groups. An app may let its clients choose them, and a name is kept as long as it has a member.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct GroupLimits {
        /// Maximum length of a group name; a join with a longer name fails, and the app gets an error. The SDK has the
        /// same limit, `Hub::group_name_max_bytes`. 0 for no limit.
        #[flag("group-name-max-bytes", BytesLimit(0))]
        pub name_max_bytes: usize = GROUP_NAME_MAX_BYTES,

        /// Maximum number of groups of one client connection; a further join fails, and the app gets an error. 0 for no
        /// limit. Clients can often choose their groups, and the node stores each name.
        #[flag("groups-per-client-max", CountLimit)]
        // More than apps use, and a few megabytes with the longest names.
        pub per_client: usize = 4096,

        /// Maximum memory for names of groups on this node. A join to a new group fails, and the app gets an error, if
        /// the names of the client's groups take more than is left, so clients with many groups fail first. A client
        /// with eight times as much is closed for a client that would be refused. If apps have keys, one app may have
        /// as much as is left for others. 0 for no limit.
        #[flag("group-names-total-max-bytes", BytesLimit(1024 * 1024))]
        // Some four groups of its own for each of a million clients.
        pub names_total_bytes: usize = 1024 * 1024 * 1024,
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
