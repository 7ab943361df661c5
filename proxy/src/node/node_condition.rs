//! Conditions of this process (open files, memory budgets, logs, certificates, shards) and of the other nodes.
//!
//! A lost node is first late, then unreachable, then no member, and at last an address of `--peers` without an answer;
//! all with its name as the subject. A node that was linked is missed at any time, other nodes not in the first minute.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};
use trunkline_channel::clock_difference;
use trunkline_process::{audit_lines_lost, log_lines_dropped};

use super::hub_condition::START_TIME;
use crate::engine::shard::Shared;
use crate::features::admission::Admission;
use crate::features::webhook::Webhooks;
use crate::fleet::{AddressProblem, AddressProblemKind, Fleet, FleetMember, MemberState};
use crate::ground::condition::{ConditionKind, Finding};
use crate::ground::net::address::Address;
use crate::ground::net::descriptor::DescriptorLimit;

/// Time after a graceful stop in which the address of a node may not answer; longer than a restart.
const RESTART_TIME: Duration = Duration::from_secs(120);

/// Time for which a lost node is reported that has no successor and no address in `--peers`.
const LOST_TIME: Duration = Duration::from_secs(600);

/// Number of evaluations between two checks of advertised addresses. The condition begins after several failed ones.
const PROBE_INTERVAL: u64 = 5;

/// Number of nodes that have to refuse this one because of its clock. Of two nodes, either may be wrong.
const CLOCK_REFUSALS_MIN: usize = 2;

/// Time for a node to accept a connection at its advertised address.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct NodeConditions {
    fleet: Fleet,
    /// Nodes by boot id.
    nodes: BTreeMap<String, NodeSight>,
    evaluations: u64,
    /// Findings of the last check of advertised addresses.
    unreached: Vec<Finding>,
}

/// Present node, or one that has gone lately.
struct NodeSight {
    member: Arc<FleetMember>,
    gone_at: Option<Instant>,
    /// Number of other members when the node was last present.
    members: usize,
    /// Whether both links have been open.
    was_linked: bool,
}

impl NodeSight {
    fn address(&self) -> Option<String> {
        self.member.address().map(|address| address.to_string())
    }

    fn is_restarting(&self, now: Instant) -> bool {
        self.member.is_draining() && self.gone_at.is_none_or(|at| now.saturating_duration_since(at) < RESTART_TIME)
    }
}

impl NodeConditions {
    pub(super) fn new(fleet: Fleet) -> Self {
        Self { fleet, nodes: BTreeMap::new(), evaluations: 0, unreached: Vec::new() }
    }

    pub(super) async fn findings(&mut self, now: Instant) -> Vec<Finding> {
        let members = self.fleet.members().all();
        let problems = self.fleet.members().unreachable();
        self.note(&members, &problems, now);
        if self.evaluations.is_multiple_of(PROBE_INTERVAL) {
            self.unreached = self.probe(&members).await;
        }
        self.evaluations += 1;
        let mut findings = self.unreached.clone();
        findings.extend(members.iter().flat_map(|member| self.of_member(member)));
        for sight in self.nodes.values().filter(|sight| !sight.member.is_draining()) {
            if let Some(gone_at) = sight.gone_at.filter(|_| sight.was_linked || !self.is_starting()) {
                let gone_s = now.saturating_duration_since(gone_at).as_secs();
                findings.push(missing(sight.member.name(), format!("lost {gone_s} s ago, without a graceful stop")));
            }
        }
        findings.extend(self.clocks(&members, &problems, now));
        findings.extend(own_clock(&members, &problems));
        findings.extend(problems.into_iter().filter_map(|problem| self.of_address(problem, now)));
        let names = self.fleet.members().shared_names().into_iter();
        let is_shared = |name| Finding::new(ConditionKind::NodeNameShared, name, "several nodes have this name");
        findings.extend(names.map(is_shared));
        if !self.fleet.members().agrees() {
            let others: Vec<_> = members.iter().map(|member| member.name()).collect();
            let detail = format!("this node is linked to: {}", others.join(", "));
            findings.push(Finding::new(ConditionKind::FleetDisagrees, "fleet", detail));
        }
        findings
    }

    /// Nodes that this node refuses because of their clocks, unless they refuse this node, too.
    fn clocks(&self, members: &[Arc<FleetMember>], problems: &[AddressProblem], now: Instant) -> Vec<Finding> {
        let seen = self.fleet.shared().reports.clocks.recent(now).into_iter();
        let finding = |(from, ahead_min): (IpAddr, i64)| {
            let is_at = |address: &Address| {
                address.resolved().map(|at| at.ip()) == Some(from) || address.host().parse() == Ok(from)
            };
            let is_same = |problem: &&AddressProblem| {
                let address = problem.address.parse::<Address>();
                problem.kind == AddressProblemKind::ClockDiffers && address.is_ok_and(|address| is_at(&address))
            };
            if problems.iter().any(|problem| is_same(&problem)) {
                return None;
            }
            let mut there = members.iter().filter(|member| member.address().is_some_and(|address| is_at(&address)));
            let (first, second) = (there.next(), there.next());
            let name = first.filter(|_| second.is_none()).map_or_else(|| from.to_string(), |one| one.name().to_owned());
            let detail = format!("the clock of the node at {from} is {}", clock_difference(ahead_min));
            Some(Finding::new(ConditionKind::NodeClockDiffers, name, detail))
        };
        seen.filter_map(finding).collect()
    }

    /// Whether nodes that were never linked are still expected to start.
    fn is_starting(&self) -> bool {
        self.fleet.shared().uptime() < START_TIME
    }

    /// Records the present nodes. A lost node is removed once another node has its name or its place.
    fn note(&mut self, members: &[Arc<FleetMember>], problems: &[AddressProblem], now: Instant) {
        for member in members {
            let was_linked = self.nodes.get(member.boot()).is_some_and(|sight| sight.was_linked);
            let was_linked = was_linked || member.links.are_open();
            let sight = NodeSight { member: member.clone(), gone_at: None, members: members.len(), was_linked };
            self.nodes.insert(member.boot().to_owned(), sight);
        }
        let is_present = |boot: &String| members.iter().any(|member| member.boot() == boot);
        self.nodes.retain(|boot, sight| {
            if is_present(boot) {
                return true;
            }
            let gone_at = *sight.gone_at.get_or_insert(now);
            let is_missed = problems.iter().any(|problem| Some(&problem.address) == sight.address().as_ref());
            let has_successor = members.iter().any(|member| member.name() == sight.member.name());
            let is_complete = members.len() >= sight.members;
            !has_successor && (is_missed || !is_complete && now.saturating_duration_since(gone_at) < LOST_TIME)
        });
    }

    fn of_member(&self, member: &FleetMember) -> Vec<Finding> {
        let now_ms = self.fleet.members().now_ms();
        let (state, own_version) = (member.state(now_ms), env!("CARGO_PKG_VERSION"));
        let mut findings = Vec::new();
        let was_linked = self.nodes.get(member.boot()).is_some_and(|sight| sight.was_linked);
        let may_be_away = if was_linked { member.is_draining() } else { self.is_starting() || member.may_be_away() };
        if matches!(state, MemberState::Late | MemberState::Unreachable) && !may_be_away {
            let detail = format!("{}, last message {} s ago", state.label(), member.links.lag_ms(now_ms) / 1000);
            findings.push(missing(member.name(), detail));
        }
        if let Some((missed, at)) = member.missed()
            && at.elapsed() < LOSS_TIME
        {
            let detail = format!("{missed} messages, the last one {} s ago", at.elapsed().as_secs());
            findings.push(Finding::new(ConditionKind::NodeMissesMessages, member.name(), detail));
        }
        if member.version() != own_version {
            let detail = format!("version {}, this node has {own_version}", member.version());
            findings.push(Finding::new(ConditionKind::NodeVersionDiffers, member.name(), detail));
        }
        findings
    }

    fn of_address(&self, AddressProblem { address, kind, text }: AddressProblem, now: Instant) -> Option<Finding> {
        let known = self.nodes.values().find(|sight| sight.address().as_ref() == Some(&address));
        let is_expected = known
            .map_or(self.is_starting(), |sight| sight.is_restarting(now) || self.is_starting() && !sight.was_linked);
        if kind == AddressProblemKind::Unreachable && is_expected {
            return None;
        }
        let name = known.map_or(address.as_str(), |sight| sight.member.name());
        Some(match kind {
            AddressProblemKind::ClockDiffers => Finding::new(ConditionKind::NodeClockDiffers, name, text),
            AddressProblemKind::NotOfFleet => Finding::new(ConditionKind::NodeNotOfFleet, address, text),
            AddressProblemKind::Unreachable => missing(name, format!("{address}: {text}")),
        })
    }

    /// Connects to the advertised addresses of all ready nodes, as forwarded requests of HTTP transports do.
    async fn probe(&self, members: &[Arc<FleetMember>]) -> Vec<Finding> {
        let (shared, now_ms) = (self.fleet.shared(), self.fleet.members().now_ms());
        let advertised = members.iter().filter_map(|member| Some((member, member.client_port()?)));
        // The way through a broker is that of the node's link.
        let advertised = advertised.filter(|(_, address)| address.node().is_none());
        let is_probed =
            |member: &FleetMember| shared.settings.relay.forward && member.state(now_ms) == MemberState::Ready;
        let advertised = advertised.filter(|(member, _)| is_probed(member));
        let checks = advertised.map(async |(member, address)| {
            let problem = match timeout(PROBE_TIMEOUT, shared.ways.connector.connect(address)).await {
                Ok(Ok(_)) => return None,
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no connection within {} s", PROBE_TIMEOUT.as_secs()),
            };
            Some(Finding::new(ConditionKind::NodeAddressUnreachable, member.name(), format!("{address}: {problem}")))
        });
        join_all(checks).await.into_iter().flatten().collect()
    }
}

/// The clock of this node, if all other nodes refuse it and none is linked.
fn own_clock(members: &[Arc<FleetMember>], problems: &[AddressProblem]) -> Option<Finding> {
    let is_refused = problems.len() >= CLOCK_REFUSALS_MIN
        && problems.iter().all(|problem| problem.kind == AddressProblemKind::ClockDiffers)
        && !members.iter().any(|member| member.links.are_open());
    let nodes = || problems.iter().map(|problem| problem.address.as_str()).collect::<Vec<_>>().join(", ");
    is_refused.then(|| Finding::new(ConditionKind::OwnClockRefused, "this node", format!("refused by {}", nodes())))
}

fn missing(name: &str, detail: String) -> Finding {
    Finding::new(ConditionKind::NodeMissing, name, detail)
}

/// Part of a budget, in percent, above which it is nearly full.
const FULL_PERCENT: u64 = 90;

/// Time for which losses are reported: longer than two scrapes of Prometheus, so that alerts fire.
pub(super) const LOSS_TIME: Duration = Duration::from_secs(150);

/// Number of evaluations without a tick after which a shard counts as stuck. Not a time: after a pause of the machine,
/// this thread may run before the shards.
const STUCK_AFTER: u64 = 5;

/// Conditions of this process: open files, memory budgets, logs, certificates, shards.
pub(super) struct ProcessConditions {
    shared: Arc<Shared>,
    admission: Arc<Admission>,
    webhooks: Arc<Webhooks>,
    log: LossCounter,
    audit: LossCounter,
    /// Ticks of each shard, and the number of evaluations without a change.
    ticks: Vec<(u64, u64)>,
}

/// Counter of lost lines, and the time of the last loss.
#[derive(Debug, Default)]
struct LossCounter {
    total: u64,
    lost_at: Option<Instant>,
}

impl LossCounter {
    /// Notes the total; returns it if lines were lost recently.
    fn note(&mut self, total: u64, now: Instant) -> Option<u64> {
        if total > self.total {
            (self.total, self.lost_at) = (total, Some(now));
        }
        self.lost_at.filter(|at| now.saturating_duration_since(*at) < LOSS_TIME).map(|_| total)
    }
}

impl ProcessConditions {
    pub(super) fn new(shared: Arc<Shared>, admission: Arc<Admission>, webhooks: Arc<Webhooks>) -> Self {
        // Lines lost before this node started are not its own.
        let [log, audit] = [log_lines_dropped(), audit_lines_lost()].map(|total| LossCounter { total, lost_at: None });
        Self { shared, admission, webhooks, log, audit, ticks: Vec::new() }
    }

    pub(super) fn findings(&mut self, now: Instant) -> Vec<Finding> {
        let mut findings = self.budgets();
        let losses = [
            (ConditionKind::LogLinesDropped, "log", self.log.note(log_lines_dropped(), now)),
            (ConditionKind::AuditLinesLost, "audit log", self.audit.note(audit_lines_lost(), now)),
        ];
        for (kind, subject, total) in losses {
            findings.extend(total.map(|total| Finding::new(kind, subject, format!("{total} lines since the start"))));
        }
        if let Some((used, most)) = DescriptorLimit::for_clients().usage().filter(|(used, most)| is_full(*used, *most))
        {
            let detail = format!("{used} of {most}");
            findings.push(Finding::new(ConditionKind::OpenFilesHigh, "open files", detail));
        }
        let failures = self.admission.verifier.key_set_failures().into_iter();
        findings.extend(failures.map(|(source, why)| Finding::new(ConditionKind::TokenKeysUnreachable, source, why)));
        findings.extend(self.stuck_shards());
        findings
    }

    fn budgets(&self) -> Vec<Finding> {
        let (shared, counters) = (&self.shared, self.shared.counters());
        let settings = &shared.settings;
        let outboxes = counters.iter().map(|counters| counters.outbox_bytes.get()).sum();
        let unfinished = counters.iter().map(|counters| counters.unfinished_bytes.get()).sum();
        let budgets = [
            ("--outbox-total-max-bytes", outboxes, settings.outbox.total_bytes),
            ("--unfinished-total-max-bytes", unfinished, settings.limits.unfinished_total_bytes),
            ("--heads-total-max-bytes", shared.limits.heads.kept_bytes() as u64, settings.limits.heads_total_bytes),
            (
                "--group-names-total-max-bytes",
                shared.limits.group_names.len() as u64,
                settings.groups.names_total_bytes,
            ),
            ("--webhook-waiting-max-bytes", self.webhooks.waiting_bytes() as u64, settings.webhooks.waiting_max_bytes),
        ];
        let is_nearly_full = |(_, used, most): &(&str, u64, usize)| is_full(*used, *most as u64);
        let finding = |(flag, used, most): (&str, u64, usize)| {
            Finding::new(ConditionKind::MemoryBudgetHigh, flag, format!("{used} of {most} bytes"))
        };
        budgets.into_iter().filter(is_nearly_full).map(finding).collect()
    }

    fn stuck_shards(&mut self) -> Vec<Finding> {
        let mut findings = Vec::new();
        self.ticks.resize(self.shared.counters().len(), (u64::MAX, 0));
        for (index, (counters, (ticks, unchanged))) in self.shared.counters().iter().zip(&mut self.ticks).enumerate() {
            let latest = counters.ticks.get();
            *unchanged = if *ticks == latest { *unchanged + 1 } else { 0 };
            *ticks = latest;
            if *unchanged >= STUCK_AFTER {
                let detail = format!("no tick for {unchanged} s");
                findings.push(Finding::new(ConditionKind::ShardStuck, format!("shard-{index}"), detail));
            }
        }
        findings
    }
}

fn is_full(used: u64, most: u64) -> bool {
    most > 0 && used.saturating_mul(100) > most.saturating_mul(FULL_PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_all_other_nodes_refuse_is_this_nodes_and_makes_it_not_ready() {
        let problems = |kinds: &[AddressProblemKind]| {
            let problem = |(number, kind): (usize, &AddressProblemKind)| AddressProblem {
                address: format!("http://node-{number}:8090"),
                kind: *kind,
                text: String::new(),
            };
            kinds.iter().enumerate().map(problem).collect::<Vec<_>>()
        };
        use AddressProblemKind::{ClockDiffers, Unreachable};
        let finding = own_clock(&[], &problems(&[ClockDiffers, ClockDiffers])).unwrap();
        assert!(finding.kind.entry().is_local, "not ready");
        assert!(finding.detail.contains("node-0") && finding.detail.contains("node-1"), "{}", finding.detail);
        for kinds in [&[ClockDiffers][..], &[ClockDiffers, ClockDiffers, Unreachable], &[]] {
            assert!(own_clock(&[], &problems(kinds)).is_none(), "{kinds:?}");
        }
    }

    #[test]
    fn lost_lines_are_reported_for_longer_than_two_scrapes() {
        let (mut losses, start) = (LossCounter::default(), Instant::now());
        let mut note = |total, second| losses.note(total, start + Duration::from_secs(second));
        assert_eq!((note(0, 0), note(2, 1), note(2, 150), note(2, 151)), (None, Some(2), Some(2), None));
    }

    #[test]
    fn a_budget_is_nearly_full_above_nine_tenths() {
        assert!(is_full(91, 100) && !is_full(90, 100) && !is_full(0, 0) && !is_full(5, 0));
    }
}
