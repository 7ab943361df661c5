//! What an app decides when a client negotiates.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::response::{IntoResponse, Response};
use trunkline_protocol::negotiate::Decision;

/// Lets a client in, as whom, or sends it elsewhere: what a handler of [`Hub::on_negotiate`](crate::Hub::on_negotiate)
/// returns.
///
/// ```
/// use trunkline::Negotiation;
///
/// let anybody = Negotiation::new(); // whoever the access token says, else nobody in particular
/// let ann = Negotiation::user("ann").claim("role", "admin");
/// let elsewhere = Negotiation::redirect("https://eu.example/chat").access_token("a token for over there");
/// ```
///
/// Headers and cookies go with it as with any axum response: `([(SET_COOKIE, "seen=1")], Negotiation::new())`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "a handler of `on_negotiate` has to return it"]
pub struct Negotiation(Decision);

impl Negotiation {
    /// The client may connect as whom its access token names; without a token as nobody in particular. A token that the
    /// proxy finds no good is refused then, as it is without a handler.
    pub fn new() -> Self {
        Self::default()
    }

    /// The client may connect as this user, whatever its access token says.
    pub fn user(id: impl Into<String>) -> Self {
        Self(Decision { user: Some(id.into()), ..Decision::default() })
    }

    /// The client shall negotiate again at this URL, a hub's without `/negotiate`.
    pub fn redirect(url: impl Into<String>) -> Self {
        Self(Decision { url: Some(url.into()), ..Decision::default() })
    }

    /// A claim of the user; names may repeat. Together they may have 2 KiB.
    pub fn claim(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.claims.push((name.into(), value.into()));
        self
    }

    /// After this time the client is closed to come again, if its hub has
    /// [`close_on_token_expiry`](crate::Hub::close_on_token_expiry).
    pub fn expires_in(mut self, time: Duration) -> Self {
        let end = SystemTime::now().checked_add(time).and_then(|end| end.duration_since(UNIX_EPOCH).ok());
        self.0.expires_s = end.map(|end| end.as_secs());
        self
    }

    /// The access token that the client shall show at the URL of a [`redirect`](Self::redirect).
    pub fn access_token(mut self, token: impl Into<String>) -> Self {
        self.0.access_token = Some(token.into());
        self
    }
}

impl IntoResponse for Negotiation {
    fn into_response(self) -> Response {
        let mut response = Json(self.0.clone()).into_response();
        response.extensions_mut().insert(self);
        response
    }
}
