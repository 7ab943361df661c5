//! Bytes of names of groups by app. Hubs are counted separately, and finding a hub's app takes a pass over all app
//! keys, so one sum serves all joins of a short interval.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::auth::Signer;

/// Interval between sums. With hundreds of hubs and app keys a sum takes some milliseconds.
const SUM_INTERVAL: Duration = Duration::from_millis(100);

/// Last sum by app, and the time until which it is used.
#[derive(Debug, Default)]
pub(crate) struct GroupNameSums(Mutex<(Duration, HashMap<Signer, usize>)>);

impl GroupNameSums {
    /// Bytes of an app. `sum` returns those of all apps; it is called if the last sum is too old.
    pub(crate) fn of(&self, app: &Signer, now: Duration, sum: impl FnOnce() -> HashMap<Signer, usize>) -> usize {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sums.0 <= now {
            *sums = (now.saturating_add(SUM_INTERVAL), sum());
        }
        sums.1.get(app).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sum_serves_all_joins_of_an_interval() {
        let (sums, shop) = (GroupNameSums::default(), Signer::App("shop".into()));
        let of = |now: Duration, bytes: usize| sums.of(&shop, now, || HashMap::from([(shop.clone(), bytes)]));
        assert_eq!((of(Duration::ZERO, 1), of(SUM_INTERVAL / 2, 2), of(SUM_INTERVAL, 3)), (1, 1, 3));
        assert_eq!(sums.of(&Signer::Fleet, SUM_INTERVAL, HashMap::new), 0);
    }
}
