//! Address book: addresses of other nodes, from `--peers` and from the greetings of members.
//!
//! A name may resolve to several nodes, and is resolved periodically. Of several addresses of one node, the first is
//! linked; the others are alternatives. Addresses reported by members are dialled while a node answers there, so one
//! address is enough to discover the fleet, and stale addresses expire.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use crate::ground::net::address::Address;
use crate::ground::net::resolver::{AddressFamilies, Resolver};

/// Interval between DNS lookups.
pub(super) const RESOLVE_INTERVAL: Duration = Duration::from_secs(5);

/// Timeout of one DNS lookup.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Number of failed lookups in a row from which a name is a problem; DNS loses single answers.
const FAILED_LOOKUPS_MIN: u32 = 2;

/// Maximum number of addresses dialled concurrently. Further addresses wait.
const ADDRESSES_MAX: usize = 1_024;

/// Why no node can be linked at an address or name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AddressProblem {
    pub address: String,
    pub kind: AddressProblemKind,
    /// Problem and what to check, for people.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddressProblemKind {
    /// No answer, or a name without an address.
    Unreachable,
    /// The clock of the node differs too much.
    ClockDiffers,
    /// An answer, but not of a node of this fleet with a common version.
    NotOfFleet,
}

/// Result of the last attempt to reach a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AddressState {
    /// No answer so far.
    Trying,
    Node,
    /// No node to link with, and why.
    Problem(AddressProblemKind, String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct AddressEntry {
    /// Comes from `--peers`, directly or through DNS.
    is_given: bool,
    /// Whether the first attempt has finished.
    is_tried: bool,
    state: AddressState,
}

#[derive(Debug, Default)]
pub(super) struct AddressBook {
    entries: Mutex<BTreeMap<String, AddressEntry>>,
    /// Names that fail to resolve, with the number of failed lookups in a row and the latest reason.
    unresolved: Mutex<BTreeMap<String, (u32, String)>>,
    /// Address families that answer, by `host:port` of a `--peers` name.
    families: Mutex<BTreeMap<String, AddressFamilies>>,
    is_resolved: AtomicBool,
}

impl AddressBook {
    /// Resolves the names of `--peers` once. Returns new addresses; each needs a dialler.
    pub(super) async fn resolve(&self, names: &[Address], resolver: &Resolver) -> Vec<Address> {
        let mut found = Vec::new();
        for name in names {
            if name.is_one_server() {
                found.push(name.clone());
                continue;
            }
            let problem = match timeout(RESOLVE_TIMEOUT, resolver.resolve(name)).await {
                Ok(Ok(addresses)) => {
                    found.extend(addresses.iter().map(|&at| name.at(at)));
                    addresses.is_empty().then(|| "the name has no address".to_owned())
                }
                Ok(Err(error)) => Some(format!("the name can't be resolved: {error}")),
                Err(_) => Some(format!("the name was not resolved within {} s", RESOLVE_TIMEOUT.as_secs())),
            };
            let mut unresolved = self.unresolved();
            match problem {
                Some(problem) => {
                    let failed = unresolved.entry(name.to_string()).or_default();
                    *failed = (failed.0.saturating_add(1), problem);
                }
                None => drop(unresolved.remove(&name.to_string())),
            }
        }
        let new = self.set_given(&found);
        self.is_resolved.store(true, Ordering::Relaxed);
        new
    }

    /// Replaces the addresses of the `--peers` names. An empty lookup changes nothing.
    fn set_given(&self, found: &[Address]) -> Vec<Address> {
        if found.is_empty() {
            return Vec::new();
        }
        let mut entries = self.entries();
        for (url, entry) in entries.iter_mut() {
            entry.is_given = found.iter().any(|address| address.to_string() == *url);
        }
        found.iter().filter(|address| add_address(&mut entries, address, true)).cloned().collect()
    }

    /// Adds an address reported by a member. Returns `true` if it is new and needs a dialler.
    pub(super) fn record(&self, address: &Address) -> bool {
        add_address(&mut self.entries(), address, false)
    }

    /// Records the result of an attempt. Returns `true` only for the first problem after a success: garbage answers
    /// vary, and each would be logged.
    pub(super) fn set(&self, address: &Address, state: AddressState) -> bool {
        if let Some(at) = address.resolved().filter(|_| state == AddressState::Node && !address.is_one_server()) {
            self.families().entry(address.authority().to_owned()).or_default().note_answer(at);
        }
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&address.to_string()) else { return false };
        let was_problem = matches!(entry.state, AddressState::Problem(..));
        entry.state = state;
        !was_problem && matches!(entry.state, AddressState::Problem(..))
    }

    /// Whether a name has answered only at its addresses of the other family (IPv4 or IPv6) than this one.
    pub(super) fn is_spare(&self, address: &Address) -> bool {
        let (families, at) = (self.families(), address.resolved());
        at.is_some_and(|at| families.get(address.authority()).is_some_and(|families| families.only_other_answers(at)))
    }

    pub(super) fn set_tried(&self, address: &Address) {
        if let Some(entry) = self.entries().get_mut(&address.to_string()) {
            entry.is_tried = true;
        }
    }

    /// Whether the names are resolved and every address has been tried.
    pub(super) fn are_tried(&self) -> bool {
        self.is_resolved.load(Ordering::Relaxed) && self.entries().values().all(|entry| entry.is_tried)
    }

    /// Whether the address is dialled even while no node answers.
    pub(super) fn is_given(&self, address: &Address) -> bool {
        self.entries().get(&address.to_string()).is_some_and(|entry| entry.is_given)
    }

    pub(super) fn forget(&self, address: &Address) {
        self.entries().remove(&address.to_string());
    }

    pub(super) fn problems(&self) -> Vec<AddressProblem> {
        let problem = |address: &String, kind, text: &String| AddressProblem {
            address: address.clone(),
            kind,
            text: text.clone(),
        };
        let names = self.unresolved();
        let failing = names.iter().filter(|(_, (lookups, _))| *lookups >= FAILED_LOOKUPS_MIN);
        let mut problems: Vec<_> =
            failing.map(|(name, (_, why))| problem(name, AddressProblemKind::Unreachable, why)).collect();
        drop(names);
        let entries = self.entries();
        problems.extend(entries.iter().filter(|(_, entry)| entry.is_given).filter_map(
            |(url, entry)| match &entry.state {
                AddressState::Problem(kind, text) => Some(problem(url, *kind, text)),
                AddressState::Trying | AddressState::Node => None,
            },
        ));
        problems
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, AddressEntry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn families(&self) -> MutexGuard<'_, BTreeMap<String, AddressFamilies>> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unresolved(&self) -> MutexGuard<'_, BTreeMap<String, (u32, String)>> {
        self.unresolved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add_address(entries: &mut BTreeMap<String, AddressEntry>, address: &Address, is_given: bool) -> bool {
    if let Some(known) = entries.get_mut(&address.to_string()) {
        known.is_given |= is_given;
        return false;
    }
    if entries.len() >= ADDRESSES_MAX {
        return false;
    }
    entries.insert(address.to_string(), AddressEntry { is_given, is_tried: false, state: AddressState::Trying });
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> Address {
        url.parse().unwrap()
    }

    #[tokio::test]
    async fn a_name_is_as_many_addresses_as_it_has_and_each_gets_one_dialler() {
        let book = AddressBook::default();
        let names = [address("http://proxies:8090"), address("http://127.0.0.1:8090")];
        let two = Resolver::knowing(vec![([10, 0, 0, 1], 8090).into(), ([10, 0, 0, 2], 8090).into()]);
        assert_eq!(book.resolve(&names, &two).await.len(), 3);
        assert!(book.resolve(&names, &two).await.is_empty());
        let one = Resolver::knowing(vec![([10, 0, 0, 2], 8090).into()]);
        assert!(book.resolve(&names, &one).await.is_empty());
        let gone = names[0].at(([10, 0, 0, 1], 8090).into());
        assert!(!book.is_given(&gone) && book.is_given(&names[0].at(([10, 0, 0, 2], 8090).into())));
    }

    #[tokio::test]
    async fn a_name_that_leads_nowhere_is_a_problem_and_changes_nothing() {
        let (book, name) = (AddressBook::default(), address("http://proxies:8090"));
        let at = name.at(([10, 0, 0, 1], 8090).into());
        book.resolve(std::slice::from_ref(&name), &Resolver::knowing(vec![([10, 0, 0, 1], 8090).into()])).await;
        let fails = async || drop(book.resolve(std::slice::from_ref(&name), &Resolver::knowing(Vec::new())).await);
        fails().await;
        assert!(book.is_given(&at) && book.problems().is_empty(), "one lost answer");
        fails().await;
        assert!(book.is_given(&at));
        let [problem] = &book.problems()[..] else { panic!("one problem") };
        assert_eq!((problem.address.as_str(), problem.kind), (&*name.to_string(), AddressProblemKind::Unreachable));
        assert_eq!(problem.text, "the name has no address");
    }

    #[test]
    fn an_unreachable_address_reported_by_a_member_is_no_problem() {
        let (book, told) = (AddressBook::default(), address("http://10.0.0.9:8090"));
        assert!(book.record(&told) && !book.record(&told) && !book.is_given(&told));
        assert!(book.set(&told, AddressState::Problem(AddressProblemKind::Unreachable, "refused".into())));
        assert!(
            !book.set(&told, AddressState::Problem(AddressProblemKind::Unreachable, "silent".into())),
            "it was one before"
        );
        assert!(!book.set(&told, AddressState::Node));
        assert!(book.set(&told, AddressState::Problem(AddressProblemKind::Unreachable, "refused".into())));
        assert!(book.problems().is_empty());
        book.forget(&told);
        assert!(book.record(&told));
    }

    #[test]
    fn so_many_addresses_are_dialled_and_no_more() {
        let book = AddressBook::default();
        let learnt =
            (0..2 * ADDRESSES_MAX).filter(|port| book.record(&address(&format!("http://10.0.0.1:{port}")))).count();
        assert_eq!(learnt, ADDRESSES_MAX);
    }
}
