//! Errors that a test client meets: of its calls, and of its connects.

use http::StatusCode;

/// Beginning of the text for a call that does not bind.
const UNBOUND: &str = "Failed to invoke '";
/// Separator between the official text and the text of [`HubError::new`](crate::HubError::new).
const SHOWN: &str = " HubException: ";
/// End of the text for a call that a policy refuses.
const UNAUTHORIZED: &str = "' because user is unauthorized";
/// End of the text for a method that does not exist.
const NO_METHOD: &str = " HubException: Method does not exist.";

/// Error of a test client's call. Its `Display` is the whole text that a client reads.
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
    /// An error of [`HubError::new`](crate::HubError::new), whose text every client reads.
    #[error("{text}")]
    Hub {
        /// Text of the error.
        message: String,
        /// Whole text that the client reads.
        text: String,
    },
    /// There is no such method, or the arguments don't fit it.
    #[error("{0}")]
    Unbound(String),
    /// A [policy](crate::Policy) of the method or of its module refuses the user.
    #[error("{0}")]
    Unauthorized(String),
    /// Another error, of which clients read only that there was one, unless the hub has detailed errors.
    #[error("{0}")]
    Failed(String),
    /// No answer came within the client's [`answer_timeout`](super::Connect::answer_timeout), 10 s by default.
    #[error("no answer came within the client's `answer_timeout` (10 s by default)")]
    Timeout,
    /// The connection has ended, with the error that the hub told.
    #[error("the connection has ended{}", .0.as_ref().map(|error| format!(": {error}")).unwrap_or_default())]
    Closed(Option<String>),
    /// The answer is of another type than the test expects.
    #[error("the result is of another type: {0}")]
    Type(String),
    /// An argument or an answer of the test can't be encoded.
    #[error("{0}")]
    Encode(String),
    /// The hub waits for no result of this call.
    #[error("nobody waits for a result")]
    NoQuestion,
}

impl CallError {
    /// Text of [`HubError::new`](crate::HubError::new), without what the official server puts before it.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Hub { message, .. } => Some(message),
            _ => None,
        }
    }

    /// Reads the error text of a completion.
    pub(super) fn of(text: &str) -> Self {
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
    /// The client was not let in: by `on_negotiate`, by a bad access token, because the hub needs a user (401), or by a
    /// policy of the hub (403).
    #[error("{status}: {body}")]
    Denied {
        /// Status that the client gets.
        status: StatusCode,
        /// Body that the client gets.
        body: String,
    },
    /// `on_negotiate` redirects the client.
    #[error("redirected to {url}")]
    Redirected {
        /// URL where the client negotiates again.
        url: String,
        /// Access token that it sends there.
        access_token: Option<String>,
    },
    /// The hub refused the handshake with this text.
    #[error("{0}")]
    Refused(String),
    /// The fleet has no app server of this number.
    #[error("there is no app server {0}")]
    NoServer(usize),
    /// The server shuts down.
    #[error("the server is gone")]
    Gone,
}

/// Error of a client that no other app server has taken over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RehomeError {
    /// There is only one app server: make the test server with [`TestServer::fleet`](super::TestServer::fleet).
    #[error("there is no other app server: make the test server with `TestServer::fleet`")]
    NoOther,
    /// The client is not connected, or `on_rehomed` has failed; with the error that the hub told.
    #[error("the connection has ended{}", .0.as_ref().map(|error| format!(": {error}")).unwrap_or_default())]
    Closed(Option<String>),
    /// The calls of the client have not ended within its [`answer_timeout`](super::Connect::answer_timeout).
    #[error(
        "the app server has not handed the client over within the client's `answer_timeout` (10 s by default): do its calls end?"
    )]
    Timeout,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HubError;
    use crate::error::{CallStage, text};

    #[test]
    fn errors_are_told_apart_by_the_official_texts() {
        let shown = HubError::new("HubException: twice");
        let failed = CallError::of(&text::invoking_failed("M", &shown, false));
        assert_eq!(failed.message(), Some("HubException: twice"));
        assert_eq!(failed.to_string(), text::invoking_failed("M", &shown, false));
        let unbound = HubError::new("HubException: twice").at(CallStage::Binding);
        let refused = CallError::of(&text::call_failed("M", &unbound, false));
        assert_eq!(refused.message(), Some("HubException: twice"), "an extractor refuses in its own words");
        let streaming = CallError::of(&text::streaming_failed(&shown, false));
        assert_eq!(streaming.message(), Some("HubException: twice"));
        for error in [text::no_such_method(), text::argument_count(1, 2)] {
            assert!(matches!(CallError::of(&text::call_failed("M", &error, false)), CallError::Unbound(_)));
        }
        let unauthorized = text::call_failed("M", &text::unauthorized("a user"), false);
        assert_eq!(CallError::of(&unauthorized), CallError::Unauthorized(unauthorized.clone()));
        let internal = HubError::named("X", "y");
        for text in [text::invoking_failed("M", &internal, true), text::streaming("M"), text::id_in_use("7")] {
            assert_eq!(CallError::of(&text), CallError::Failed(text.clone()));
        }
    }
}
