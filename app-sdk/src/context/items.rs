//! Items: values that the app keeps with a connection, by type.

use std::fmt;
use std::sync::Arc;

use crate::connection::Connection;

/// Values of a connection: one of each type, dropped when the connection closes.
///
/// A connection without items costs nothing for them. Values are taken out as clones; put an
/// [`Arc`] of a lock in for what several calls change.
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

    /// Inserts a value, and returns the one of its type that was there.
    pub fn insert<T: Clone + Send + Sync + 'static>(&self, value: T) -> Option<T> {
        self.connection.items().insert(value)
    }

    /// The value of this type.
    #[must_use]
    pub fn get<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        self.connection.items().get().cloned()
    }

    /// Removes and returns the value of this type.
    pub fn remove<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        self.connection.items().remove()
    }
}

impl fmt::Debug for Items {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Items of {}", self.connection.id())
    }
}
