//! Plan of shares: how many clients move between which app servers, so that new ones reach the share of their weight.
//! Pure: loads are arguments.
//!
//! ```text
//!  clients   A ████████│████      The target of each app server is the share of its weight. An indivisible remainder is
//!            B ████████│██        not moved. Only new ones receive clients; app servers that have fewer for other reasons
//!            C         │ ◄─       catch up through the usual turns.
//!                      └─ share
//! ```

use crate::engine::upstream::AppServerId;

/// Divisor of the share for the deficit that a new app server may keep (5 %): client numbers always fluctuate.
const TOLERANCE_DIVISOR: u64 = 20;

/// Clients of one app server of a group, at one hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShareLoad {
    pub app: AppServerId,
    pub weight: u64,
    /// Current clients, including those arriving and excluding those leaving.
    pub clients: u64,
    /// New, and possibly below its share.
    pub is_new: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShareMove {
    pub from: AppServerId,
    pub to: AppServerId,
    pub clients: u64,
}

/// Plan of one group at one hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SharePlan {
    /// Clients missing at each new app server.
    missing: Vec<(AppServerId, u64, u64)>,
    /// Excess of each app server over its share, largest first.
    excess: Vec<(AppServerId, u64)>,
}

impl SharePlan {
    pub(crate) fn new(loads: &[ShareLoad]) -> Self {
        let shares = shares(loads);
        let pairs = || loads.iter().zip(&shares);
        let new_servers = pairs().filter(|(load, _)| load.is_new);
        let missing = new_servers.map(|(load, &share)| (load.app, share.saturating_sub(load.clients), share)).collect();
        let excess = pairs().map(|(load, share)| (load.app, load.clients.saturating_sub(*share)));
        let mut excess: Vec<_> = excess.filter(|(_, clients)| *clients > 0).collect();
        excess.sort_by_key(|(_, clients)| std::cmp::Reverse(*clients));
        Self { missing, excess }
    }

    pub(crate) fn missing(&self, app: AppServerId) -> u64 {
        self.missing.iter().find(|(new_server, ..)| *new_server == app).map_or(0, |(_, missing, _)| *missing)
    }

    /// Whether the deficit of a new app server is within the tolerance.
    pub(crate) fn is_tolerable(&self, app: AppServerId) -> bool {
        let found = self.missing.iter().find(|(new_server, ..)| *new_server == app);
        found.is_none_or(|(_, missing, share)| *missing <= share / TOLERANCE_DIVISOR)
    }

    /// Moves towards the shares of new app servers, limited to a number of clients.
    #[must_use]
    pub(crate) fn moves(&self, most: u64) -> Vec<ShareMove> {
        let (mut left, mut excess, mut moves) = (most, self.excess.iter().copied(), Vec::new());
        let mut giver = excess.next();
        for &(to, missing, _) in &self.missing {
            let mut missing = missing.min(left);
            while let Some((from, clients)) = giver.filter(|_| missing > 0) {
                let moved = clients.min(missing);
                moves.push(ShareMove { from, to, clients: moved });
                (missing, left) = (missing - moved, left - moved);
                giver = if moved < clients { Some((from, clients - moved)) } else { excess.next() };
            }
        }
        moves
    }
}

/// Shares of app servers by weight. The remainder goes to app servers that already exceed theirs.
fn shares(loads: &[ShareLoad]) -> Vec<u64> {
    let total: u64 = loads.iter().map(|load| load.clients).sum();
    let weights: u64 = loads.iter().map(|load| load.weight).sum();
    let share = |load: &ShareLoad| {
        let whole = u128::from(total) * u128::from(load.weight) / u128::from(weights.max(1));
        u64::try_from(whole).unwrap_or(u64::MAX)
    };
    let mut shares: Vec<u64> = loads.iter().map(share).collect();
    let mut rest = total.saturating_sub(shares.iter().sum());
    let has_more = |(load, share): (&ShareLoad, &u64)| load.clients.saturating_sub(*share);
    let mut order: Vec<_> = loads.iter().zip(&shares).map(has_more).enumerate().collect();
    order.sort_by_key(|(_, more)| std::cmp::Reverse(*more));
    for (place, _) in order {
        if let Some(share) = shares.get_mut(place).filter(|_| rest > 0) {
            *share += 1;
            rest -= 1;
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn app(number: u32) -> AppServerId {
        AppServerId::from(number)
    }

    /// Loads of app servers with these weights and clients.
    fn loads(of: &[(u64, u64, bool)]) -> Vec<ShareLoad> {
        let load = |(number, &(weight, clients, is_new)): (u32, &(u64, u64, bool))| ShareLoad {
            app: app(number),
            weight,
            clients,
            is_new,
        };
        (0..).zip(of).map(load).collect()
    }

    fn moves(of: &[(u64, u64, bool)], most: u64) -> Vec<(u32, u32, u64)> {
        let loads = loads(of);
        let number = |id| (0..).find(|number| app(*number) == id).unwrap();
        let moves = SharePlan::new(&loads).moves(most);
        moves.iter().map(|one| (number(one.from), number(one.to), one.clients)).collect()
    }

    #[test]
    fn a_new_app_server_gets_half_of_two_shares_at_the_given_rate() {
        assert_eq!(moves(&[(1, 20, false), (1, 0, true)], 100), [(0, 1, 10)]);
        assert_eq!(moves(&[(1, 20, false), (1, 0, true)], 3), [(0, 1, 3)]);
        assert_eq!(moves(&[(1, 20, false), (1, 0, true)], 0), []);
    }

    #[test]
    fn shares_follow_weights() {
        assert_eq!(moves(&[(3, 40, false), (1, 0, true)], 100), [(0, 1, 10)]);
        assert_eq!(moves(&[(1, 40, false), (3, 0, true)], 100), [(0, 1, 30)]);
    }

    #[test]
    fn who_has_most_gives_first() {
        let of = [(1, 10, false), (1, 30, false), (1, 2, true)];
        assert_eq!(moves(&of, 5), [(1, 2, 5)]);
        assert_eq!(moves(&of, 100), [(1, 2, 12)]);
    }

    #[test]
    fn an_indivisible_remainder_stays_and_a_new_app_server_gets_its_whole_share() {
        assert_eq!(moves(&[(1, 5, false), (1, 0, true)], 100), [(0, 1, 2)]);
        assert_eq!(moves(&[(1, 3, false), (1, 2, true)], 100), []);
        assert_eq!(moves(&[(1, 2, false), (1, 2, false), (1, 0, true)], 100), [(1, 2, 1)]);
        assert_eq!(moves(&[(1, 1, false), (1, 0, true)], 100), []);
    }

    #[test]
    fn only_new_app_servers_receive_clients() {
        assert_eq!(moves(&[(1, 20, false), (1, 0, false)], 100), []);
        assert_eq!(moves(&[(1, 0, false), (1, 20, true)], 100), []);
    }

    #[test]
    fn a_few_are_no_reason_to_begin() {
        let tolerable = |clients: u64| SharePlan::new(&loads(&[(1, 200 - clients, false), (1, clients, true)]));
        assert!(tolerable(95).is_tolerable(app(1)) && !tolerable(94).is_tolerable(app(1)));
        assert!(tolerable(94).is_tolerable(app(0)), "it is not new");
        assert_eq!(tolerable(94).missing(app(1)), 6);
    }

    proptest! {
        #[test]
        fn rounds_end_with_each_new_app_server_at_its_share_and_no_other_below_its_own(
            of in prop::collection::vec((1_u64..9, 0_u64..400, any::<bool>()), 1..8),
            rate in 1_u64..100,
        ) {
            let mut loads = loads(&of);
            let total: u64 = loads.iter().map(|load| load.clients).sum();
            let weights: u64 = loads.iter().map(|load| load.weight).sum();
            let before = loads.clone();
            loop {
                let moves = SharePlan::new(&loads).moves(rate);
                prop_assert!(moves.iter().map(|one| one.clients).sum::<u64>() <= rate);
                if moves.is_empty() {
                    break;
                }
                for ShareMove { from, to, clients } in moves {
                    loads.iter_mut().find(|load| load.app == from).unwrap().clients -= clients;
                    loads.iter_mut().find(|load| load.app == to).unwrap().clients += clients;
                }
            }
            prop_assert_eq!(loads.iter().map(|load| load.clients).sum::<u64>(), total);
            for (load, before) in loads.iter().zip(&before) {
                let share = total * load.weight / weights;
                prop_assert!(!load.is_new || load.clients >= share);
                prop_assert!(load.clients >= before.clients.min(share));
            }
        }
    }
}
