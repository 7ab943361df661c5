//! State of the app.

use std::sync::Arc;

use tokio::sync::{Notify, broadcast};

#[derive(Clone)]
pub(crate) struct Web {
    pub(crate) name: Arc<str>,
    pub(crate) events: broadcast::Sender<String>,
    pub(crate) abandoned: Arc<Notify>,
}
