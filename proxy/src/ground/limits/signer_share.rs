//! Shares of token signers in common tables.
//!
//! With app keys, a signer has a fair share: one app alone gets half of a table, two apps a third each, and the last
//! quarter is for apps with few entries. With access keys only, the single signer may fill the table.

use std::time::Duration;

use crate::ground::auth::Signer;
use crate::ground::bounded::{Full, Permit, Permits, fair_share};

/// Minimum idle time before a full table evicts a hub or an app server without links and clients. Pending uses complete
/// within this time.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// Signer that requests a table entry, and its share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignerShare {
    pub(crate) signer: Signer,
    /// Whether other apps use the same tables.
    pub(crate) has_others: bool,
}

/// Error: the table is full, or the signer's share is used up.
pub(crate) type TableFull = Full<Signer>;

impl SignerShare {
    pub(crate) const fn new(signer: Signer, has_others: bool) -> Self {
        Self { signer, has_others }
    }

    /// Amount that the signer may have of a total of which this much is used.
    pub(crate) fn of(&self, total: usize, used: usize) -> usize {
        if self.has_others { fair_share(total, total.saturating_sub(used)) } else { total }
    }

    /// Checks that neither the table nor the signer's share is full.
    pub(crate) fn check(&self, places: usize, taken: usize, own: usize) -> Result<(), TableFull> {
        if taken >= places {
            return Err(Full { limit: places, key: None });
        }
        let is_full = own >= self.of(places, taken);
        if is_full { Err(Full { limit: own, key: Some(self.signer.clone()) }) } else { Ok(()) }
    }

    pub(crate) fn take(&self, permits: &Permits<Signer>) -> Result<Permit<Signer>, TableFull> {
        permits.take_within(self.of(permits.limit(), permits.len()), Some(self.signer.clone()))
    }
}

impl Full<Signer> {
    pub(crate) fn label(&self) -> &str {
        self.key.as_ref().map_or("(node)", Signer::label)
    }

    /// Describes the limit, as in `500 hubs by the key of app shop, which is the most for one key`.
    pub(crate) fn describe(&self, places: &str) -> String {
        let limit = self.limit;
        match &self.key {
            None => format!("{limit} {places}, which is the most"),
            Some(signer) => format!("{limit} {places} by {signer}, which is the most for one key"),
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
            let table = Permits::new(8, 8);
            let fleet = share("", has_others);
            let taken: Vec<_> = (0..most).map(|_| fleet.take(&table).unwrap()).collect();
            assert_eq!(fleet.take(&table).unwrap_err().describe("hubs"), refusal);
            drop(taken);
            assert!(fleet.take(&table).is_ok() && table.len() == 0);
        }
    }

    #[test]
    fn apps_with_many_entries_leave_room_for_apps_with_few() {
        let table = Permits::new(16, 16);
        let take = |app: &str| share(app, true).take(&table);
        let all = |app: &str| std::iter::from_fn(|| take(app).ok()).collect::<Vec<_>>();
        let (shop, news, chat) = (all("shop"), all("news"), all("chat"));
        assert_eq!([shop.len(), news.len(), chat.len()], [8, 4, 2]);
        assert!(take("mail").is_ok());
        let check = |own| share("mail", true).check(16, 14, own);
        assert!(check(1).is_ok() && check(2).is_err());
        assert_eq!(
            share("mail", true).check(16, 16, 0).unwrap_err().describe("places"),
            "16 places, which is the most"
        );
        drop((shop, news, chat));
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_table_may_have_a_limit_for_each() {
        let table = Permits::new(8, 2);
        let _taken = [share("", false).take(&table).unwrap(), share("", false).take(&table).unwrap()];
        let refusal = share("", false).take(&table).unwrap_err().describe("calls");
        assert_eq!(refusal, "2 calls by the access key, which is the most for one key");
    }
}
