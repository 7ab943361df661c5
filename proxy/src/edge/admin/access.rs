//! Access to the admin port: permissions of a request, and the identity and address of its caller.

use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;

use axum::Extension;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use serde::Serialize;

use crate::edge::observer::ApiError;
use crate::fleet::FromNode;

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

    pub(super) fn from_answer(answer: &Response) -> Self {
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

/// Address of a request; `None` without a socket.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AdminCaller(pub(super) Option<IpAddr>);

impl<S: Sync> FromRequestParts<S> for AdminCaller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or_default())
    }
}

/// Checks that the caller is a node of the fleet; operators are referred to the given path.
pub(super) fn check_node(from: Option<&Extension<FromNode>>, path: &str) -> Result<(), ApiError> {
    let refusal = || {
        let text = format!("this path is only for nodes of the fleet: operators use {path}");
        ApiError::new(StatusCode::FORBIDDEN, text)
    };
    from.map(|_| ()).ok_or_else(refusal)
}
