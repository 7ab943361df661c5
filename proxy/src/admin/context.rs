//! State shared by the handlers of page and API.

use std::sync::Arc;

use super::guard::Guard;
use crate::config::LogLevels;
use crate::observer::Observer;
use crate::webhook::Webhooks;

#[derive(Debug, Clone)]
pub(super) struct AdminContext {
    pub(super) observer: Observer,
    pub(super) webhooks: Arc<Webhooks>,
    pub(super) guard: Guard,
    pub(super) log: Option<&'static dyn LogLevels>,
}
