//! Selection of client connections: filters, and cursors into the list across all nodes.

use std::fmt;
use std::str::FromStr;

use crate::engine::shard::Slot;

#[derive(Debug, Clone, Default)]
pub(crate) struct ClientFilter {
    pub hub: Option<String>,
    /// Group within the `hub`.
    pub group: Option<String>,
    pub user: Option<String>,
    pub node: Option<String>,
    pub after: Option<ClientCursor>,
    pub limit: usize,
}

/// Position in the list of all client connections, ordered by node, instance, shard and slot.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClientCursor {
    pub(super) node: String,
    pub(super) instance: String,
    pub(super) shard: u16,
    pub(super) slot: Slot,
}

impl ClientCursor {
    /// Position of the first connection of a node.
    pub(super) fn start_of(node: &str, instance: &str) -> Self {
        Self { node: node.into(), instance: instance.into(), shard: 0, slot: 0 }
    }

    /// Position of a slot at the same node.
    pub(super) fn at(&self, shard: u16, slot: Slot) -> Self {
        Self { shard, slot, ..self.clone() }
    }
}

impl fmt::Display for ClientCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}~{}~{}~{}", self.node, self.instance, self.shard, self.slot)
    }
}

impl FromStr for ClientCursor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let problem = "is not the `next` of a page";
        let mut parts = text.split('~');
        let mut part = || parts.next().ok_or(problem);
        let (node, instance) = (part()?.into(), part()?.into());
        let (shard, slot) = (part()?.parse().map_err(|_| problem)?, part()?.parse().map_err(|_| problem)?);
        if parts.next().is_some() { Err(problem) } else { Ok(Self { node, instance, shard, slot }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_cursors_are_in_order() {
        let at = |node: &str, shard, slot| ClientCursor { node: node.into(), instance: "i".into(), shard, slot };
        assert_eq!(at("a-1", 2, 30).to_string().parse(), Ok(at("a-1", 2, 30)));
        assert!(at("a", 2, 30) < at("a", 3, 0) && at("a", 9, 9) < at("b", 0, 0));
        for wrong in ["", "a~b~c~d", "a~b~1", "a~b~1~2~3", "a~b~70000~1"] {
            assert!(wrong.parse::<ClientCursor>().is_err(), "{wrong}");
        }
    }
}
