//! Budget of the request heads kept by open connections: headers, claims and query, needed to open the connection at
//! another app server.
//!
//! Small heads, bounded by the connection limit, are free, so a client with a small head is never refused because of
//! others. Each large head counts in full, because its app server keeps all of it: sharing values between heads saves
//! memory only on the node.
//!
//! If a head does not fit, connections with large heads are closed for it, newest first: of the app with the most
//! bytes, or in the same app, of the address with the most. The new head is refused if its own app and address have the
//! most.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytestring::ByteString;
use tokio::time::Instant;

use super::address_key::AddressKey;
use crate::ground::auth::Signer;
use crate::ground::bounded::{Budget, BudgetShare, Holders, Lease, LeaseTable, Leases, pass_interval};

/// Maximum size of a free head: that of a browser with a cookie and a token.
const FREE_BYTES: usize = 4 * 1024;

#[derive(Debug)]
pub(crate) struct HeadBudget {
    budget: Arc<Budget>,
    kept: Leases<KeptHead>,
    /// Heads to evict, until the next pass over all heads.
    plan: Mutex<Option<EvictionPlan>>,
}

/// Connection with a head, and the holders it counts for.
#[derive(Debug, Clone)]
pub(crate) struct HeadHolder {
    pub connection_id: ByteString,
    /// App that owns the hub.
    pub app: Signer,
    /// Address of the client; `None` if many clients share the address.
    pub address: Option<AddressKey>,
}

#[derive(Debug)]
pub(crate) struct KeptHead {
    holder: HeadHolder,
    share: BudgetShare,
}

/// Share of the budget, held while a large head is kept. It is revoked when the connection has to close.
pub(crate) type HeadWeight = Lease<KeptHead>;

#[derive(Debug)]
pub(crate) struct HeadAdmission {
    /// Share of a large head; an error if the budget is exhausted.
    pub weight: Result<Option<HeadWeight>, HeadsFull>,
    /// Connections to close, because their heads were evicted.
    pub evicted: Vec<ByteString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadsFull;

/// Heads by app and address, found by one pass over all heads.
#[derive(Debug)]
struct EvictionPlan {
    until: Instant,
    apps: HashMap<Signer, Holders<AddressKey>>,
}

impl HeadBudget {
    /// Creates a budget of this many bytes; `usize::MAX` for no limit.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { budget: Arc::new(Budget::new(max_bytes)), kept: Leases::default(), plan: Mutex::default() }
    }

    pub(crate) fn is_free(bytes: usize) -> bool {
        bytes <= FREE_BYTES
    }

    /// Reserves budget for the head of a new connection, if necessary by evicting other heads.
    pub(crate) fn take(&self, bytes: usize, holder: HeadHolder) -> HeadAdmission {
        let mut evicted = Vec::new();
        if Self::is_free(bytes) {
            return HeadAdmission { weight: Ok(None), evicted };
        }
        let mut heads = self.kept.lock();
        let share = self.budget.take(bytes).or_else(|| {
            for number in self.choose_evicted(&heads, &holder, bytes) {
                evicted.extend(heads.revoke(number).map(|head| head.holder.connection_id));
            }
            self.budget.take(bytes)
        });
        drop(heads);
        if share.is_some() && !evicted.is_empty() {
            self.count_in_plan(&holder, bytes);
        }
        let weight = share.map(|share| Some(self.kept.add(KeptHead { holder, share }))).ok_or(HeadsFull);
        HeadAdmission { weight, evicted }
    }

    /// Counts the head of a connection already open at another node; `None` for a small head.
    #[must_use]
    pub(crate) fn weigh(&self, bytes: usize, holder: HeadHolder) -> Option<HeadWeight> {
        (!Self::is_free(bytes)).then(|| self.kept.add(KeptHead { holder, share: self.budget.charge(bytes) }))
    }

    pub(crate) fn kept_bytes(&self) -> usize {
        self.budget.used()
    }

    fn count_in_plan(&self, holder: &HeadHolder, bytes: usize) {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(plan), Some(address)) = (&mut *plan, holder.address) {
            plan.apps.entry(holder.app.clone()).or_default().add(&address, bytes);
        }
    }

    /// Numbers of the heads to evict for a new one; none if all that may be evicted would not suffice.
    fn choose_evicted(&self, heads: &LeaseTable<KeptHead>, new_holder: &HeadHolder, bytes: usize) -> Vec<u64> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let plan = match &mut *plan {
            Some(plan) if plan.until > now => plan,
            old => old.insert(EvictionPlan::of(heads, now)),
        };
        let missing = self.budget.used().saturating_add(bytes).saturating_sub(self.budget.limit);
        let (mut freed, mut chosen) = (0, Vec::new());
        while freed < missing {
            let Some(number) = plan.choose(new_holder, bytes) else { return Vec::new() };
            // A head that was closed since the pass is skipped.
            if let Some(head) = heads.get(number) {
                freed += head.share.amount();
                chosen.push(number);
            }
        }
        chosen
    }
}

impl EvictionPlan {
    fn of(heads: &LeaseTable<KeptHead>, now: Instant) -> Self {
        let mut by_app = HashMap::<Signer, Vec<_>>::new();
        for (number, KeptHead { holder, share }) in heads.iter() {
            if let Some(address) = holder.address {
                by_app.entry(holder.app.clone()).or_default().push((number, address, share.amount()));
            }
        }
        let apps = by_app.into_iter().map(|(app, heads)| (app, Holders::of(heads.into_iter())));
        Self { until: now + pass_interval(heads.len()), apps: apps.collect() }
    }

    /// Takes the number of the next head to evict.
    fn choose(&mut self, new_holder: &HeadHolder, bytes: usize) -> Option<u64> {
        let own = self.apps.get(&new_holder.app).map_or(0, Holders::weight);
        let others = self.apps.iter_mut().filter(|(app, _)| **app != new_holder.app).map(|(_, holders)| holders);
        let largest = others.max_by_key(|holders| holders.weight()).filter(|holders| holders.weight() > own + bytes);
        let chosen = largest.and_then(|holders| holders.newest_of_largest((None, 0)));
        chosen.or_else(|| self.apps.get_mut(&new_holder.app)?.newest_of_largest((new_holder.address.as_ref(), bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(app: &str, address: u32) -> HeadHolder {
        let app = if app.is_empty() { Signer::Fleet } else { Signer::App(app.into()) };
        HeadHolder { connection_id: format!("{app:?} {address}").into(), app, address: Some(AddressKey::V4(address)) }
    }

    fn take(budget: &HeadBudget, bytes: usize, holder: HeadHolder) -> Result<Option<HeadWeight>, HeadsFull> {
        budget.take(bytes, holder).weight
    }

    #[test]
    fn large_heads_share_a_budget_and_small_ones_are_free() {
        let budget = HeadBudget::new(10_000);
        let small: Vec<_> = (0..1_000).filter_map(|_| take(&budget, FREE_BYTES, of("", 1)).unwrap()).collect();
        assert_eq!((small.len(), budget.kept_bytes()), (0, 0));
        let large = take(&budget, 6_000, of("", 1)).unwrap();
        assert!(take(&budget, 4_097, of("", 1)).is_err() && take(&budget, FREE_BYTES, of("", 1)).is_ok());
        let arrived = budget.weigh(6_000, of("", 2));
        assert_eq!(budget.kept_bytes(), 12_000, "it is open, and goes on");
        drop((large, arrived));
        assert!(take(&budget, 6_000, of("", 1)).is_ok_and(|weight| weight.is_some()));
        assert_eq!(budget.kept_bytes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_heads_of_the_address_with_most_make_room() {
        let budget = HeadBudget::new(100_000);
        let stranger: Vec<_> = (0..9).map(|_| take(&budget, 10_000, of("", 1)).unwrap().unwrap()).collect();
        let honest = take(&budget, 8_000, of("", 2)).unwrap().unwrap();
        let HeadAdmission { weight, evicted } = budget.take(9_000, of("", 3));
        let _third = weight.unwrap().unwrap();
        assert_eq!((evicted.len(), &*evicted[0]), (1, "Fleet 1"));
        let revoked: Vec<_> = stranger.iter().map(|head| head.token().is_cancelled()).collect();
        assert_eq!(revoked.iter().filter(|is| **is).count(), 1);
        assert!(revoked[8] && !honest.token().is_cancelled(), "the newest");
        assert!(budget.take(10_000, of("", 1)).weight.is_err(), "the largest gets no room from others");
        assert!(budget.kept_bytes() <= 100_000);
        drop(stranger);
        assert_eq!(budget.kept_bytes(), 17_000, "an evicted head is returned once");
    }

    #[tokio::test(start_paused = true)]
    async fn an_app_with_many_addresses_makes_room_for_other_apps() {
        let budget = HeadBudget::new(100_000);
        let shop: Vec<_> = (0..20).map(|number| take(&budget, 5_000, of("shop", number)).unwrap().unwrap()).collect();
        assert!(budget.take(5_000, of("shop", 99)).weight.is_err(), "no address of its own app has more");
        let mut news = Vec::new();
        while let Ok(weight) = budget.take(5_000, of("news", 1)).weight {
            news.push(weight);
            tokio::time::advance(std::time::Duration::from_millis(1)).await;
        }
        assert_eq!(news.len(), 10, "until both have the same");
        assert_eq!(shop.iter().filter(|head| head.token().is_cancelled()).count(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_fit_evicts_no_other_head() {
        let budget = HeadBudget::new(30_000);
        let kept = [1, 1, 2, 3, 4, 5].map(|address| take(&budget, 5_000, of("", address)).unwrap().unwrap());
        let HeadAdmission { weight, evicted } = budget.take(8_000, of("", 9));
        assert!(weight.is_err() && evicted.is_empty(), "one head of 1 is not enough, and nobody else has more than 9");
        assert!(kept.iter().all(|head| !head.token().is_cancelled()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_new_heads_costs_one_pass_over_all_heads() {
        let budget = HeadBudget::new(5_000 * 64);
        let mut kept: Vec<_> = (0..64).map(|number| take(&budget, 5_000, of("", number)).unwrap()).collect();
        assert!(take(&budget, 5_000, of("", 1_000)).is_err(), "no address has more");
        drop(kept.pop());
        kept.push(take(&budget, 5_000, of("", 0)).unwrap());
        let refused = (2_000..3_000).filter(|number| take(&budget, 5_000, of("", *number)).is_err()).count();
        assert_eq!(refused, 1_000, "the pass has not found the second head of address 0");
        tokio::time::advance(pass_interval(64)).await;
        assert!(take(&budget, 5_000, of("", 4_000)).is_ok(), "the next pass finds it");
    }
}
