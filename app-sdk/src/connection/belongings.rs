//! State of a connection in a hub that restores lost clients: its groups, and the lost connection that it restores.
//!
//! Stored among the connection's items, under types that the app cannot name, so that connections of other hubs use no
//! memory for it.

use std::collections::BTreeSet;
use std::time::Duration;

use bytestring::ByteString;
use http::Extensions;
use trunkline_protocol::cause::Cause;

/// Groups of a connection, as known to its app server.
#[derive(Debug, Clone, Default)]
struct JoinedGroups(BTreeSet<ByteString>);

/// Lost connection. Its groups and items were restored on a new one.
#[derive(Debug, Clone)]
pub(crate) struct RestoredFrom {
    pub(crate) connection_id: ByteString,
    pub(crate) cause: Cause,
    pub(crate) gone_for: Duration,
}

pub(super) fn join(items: &mut Extensions, group: ByteString) {
    if items.get::<JoinedGroups>().is_none() {
        items.insert(JoinedGroups::default());
    }
    if let Some(JoinedGroups(groups)) = items.get_mut() {
        groups.insert(group);
    }
}

/// Records that a connection has left one group or all.
pub(super) fn leave(items: &mut Extensions, group: Option<&str>) {
    if let (Some(group), Some(JoinedGroups(groups))) = (group, items.get_mut()) {
        groups.remove(group);
    } else {
        items.remove::<JoinedGroups>();
    }
}

pub(super) fn take_groups(items: &mut Extensions) -> Vec<ByteString> {
    items.remove().map(|JoinedGroups(groups)| groups.into_iter().collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_stored_among_the_items_until_taken() {
        let mut items = Extensions::new();
        leave(&mut items, Some("none"));
        for group in ["red", "blue", "red", "green"] {
            join(&mut items, group.into());
        }
        leave(&mut items, Some("blue"));
        assert_eq!(take_groups(&mut items), ["green", "red"]);
        assert!(items.is_empty());
        join(&mut items, "red".into());
        leave(&mut items, None);
        assert!(take_groups(&mut items).is_empty());
    }
}
