//! Flags of relayed requests.

use std::num::NonZeroU32;
use std::time::Duration;

use clap::Args;
use trunkline_proxy::parts::RelaySettings;

use super::value_parser::seconds;
use crate::quantity::duration_text;

/// Default of `--upstream-connect-timeout`: an app server is near, so one that takes longer won't accept at all.
const UPSTREAM_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Default of `--upstream-answer-timeout`: that of most reverse proxies.
const UPSTREAM_ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Default of `--hop-timeout`: between two nodes only the network takes time.
const HOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Default of `--pass-through-max`: with 128 KiB of buffers for each they hold half a gigabyte.
const PASS_THROUGH_MAX: u32 = 4096;

/// Default of `--pass-through-per-upstream-max`: that of other proxies, and as many sockets as many a process may open.
const PASS_THROUGH_PER_UPSTREAM_MAX: u32 = 1024;

/// Default of `--pass-through-per-address-max` where addresses are those of clients: a page makes some ten at once, so
/// this is an office; and it is a quarter of what one app server takes, so no address has it alone.
const PASS_THROUGH_PER_ADDRESS_MAX: u32 = 256;

#[derive(Debug, Clone, Args)]
pub(crate) struct RelayArgs {
    /// Answer 404 to everything that is not a hub, instead of passing it through to an app server.
    #[arg(long, env = "TRUNKLINE_NO_PASS_THROUGH")]
    pub no_pass_through: bool,

    /// How long an app server may take to accept a connection for a request that is passed through.
    #[arg(long, env = "TRUNKLINE_UPSTREAM_CONNECT_TIMEOUT", value_name = "SECONDS",
          default_value = duration_text(UPSTREAM_CONNECT_TIMEOUT), value_parser = seconds(1..=600))]
    pub upstream_connect_timeout: Duration,

    /// How long an app server may be silent before it begins to answer a request that is passed through. An upload may
    /// take longer as long as it moves (`--body-timeout`); an answer that has begun may be silent for as long as the
    /// app server likes.
    #[arg(long, env = "TRUNKLINE_UPSTREAM_ANSWER_TIMEOUT", value_name = "SECONDS",
          default_value = duration_text(UPSTREAM_ANSWER_TIMEOUT), value_parser = seconds(1..=86_400))]
    pub upstream_answer_timeout: Duration,

    /// Requests under way to all app servers, from the head to the end of both bodies, upgraded connections included;
    /// beyond it 503 and `Retry-After`. 0 for no limit.
    #[arg(long, env = "TRUNKLINE_PASS_THROUGH_MAX", value_name = "N", default_value_t = PASS_THROUGH_MAX)]
    pub pass_through_max: u32,

    /// Requests under way to one app server; beyond it the next one is asked, and if all are full the answer is 503. 0
    /// for no limit.
    #[arg(long, env = "TRUNKLINE_PASS_THROUGH_PER_UPSTREAM_MAX", value_name = "N",
          default_value_t = PASS_THROUGH_PER_UPSTREAM_MAX)]
    pub pass_through_per_upstream_max: u32,

    /// Requests under way to app servers from one address, or from one /64 of IPv6; beyond it 429. 0 for no limit
    /// [default: 256 with `--trust`, else 0, because behind a load balancer that is not named there all clients have
    /// its address]. Addresses of `--trust` stand for many clients and have none.
    #[arg(long, env = "TRUNKLINE_PASS_THROUGH_PER_ADDRESS_MAX", value_name = "N")]
    pub pass_through_per_address_max: Option<u32>,

    /// Don't carry requests to the node that owns their connection: for nodes that can't reach each other. Clients are
    /// then offered WebSockets only, because the other transports need either this or a load balancer with stickiness.
    #[arg(long, env = "TRUNKLINE_NO_FORWARD")]
    pub no_forward: bool,

    /// How long the node that owns a connection may be silent before a request that was carried to it is given up; a
    /// poll gets this on top of the time that it may wait for messages.
    #[arg(long, env = "TRUNKLINE_HOP_TIMEOUT", value_name = "SECONDS",
          default_value = duration_text(HOP_TIMEOUT), value_parser = seconds(1..=600))]
    pub hop_timeout: Duration,
}

impl RelayArgs {
    /// Settings of a node that `knows_balancers` in front of it, or has none.
    pub(crate) fn settings(&self, knows_balancers: bool) -> RelaySettings {
        let args = self;
        let per_address = if knows_balancers { PASS_THROUGH_PER_ADDRESS_MAX } else { 0 };
        RelaySettings {
            pass_through: !args.no_pass_through,
            upstream_connect_timeout: args.upstream_connect_timeout,
            upstream_answer_timeout: args.upstream_answer_timeout,
            forward: !args.no_forward,
            hop_timeout: args.hop_timeout,
            requests_max: NonZeroU32::new(args.pass_through_max),
            requests_per_upstream_max: NonZeroU32::new(args.pass_through_per_upstream_max),
            requests_per_address_max: NonZeroU32::new(args.pass_through_per_address_max.unwrap_or(per_address)),
        }
    }
}
