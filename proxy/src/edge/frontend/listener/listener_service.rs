//! Service behind a listener: the router, and shortcuts around it.

use std::sync::Arc;

use axum::Router;
use tokio::sync::mpsc::Sender;

use crate::edge::frontend::endpoint::Endpoint;
use crate::engine::shard::AppSocket;

#[derive(Debug, Clone)]
pub(crate) struct ListenerService {
    pub router: Router,
    /// Endpoint that handles WebSocket connects without the router, if any.
    pub connects: Option<Arc<Endpoint>>,
    /// App that gets all other sockets; `None` if the router serves them.
    pub app: Option<Sender<AppSocket>>,
}
