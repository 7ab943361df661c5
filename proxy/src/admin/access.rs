//! Access to the admin port: permissions of a request.

use axum::http::StatusCode;
use serde::Serialize;

use super::api_error::ApiError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Access {
    Read,
    /// Close clients, show their messages, change settings.
    Act,
}

impl Access {
    /// Refuses operator actions of a request with read-only access.
    pub(super) fn to_act(self) -> Result<(), ApiError> {
        match self {
            Self::Act => Ok(()),
            Self::Read => Err(ApiError::new(StatusCode::UNAUTHORIZED, "this needs the admin token: log in with it")),
        }
    }
}
