//! Lost connection that a new connection restores.

use std::future::{self, Future};
use std::time::Duration;

use trunkline_protocol::cause::Cause;

use crate::call::marker::ViaCall;
use crate::call::{Call, FromCall};
use crate::connection::RestoredFrom;
use crate::error::HubError;

/// Lost connection with restored groups and items, for [`Hub::on_restored`](crate::Hub::on_restored).
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
    /// Downtime of the client, during which it may have missed messages. Measured from the last moment at which the
    /// client was certainly connected: never too short, but too long by the time it takes to detect the loss.
    #[must_use]
    pub fn gone_for(&self) -> Duration {
        self.0.gone_for
    }

    /// ID of the lost connection.
    #[must_use]
    pub fn connection_id(&self) -> &str {
        &self.0.connection_id
    }

    /// Cause of the loss; [`Cause::Restored`] if the loss was not detected before the client returned.
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
