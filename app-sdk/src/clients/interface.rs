//! Typed calls to clients: a trait with the methods that clients offer.

use super::client::Client;
use super::receivers::Receivers;

/// Receivers of typed calls. Made for [`client_interface!`](macro@crate::client_interface).
pub trait Target: sealed::SealedReceivers + Send + Sync {
    /// The receivers of the call.
    fn receivers(&self) -> &Receivers;
}

/// Client that can be asked for a result. Made for [`client_interface!`](macro@crate::client_interface).
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be asked for a result",
    label = "only a single client can be asked",
    note = "pick one by `clients().client(connection_id)`, or declare the function without a result: it can be sent to many then"
)]
pub trait Askable: Target {
    /// The client that is asked.
    fn client(&self) -> &Client;
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
