//! Typed calls to clients: a trait with the client methods.

use super::client::{Client, ClientAnswer};
use super::receivers::Receivers;
use crate::encode::Arguments;
use crate::error::InvokeError;

/// Receivers of typed calls. Implementation detail of [`client_interface!`](macro@crate::client_interface).
pub trait Target: sealed::SealedReceivers + Send + Sync {
    /// Receivers of the call.
    fn receivers(&self) -> &Receivers;
}

/// A client that can be invoked for a result. Implementation detail of
/// [`client_interface!`](macro@crate::client_interface).
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be invoked for a result",
    label = "only a single client can return a result",
    note = "choose a client by `clients().client(connection_id)`, or declare the function without a result to send it \
            to many clients"
)]
pub trait Askable: Target {
    /// The client to invoke.
    fn client(&self) -> &Client;
}

impl Receivers {
    /// Fails to compile, so that the compiler explains how to select a single client, instead of reporting "no method
    /// named `invoke`".
    #[doc(hidden)]
    pub async fn invoke<T: ClientAnswer>(&self, method: &str, arguments: impl Arguments) -> Result<T, InvokeError>
    where
        for<'a> &'a Self: Askable,
    {
        (&self).client().invoke(method, arguments).await
    }
}

mod sealed {
    pub trait SealedReceivers {}
    impl SealedReceivers for super::Receivers {}
    impl SealedReceivers for super::Client {}
}

impl Target for Receivers {
    fn receivers(&self) -> &Receivers {
        self
    }
}

impl Target for Client {
    fn receivers(&self) -> &Receivers {
        self
    }
}

#[diagnostic::do_not_recommend]
impl Askable for Client {
    fn client(&self) -> &Client {
        self
    }
}
