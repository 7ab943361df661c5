//! Origin of a connection that was reassigned from another app server or link.

use std::future::{self, Future};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use trunkline_protocol::hub::{HubProtocol, Payload};
use trunkline_protocol::wire::{ITEMS_HEADER, MIGRATE_FROM_HEADER};

use crate::call::marker::ViaCall;
use crate::call::{Call, FromCall};
use crate::connection::ConnectRequest;
use crate::error::HubError;

/// Maximum size of a connection's items. They travel in a header, once per connection.
pub(crate) const ITEMS_MAX_BYTES: usize = 16 * 1024;

/// Origin of a reassigned connection and the items that were handed over, for
/// [`Hub::on_rehomed`](crate::Hub::on_rehomed), and for raw connections with
/// [`RawConnection::rehomed`](crate::RawConnection::rehomed).
///
/// ```
/// use trunkline::{Context, Hub, HubError, Rehomed};
///
/// #[derive(Clone, serde::Serialize, serde::Deserialize)]
/// struct Nickname(String);
///
/// async fn leaving(ctx: Context) -> Option<Nickname> {
///     ctx.items().get()
/// }
///
/// async fn rehomed(ctx: Context, moved: Rehomed) -> Result<(), HubError> {
///     if let Some(name) = moved.items::<Option<Nickname>>()?.flatten() {
///         ctx.items().insert(name);
///     }
///     Ok(())
/// }
///
/// let hub: Hub = Hub::new("/chat").on_leaving(leaving).on_rehomed(rehomed);
/// ```
#[derive(Debug, Clone)]
pub struct Rehomed {
    from: String,
    items: Option<Payload>,
    protocol: HubProtocol,
}

impl Rehomed {
    /// The [instance](crate::ServerHandle::instance) that served the connection before: the current one if only its
    /// link was lost, so that its [items](crate::Context::items) still exist.
    #[must_use]
    pub fn from(&self) -> &str {
        &self.from
    }

    /// Result of [`on_leaving`](crate::Hub::on_leaving) on the previous app server, or the value given to
    /// [`RawConnection::hand_over`](crate::RawConnection::hand_over); `None` without one, for example after a
    /// crash.
    ///
    /// # Errors
    /// If the value has another type.
    pub fn items<T: DeserializeOwned>(&self) -> Result<Option<T>, HubError> {
        let read = |items| self.protocol.value(items).map_err(|error| HubError::invalid_data(error.to_string()));
        self.items.as_ref().map(read).transpose()
    }

    pub(crate) fn of(request: &ConnectRequest, protocol: HubProtocol) -> Option<Self> {
        let from = request.header(MIGRATE_FROM_HEADER)?.to_string();
        let items = request.header(ITEMS_HEADER).and_then(|items| URL_SAFE_NO_PAD.decode(&*items).ok());
        Some(Self { from, items: items.map(|items| Payload::new(items.into())), protocol })
    }
}

/// Encodes items for their header. Returns `None` if they are too large.
pub(crate) fn wrap(items: &Payload) -> Option<String> {
    let bytes = items.as_bytes();
    (bytes.len() <= ITEMS_MAX_BYTES).then(|| URL_SAFE_NO_PAD.encode(bytes))
}

#[diagnostic::do_not_recommend]
impl<S: Send> FromCall<S, ViaCall> for Rehomed {
    fn from_call(call: &mut Call<S>) -> impl Future<Output = Result<Self, HubError>> + Send {
        let connection = call.context().scope().connection();
        let rehomed = Self::of(connection.request(), connection.protocol());
        future::ready(rehomed.ok_or_else(|| HubError::named("NotRehomed", "this connection began here")))
    }
}
