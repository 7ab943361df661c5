//! Plan of a rebalance: how many clients each node sheds per round, and when to stop. Pure: loads are arguments.
//!
//! ```text
//!  clients   A ████████│████████      A keeps the mean and sheds the rest, limited by its share of the fleet's maximum
//!            B ████    │              per round. The load balancer places the clients; one that returns to A is above
//!            C ██      │              the mean again and part of a later round.
//!                      └─ mean, rounded up
//! ```
//!
//! Clients still reconnecting would lower the mean, so that nodes shed too many. It therefore uses the highest total of
//! recent rounds.

use std::collections::{HashMap, VecDeque};

use super::snapshot::RebalanceState;

/// Number of rounds for the highest total; shed clients reconnect within these.
const WINDOW_ROUNDS: usize = 5;

/// Rounds without progress before a rebalance ends. Official clients make their last attempt to reconnect after 10 s.
const IDLE_ROUNDS_MAX: u32 = 15;

/// Divisor for the tolerance of a mean or percent goal (5 %): client numbers always fluctuate.
const TOLERANCE_DIVISOR: u64 = 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RebalanceGoal {
    /// No node has more than the mean.
    Mean,
    /// Each node above the mean sheds this share of its clients, but not below the mean.
    Percent(u64),
    /// The named node has no clients.
    Node(String),
}

impl RebalanceGoal {
    /// Name in requests and reports.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Percent(_) => "percent",
            Self::Node(_) => "node",
        }
    }
}

/// Load of a node that accepts clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RebalanceLoad {
    pub name: String,
    /// Boot id of the node.
    pub instance: String,
    /// Clients with a socket.
    pub present: u64,
    /// Disconnected clients that may resume at any node.
    pub away: u64,
    /// Time of these numbers, which are older for a late node.
    pub at_ms: u64,
}

/// Number of clients for one node to shed in a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShedOrder {
    pub name: String,
    pub instance: String,
    pub clients: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Round {
    /// Clients to shed; empty while earlier ones are still reconnecting.
    Shed(Vec<ShedOrder>),
    /// The rebalance is over; the reason is set if the goal was missed.
    End(RebalanceState, Option<String>),
}

#[derive(Debug)]
pub(super) struct RebalancePlan {
    goal: RebalanceGoal,
    /// Maximum number of clients shed by the fleet per round.
    per_round: u64,
    /// Clients that nodes keep, by instance, unless the goal is the mean.
    keeps: Vec<(String, u64)>,
    planned: u64,
    moved: u64,
    /// Clients shed in recent rounds, latest last.
    recent_sheds: VecDeque<u64>,
    /// Clients shed before these rounds.
    earlier_sheds: u64,
    recent_totals: VecDeque<u64>,
    idle_rounds: u32,
    /// Last refusal by a node, as text for people.
    refusal: Option<String>,
    /// Timestamp of the load behind each node's last order, by instance.
    ordered_at: HashMap<String, u64>,
}

impl RebalancePlan {
    /// Creates a plan for these loads. Fails if the goal names an unknown node, or clients have no other node to go to.
    /// The text continues the field's name.
    pub(super) fn new(goal: RebalanceGoal, per_round: u64, loads: &[RebalanceLoad]) -> Result<Self, String> {
        let mut plan = Self {
            goal,
            per_round: per_round.max(1),
            keeps: Vec::new(),
            planned: 0,
            moved: 0,
            recent_sheds: VecDeque::new(),
            earlier_sheds: 0,
            recent_totals: VecDeque::from([total(loads)]),
            idle_rounds: 0,
            refusal: None,
            ordered_at: HashMap::new(),
        };
        let mean = plan.mean(loads);
        plan.keeps = match &plan.goal {
            RebalanceGoal::Mean => Vec::new(),
            RebalanceGoal::Percent(percent) => {
                let above = loads.iter().filter(|load| load.present > mean);
                let kept = |load: &RebalanceLoad| load.present - share(load.present, *percent);
                above.map(|load| (load.instance.clone(), kept(load).max(mean))).collect()
            }
            RebalanceGoal::Node(name) => {
                let named = loads.iter().filter(|load| load.name == *name);
                let keeps: Vec<_> = named.map(|load| (load.instance.clone(), 0)).collect();
                if keeps.is_empty() {
                    let names: Vec<_> = loads.iter().map(|load| load.name.as_str()).collect();
                    return Err(format!("must be a node of the fleet that accepts clients: {}", names.join(", ")));
                }
                if keeps.len() == loads.len() {
                    return Err("is the only node that accepts clients: its clients have no other node".into());
                }
                keeps
            }
        };
        plan.planned = plan.excesses(loads).iter().map(|order| order.clients).sum();
        Ok(plan)
    }

    /// Number of clients that should leave their nodes.
    pub(super) fn planned(&self) -> u64 {
        self.planned
    }

    /// Net number of clients that have left, from the loads: a client that returns to its node is not counted.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// Clients shed in vain: they returned, went to a node with enough clients, or did not reconnect. Clients of recent
    /// rounds may still reconnect, and count only at the end.
    pub(super) fn failed(&self, is_over: bool) -> u64 {
        let recent = if is_over { self.recent_sheds.iter().sum() } else { 0 };
        (self.earlier_sheds + recent).saturating_sub(self.moved)
    }

    pub(super) fn round(&mut self, loads: &[RebalanceLoad]) -> Round {
        keep_last(&mut self.recent_totals, total(loads));
        let (excesses, present) = (self.excesses(loads), loads.iter().map(|load| load.present).sum::<u64>());
        let excess: u64 = excesses.iter().map(|order| order.clients).sum();
        let on_their_way = self.recent_totals.iter().max().map_or(0, |most| most.saturating_sub(present));
        let moved = self.planned.saturating_sub(excess.saturating_add(on_their_way));
        self.idle_rounds = if moved > self.moved { 0 } else { self.idle_rounds + 1 };
        self.moved = self.moved.max(moved);
        let has_settled = on_their_way == 0 || self.recent_sheds.iter().all(|shed| *shed == 0);
        let is_even = self.is_even(loads);
        if is_even && has_settled {
            self.moved = self.moved.max(self.planned.saturating_sub(excess));
            return Round::End(RebalanceState::Done, None);
        }
        if loads.len() < 2 {
            return Round::End(RebalanceState::Stalled, Some("no other node accepts clients".into()));
        }
        if self.idle_rounds > IDLE_ROUNDS_MAX {
            return Round::End(RebalanceState::Stalled, Some(self.obstacle(&excesses)));
        }
        let orders = if is_even { Vec::new() } else { within(self.per_round, self.orderable(excesses, loads)) };
        Round::Shed(orders)
    }

    /// Omits nodes with no new load since their last order; they may already have shed these clients.
    fn orderable(&mut self, mut excesses: Vec<ShedOrder>, loads: &[RebalanceLoad]) -> Vec<ShedOrder> {
        excesses.retain(|order| {
            let load = loads.iter().find(|load| load.instance == order.instance);
            let at_ms = load.map_or(0, |load| load.at_ms);
            self.ordered_at.insert(order.instance.clone(), at_ms) != Some(at_ms)
        });
        excesses
    }

    /// Records the result of a round's orders.
    pub(super) fn handle_sheds(&mut self, clients: u64, refusal: Option<String>) {
        self.earlier_sheds += keep_last(&mut self.recent_sheds, clients);
        self.refusal = refusal;
    }

    /// Mean number of clients per node, rounded up.
    fn mean(&self, loads: &[RebalanceLoad]) -> u64 {
        let clients = self.recent_totals.iter().max().copied().unwrap_or_default();
        clients.div_ceil(loads.len().max(1) as u64)
    }

    /// Number of clients each node has in excess.
    fn excesses(&self, loads: &[RebalanceLoad]) -> Vec<ShedOrder> {
        let mean = self.mean(loads);
        let kept = |load: &RebalanceLoad| match self.goal {
            RebalanceGoal::Mean => Some(mean),
            RebalanceGoal::Percent(_) => self.keeps_of(load).map(|keeps| keeps.max(mean)),
            RebalanceGoal::Node(_) => self.keeps_of(load),
        };
        let excess = |load: &RebalanceLoad| {
            let clients = load.present.saturating_sub(kept(load)?);
            (clients > 0).then(|| ShedOrder { name: load.name.clone(), instance: load.instance.clone(), clients })
        };
        loads.iter().filter_map(excess).collect()
    }

    fn keeps_of(&self, load: &RebalanceLoad) -> Option<u64> {
        self.keeps.iter().find(|(instance, _)| *instance == load.instance).map(|(_, keeps)| *keeps)
    }

    /// Whether the goal is reached, within the tolerance unless the goal is an empty node.
    fn is_even(&self, loads: &[RebalanceLoad]) -> bool {
        match self.goal {
            RebalanceGoal::Mean => {
                let mean = self.mean(loads);
                loads.iter().all(|load| load.present <= mean + mean / TOLERANCE_DIVISOR)
            }
            RebalanceGoal::Percent(_) => {
                let excess: u64 = self.excesses(loads).iter().map(|order| order.clients).sum();
                excess <= self.planned / TOLERANCE_DIVISOR
            }
            RebalanceGoal::Node(_) => {
                let is_there = loads.iter().any(|load| self.keeps_of(load).is_some());
                is_there && self.excesses(loads).is_empty()
            }
        }
    }

    fn obstacle(&self, excesses: &[ShedOrder]) -> String {
        if let Some(refusal) = &self.refusal {
            return refusal.clone();
        }
        let names: Vec<_> = excesses.iter().map(|order| order.name.as_str()).collect();
        match (&self.goal, names.is_empty()) {
            (RebalanceGoal::Node(name), true) => format!("{name} no longer accepts clients, or does not answer"),
            (_, true) => "clients that left did not reconnect to any node".into(),
            (_, false) => format!(
                "as many clients come to {} as leave: check that the load balancer has the other nodes, and no sticky \
                 sessions",
                names.join(", ")
            ),
        }
    }
}

fn total(loads: &[RebalanceLoad]) -> u64 {
    loads.iter().map(|load| load.present + load.away).sum()
}

/// Percentage of a number, rounded up.
fn share(number: u64, percent: u64) -> u64 {
    number.saturating_mul(percent.min(100)).div_ceil(100)
}

/// Appends to the recent rounds; returns the value that drops out.
fn keep_last(recent: &mut VecDeque<u64>, number: u64) -> u64 {
    recent.push_back(number);
    if recent.len() > WINDOW_ROUNDS { recent.pop_front().unwrap_or_default() } else { 0 }
}

/// Limits orders to a fleet-wide total, in proportion.
pub(super) fn within(most: u64, mut orders: Vec<ShedOrder>) -> Vec<ShedOrder> {
    let wanted: Vec<u64> = orders.iter().map(|order| order.clients).collect();
    for (order, clients) in orders.iter_mut().zip(portions(most, &wanted)) {
        order.clients = clients;
    }
    orders.retain(|order| order.clients > 0);
    orders
}

/// Divides a total in proportion to the requested numbers; the remainder is assigned one by one.
pub(super) fn portions(most: u64, wanted: &[u64]) -> Vec<u64> {
    let sum: u64 = wanted.iter().sum();
    if sum <= most {
        return wanted.to_vec();
    }
    let portion = |one: &u64| u64::try_from(u128::from(*one) * u128::from(most) / u128::from(sum.max(1)));
    let mut portions: Vec<u64> = wanted.iter().map(|one| portion(one).unwrap_or(*one)).collect();
    let mut rest = most.saturating_sub(portions.iter().sum());
    for (portion, wanted) in portions.iter_mut().zip(wanted) {
        if rest > 0 && *portion < *wanted {
            *portion += 1;
            rest -= 1;
        }
    }
    portions
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use proptest::prelude::*;

    use super::*;

    /// Loads of nodes, with increasing timestamps.
    fn loads(present: &[u64]) -> Vec<RebalanceLoad> {
        static NOW_MS: AtomicU64 = AtomicU64::new(1);
        let load = |(number, present): (usize, &u64)| {
            let (name, at_ms) = (format!("n{number}"), NOW_MS.fetch_add(1, Ordering::Relaxed));
            RebalanceLoad { instance: format!("i-{name}"), name, present: *present, away: 0, at_ms }
        };
        present.iter().enumerate().map(load).collect()
    }

    fn plan(goal: RebalanceGoal, per_round: u64, present: &[u64]) -> RebalancePlan {
        RebalancePlan::new(goal, per_round, &loads(present)).unwrap()
    }

    fn orders(round: Round) -> Vec<(String, u64)> {
        let Round::Shed(orders) = round else { panic!("{round:?}") };
        orders.into_iter().map(|order| (order.name, order.clients)).collect()
    }

    /// Runs a plan with a round-robin load balancer. Returns the end state, client numbers and rounds.
    fn run(plan: &mut RebalancePlan, present: &[u64]) -> (RebalanceState, Vec<u64>, u32) {
        let (mut present, mut turn) = (present.to_vec(), 0);
        for rounds in 0..100_000 {
            let Round::Shed(orders) = plan.round(&loads(&present)) else {
                let Round::End(state, _) = plan.round(&loads(&present)) else { panic!("it goes on behind its end") };
                return (state, present, rounds);
            };
            let mut shed = 0;
            for order in orders {
                let from: usize = order.name[1..].parse().unwrap();
                present[from] -= order.clients;
                shed += order.clients;
            }
            for _ in 0..shed {
                let count = present.len();
                present[turn % count] += 1;
                turn += 1;
            }
            plan.handle_sheds(shed, None);
        }
        panic!("it never ends");
    }

    #[test]
    fn nodes_above_the_mean_shed_down_to_it_at_the_given_rate() {
        let mut plan = plan(RebalanceGoal::Mean, 30, &[100, 60, 0, 0]);
        assert_eq!(plan.planned(), 60 + 20);
        assert_eq!(orders(plan.round(&loads(&[100, 60, 0, 0]))), [("n0".into(), 23), ("n1".into(), 7)]);
    }

    #[test]
    fn clients_that_are_on_their_way_do_not_lower_the_mean() {
        let mut plan = plan(RebalanceGoal::Mean, 100, &[60, 0]);
        assert_eq!(orders(plan.round(&loads(&[60, 0]))), [("n0".into(), 30)]);
        plan.handle_sheds(30, None);
        assert_eq!(orders(plan.round(&loads(&[30, 0]))), [], "30 are on their way");
        assert_eq!((plan.moved(), plan.failed(false)), (0, 0));
        let mut away = loads(&[30, 10]);
        away[0].away = 20;
        assert_eq!(orders(plan.round(&away)), []);
        assert_eq!(plan.round(&loads(&[30, 30])), Round::End(RebalanceState::Done, None));
        assert_eq!((plan.moved(), plan.failed(true)), (30, 0));
    }

    #[test]
    fn a_client_that_comes_back_to_its_node_has_not_moved() {
        let mut plan = plan(RebalanceGoal::Mean, 100, &[60, 0]);
        plan.handle_sheds(30, None);
        assert_eq!(orders(plan.round(&loads(&[45, 15]))), [("n0".into(), 15)]);
        assert_eq!(plan.moved(), 15);
        plan.handle_sheds(15, None);
        assert_eq!(plan.round(&loads(&[30, 30])), Round::End(RebalanceState::Done, None));
        assert_eq!((plan.moved(), plan.failed(true)), (30, 15));
    }

    #[test]
    fn a_percentage_is_of_the_clients_of_nodes_above_the_mean_which_they_keep() {
        let mut some = plan(RebalanceGoal::Percent(10), 1000, &[101, 80, 20]);
        assert_eq!(some.planned(), 11 + 8);
        assert_eq!(run(&mut some, &[101, 80, 20]).0, RebalanceState::Done);
        assert_eq!(plan(RebalanceGoal::Percent(100), 1000, &[90, 0, 0]).planned(), 60);
        assert_eq!(plan(RebalanceGoal::Percent(1), 1000, &[90, 0, 0]).planned(), 1);
        let mut nearly = plan(RebalanceGoal::Percent(50), 1000, &[80, 0]);
        assert_eq!(nearly.round(&loads(&[42, 38])), Round::End(RebalanceState::Done, None));
        assert_eq!((nearly.planned(), nearly.moved()), (40, 38));
    }

    #[test]
    fn a_node_that_is_named_is_emptied_and_the_others_shed_nothing() {
        let mut plan = plan(RebalanceGoal::Node("n1".into()), 1000, &[90, 10, 0]);
        assert_eq!(orders(plan.round(&loads(&[90, 10, 0]))), [("n1".into(), 10)]);
        let (state, left, _) = run(&mut plan, &[90, 10, 0]);
        assert_eq!((state, left[1]), (RebalanceState::Done, 0));
    }

    #[test]
    fn a_node_that_is_not_there_or_has_no_other_is_refused_by_name() {
        let refused = |name: &str, present: &[u64]| {
            RebalancePlan::new(RebalanceGoal::Node(name.into()), 1, &loads(present)).unwrap_err()
        };
        assert_eq!(refused("n7", &[1, 2]), "must be a node of the fleet that accepts clients: n0, n1");
        assert!(refused("n0", &[1]).contains("the only node"));
    }

    #[test]
    fn an_even_fleet_is_done_immediately() {
        for present in [&[][..], &[5], &[5, 5, 5], &[5, 5, 4], &[0, 0], &[105, 95]] {
            let mut plan = plan(RebalanceGoal::Mean, 10, present);
            assert_eq!(plan.round(&loads(present)), Round::End(RebalanceState::Done, None), "{present:?}");
        }
    }

    #[test]
    fn a_balancer_that_keeps_clients_to_their_node_stalls_it_with_the_reason() {
        let mut plan = plan(RebalanceGoal::Mean, 10, &[50, 0]);
        let mut rounds = 0;
        let reason = loop {
            match plan.round(&loads(&[50, 0])) {
                Round::Shed(orders) => plan.handle_sheds(orders[0].clients, None),
                Round::End(state, reason) => {
                    assert_eq!(state, RebalanceState::Stalled);
                    break reason.unwrap();
                }
            }
            rounds += 1;
        };
        assert!(reason.contains("come to n0 as leave") && reason.contains("load balancer"), "{reason}");
        assert_eq!((rounds, plan.moved(), plan.failed(true)), (IDLE_ROUNDS_MAX, 0, 150));
    }

    #[test]
    fn a_node_that_refuses_its_orders_is_named_in_the_end() {
        let mut plan = plan(RebalanceGoal::Mean, 10, &[50, 0]);
        for _ in 0..IDLE_ROUNDS_MAX {
            plan.round(&loads(&[50, 0]));
            plan.handle_sheds(0, Some("n0 does not answer".into()));
        }
        let end = Round::End(RebalanceState::Stalled, Some("n0 does not answer".into()));
        assert_eq!(plan.round(&loads(&[50, 0])), end);
    }

    #[test]
    fn a_node_without_a_new_load_gets_no_second_order() {
        let mut plan = plan(RebalanceGoal::Mean, 10, &[50, 0]);
        let mut late = loads(&[50, 0]);
        assert_eq!(orders(plan.round(&late)), [("n0".into(), 10)]);
        assert_eq!(orders(plan.round(&late)), []);
        late[0].at_ms += 1000;
        assert_eq!(orders(plan.round(&late)), [("n0".into(), 10)]);
    }

    #[test]
    fn the_last_other_node_that_goes_ends_it() {
        let mut plan = plan(RebalanceGoal::Node("n0".into()), 10, &[50, 0]);
        let Round::End(RebalanceState::Stalled, Some(reason)) = plan.round(&loads(&[50])) else { panic!("it goes on") };
        assert_eq!(reason, "no other node accepts clients");
    }

    proptest! {
        #[test]
        fn portions_are_whole_fair_and_never_too_many(most in 0_u64..500, wanted in prop::collection::vec(0_u64..300, 0..9)) {
            let given = portions(most, &wanted);
            prop_assert_eq!(given.iter().sum::<u64>(), most.min(wanted.iter().sum()));
            prop_assert!(given.iter().zip(&wanted).all(|(given, wanted)| given <= wanted));
        }

        #[test]
        fn any_fleet_becomes_even_by_round_robin_and_keeps_its_clients(
            present in prop::collection::vec(0_u64..2_000, 2..12),
            per_round in 1_u64..500,
        ) {
            let mut plan = plan(RebalanceGoal::Mean, per_round, &present);
            let (state, after, _) = run(&mut plan, &present);
            prop_assert_eq!(state, RebalanceState::Done);
            let (clients, count) = (present.iter().sum::<u64>(), present.len() as u64);
            prop_assert_eq!(after.iter().sum::<u64>(), clients);
            let mean = clients.div_ceil(count);
            prop_assert!(after.iter().all(|left| *left <= mean + mean / 20), "{:?}", after);
        }

        #[test]
        fn no_round_sheds_more_than_a_node_has_too_many_or_the_fleet_may(
            present in prop::collection::vec(0_u64..2_000, 2..12),
            per_round in 1_u64..500,
        ) {
            let mut plan = plan(RebalanceGoal::Mean, per_round, &present);
            let mean = present.iter().sum::<u64>().div_ceil(present.len() as u64);
            if let Round::Shed(orders) = plan.round(&loads(&present)) {
                prop_assert!(orders.iter().map(|order| order.clients).sum::<u64>() <= per_round);
                for order in orders {
                    let number: usize = order.name[1..].parse().unwrap();
                    prop_assert!(present[number] - order.clients >= mean);
                }
            }
        }
    }
}
