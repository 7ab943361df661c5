//! Caller of an admin port request: its address, set by the listener.

use std::convert::Infallible;
use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

/// Address of a request; `None` without a socket.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AdminCaller(pub(super) Option<IpAddr>);

impl<S: Sync> FromRequestParts<S> for AdminCaller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or_default())
    }
}
