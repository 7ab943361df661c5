//! `trunkline size`: computes the number of nodes for a load, and the resources per node.
//!
//! Based on measured costs (`tests/bench/run`, `app_cost`; see the page *Sizing* of the book). Unmeasured costs, such
//! as TLS, have to fit into the free share of the processors.

use std::num::NonZeroU64;

use anyhow::bail;

use super::text_table;

/// Deliveries of small messages to clients, one `write` each, per processor second.
const DELIVERIES_PER_CPU_SECOND: u64 = 220_000;
/// Client calls with results, per processor second.
const CALLS_PER_CPU_SECOND: u64 = 120_000;
/// Connects with negotiate and handshake, per processor second.
const CONNECTS_PER_CPU_SECOND: u64 = 26_000;

/// Memory of a node for an idle client with short headers.
const CLIENT_BYTES: u64 = 1270;
/// Kernel memory for a client's socket.
const SOCKET_BYTES: u64 = 4608;
/// Planned memory per client: browsers send longer headers, and receiving clients use buffers.
const PLANNED_BYTES: u64 = 2 * (CLIENT_BYTES + SOCKET_BYTES);
/// Memory of an app server for a client with a browser's headers and ten claims.
const APP_CLIENT_BYTES: u64 = 1843;
/// Memory of a node for an idle link.
const LINK_BYTES: u64 = 31 * 1024;
/// Maximum ring memory of a node per link: the default of `--link-ring-max-bytes`.
const RING_BYTES: u64 = 4 * 1024 * 1024;
/// Memory of a node without clients, and of the system.
const BASE_BYTES: u64 = 512 * 1024 * 1024;

/// File descriptors in addition to clients and links.
const OTHER_DESCRIPTORS: u64 = 1024;
/// Default number of local ports in Linux for connections between two addresses: 32768 to 60999.
const PORTS_AS_IT_COMES: u64 = 28_232;
/// Number of local ports with `net.ipv4.ip_local_port_range = 1024 65535`.
const PORTS_AT_MOST: u64 = 64_512;

const GIB: u64 = 1024 * 1024 * 1024;

/// Flags of `trunkline size`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct SizeArgs {
    /// Client connections at the same time.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub clients: u64,
    /// Messages per second received by all clients together: a broadcast to 1000 clients counts 1000.
    #[arg(long, value_name = "MESSAGES", value_parser = clap::value_parser!(u64).range(0..=1_000_000_000_000))]
    pub rate: u64,
    /// Calls per second of all clients together.
    #[arg(long, value_name = "CALLS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1_000_000_000_000))]
    pub calls: u64,
    /// Processors of a node.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub cores: u64,
    /// Memory of a node, in GiB.
    #[arg(long, value_name = "GIB", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub memory: u64,
    /// Maximum CPU usage of a node, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub load: u64,
    /// Number of nodes that may be missing, because they fail or are replaced.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=1000))]
    pub spare: u64,
    #[arg(help = "App servers",
          long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub app_servers: u64,
    /// Hubs of each app server.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub hubs: u64,
    /// `--pool-size` of the nodes.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub pool_size: u64,
    /// `--connections-max` of the nodes.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub connections_max: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NodeCounts {
    by_processors: u64,
    by_memory: u64,
    by_connections: u64,
}

impl NodeCounts {
    fn new(args: &SizeArgs) -> anyhow::Result<Self> {
        let links = links_of_node(args) * (LINK_BYTES + RING_BYTES);
        let for_clients = (args.memory * GIB).saturating_sub(BASE_BYTES + links);
        let Some(for_clients) = NonZeroU64::new(for_clients / PLANNED_BYTES) else {
            bail!(
                "--memory {} GiB is too little: links alone may use {} GiB on each node (--app-servers × --hubs × \
                 --pool-size × 4 MiB); use more memory, or a smaller --pool-size",
                args.memory,
                links.div_ceil(GIB)
            );
        };
        Ok(Self {
            by_processors: parts_per_thousand(args).div_ceil(args.cores * args.load * 10).max(1),
            by_memory: args.clients.div_ceil(for_clients.get()),
            by_connections: args.clients.div_ceil(args.connections_max),
        })
    }

    /// Number of nodes that carry the whole load.
    fn carrying(self) -> u64 {
        self.by_processors.max(self.by_memory).max(self.by_connections)
    }
}

/// Processor time for all messages, in thousandths of a processor.
fn parts_per_thousand(args: &SizeArgs) -> u64 {
    let parts = |rate: u64, per_second: u64| rate.saturating_mul(1000).div_ceil(per_second);
    parts(args.rate, DELIVERIES_PER_CPU_SECOND) + parts(args.calls, CALLS_PER_CPU_SECOND)
}

fn links_of_node(args: &SizeArgs) -> u64 {
    args.app_servers * args.hubs * args.pool_size
}

/// Returns the result as text. Fails if such nodes have no memory left for clients.
pub(super) fn size(args: &SizeArgs) -> anyhow::Result<String> {
    let nodes = NodeCounts::new(args)?;
    let (carrying, all) = (nodes.carrying(), nodes.carrying() + args.spare);
    let clients = args.clients.div_ceil(carrying);
    let mut rows = Vec::new();
    let mut line = |name, value| rows.push((name, value));
    line("nodes", format!("{all}: {carrying} for the whole load, {} in reserve", args.spare));
    line(
        "  which is",
        format!(
            "{} by processors, {} by memory, {} by --connections-max",
            nodes.by_processors, nodes.by_memory, nodes.by_connections
        ),
    );
    line("clients of a node", format!("{clients} at most, {} while all nodes are up", args.clients.div_ceil(all)));
    let busy = parts_per_thousand(args).div_ceil(carrying);
    line("  processors", format!("{} of {}", thousandths(busy), args.cores));
    let memory = BASE_BYTES + links_of_node(args) * LINK_BYTES + clients * PLANNED_BYTES;
    line(
        "  memory",
        format!(
            "{} GiB, and up to {} GiB more while links are stalled",
            gib(memory),
            gib(links_of_node(args) * RING_BYTES)
        ),
    );
    line(
        "links of a node",
        format!(
            "{}, of an app server {}, in all {}",
            links_of_node(args),
            args.hubs * args.pool_size * all,
            links_of_node(args) * all
        ),
    );
    line("frames of a broadcast", format!("{all}, one for each node"));
    let app_clients = args.clients.div_ceil(args.app_servers);
    line("app server", format!("{app_clients} clients, {} GiB for them", gib(app_clients * APP_CLIENT_BYTES)));
    line("a node is lost", lost(args, carrying, all));
    line(
        "descriptors",
        format!("LimitNOFILE={} (a node), fs.nr_open not below", clients + links_of_node(args) + OTHER_DESCRIPTORS),
    );
    line(
        "connection tracking",
        format!(
            "net.netfilter.nf_conntrack_max={} where it is loaded, or don't track the port",
            clients.saturating_mul(2)
        ),
    );
    line("ports", ports(clients));
    Ok(text_table::pairs(rows).join("\n"))
}

fn lost(args: &SizeArgs, carrying: u64, all: u64) -> String {
    let homeless = args.clients.div_ceil(all);
    let others = (all - 1).max(carrying.saturating_sub(1)).max(1);
    let milliseconds = homeless.saturating_mul(1000).div_ceil(others * args.cores * CONNECTS_PER_CPU_SECOND);
    format!(
        "{homeless} clients reconnect; this takes the other nodes {} s of all their processors",
        thousandths(milliseconds)
    )
}

fn ports(clients: u64) -> String {
    let addresses = clients.div_ceil(PORTS_AT_MOST);
    if clients <= PORTS_AS_IT_COMES {
        return "default: one load balancer address can open 28232 connections to a node".into();
    }
    format!(
        "load balancers need {addresses} source addresses for each node with net.ipv4.ip_local_port_range=\"1024 \
         65535\", {} without",
        clients.div_ceil(PORTS_AS_IT_COMES)
    )
}

fn gib(bytes: u64) -> String {
    thousandths(bytes.saturating_mul(1000).div_ceil(GIB))
}

/// Formats thousandths, rounded up to hundredths.
fn thousandths(number: u64) -> String {
    let hundredths = number.div_ceil(10);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct SizeCli {
        #[command(flatten)]
        size: SizeArgs,
    }

    fn args(text: &str) -> SizeArgs {
        SizeCli::parse_from(["size"].into_iter().chain(text.split_whitespace())).size
    }

    #[test]
    fn the_scarcest_resource_decides() {
        let nodes = |text: &str| NodeCounts::new(&args(text)).unwrap();
        assert_eq!(nodes("--clients 1 --rate 0"), NodeCounts { by_processors: 1, by_memory: 1, by_connections: 1 });
        // Half of four processors is two: 440 000 deliveries per second.
        assert_eq!(nodes("--clients 1 --rate 440000").by_processors, 1);
        assert_eq!(nodes("--clients 1 --rate 440001").by_processors, 2);
        assert_eq!(nodes("--clients 1 --rate 440000 --calls 240000").by_processors, 2);
        assert_eq!(nodes("--clients 1000001 --rate 0 --memory 64").by_connections, 2);
        let per_node = (8 * GIB - BASE_BYTES - 10 * (LINK_BYTES + RING_BYTES)) / PLANNED_BYTES;
        assert_eq!(nodes(&format!("--clients {per_node} --rate 0")).by_memory, 1);
        assert_eq!(nodes(&format!("--clients {} --rate 0", per_node + 1)).by_memory, 2);
    }

    #[test]
    fn nodes_without_room_for_their_links_are_refused_with_the_flags_to_change() {
        let error = size(&args("--clients 1 --rate 1 --memory 1 --app-servers 1000")).unwrap_err().to_string();
        assert!(error.contains("--memory 1 GiB") && error.contains("--pool-size"), "{error}");
    }

    #[test]
    fn the_answer_names_every_setting_of_an_operator() {
        let text = size(&args("--clients 1000000 --rate 500000 --calls 20000 --app-servers 4")).unwrap();
        for part in ["nodes", "LimitNOFILE=", "nf_conntrack_max=", "ip_local_port_range", "links of a node", "is lost"]
        {
            assert!(text.contains(part), "no {part} in\n{text}");
        }
        let most = size(&args("--clients 1000000000 --rate 1000000000000 --calls 1000000000000"));
        assert!(most.is_ok());
    }
}
