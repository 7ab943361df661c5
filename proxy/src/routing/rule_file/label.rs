//! Labels of rules: their names, else their places, counted from 1.

use std::collections::HashSet;
use std::sync::Arc;

use super::group_entry::checked_name;
use super::toml_value::TomlTable;
use crate::routing::rule_error::{Fault, RuleProblem};

/// Labels of the rules of one kind, in their order.
#[derive(Debug, Default)]
pub(super) struct Labels {
    count: usize,
    taken: HashSet<Arc<str>>,
}

impl Labels {
    /// Takes the label of the next rule.
    pub(super) fn take(&mut self, table: &mut TomlTable<'_>) -> Result<Arc<str>, Fault> {
        self.count += 1;
        let (label, at) = match table.take("name") {
            Some(value) => (checked_name("name", value.text()?).map_err(|problem| value.fault(problem))?, value.at),
            None => (self.count.to_string().into(), table.at),
        };
        match self.taken.insert(label.clone()) {
            true => Ok(label),
            false => Err(RuleProblem::Duplicate { key: "name", text: label.to_string() }.at(at)),
        }
    }
}
