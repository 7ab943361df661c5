//! Metrics in the Prometheus text format, summed over the shards on reading.
//!
//! Most metrics are declared where they are counted (`metrics`). Those declared here are looked up.

use std::sync::atomic::Ordering;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prometheus::TextEncoder;
#[cfg(target_os = "linux")]
use prometheus::core::Collector;
#[cfg(target_os = "linux")]
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricFamily;
use tokio::time::Instant;
use trunkline_process::{audit_lines_lost, log_lines_dropped};
use trunkline_protocol::cause::Cause;
use trunkline_protocol::manifest::{EndpointKind, Transport};

use super::audit::AuditCounters;
use crate::edge::observer::Readiness;
use crate::engine::shard::Shared;
use crate::engine::upstream::Hub;
use crate::features::admission::{Admission, TokenError};
use crate::features::webhook::Webhooks;
use crate::fleet::{Fleet, FleetCounters, MemberState, own_phase};
use crate::ground::clock::unix_seconds;
use crate::ground::condition::ConditionKind;
use crate::ground::metrics::{
    ClientProtocol, ConnectionCounters, Counter, Counters, Families, HUBS_MAX, HistoryCounters, HubCounters,
    LabelledCounters, Metered, MetricRow, MirrorCounters, RestCounters, StoreCounters, WebhookCounters, metered,
    metric_rows,
};
use crate::ground::telemetry::ExportCounters;

/// Label of hubs with shared counters, and of subjects without their own series. Not a valid hub name.
const OTHERS: &str = "(others)";

/// Maximum number of subjects of a condition with their own series. The newest have one, so that an alert fires for
/// each new subject, however many old ones remain.
const CONDITION_SUBJECTS_MAX: usize = 20;

metric_rows! {
    LOOKED_UP {
        BUILD: Gauge("trunkline_build_info", "Version of the program; always 1.", "version", "node");
        READY: Gauge("trunkline_ready", "1 while new clients are accepted.");
        DRAINING: Gauge("trunkline_draining", "1 while the node is draining.");
        VECTORED_SENDS: Gauge(
            "trunkline_vectored_sends",
            "1 if sends to many clients use one system call (io_uring), 0 if they use one call per client."
        );
        TOKENS_REFUSED: Counter("trunkline_access_tokens_refused_total", "Access tokens refused, by reason.", "reason");
        REVOCATIONS: Gauge("trunkline_token_revocations", "Revocations of access tokens in force.");
        REVOCATIONS_REFUSED: Counter(
            "trunkline_token_revocations_refused_total",
            "Revocations of other nodes that were refused: too many, or too large."
        );
        JWKS_READS: Counter("trunkline_jwks_reads_total", "Reads of key sets (JWKS), by outcome.", "outcome");
        CLIENTS_CLOSED: Counter(
            "trunkline_client_connections_closed_total",
            "Open client connections that ended, by cause.",
            "hub",
            "cause"
        );
        LINKS: Gauge("trunkline_links", "Links to app servers, by state.", "hub", "app", "state");
        RING: Gauge(
            "trunkline_link_ring_bytes",
            "Bytes stored for the links of a pool until the app server acknowledges them.",
            "hub",
            "app"
        );
        RING_MAX: Gauge(
            "trunkline_link_ring_max_bytes",
            "Maximum bytes stored for all links of a pool.",
            "hub",
            "app"
        );
        CONDITION: Gauge(
            "trunkline_condition",
            "1 while a condition of the catalogue is active at this node, with any subject.",
            "condition",
            "severity"
        );
        CONDITION_SUBJECTS: Gauge(
            "trunkline_condition_subjects",
            "Hubs, app servers, nodes, files or flags for which a condition is active.",
            "condition"
        );
        CONDITION_ACTIVE: Gauge(
            "trunkline_condition_active",
            "1 for each active condition and subject. The 20 newest subjects of a condition have their own series; \
             older ones are counted by the subject (others).",
            "condition",
            "severity",
            "subject"
        );
        CERTIFICATE_ENDS: Gauge(
            "trunkline_certificate_ends_seconds",
            "End of the validity of a certificate, in seconds since 1970: of the chain of the listener, or of the \
             client certificate for app servers and issuers. The earliest of a file.",
            "file",
            "role"
        );
        HUB_SERVED: Gauge("trunkline_hub_served", "1 while an app server accepts clients of the hub.", "hub");
        FLEET_NODES: Gauge(
            "trunkline_fleet_nodes",
            "Nodes of the fleet as seen by this node, including itself. Addresses of --peers that don't lead to a node \
             count as unreachable.",
            "state"
        );
        FLEET_AGREE: Gauge("trunkline_fleet_agree", "1 while all nodes of the fleet see the same members.");
        FLEET_SHARED_NAMES: Gauge("trunkline_fleet_shared_names", "Names that are used by several nodes of the fleet.");
        ROUTE_MATCHES: Counter(
            "trunkline_route_matches_total",
            "Connections and requests that matched a route.",
            "route"
        );
        METHODS_REFUSED: Counter(
            "trunkline_methods_refused_total",
            "Calls of clients refused by a method rule.",
            "rule"
        );
        HISTORY_RECORDS: Gauge("trunkline_history_records", "Recorded groups and users at this node.");
        HISTORY_BYTES: Gauge("trunkline_history_bytes", "Memory of the records at this node, at most --history-max-bytes.");
        STORE_CONNECTED: Gauge("trunkline_store_connected", "1 while the store can be used.");
        STORE_UNWRITTEN: Gauge(
            "trunkline_store_unwritten",
            "Revocations and memberships of users that the store does not have yet."
        );
        STORE_BEHIND: Gauge("trunkline_store_behind", "Changes of the store that this node has not received yet.");
        USER_GROUPS_KEPT: Gauge(
            "trunkline_user_groups_kept",
            "Stored group memberships of users, for their future connections."
        );
        USER_GROUPS_KEPT_BYTES: Gauge(
            "trunkline_user_groups_kept_bytes",
            "Memory of stored group memberships of users, in bytes."
        );
        USER_GROUPS_REFUSED: Counter(
            "trunkline_user_groups_refused_total",
            "Group memberships of users that were refused: too many, too large, or with too long names."
        );
        PERMITS_REFUSED: Counter(
            "trunkline_permits_refused_total",
            "Refusals because of a limit that apps share, by resource and by the key that has reached its share: an \
             app, (fleet) for access keys, the address of a dialled app server, (address) for the limit of an address, \
             or (node) for the limit of the node. With `rate`, also waits of links above the app's rate.",
            "what",
            "key"
        );
        LINK_PERMITS: Gauge("trunkline_link_permits", "Links to app servers that count for --links-max.");
        GROUP_NAMES: Gauge(
            "trunkline_group_name_bytes",
            "Memory of the names of groups with members, including their table entries, summed over shards."
        );
        KEPT_HEADS: Gauge(
            "trunkline_kept_head_bytes",
            "Bytes of kept request heads of open connections, counting those over 4 KiB, each completely."
        );
        RELAYS_DISPLACED: Counter(
            "trunkline_pass_through_displaced_total",
            "Passed-through requests that waited for their clients and were displaced by newer requests."
        );
        ACTS: Counter("trunkline_admin_acts_total", "Completed acts of operators, by name.", "act");
        ACTS_REFUSED: Counter(
            "trunkline_admin_acts_refused_total",
            "Acts, and requests with a token, refused by the admin port."
        );
        LOG_LINES_DROPPED: Counter(
            "trunkline_log_lines_dropped_total",
            "Log lines dropped because their reader is too slow or gone."
        );
        AUDIT_LINES_LOST: Counter(
            "trunkline_audit_lines_lost_total",
            "Lines of the audit log that could not be written, for example because the disk is full."
        );
        WEBHOOK_IN_FLIGHT: Gauge("trunkline_webhook_in_flight", "Requests to webhooks in flight.");
        WEBHOOK_WAITING: Gauge(
            "trunkline_webhook_waiting_bytes",
            "Bytes of waiting and in-flight events for webhooks."
        );
        WEBHOOK_CLIENTS: Gauge(
            "trunkline_webhook_clients",
            "Client connections not yet reported as disconnected to a webhook."
        );
    }
}

/// Metric of a node, for the book.
#[derive(Debug)]
pub struct MetricEntry {
    /// Name of the family.
    pub name: &'static str,
    /// Help text, as in `/metrics`.
    pub help: &'static str,
    /// Labels with their values, as far as known in advance.
    pub labels: BTreeMap<&'static str, BTreeSet<String>>,
}

/// Fails only if a family has no name, which a test excludes.
pub(super) fn render(
    readiness: &Readiness,
    fleet: &Fleet,
    of_webhooks: &Webhooks,
    admin: &AdminCounters,
) -> prometheus::Result<String> {
    TextEncoder::new().encode_to_string(&families(readiness, fleet, of_webhooks, admin))
}

pub(crate) fn families(
    readiness: &Readiness,
    fleet: &Fleet,
    of_webhooks: &Webhooks,
    admin: &AdminCounters,
) -> Vec<MetricFamily> {
    let shared = &readiness.shared;
    let mut families = Families::default();
    node(shared, readiness.reasons_not_ready().is_empty(), &mut families);
    admission(fleet.admission(), &mut families);
    families.add(&USER_GROUPS_KEPT, &[], fleet.user_groups().len() as u64);
    families.add(&USER_GROUPS_KEPT_BYTES, &[], fleet.user_groups().bytes() as u64);
    Counters::show(&shared.counters().iter().map(|counters| &**counters).collect::<Vec<_>>(), &[], &mut families);
    let (bytes, records) = fleet.records().size();
    families.add(&HISTORY_RECORDS, &[], records as u64);
    families.add(&HISTORY_BYTES, &[], bytes as u64);
    HistoryCounters::show(&[&fleet.records().counters], &[], &mut families);
    if let Some(store) = fleet.store() {
        families.add(&STORE_CONNECTED, &[], u64::from(store.is_connected()));
        families.add(&STORE_UNWRITTEN, &[], store.unwritten() as u64);
        families.add(&STORE_BEHIND, &[], store.behind.load(Ordering::Relaxed));
        StoreCounters::show(&[&store.counters], &[], &mut families);
    }
    conditions(shared, &mut families);
    clients(shared, &mut families);
    links(shared, &mut families);
    nodes(own_phase(shared).into(), fleet, &mut families);
    FleetCounters::show(&[&fleet.fleet_relay().counters], &[], &mut families);
    rules(shared, &mut families);
    if !shared.settings.webhooks.rules.is_empty() {
        webhooks(of_webhooks, &mut families);
    }
    RestCounters::show(&[&shared.reports.rest_counters], &[], &mut families);
    AdminCounters::show(&[admin], &[], &mut families);
    for (act, count) in admin.audit.done() {
        families.add(&ACTS, &[act], count);
    }
    families.add(&ACTS_REFUSED, &[], admin.audit.refused());
    families.add(&LOG_LINES_DROPPED, &[], log_lines_dropped());
    families.add(&AUDIT_LINES_LOST, &[], audit_lines_lost());
    if let Some(tracer) = &shared.tracer {
        ExportCounters::show(&[&tracer.queue.counters], &[], &mut families);
    }
    let mut all = process();
    all.append(&mut families.into_proto());
    all
}

/// Returns all metrics of a node, including those of unused features.
#[must_use]
pub fn metric_entries() -> Vec<MetricEntry> {
    let mut families = Families::default();
    let (counters, hub) = (Counters::default(), HubCounters::default());
    // Only causes that occurred are shown.
    for causes in [&counters.requests_refused, &counters.sockets_refused, &hub.refused] {
        causes.count(Cause::Unnamed);
    }
    Counters::show(&[&counters], &[], &mut families);
    HubCounters::show(&[&hub], &[("hub", "")], &mut families);
    let labels = [("hub", ""), ("transport", ""), ("protocol", "")];
    ConnectionCounters::show(&[&ConnectionCounters::default()], &labels, &mut families);
    WebhookCounters::show(&[&WebhookCounters::default()], &[("hub", "")], &mut families);
    MirrorCounters::show(&[&MirrorCounters::default()], &[("mirror", "")], &mut families);
    FleetCounters::show(&[&FleetCounters::default()], &[], &mut families);
    RestCounters::show(&[&RestCounters::default()], &[], &mut families);
    AdminCounters::show(&[&AdminCounters::default()], &[], &mut families);
    StoreCounters::show(&[&StoreCounters::default()], &[], &mut families);
    HistoryCounters::show(&[&HistoryCounters::default()], &[], &mut families);
    ExportCounters::show(&[&ExportCounters::default()], &[], &mut families);
    for row in LOOKED_UP {
        families.add(row, &vec![""; row.labels.len()], 0);
    }
    for kind in ConditionKind::ALL {
        families.add(&CONDITION, &[kind.entry().name, kind.entry().severity.label()], 0);
    }
    MemberState::ALL.iter().for_each(|state| families.add(&FLEET_NODES, &[state.label()], 0));
    TokenError::LABELS.iter().for_each(|reason| families.add(&TOKENS_REFUSED, &[reason], 0));
    families.entries().map(|(name, help, labels)| MetricEntry { name, help, labels }).collect()
}

fn admission(admission: &Admission, families: &mut Families) {
    for (reason, count) in admission.verifier.refused() {
        families.add(&TOKENS_REFUSED, &[reason], count);
    }
    families.add(&REVOCATIONS, &[], admission.revocations.len(unix_seconds()) as u64);
    families.add(&REVOCATIONS_REFUSED, &[], admission.revocations.refused.get());
    for (outcome, count) in admission.verifier.reads() {
        families.add(&JWKS_READS, &[outcome], count);
    }
}

fn node(shared: &Shared, is_ready: bool, families: &mut Families) {
    families.add(&BUILD, &[env!("CARGO_PKG_VERSION"), &shared.settings.node], 1);
    families.add(&READY, &[], u64::from(is_ready));
    families.add(&DRAINING, &[], u64::from(shared.has_begun_drain()));
    families.add(&VECTORED_SENDS, &[], u64::from(shared.has_vectored_sends()));
    for ((file, role), ends_s) in &**shared.reports.certificate_ends.load() {
        families.add(&CERTIFICATE_ENDS, &[file, role], *ends_s);
    }
    families.add(&USER_GROUPS_REFUSED, &[], shared.reports.memberships_refused.get());
    for (what, key, count) in shared.limits.refusals.all() {
        families.add(&PERMITS_REFUSED, &[what, &key], count);
    }
    families.add(&LINK_PERMITS, &[], shared.limits.links.len() as u64);
    families.add(&GROUP_NAMES, &[], shared.limits.group_names.len() as u64);
    families.add(&KEPT_HEADS, &[], shared.limits.heads.kept_bytes() as u64);
    families.add(&RELAYS_DISPLACED, &[], shared.limits.relays.displaced());
}

/// Conditions of the catalogue, active or not.
fn conditions(shared: &Shared, families: &mut Families) {
    let active = shared.reports.conditions.list();
    for kind in ConditionKind::ALL {
        let mut subjects: Vec<_> = active.iter().filter(|condition| condition.kind == kind).collect();
        subjects.sort_by_key(|condition| Reverse(condition.since_ms));
        let (name, severity) = (kind.entry().name, kind.entry().severity.label());
        families.add(&CONDITION, &[name, severity], u64::from(!subjects.is_empty()));
        families.add(&CONDITION_SUBJECTS, &[name], subjects.len() as u64);
        for condition in subjects.iter().take(CONDITION_SUBJECTS_MAX) {
            families.add(&CONDITION_ACTIVE, &[name, severity, &condition.subject], 1);
        }
        let others = subjects.len().saturating_sub(CONDITION_SUBJECTS_MAX);
        if others > 0 {
            families.add(&CONDITION_ACTIVE, &[name, severity, OTHERS], others as u64);
        }
    }
}

/// Clients of each hub; hubs with shared counters form one row.
fn clients(shared: &Shared, families: &mut Families) {
    let (all, known) = (shared.hubs.all(), &shared.reports.known_hubs);
    // A removed hub keeps its series for an hour, or until another hub has its counters.
    let shown = all.iter().filter(|hub| !hub.is_removed() || known.has(hub.name()));
    let (counted, others): (Vec<_>, Vec<_>) = shown.map(|hub| &**hub).partition(|hub| hub.index().get() < HUBS_MAX);
    for hub in counted {
        clients_of(&[hub], hub.name(), shared, families);
    }
    clients_of(&others, OTHERS, shared, families);
}

/// Clients of hubs with shared counters: number by transport and protocol, close causes, messages.
fn clients_of(hubs: &[&Hub], name: &str, shared: &Shared, families: &mut Families) {
    let Some(first) = hubs.first() else { return };
    let counters: Vec<_> = shared.counters().iter().map(|counters| counters.hub(first.index().get())).collect();
    HubCounters::show(&counters, &[("hub", name)], families);
    for (transport, protocol) in combinations(hubs) {
        let connections: Vec<_> = counters.iter().map(|counters| counters.connections(transport, protocol)).collect();
        let labels = [("hub", name), ("transport", transport.name()), ("protocol", protocol.label())];
        ConnectionCounters::show(&connections, &labels, families);
    }
    for cause in Cause::all().filter(|cause| cause.closes()) {
        let so_far = counters.iter().map(|counters| counters.closed.of(cause)).sum();
        families.add(&CLIENTS_CLOSED, &[name, cause.label()], so_far);
    }
}

fn combinations(hubs: &[&Hub]) -> impl Iterator<Item = (Transport, ClientProtocol)> {
    let protocols = ClientProtocol::ALL.into_iter().map(|(protocol, _)| protocol);
    let all = protocols.flat_map(|protocol| Transport::ALL.map(|transport| (transport, protocol)));
    all.filter(|(transport, protocol)| hubs.iter().any(|hub| can_have(hub, *transport, *protocol)))
}

fn can_have(hub: &Hub, transport: Transport, protocol: ClientProtocol) -> bool {
    let is_raw = hub.settings().kind == EndpointKind::Raw;
    // Server-sent events are text only, and Blazor circuits require dial-in.
    is_raw == (protocol == ClientProtocol::Raw)
        && match protocol {
            ClientProtocol::BlazorPack => {
                hub.capabilities().takes_blazor_pack && transport != Transport::ServerSentEvents
            }
            ClientProtocol::MessagePack => transport != Transport::ServerSentEvents,
            ClientProtocol::Json | ClientProtocol::Raw => true,
        }
}

fn links(shared: &Shared, families: &mut Families) {
    let most = shared.settings.links.ring_max_bytes;
    let mut served: BTreeMap<String, bool> = BTreeMap::new();
    for hub in shared.hubs.living().iter() {
        // Of two hubs with this name, one uses dial-in.
        *served.entry(hub.name().to_owned()).or_default() |= hub.is_served();
        for pool in hub.pools().iter() {
            let labels = [hub.name(), pool.app.name.as_str()];
            for (state, count) in [("open", pool.open_links()), ("resuming", pool.resuming()), ("down", pool.down())] {
                families.add(&LINKS, &[hub.name(), pool.app.name.as_str(), state], count as u64);
            }
            families.add(&RING, &labels, pool.ring_bytes() as u64);
            families.add(&RING_MAX, &labels, most.saturating_mul(pool.size()) as u64);
        }
    }
    for (hub, known) in shared.reports.known_hubs.list() {
        // An alert on a sum of 0 needs a series, even without app servers.
        if known.unserved(Instant::now()).is_some() {
            served.entry(hub.clone()).or_default();
            families.add(&LINKS, &[&hub, "", "open"], 0);
        }
    }
    for (hub, is_served) in served {
        families.add(&HUB_SERVED, &[&hub], u64::from(is_served));
    }
}

/// Nodes of the fleet as seen by this one, including itself.
fn nodes(own: MemberState, fleet: &Fleet, families: &mut Families) {
    let members = fleet.members();
    let now_ms = members.now_ms();
    let strays = members.unreachable().into_iter().map(|_| MemberState::Unreachable);
    let seen: Vec<_> = members.all().iter().map(|member| member.state(now_ms)).chain([own]).chain(strays).collect();
    for state in MemberState::ALL {
        let count = seen.iter().filter(|seen| **seen == state).count();
        families.add(&FLEET_NODES, &[state.label()], count as u64);
    }
    families.add(&FLEET_AGREE, &[], u64::from(members.agrees()));
    families.add(&FLEET_SHARED_NAMES, &[], members.shared_names().len() as u64);
}

fn rules(shared: &Shared, families: &mut Families) {
    let counters = &shared.hubs.rule_counters;
    by_rule(&ROUTE_MATCHES, &counters.routes, families);
    by_rule(&METHODS_REFUSED, &counters.methods, families);
    for (label, mirror) in counters.mirrors.all() {
        MirrorCounters::show(&[&*mirror], &[("mirror", &*label)], families);
    }
}

fn by_rule(row: &MetricRow, counters: &LabelledCounters<Counter>, families: &mut Families) {
    for (label, counter) in counters.all() {
        families.add(row, &[&*label], counter.get());
    }
}

fn webhooks(webhooks: &Webhooks, families: &mut Families) {
    for (hub, counters) in &webhooks.counters() {
        WebhookCounters::show(&[&**counters], &[("hub", &**hub)], families);
    }
    families.add(&WEBHOOK_IN_FLIGHT, &[], webhooks.in_flight() as u64);
    families.add(&WEBHOOK_WAITING, &[], webhooks.waiting_bytes() as u64);
    families.add(&WEBHOOK_CLIENTS, &[], webhooks.clients() as u64);
}

/// CPU, memory and descriptors of this process, if the system reports them.
fn process() -> Vec<MetricFamily> {
    #[cfg(target_os = "linux")]
    let mut families = ProcessCollector::for_self().collect();
    #[cfg(target_os = "linux")]
    families.sort_unstable_by(|one, other| one.name().cmp(other.name()));
    #[cfg(not(target_os = "linux"))]
    let families = Vec::new();
    families
}

metered! {
    pub(crate) struct AdminCounters {
        /// Requests with a wrong token.
        #[metric(
            "trunkline_admin_requests_refused_total",
            "Requests refused at the admin port, by reason.",
            reason = "token"
        )]
        pub(super) wrong_token: Counter,
        /// Requests with a wrong token that were delayed by the throttle.
        #[metric("trunkline_admin_requests_refused_total", reason = "too_many_wrong_tokens")]
        pub(super) braked: Counter,
        /// Requests for a host name of another machine.
        #[metric("trunkline_admin_requests_refused_total", reason = "host")]
        pub(super) foreign_host: Counter,
        /// Channel requests from peers without our key.
        #[metric("trunkline_admin_requests_refused_total", reason = "stranger")]
        pub(super) strangers: Counter,
        /// Operator actions, counted by the audit log.
        pub(super) audit: Arc<AuditCounters>,
        /// Idle connections closed in favour of newer ones.
        #[metric(
            "trunkline_admin_connections_closed_total",
            "Connections to the admin port closed by the node, by reason.",
            reason = "displaced"
        )]
        pub(super) displaced: Counter,
        /// Connections refused because no other could be closed for them.
        #[metric("trunkline_admin_connections_closed_total", reason = "turned_away")]
        pub(super) turned_away: Counter,
        /// Connections closed because no request arrived in time.
        #[metric("trunkline_admin_connections_closed_total", reason = "overdue")]
        pub(super) overdue: Counter,
    }
}
