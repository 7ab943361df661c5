//! State shared by the handlers of page and API.

use std::sync::Arc;

use super::guard::Guard;
use crate::edge::observer::Observer;
use crate::features::webhook::Webhooks;
use crate::ground::config::LogLevels;

#[derive(Debug, Clone)]
pub(super) struct AdminContext {
    pub(super) observer: Observer,
    pub(super) webhooks: Arc<Webhooks>,
    pub(super) guard: Guard,
    pub(super) log: Option<&'static dyn LogLevels>,
}
