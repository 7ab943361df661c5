//! State shared by the handlers of page and API.

use super::guard::Guard;
use crate::config::LogLevels;
use crate::observer::Observer;

#[derive(Debug, Clone)]
pub(super) struct AdminContext {
    pub(super) observer: Observer,
    pub(super) guard: Guard,
    pub(super) log: Option<&'static dyn LogLevels>,
}
