//! Answers that are put together from those of several proxies.

use std::ops::Deref;
use std::time::{Duration, SystemTime};

use crate::error::AskError;

/// Answer of a hub's proxies to a question, with the time of the question and the number of proxies that are missing in
/// it.
///
/// Each proxy knows its own clients, so the clients of a proxy that did not answer in time are missing in the value. It
/// dereferences to the value.
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

/// Proxies that did not answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Missing {
    count: usize,
    /// Names of those that are known.
    names: Vec<String>,
}

impl Missing {
    /// Proxies that did not answer to former questions of the same list; only their number is known.
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
    /// The answer that so many proxies have given together.
    ///
    /// # Errors
    /// That of a proxy, when none has answered.
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

    /// The value, without the rest.
    #[must_use]
    pub fn into_value(self) -> T {
        self.value
    }

    /// The answer with another value that is made of this one.
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Answer<U> {
        Answer { value: change(self.value), as_of: self.as_of, proxies: self.proxies, missing: self.missing }
    }

    /// Time at which the question was asked: the value is no older.
    #[must_use]
    pub fn as_of(&self) -> SystemTime {
        self.as_of
    }

    /// Time since the question was asked: the value is at most that old.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.as_of.elapsed().unwrap_or_default()
    }

    /// Number of proxies that answered.
    #[must_use]
    pub fn proxies(&self) -> usize {
        self.proxies
    }

    /// Number of proxies that did not answer: too slow, lost meanwhile, or older than this kind of question.
    #[must_use]
    pub fn proxies_missing(&self) -> usize {
        self.missing.count()
    }

    /// Names of the proxies that did not answer (`--node-name`). Of a list that was [resumed](crate::Members::resume)
    /// by a token, those before it are only [counted](Self::proxies_missing).
    #[must_use]
    pub fn missing(&self) -> &[String] {
        &self.missing.names
    }

    /// Whether all proxies answered.
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
