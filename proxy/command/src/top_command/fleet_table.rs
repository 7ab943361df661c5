//! Tables of a fleet as text lines. Pure.

use std::collections::BTreeMap;

use trunkline_proxy::parts::{ConditionSnapshot, FleetSnapshot, MemberState, NodeSnapshot, Rates, RebalanceReport};

use crate::quantity::counted;
use crate::shown_text::one_line;
use crate::text_table;

/// Maximum length of a cell: names may be long, and each node has one line.
const CELL_MAX_CHARS: usize = 40;

const DAY_S: u64 = 86_400;

#[derive(Default)]
struct AppRow {
    name: String,
    address: String,
    clients: u64,
    open: u64,
    size: u64,
}

pub(super) fn lines(fleet: &FleetSnapshot, last_hour: Vec<String>) -> Vec<String> {
    let (apps, hubs) = (apps(fleet), hubs(fleet));
    let mut lines = vec![summary(fleet, &apps), String::new()];
    lines.extend(conditions(fleet));
    if !last_hour.is_empty() {
        lines.extend(last_hour);
        lines.push(String::new());
    }
    lines.extend(nodes(fleet));
    lines.push(String::new());
    lines.extend(columns(
        &["APP SERVER", "ADDRESS"],
        &["CLIENTS", "LINKS"],
        apps.values().map(|app| {
            let links = format!("{} of {}", app.open, app.size);
            vec![app.name.clone(), app.address.clone(), app.clients.to_string(), links]
        }),
    ));
    lines.push(String::new());
    lines.extend(columns(
        &["HUB"],
        &["CLIENTS", "COMPRESSED TO"],
        hubs.into_iter().map(|(hub, (clients, bytes))| vec![hub, clients.to_string(), ratio(bytes)]),
    ));
    if !fleet.agree {
        lines.push("The nodes see different members: messages between nodes may not reach all clients.".into());
    }
    let rebalances = fleet.nodes.iter().filter_map(|node| node.rebalance.as_ref());
    if let Some(RebalanceReport { node, planned, moved, state, .. }) = rebalances.max_by_key(|one| one.begun_ms) {
        lines.push(format!("rebalance by {}: {moved} of {planned} moved, {}", clean(node), state.label()));
    }
    for one in &fleet.unreachable {
        lines.push(clean(&format!("can't be reached: {}: {}", one.url, one.problem)));
    }
    lines
}

fn summary(fleet: &FleetSnapshot, apps: &BTreeMap<String, AppRow>) -> String {
    let clients: u64 = fleet.nodes.iter().map(|node| node.clients).sum();
    let (open, size) = apps.values().fold((0, 0), |(open, size), app| (open + app.open, size + app.size));
    let rates: Vec<&Rates> = fleet.nodes.iter().filter_map(|node| node.rates.as_ref()).collect();
    let sum = |of: fn(&Rates) -> f64| rates.iter().map(|rates| of(rates)).sum::<f64>();
    let seconds = fleet.at_ms / 1000 % DAY_S;
    format!(
        "{:02}:{:02}:{:02} UTC   {}, {}, {open} of {size} links open   {}   {:.0}/s up, {:.0}/s down",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        counted(fleet.nodes.len() as u64, "node"),
        counted(apps.len() as u64, "app server"),
        counted(clients, "client"),
        sum(|rates| rates.messages_up),
        sum(|rates| rates.deliveries),
    )
}

/// Active conditions of all nodes, two lines for each.
fn conditions(fleet: &FleetSnapshot) -> Vec<String> {
    let mut found = BTreeMap::<_, (&ConditionSnapshot, Vec<&str>)>::new();
    for one in fleet.nodes.iter().flat_map(|node| &node.conditions) {
        let entry = found.entry((&one.severity, &one.name, &one.subject)).or_insert_with(|| (one, Vec::new()));
        entry.1.push(&one.node);
    }
    let mut lines = Vec::new();
    for (one, nodes) in found.values() {
        let since = age(fleet.at_ms.saturating_sub(one.since_ms) / 1000);
        let (severity, at) = (one.severity.to_uppercase(), nodes.join(", "));
        let line = format!("{severity} {}: {}: {} (at {at}, since {since})", one.text, one.subject, one.detail);
        lines.extend([one_line(&line).into_owned(), format!("  -> {}", one_line(&one.remedy))]);
    }
    if !lines.is_empty() {
        lines.push(String::new());
    }
    lines
}

fn nodes(fleet: &FleetSnapshot) -> Vec<String> {
    let numbers = [
        "LAG",
        "CLIENTS",
        "UP/S",
        "DOWN/S",
        "OPENED/S",
        "CLOSED/S",
        "CPU",
        "MEMORY",
        "HOST CPU",
        "HOST MEMORY",
        "WAITING",
        "RUNS",
    ];
    columns(&["NODE", "STATE"], &numbers, fleet.nodes.iter().map(node))
}

fn node(node: &NodeSnapshot) -> Vec<String> {
    let reasons = node.not_ready.join("; ");
    let state = match node.state {
        MemberState::Ready | MemberState::Starting if !reasons.is_empty() => reasons,
        state if node.warnings.is_empty() => state.label().to_owned(),
        state => format!("{}; {}", state.label(), node.warnings.join("; ")),
    };
    let rate = |of: fn(&Rates) -> f64| node.rates.as_ref().map_or_else(unknown, |rates| format!("{:.0}", of(rates)));
    let percent = |share: Option<f64>| share.map_or_else(unknown, |share| format!("{share:.0}%"));
    let host_memory = node.host.memory_used_bytes.zip(node.host.memory_bytes);
    vec![
        node.name.clone(),
        state,
        format!("{} ms", node.lag_ms),
        node.clients.to_string(),
        rate(|rates| rates.messages_up),
        rate(|rates| rates.deliveries),
        rate(|rates| rates.opened),
        rate(|rates| rates.closed),
        percent(node.process.cpu_percent),
        node.process.memory_bytes.map_or_else(unknown, bytes),
        percent(node.host.cpu_percent),
        host_memory.map_or_else(unknown, |(used, all)| format!("{} of {}", bytes(used), bytes(all))),
        bytes(node.outbox_bytes),
        age(node.uptime_s),
    ]
}

fn apps(fleet: &FleetSnapshot) -> BTreeMap<String, AppRow> {
    let mut apps = BTreeMap::<String, AppRow>::new();
    for link in fleet.nodes.iter().flat_map(|node| &node.links) {
        let app = apps.entry(format!("{} {}", link.app_name, link.app)).or_default();
        app.name.clone_from(&link.app_name);
        app.address.clone_from(&link.address);
        app.clients += link.clients;
        app.open += link.open;
        app.size += link.open + link.resuming + link.down;
    }
    apps
}

/// Clients of each hub, and bytes to clients with compression, before it and as sent.
fn hubs(fleet: &FleetSnapshot) -> BTreeMap<String, (u64, [u64; 2])> {
    let mut hubs = BTreeMap::<_, (u64, [u64; 2])>::new();
    for hub in fleet.nodes.iter().flat_map(|node| &node.hubs) {
        let ((clients, [plain, sent]), [more, sent_more]) =
            (hubs.entry(hub.name.clone()).or_default(), hub.compression_bytes);
        (*clients, *plain, *sent) = (*clients + hub.clients, *plain + more, *sent + sent_more);
    }
    hubs
}

fn ratio([plain, sent]: [u64; 2]) -> String {
    if plain == 0 { unknown() } else { format!("{}%", sent.saturating_mul(100).div_ceil(plain)) }
}

fn columns(texts: &[&str], numbers: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Vec<String> {
    text_table::columns(texts, numbers, rows.map(|row| row.iter().map(|cell| clean(cell)).collect()))
}

/// Sanitises and shortens an external text.
fn clean(text: &str) -> String {
    let plain = one_line(text).into_owned();
    match plain.char_indices().nth(CELL_MAX_CHARS) {
        Some((end, _)) if !plain.starts_with("can't") => format!("{}…", plain.get(..end).unwrap_or_default()),
        _ => plain,
    }
}

fn unknown() -> String {
    "-".into()
}

#[expect(clippy::cast_precision_loss, reason = "one digit behind the point is shown")]
pub(super) fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    let name = units.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{bytes} {name}") } else { format!("{value:.1} {name}") }
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..DAY_S => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / DAY_S, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use trunkline_proxy::parts::{HubSnapshot, PoolSnapshot, RebalanceState, UnreachablePeer};

    use super::*;
    use crate::shown_text::is_steering;

    fn fleet() -> FleetSnapshot {
        let link = PoolSnapshot {
            app: "i".into(),
            app_name: "app-1".into(),
            open: 4,
            down: 1,
            clients: 3,
            ..PoolSnapshot::default()
        };
        let hub =
            HubSnapshot { name: "chat".into(), clients: 3, compression_bytes: [1000, 310], ..HubSnapshot::default() };
        let node = |name: &str| NodeSnapshot {
            name: name.into(),
            clients: 3,
            uptime_s: 3_725,
            links: vec![link.clone()],
            hubs: vec![hub.clone()],
            ..NodeSnapshot::default()
        };
        let unreachable = vec![UnreachablePeer { url: "http://c".into(), problem: "gone".into() }];
        FleetSnapshot {
            at_ms: 3_661_000,
            nodes: vec![node("a"), node("node\x1b[2J\u{202e}")],
            unreachable,
            ..FleetSnapshot::default()
        }
    }

    #[test]
    fn all_nodes_are_summed_and_each_has_a_line() {
        let lines = lines(&fleet(), Vec::new());
        assert!(
            lines[0].starts_with("01:01:01 UTC   2 nodes, 1 app server, 8 of 10 links open   6 clients"),
            "{}",
            lines[0]
        );
        assert!(lines[3].starts_with("a") && lines[3].ends_with("1h02m"), "{}", lines[3]);
        assert!(lines.iter().any(|line| line.starts_with("app-1") && line.ends_with("6  8 of 10")), "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("chat") && line.ends_with("31%")), "{lines:?}");
        assert_eq!(lines.last().unwrap(), "can't be reached: http://c: gone");
    }

    #[test]
    fn the_last_hour_is_between_the_summary_and_the_tables() {
        let (plain, with) = (lines(&fleet(), Vec::new()), lines(&fleet(), vec!["hour".into()]));
        assert_eq!(
            (&with[..2], &with[2..4], &with[4..]),
            (&plain[..2], &["hour".to_owned(), String::new()][..], &plain[2..])
        );
    }

    #[test]
    fn the_latest_rebalance_has_a_line() {
        let mut fleet = fleet();
        for (begun_ms, node) in (1..).zip(&mut fleet.nodes) {
            let (name, state) = (format!("n{begun_ms}"), RebalanceState::Done);
            node.rebalance = Some(RebalanceReport {
                node: name,
                planned: 9,
                moved: 8,
                state,
                begun_ms,
                ..RebalanceReport::default()
            });
        }
        assert!(lines(&fleet, Vec::new()).contains(&"rebalance by n2: 8 of 9 moved, done".to_owned()));
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert!(!lines(&fleet(), Vec::new()).concat().contains(is_steering));
    }

    #[test]
    fn sizes_have_one_digit_behind_the_point() {
        assert_eq!([bytes(7), bytes(1536), bytes(5 << 30)], ["7 B", "1.5 KiB", "5.0 GiB"]);
    }
}
