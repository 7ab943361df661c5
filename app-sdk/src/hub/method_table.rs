//! Methods, hooks and filters of a hub.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::error::BuildError;
use crate::handler::Method;
use crate::handler::filter::Filters;
use crate::handler::hook::ErasedHook;
use crate::handler::policy::Policies;

/// Everything of a hub that can be called.
#[derive(Default)]
pub(crate) struct MethodTable {
    pub(super) by_name: HashMap<Box<str>, Arc<Method>>,
    /// Filters around hooks, and around calls that no method fits.
    pub(crate) filters: Filters,
    /// Policies that clients must meet to connect.
    pub(crate) policies: Policies,
    pub(crate) on_connected: Vec<ErasedHook>,
    pub(crate) on_disconnected: Vec<ErasedHook>,
    pub(crate) on_rehomed: Vec<ErasedHook>,
    pub(crate) on_restored: Vec<ErasedHook>,
    pub(crate) on_leaving: Option<Method>,
}

impl MethodTable {
    /// Finds a method by its name; case does not count.
    pub(crate) fn find(&self, target: &str) -> Option<&Arc<Method>> {
        // Nearly every call is written as the method is, so the lower-case text is seldom made.
        self.by_name.get(target).or_else(|| self.by_name.get(target.to_lowercase().as_str()))
    }

    pub(super) fn add(&mut self, hub: &str, method: Method) -> Result<(), BuildError> {
        let method = Arc::new(method);
        let Entry::Vacant(vacant) = self.by_name.entry(method.name.to_lowercase().into()) else {
            return Err(BuildError::DuplicateMethod { hub: hub.to_owned(), method: method.name.to_string() });
        };
        vacant.insert(Arc::clone(&method));
        self.by_name.insert((&*method.name).into(), method);
        Ok(())
    }
}
