//! Caller of a request that the guard has admitted: its permissions and identity.

use super::access::{Access, Actor};
use super::session::SessionEnd;

/// Attached to each request that the guard has admitted.
#[derive(Debug, Clone)]
pub(super) struct AdmittedCaller {
    pub access: Access,
    /// End of the caller's session, for open streams.
    pub end: Option<SessionEnd>,
    pub actor: Actor,
}

impl AdmittedCaller {
    pub(super) fn new(access: Access, actor: Actor) -> Self {
        Self { access, end: None, actor }
    }

    pub(super) fn of_session(end: SessionEnd) -> Self {
        Self { access: Access::Act, actor: Actor::Session(end.number()), end: Some(end) }
    }
}
