//! Items: values that the app stores with a connection, one per type.

use std::sync::Arc;

use crate::brief_debug::brief_debug;
use crate::connection::Connection;

/// Values of a connection: one per type, dropped when the connection closes.
///
/// Without items, they use no memory. Values are returned as clones; for a value that several calls change, insert an
/// [`Arc`] of a lock.
///
/// ```
/// use trunkline::{Context, HubError};
///
/// #[derive(Clone)]
/// struct Nickname(String);
///
/// async fn rename(ctx: Context, name: String) {
///     ctx.items().insert(Nickname(name));
/// }
///
/// async fn say(ctx: Context, text: String) -> Result<(), HubError> {
///     let Nickname(name) = ctx.items().get().ok_or_else(|| HubError::new("who are you?"))?;
///     ctx.clients().all().send("Said", (name, text)).await?;
///     Ok(())
/// }
/// # let _ = trunkline::Hub::<()>::new("/chat").method("Rename", rename).method("Say", say);
/// ```
#[derive(Clone)]
pub struct Items {
    connection: Arc<Connection>,
}

impl Items {
    pub(crate) fn new(connection: &Arc<Connection>) -> Self {
        Self { connection: Arc::clone(connection) }
    }

    /// Inserts a value and returns the previous value of its type.
    pub fn insert<T: Clone + Send + Sync + 'static>(&self, value: T) -> Option<T> {
        self.connection.items().insert(value)
    }

    /// Returns the value of this type.
    #[must_use]
    pub fn get<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        self.connection.items().get().cloned()
    }

    /// Returns the value of this type. If it is missing, inserts the result of `make`.
    ///
    /// Concurrent calls get the same value. `make` runs without a lock and may use the items itself; of two concurrent
    /// results, one is dropped.
    ///
    /// ```
    /// # use std::sync::{Arc, atomic::{AtomicU32, Ordering}};
    /// # use trunkline::Context;
    /// #[derive(Clone, Default)]
    /// struct Calls(Arc<AtomicU32>);
    ///
    /// async fn count(ctx: Context) -> u32 {
    ///     ctx.items().get_or_insert_with(Calls::default).0.fetch_add(1, Ordering::Relaxed)
    /// }
    /// # let _ = trunkline::Hub::<()>::new("/counter").method("Count", count);
    /// ```
    pub fn get_or_insert_with<T: Clone + Send + Sync + 'static>(&self, make: impl FnOnce() -> T) -> T {
        if let Some(present) = self.get() {
            return present;
        }
        let made = make();
        let mut items = self.connection.items();
        match items.get().cloned() {
            Some(present) => {
                // Unlock before dropping `made`, which runs app code.
                drop(items);
                present
            }
            None => {
                items.insert(made.clone());
                made
            }
        }
    }

    /// Removes and returns the value of this type.
    pub fn remove<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        self.connection.items().remove()
    }
}

brief_debug!(Items, |it| "Items of {}", it.connection.id());
