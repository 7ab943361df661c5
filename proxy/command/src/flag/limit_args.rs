//! Flags of the limits at the client listeners. 0 is no limit where nothing else is said.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use clap::Args;
use trunkline_proxy::parts::FrontendLimits;

use super::value_parser::{bytes, bytes_text, milliseconds, seconds};
use crate::quantity::{duration_text, size_text};

/// Range of values that `--head-max-bytes` takes. The HTTP server can't read with less, and app servers (hyper) take
/// some 400 KiB, what a node adds included.
const HEAD_BYTES: RangeInclusive<u64> = 8 * 1024..=384 * 1024;

/// Client connections from one address, and negotiations of it, where addresses are believed: a quarter of the sockets
/// that an address can have towards one listener. More is behind no NAT; without it, one machine may take all that the
/// node has.
const PER_ADDRESS_MAX: u32 = 16 * 1024;

#[derive(Debug, Clone, Args)]
pub(crate) struct LimitArgs {
    /// Sockets of clients on this node; who comes then gets 503 and `Retry-After`. 0 for no limit.
    #[arg(long, env = "TRUNKLINE_CONNECTIONS_MAX", value_name = "N", default_value_t = defaults().connections.map_or(0, NonZeroU32::get))]
    pub connections_max: u32,

    /// Client connections from one address, or from one /64 of IPv6; who comes then gets 429. 0 for no limit. Behind a
    /// load balancer it needs `--trust`, or all clients have the balancer's address. A number that is given counts for
    /// sockets without a client connection, too. [default: 16384 with `--trust`, else 0]
    #[arg(long, env = "TRUNKLINE_CONNECTIONS_PER_ADDRESS_MAX", value_name = "N")]
    pub connections_per_address_max: Option<u32>,

    /// How long a client may take for the head of a request, and for its first one after it has connected.
    #[arg(long, env = "TRUNKLINE_HEADER_TIMEOUT", value_name = "SECONDS", default_value = duration_text(defaults().header_timeout),
          value_parser = seconds(1..=3600))]
    pub header_timeout: Duration,

    /// How long a client may keep a connection open between two requests. Clients of Server-Sent Events and
    /// long polling send a ping every 15 seconds: leave room.
    #[arg(long, env = "TRUNKLINE_KEEP_ALIVE_TIMEOUT", value_name = "SECONDS", default_value = duration_text(defaults().keep_alive_timeout),
          value_parser = seconds(1..=3600))]
    pub keep_alive_timeout: Duration,

    /// Largest head of a request, from 8KiB to 384KiB; beyond it, and beyond 90 headers, 431.
    #[arg(long, env = "TRUNKLINE_HEAD_MAX_BYTES", value_name = "BYTES", default_value = bytes_text(defaults().head_max_bytes),
          value_parser = bytes::<usize>(HEAD_BYTES))]
    pub head_max_bytes: usize,

    /// Largest body of a request to a hub; beyond it 413.
    #[arg(long, env = "TRUNKLINE_BODY_MAX_BYTES", value_name = "BYTES", default_value = size_text(defaults().body_max_bytes),
          value_parser = bytes::<u64>(0..=u64::MAX))]
    pub body_max_bytes: u64,

    /// How long a body may stand still because of its client: a body of a request whose rest does not come
    /// (408), and an answer that is not read (reset). A body for a hub must also come faster than 240 bytes a second.
    #[arg(long, env = "TRUNKLINE_BODY_TIMEOUT", value_name = "SECONDS", default_value = duration_text(defaults().body_timeout),
          value_parser = seconds(1..=3600))]
    pub body_timeout: Duration,

    /// New client connections of this node in a second, counted when they negotiate, or connect without it. 0 for no
    /// limit. A burst of a second's worth passes at once, more of it waits up to `--connect-wait-ms`, the rest gets 503
    /// and `Retry-After`.
    #[arg(long, env = "TRUNKLINE_CONNECTS_PER_SECOND", value_name = "N", default_value_t = 0)]
    pub connects_per_second: u32,

    /// How long a new client connection may wait for its turn under `--connects-per-second`.
    #[arg(long, env = "TRUNKLINE_CONNECT_WAIT_MS", value_name = "MS", default_value = duration_text(defaults().connect_wait),
          value_parser = milliseconds(0..=60_000))]
    pub connect_wait_ms: Duration,

    /// Negotiates of one address, or of one /64 of IPv6, that have not led to a connection on this node within some 20
    /// seconds; who asks then gets 429 and `Retry-After`. 0 for no limit. With several nodes most connections land
    /// elsewhere, so leave room. [default: 16384 with `--trust`, else 0]
    #[arg(long, env = "TRUNKLINE_PENDING_PER_ADDRESS_MAX", value_name = "N")]
    pub pending_per_address_max: Option<u32>,

    /// Messages of one client connection in a second; beyond a second's worth it is read more slowly. Pings, and frames
    /// so small that they are no part of a message worth its header, count as messages. 0 for no limit.
    #[arg(long, env = "TRUNKLINE_MESSAGES_PER_SECOND", value_name = "N",
          default_value_t = defaults().messages_per_second.map_or(0, NonZeroU32::get))]
    pub messages_per_second: u32,

    /// Bytes of one client connection in a second; beyond a second's worth it is read more slowly. 0 for no limit.
    #[arg(long, env = "TRUNKLINE_BYTES_PER_SECOND", value_name = "BYTES", default_value = "0", value_parser = bytes::<u32>(0..=u32::MAX.into()))]
    pub bytes_per_second: u32,
}

fn defaults() -> FrontendLimits {
    FrontendLimits::default()
}

impl LimitArgs {
    /// Limits of a node that `knows_balancers` in front of it, or has none.
    pub(crate) fn limits(&self, knows_balancers: bool) -> FrontendLimits {
        let args = self;
        // Without a list of the load balancers in front, all clients may have the address of one.
        let most_by_default = if knows_balancers { PER_ADDRESS_MAX } else { 0 };
        let per_address = |most: Option<u32>| NonZeroU32::new(most.unwrap_or(most_by_default));
        FrontendLimits {
            connections: NonZeroU32::new(args.connections_max),
            connections_per_address: per_address(args.connections_per_address_max),
            sockets_per_address: args.connections_per_address_max.and_then(NonZeroU32::new),
            header_timeout: args.header_timeout,
            keep_alive_timeout: args.keep_alive_timeout,
            head_max_bytes: args.head_max_bytes,
            body_max_bytes: args.body_max_bytes,
            body_timeout: args.body_timeout,
            connects_per_second: NonZeroU32::new(args.connects_per_second),
            connect_wait: args.connect_wait_ms,
            pending_per_address: per_address(args.pending_per_address_max),
            messages_per_second: NonZeroU32::new(args.messages_per_second),
            bytes_per_second: NonZeroU32::new(args.bytes_per_second),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        limits: LimitArgs,
    }

    fn limits(arguments: &[&str], knows_balancers: bool) -> FrontendLimits {
        let line = Line::parse_from([&["trunkline"], arguments].concat());
        line.limits.limits(knows_balancers)
    }

    fn by_address(limits: &FrontendLimits) -> [Option<u32>; 3] {
        [limits.connections_per_address, limits.sockets_per_address, limits.pending_per_address]
            .map(|most| most.map(NonZeroU32::get))
    }

    #[test]
    fn clients_are_limited_by_address_unless_that_may_be_a_balancers() {
        assert_eq!(by_address(&limits(&[], false)), [None; 3]);
        assert_eq!(by_address(&limits(&[], true)), [Some(16_384), None, Some(16_384)]);
        let given = ["--connections-per-address-max", "7", "--pending-per-address-max", "0"];
        for knows_balancers in [false, true] {
            assert_eq!(by_address(&limits(&given, knows_balancers)), [Some(7), Some(7), None]);
        }
    }

    #[test]
    fn messages_are_limited_unless_somebody_says_otherwise() {
        assert_eq!(limits(&[], false).messages_per_second, NonZeroU32::new(20_000));
        assert_eq!(limits(&["--messages-per-second", "0"], false).messages_per_second, None);
    }
}
