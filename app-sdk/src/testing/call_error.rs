//! Errors of a test client's calls and connection attempts.

use http::StatusCode;

/// Start of the text for a call that cannot be bound.
const UNBOUND: &str = "Failed to invoke '";
/// Separator between the official text and the text of [`HubError::new`](crate::HubError::new).
const SHOWN: &str = " HubException: ";
/// End of the text for a call refused by a policy.
const UNAUTHORIZED: &str = "' because user is unauthorized";
/// End of the text for an unknown method.
const NO_METHOD: &str = " HubException: Method does not exist.";

/// Error of a test client's call. `Display` shows the whole text that a client receives.
///
/// ```
/// use trunkline::testing::{CallError, TestServer};
/// use trunkline::{Hub, HubError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let hub = Hub::new("/test").method("Fail", async || Err::<(), _>(HubError::new("slow down, please")));
/// let mut ann = TestServer::new(hub)?.connect("/test").await?;
/// let error = ann.invoke::<()>("Fail", ()).await.unwrap_err();
/// assert_eq!(error.message(), Some("slow down, please"));
/// assert!(error.to_string().starts_with("An unexpected error occurred invoking 'Fail' on the server."));
/// assert!(matches!(ann.invoke::<()>("Nope", ()).await, Err(CallError::Unbound(_))));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// An error of [`HubError::new`](crate::HubError::new). Clients always see its text.
    #[error("{text}")]
    Hub {
        /// Text of the error.
        message: String,
        /// Whole text that the client receives.
        text: String,
    },
    /// No such method, or arguments that do not fit.
    #[error("{0}")]
    Unbound(String),
    /// A [policy](crate::Policy) of the method or its module refuses the user.
    #[error("{0}")]
    Unauthorized(String),
    /// Another error, without details for clients unless the hub has detailed errors.
    #[error("{0}")]
    Failed(String),
    /// No answer within the client's [`answer_timeout`](super::Connect::answer_timeout), 10 s by default.
    #[error("no answer came within the client's `answer_timeout` (10 s by default)")]
    Timeout,
    /// The connection has closed, with the hub's error if any.
    #[error("the connection has ended{}", .0.as_ref().map(|error| format!(": {error}")).unwrap_or_default())]
    Closed(Option<String>),
    /// The result has a different type than the test expects.
    #[error("the result is of another type: {0}")]
    Type(String),
    /// An argument or an answer of the test cannot be encoded.
    #[error("{0}")]
    Encode(String),
    /// The hub expects no result of this call.
    #[error("the call expects no result")]
    NoQuestion,
}

impl CallError {
    /// Text of [`HubError::new`](crate::HubError::new), without the official prefix.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Hub { message, .. } => Some(message),
            _ => None,
        }
    }

    pub(super) fn from_text(text: &str) -> Self {
        let text = text.to_owned();
        if text.starts_with(UNBOUND) && text.ends_with(UNAUTHORIZED) {
            return Self::Unauthorized(text);
        }
        if text.starts_with(UNBOUND) && (text.ends_with(NO_METHOD) || !text.contains(SHOWN)) {
            return Self::Unbound(text);
        }
        match text.split_once(SHOWN) {
            Some((_, message)) => Self::Hub { message: message.to_owned(), text },
            None => Self::Failed(text),
        }
    }
}

/// Error of a client that could not connect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No hub has this path.
    #[error("no hub is served at this path")]
    NoHub,
    /// The client was refused: by `on_negotiate`, because of an invalid access token or a missing user (401), or by a
    /// policy of the hub (403).
    #[error("{status}: {body}")]
    Denied {
        /// Status of the response.
        status: StatusCode,
        /// Body of the response.
        body: String,
    },
    /// `on_negotiate` redirects the client.
    #[error("redirected to {url}")]
    Redirected {
        /// URL at which the client negotiates again.
        url: String,
        /// Access token for that URL.
        access_token: Option<String>,
    },
    /// The hub refused the handshake with this text.
    #[error("{0}")]
    Refused(String),
    /// The fleet has no app server with this number.
    #[error("there is no app server {0}")]
    NoServer(usize),
    /// The server is shutting down.
    #[error("the server is gone")]
    Gone,
}

/// Error of a client that was not taken over by another app server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RehomeError {
    /// There is only one app server. Create the test server with [`TestServer::fleet`](super::TestServer::fleet).
    #[error("there is only one app server: create the test server by `TestServer::fleet`")]
    NoOther,
    /// The client is not connected, or `on_rehomed` failed, with the hub's error if any.
    #[error("the connection has ended{}", .0.as_ref().map(|error| format!(": {error}")).unwrap_or_default())]
    Closed(Option<String>),
    /// The client's calls have not ended within its [`answer_timeout`](super::Connect::answer_timeout).
    #[error(
        "the app server did not hand the client over within the client's `answer_timeout` (10 s by default): check \
         that its calls end"
    )]
    Timeout,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HubError;
    use crate::error::{CallStage, text};

    #[test]
    fn errors_are_distinguished_by_the_official_texts() {
        let shown = HubError::new("HubException: twice");
        let failed = CallError::from_text(&text::invoking_failed("M", &shown, false));
        assert_eq!(failed.message(), Some("HubException: twice"));
        assert_eq!(failed.to_string(), text::invoking_failed("M", &shown, false));
        let unbound = HubError::new("HubException: twice").at(CallStage::Binding);
        let refused = CallError::from_text(&text::call_failed("M", &unbound, false));
        assert_eq!(refused.message(), Some("HubException: twice"), "an extractor refuses in its own words");
        let streaming = CallError::from_text(&text::streaming_failed(&shown, false));
        assert_eq!(streaming.message(), Some("HubException: twice"));
        for error in [text::no_such_method(), text::argument_count(1, 2)] {
            assert!(matches!(CallError::from_text(&text::call_failed("M", &error, false)), CallError::Unbound(_)));
        }
        let unauthorized = text::call_failed("M", &text::unauthorized("a user"), false);
        assert_eq!(CallError::from_text(&unauthorized), CallError::Unauthorized(unauthorized.clone()));
        let internal = HubError::named("X", "y");
        for text in [text::invoking_failed("M", &internal, true), text::streaming("M"), text::id_in_use("7")] {
            assert_eq!(CallError::from_text(&text), CallError::Failed(text.clone()));
        }
    }
}
