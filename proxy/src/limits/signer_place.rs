//! Places in tables that all signers of tokens fill, and the share of each.
//!
//! Where apps have keys, one signer may take a half of a table and no more: whatever the app servers, clients and back
//! ends of one app do, all others together have as much. A half, because one app is often much larger than the others,
//! and a smaller part would refuse it what was free. With access keys alone there is one signer, who may take all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::auth::Signer;

/// Time after which a full table of hubs or app servers evicts one without links and clients: what was about to use it
/// has done so by then.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// Signer that wants a place, and how much it may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignerShare {
    signer: Signer,
    /// Whether apps have keys.
    has_others: bool,
}

/// Refusal of a place: whose are taken, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableFull {
    most: usize,
    /// The signer whose share is taken; `None` if all places are.
    signer: Option<Signer>,
}

impl SignerShare {
    #[must_use]
    pub(crate) const fn new(signer: Signer, has_others: bool) -> Self {
        Self { signer, has_others }
    }

    #[must_use]
    pub(crate) fn signer(&self) -> &Signer {
        &self.signer
    }

    /// Number of places that the signer may have in a table with so many.
    #[must_use]
    pub(crate) fn of(&self, places: usize) -> usize {
        if self.has_others { places / 2 } else { places }
    }

    /// Checks that the signer may have one more of these places.
    ///
    /// # Errors
    /// When its own, or all of them, are taken.
    pub(crate) fn check(&self, places: usize, taken: usize, own: usize) -> Result<(), TableFull> {
        if taken >= places {
            return Err(TableFull { most: places, signer: None });
        }
        let most = self.of(places);
        if own >= most { Err(TableFull { most, signer: Some(self.signer.clone()) }) } else { Ok(()) }
    }
}

impl TableFull {
    /// Signer that has its share; `None` if all places are taken.
    #[must_use]
    pub(crate) fn signer(&self) -> Option<&Signer> {
        self.signer.as_ref()
    }

    /// Says which places are taken, as in `500 hubs by the key of app shop, which is the most for one key`.
    #[must_use]
    pub(crate) fn describe(&self, places: &str) -> String {
        let most = self.most;
        match &self.signer {
            None => format!("{most} {places}, which is the most"),
            Some(signer) => format!("{most} {places} by {signer}, which is the most for one key"),
        }
    }
}

/// Table of places; its clones are one.
#[derive(Debug, Clone)]
pub(crate) struct SignerPlaces(Arc<PlacesOfSigners>);

#[derive(Debug)]
struct PlacesOfSigners {
    places: usize,
    /// Most places of one signer, whatever its share.
    each_max: usize,
    taken: Mutex<TakenBySigner>,
}

#[derive(Debug, Default)]
struct TakenBySigner {
    all: usize,
    by_signer: HashMap<Signer, usize>,
}

/// One place; dropping it frees it.
#[derive(Debug)]
pub(crate) struct SignerPlace {
    table: SignerPlaces,
    signer: Signer,
}

impl SignerPlaces {
    /// Makes a table with so many places, of which one signer gets no more than `each_max`.
    #[must_use]
    pub(crate) fn new(places: usize, each_max: usize) -> Self {
        Self(Arc::new(PlacesOfSigners { places, each_max, taken: Mutex::default() }))
    }

    /// Takes a place.
    ///
    /// # Errors
    /// When the signer has as many as it may have, or none is free.
    pub(crate) fn take(&self, share: &SignerShare) -> Result<SignerPlace, TableFull> {
        let PlacesOfSigners { places, each_max, .. } = *self.0;
        let mut taken = self.taken();
        let own = taken.by_signer.get(share.signer()).copied().unwrap_or_default();
        share.check(places, taken.all, own)?;
        if own >= each_max {
            return Err(TableFull { most: each_max, signer: Some(share.signer().clone()) });
        }
        taken.all += 1;
        *taken.by_signer.entry(share.signer().clone()).or_default() += 1;
        Ok(SignerPlace { table: self.clone(), signer: share.signer().clone() })
    }

    fn taken(&self) -> MutexGuard<'_, TakenBySigner> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SignerPlace {
    fn drop(&mut self) {
        let mut taken = self.table.taken();
        taken.all -= 1;
        if let Some(own) = taken.by_signer.get_mut(&self.signer) {
            *own -= 1;
            if *own == 0 {
                taken.by_signer.remove(&self.signer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(app: &str, has_others: bool) -> SignerShare {
        let signer = if app.is_empty() { Signer::Fleet } else { Signer::App(app.into()) };
        SignerShare::new(signer, has_others)
    }

    #[test]
    fn a_signer_has_a_half_where_apps_have_keys_and_all_where_none_has() {
        for (has_others, most, refusal) in [
            (false, 8, "8 hubs, which is the most"),
            (true, 4, "4 hubs by the access key, which is the most for one key"),
        ] {
            let table = SignerPlaces::new(8, 8);
            let fleet = share("", has_others);
            let taken: Vec<_> = (0..most).map(|_| table.take(&fleet).unwrap()).collect();
            assert_eq!(table.take(&fleet).unwrap_err().describe("hubs"), refusal);
            drop(taken);
            assert!(table.take(&fleet).is_ok() && table.taken().by_signer.is_empty());
        }
    }

    #[test]
    fn what_one_app_takes_leaves_a_half_to_others() {
        let table = SignerPlaces::new(8, 8);
        let take = |app: &str| table.take(&share(app, true));
        let shop: Vec<_> = std::iter::from_fn(|| take("shop").ok()).collect();
        let others: Vec<_> = ["news", "chat", "news", "chat"].map(|app| take(app).unwrap()).into();
        assert_eq!(shop.len(), 4);
        assert_eq!(take("news").unwrap_err().describe("places"), "8 places, which is the most");
        drop((shop, others));
        assert_eq!(table.taken().all, 0);
    }

    #[test]
    fn a_table_may_have_a_limit_for_each() {
        let table = SignerPlaces::new(8, 2);
        let _taken = [table.take(&share("", false)).unwrap(), table.take(&share("", false)).unwrap()];
        let refusal = table.take(&share("", false)).unwrap_err().describe("calls");
        assert_eq!(refusal, "2 calls by the access key, which is the most for one key");
    }
}
