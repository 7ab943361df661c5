//! State shared by hub methods and HTTP requests.

use trunkline::ServerHandle;

use crate::store::Store;

/// The store, and a handle for access to hubs and token keys.
#[derive(Debug, Clone)]
pub(crate) struct Board {
    pub(crate) store: Store,
    pub(crate) server: ServerHandle,
}
