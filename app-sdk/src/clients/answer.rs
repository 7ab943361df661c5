//! Results combined from the replies of several proxies.

use std::ops::Deref;
use std::time::{Duration, SystemTime};

use crate::error::AskError;

/// Combined result of a query to all proxies, with the time of the query and the proxies that did not reply.
///
/// The value, to which this dereferences, lacks the clients of proxies that did not reply in time.
///
/// ```no_run
/// # async fn f(handle: trunkline::ServerHandle) -> Result<(), Box<dyn std::error::Error>> {
/// let count = handle.hub("chat")?.groups().count("kitchen").await?;
/// match count.is_complete() {
///     true => println!("{} in the kitchen", *count),
///     false => println!("at least {} in the kitchen; {} proxies are silent", *count, count.proxies_missing()),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Answer<T> {
    value: T,
    as_of: SystemTime,
    proxies: usize,
    missing: Missing,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Missing {
    count: usize,
    names: Vec<String>,
}

impl Missing {
    /// Proxies that did not reply to earlier queries of the same list. Only their number is known.
    pub(super) fn unnamed(count: usize) -> Self {
        Self { count, names: Vec::new() }
    }

    pub(super) fn add(&mut self, name: &str) {
        self.count += 1;
        self.names.push(name.to_owned());
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }
}

impl<T> Answer<T> {
    /// Combines the replies of `answered` proxies. Fails with the error of a proxy if no proxy replied.
    pub(super) fn of_any(
        value: T,
        as_of: SystemTime,
        (answered, missing): (usize, Missing),
        failed: Option<AskError>,
    ) -> Result<Self, AskError> {
        match failed {
            Some(error) if answered == 0 => Err(error),
            _ => Ok(Self::new(value, as_of, answered, missing)),
        }
    }

    pub(super) fn new(value: T, as_of: SystemTime, proxies: usize, missing: Missing) -> Self {
        Self { value, as_of, proxies, missing }
    }

    /// Returns the value only.
    #[must_use]
    pub fn into_value(self) -> T {
        self.value
    }

    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Answer<U> {
        Answer { value: change(self.value), as_of: self.as_of, proxies: self.proxies, missing: self.missing }
    }

    /// Time of the query. The value is at least this recent.
    #[must_use]
    pub fn as_of(&self) -> SystemTime {
        self.as_of
    }

    /// Time since the query: the maximum age of the value.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.as_of.elapsed().unwrap_or_default()
    }

    /// Number of proxies that replied.
    #[must_use]
    pub fn proxies(&self) -> usize {
        self.proxies
    }

    /// Number of proxies that did not reply: too slow, disconnected, or too old to support the query.
    #[must_use]
    pub fn proxies_missing(&self) -> usize {
        self.missing.count()
    }

    /// Names (`--node-name`) of the proxies that did not reply. In a list [resumed](crate::Members::resume) from a
    /// token, earlier ones are only [counted](Self::proxies_missing).
    #[must_use]
    pub fn missing(&self) -> &[String] {
        &self.missing.names
    }

    /// Whether all proxies replied.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing.count() == 0
    }
}

impl<T> Deref for Answer<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}
