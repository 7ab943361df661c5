//! Table of known members, readable without a lock.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tracing::info;
use trunkline_protocol::fleet::{Greeting, view_of};

use super::fleet_member::FleetMember;
use crate::ground::net::address::Address;

/// Maximum number of members. Real fleets are far smaller; the limit bounds the cost of a mistake.
const MEMBERS_MAX: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct MemberTable(ArcSwap<Vec<Arc<FleetMember>>>);

impl MemberTable {
    pub(super) fn all(&self) -> Arc<Vec<Arc<FleetMember>>> {
        self.0.load_full()
    }

    pub(super) fn find(&self, boot: &str) -> Option<Arc<FleetMember>> {
        self.0.load().iter().find(|member| member.boot() == boot).cloned()
    }

    /// Returns the member for a greeting, new or known; `None` at the limit. Removes an earlier start with the same
    /// name and address.
    pub(super) fn meet(&self, greeting: &Greeting, address: Option<&Address>) -> Option<Arc<FleetMember>> {
        if let Some(known) = self.find(&greeting.boot) {
            if let Some(address) = address {
                known.set_address(address);
            }
            return Some(known);
        }
        let all = self.all();
        if all.len() >= MEMBERS_MAX {
            return None;
        }
        for former in all.iter().filter(|member| is_former_start(member, greeting, address)) {
            info!(peer = former.name(), "the node has restarted");
            former.links.living().for_each(|link| link.give_up());
        }
        let member = Arc::new(FleetMember::new(greeting, address.cloned()));
        let mut members: Vec<_> = all.iter().cloned().chain([member.clone()]).collect();
        members.sort_by(|one, other| (one.name(), one.boot()).cmp(&(other.name(), other.boot())));
        self.0.store(Arc::new(members));
        Some(member)
    }

    pub(super) fn remove_gone(&self) -> Vec<Arc<FleetMember>> {
        let all = self.all();
        let (staying, gone): (Vec<_>, Vec<_>) = all.iter().cloned().partition(|member| !member.is_gone());
        if !gone.is_empty() {
            self.0.store(Arc::new(staying));
        }
        gone
    }

    /// Hash of this node and the members linked in both directions.
    pub(super) fn view(&self, own_boot: &str) -> u64 {
        let all = self.0.load();
        let linked = all.iter().filter(|member| member.links.are_complete()).map(|member| member.boot());
        view_of(linked.chain([own_boot]))
    }
}

fn is_former_start(member: &FleetMember, greeting: &Greeting, address: Option<&Address>) -> bool {
    let at_its_address = address.is_some() && member.address().as_deref() == address;
    member.name() == greeting.name && at_its_address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting(name: &str, boot: &str) -> Greeting {
        Greeting { name: name.into(), boot: boot.into(), ..Greeting::default() }
    }

    #[test]
    fn a_node_is_one_member_however_often_and_wherever_it_is_met() {
        let table = MemberTable::default();
        let (one, other) = ("http://a:1".parse().unwrap(), "http://b:1".parse().unwrap());
        let met = table.meet(&greeting("a", "1"), Some(&one)).unwrap();
        let again = table.meet(&greeting("a", "1"), Some(&other)).unwrap();
        assert!(Arc::ptr_eq(&met, &again) && again.address().as_deref() == Some(&other));
        table.meet(&greeting("a", "1"), None);
        assert_eq!((table.all().len(), met.address().as_deref()), (1, Some(&other)));
    }

    #[tokio::test(start_paused = true)]
    async fn members_are_by_name_and_go_some_time_after_their_links() {
        let table = MemberTable::default();
        for (name, boot) in [("c", "3"), ("a", "1"), ("b", "2")] {
            table.meet(&greeting(name, boot), None).unwrap();
        }
        assert_eq!(table.all().iter().map(|member| member.name()).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(table.view("own"), view_of(["own"].into_iter()), "without links none is seen");
        table.find("2").unwrap().set_left();
        assert_eq!((table.remove_gone().len(), table.all().len()), (1, 2), "who has left is gone at once");
        tokio::time::advance(std::time::Duration::from_secs(11)).await;
        assert_eq!((table.remove_gone().len(), table.all().len()), (2, 0));
    }
}
