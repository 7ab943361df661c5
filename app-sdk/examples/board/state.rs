//! State of the app: what its methods and requests share.

use trunkline::ServerHandle;

use crate::store::Store;

/// The store, and the handle by which requests and log-ins reach hubs and keys.
#[derive(Debug, Clone)]
pub(crate) struct Board {
    pub(crate) store: Store,
    pub(crate) server: ServerHandle,
}
