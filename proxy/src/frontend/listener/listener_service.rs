//! Service behind a listener: the router, and shortcuts around it.

use std::sync::Arc;

use axum::Router;
use tokio::sync::mpsc::Sender;

use crate::frontend::endpoint::Endpoint;
use crate::shard::AppSocket;

/// Service of the requests that come by a listener.
#[derive(Debug, Clone)]
pub(crate) struct ListenerService {
    pub router: Router,
    /// Endpoint that answers WebSocket connects without the router, as the router would; `None` where there are none.
    pub connects: Option<Arc<Endpoint>>,
    /// The app that gets the sockets which bring something else; `None` where the router serves them.
    pub app: Option<Sender<AppSocket>>,
}
