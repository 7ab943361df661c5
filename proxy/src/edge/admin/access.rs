//! Access to the admin port: permissions of a request, and the identity of its caller.

use std::fmt;

use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use super::api_error::ApiError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Access {
    Read,
    /// Close clients, show their messages, change settings.
    Act,
}

/// Identity of a caller, as far as authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Actor {
    /// Caller without a valid credential.
    #[default]
    Unauthenticated,
    Token,
    /// Session of the page, by its number since the node started.
    Session(u64),
    /// Another node, authenticated by the access key and acting for its operator.
    Node,
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

impl Actor {
    /// Attaches the actor to a response, for its audit line.
    pub(super) fn sign(self, mut answer: Response) -> Response {
        answer.extensions_mut().insert(self);
        answer
    }

    pub(super) fn of(answer: &Response) -> Self {
        answer.extensions().get().copied().unwrap_or_default()
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unauthenticated => f.write_str("nobody"),
            Self::Token => f.write_str("admin token"),
            Self::Session(number) => write!(f, "session {number}"),
            Self::Node => f.write_str("node of the fleet"),
        }
    }
}
