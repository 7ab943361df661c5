//! Methods, hooks and filters of a hub.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::error::BuildError;
use crate::handler::Method;
use crate::handler::filter::Filters;

/// Everything of a hub that can be called.
#[derive(Default)]
pub(crate) struct MethodTable {
    pub(super) by_name: HashMap<Box<str>, Arc<Method>>,
    pub(crate) filters: Filters,
    pub(crate) on_connected: Vec<Method>,
    pub(crate) on_disconnected: Vec<Method>,
    pub(crate) on_rehomed: Vec<Method>,
    pub(crate) on_leaving: Option<Method>,
}

impl MethodTable {
    /// Finds a method by its name; case does not count.
    pub(crate) fn find(&self, target: &str) -> Option<&Arc<Method>> {
        // Nearly every call is written as the method is, so the lower-case text is seldom made.
        self.by_name.get(target).or_else(|| self.by_name.get(target.to_lowercase().as_str()))
    }

    pub(super) fn add(&mut self, hub: &str, name: &str, method: Method) -> Result<(), BuildError> {
        let method = Arc::new(method);
        let Entry::Vacant(vacant) = self.by_name.entry(name.to_lowercase().into()) else {
            return Err(BuildError::DuplicateMethod { hub: hub.to_owned(), method: name.to_owned() });
        };
        vacant.insert(Arc::clone(&method));
        self.by_name.insert(name.into(), method);
        Ok(())
    }
}
