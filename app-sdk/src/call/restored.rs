//! Lost connection that a new one restores.

use std::future::{self, Future};
use std::time::Duration;

use trunkline_protocol::cause::Cause;

use crate::call::marker::ViaCall;
use crate::call::{Call, FromCall};
use crate::connection::RestoredFrom;
use crate::error::HubError;

/// Lost connection whose groups and items this one has got; for [`Hub::on_restored`](crate::Hub::on_restored).
///
/// ```
/// use std::time::Duration;
/// use trunkline::{Context, Hub, HubError, Restored};
///
/// async fn restored(ctx: Context, restored: Restored) -> Result<(), HubError> {
///     let since = restored.gone_for().as_secs();
///     ctx.clients().caller().send("CatchUp", (since,)).await?;
///     Ok(())
/// }
///
/// let hub: Hub = Hub::new("/chat").restore_groups(Duration::from_secs(60)).on_restored(restored);
/// ```
#[derive(Debug, Clone)]
pub struct Restored(RestoredFrom);

impl Restored {
    /// Time for which the client was gone: it may have missed what was sent to it then. It counts from the last moment
    /// at which the client was certainly there, so it may be too long, by as long as it takes to notice that a
    /// connection is lost, and is never too short.
    #[must_use]
    pub fn gone_for(&self) -> Duration {
        self.0.gone_for
    }

    /// Id of the lost connection.
    #[must_use]
    pub fn connection_id(&self) -> &str {
        &self.0.connection_id
    }

    /// Cause for which the lost connection ended: [`Cause::Restored`] if nobody had noticed the loss before its client
    /// came.
    #[must_use]
    pub fn cause(&self) -> Cause {
        self.0.cause
    }
}

#[diagnostic::do_not_recommend]
impl<S: Send> FromCall<S, ViaCall> for Restored {
    fn from_call(call: &mut Call<S>) -> impl Future<Output = Result<Self, HubError>> + Send {
        let restored = call.context().scope().connection().items().get::<RestoredFrom>().cloned();
        future::ready(restored.map(Self).ok_or_else(|| HubError::named("NotRestored", "this connection restores none")))
    }
}
