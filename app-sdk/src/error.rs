//! Errors of hub methods, sends, group changes and the server builder, and who may see them.

mod build_error;
pub(crate) mod text;

use std::any::Any;
use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use trunkline_protocol::hub::PayloadError;
use trunkline_protocol::limits::SEND_ID_MAX_BYTES;

pub use build_error::BuildError;

/// Type name that clients see before the text of [`HubError::new`], as in the official server.
const SHOWN_NAME: &str = "HubException";
/// Type name of errors of unknown type: the .NET base class.
const INTERNAL_NAME: &str = "Exception";
/// Type name for unreadable messages and arguments, as in the official server.
pub(crate) const INVALID_DATA_NAME: &str = "InvalidDataException";

/// Error of a hub method, and the part of it that clients may see.
///
/// | created by | the client sees |
/// |---|---|
/// | [`HubError::new`]`("no seats left")` | `… HubException: no seats left` |
/// | `?` on [`InvokeError::Client`] | the other client's text, as if created by `new` |
/// | `?` on [`InvokeError::Leaving`] | `… HubException: this app server is stopping, call again` |
/// | [`HubError::named`]`("TimeoutException", "…")`, [`HubError::internal`]`(…)`, `?` on any other error | only that something failed, unless the hub has [detailed errors](crate::Hub::detailed_errors) |
///
/// Like `anyhow::Error`, it does not implement `std::error::Error`, so that `?` can convert any such error, `Box<dyn
/// Error + Send + Sync>` and `anyhow::Error`.
///
/// ```
/// use trunkline::HubError;
///
/// async fn half(text: String) -> Result<u32, HubError> {
///     let number: u32 = text.parse()?; // internal: clients don't see ParseIntError's text
///     if number % 2 == 1 {
///         return Err(HubError::new(format!("{number} is odd"))); // clients see this
///     }
///     Ok(number / 2)
/// }
/// ```
pub struct HubError(Box<HubErrorInner>);

struct HubErrorInner {
    audience: Audience,
    stage: CallStage,
    name: Cow<'static, str>,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// Step at which a call failed; determines the text for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallStage {
    /// An extractor, a filter or the method itself failed.
    Invoking,
    /// No such method, or arguments that do not fit.
    Binding,
    /// A policy refuses the user.
    Authorizing,
    /// The call does not match the method's kind. The client sees only the message.
    Refusing,
}

#[derive(PartialEq)]
enum Audience {
    /// Always visible to clients.
    Client,
    /// Visible to clients only from hubs with detailed errors.
    Log,
}

impl HubError {
    /// Creates an error with a text that clients always see, after `HubException: `.
    pub fn new(message: impl Into<String>) -> Self {
        Self::build(Audience::Client, SHOWN_NAME.into(), message.into(), None)
    }

    /// Creates an internal error with a name, such as `InvalidOperationException`. Clients see `<name>: <message>`
    /// only from hubs with detailed errors.
    pub fn named(name: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::build(Audience::Log, name.into(), message.into(), None)
    }

    /// Creates an internal error from any error, like `?`, and keeps its sources. Clients see its text only from hubs
    /// with detailed errors.
    ///
    /// ```
    /// use trunkline::HubError;
    ///
    /// async fn add_note(note: String) -> Result<(), HubError> {
    ///     std::fs::write("note.txt", note).map_err(HubError::internal)
    /// }
    /// # let _ = trunkline::Hub::<()>::new("/board").method("AddNote", add_note);
    /// ```
    pub fn internal(error: impl Into<Box<dyn StdError + Send + Sync>> + 'static) -> Self {
        Self::from(error)
    }

    /// Type name of the error, as clients see it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Text of the error, without the name.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Whether clients always see the text.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        self.0.audience == Audience::Client
    }

    /// Returns the error that `?` or [`internal`](Self::internal) converted, if any.
    #[must_use]
    pub fn source(&self) -> Option<&(dyn StdError + Send + Sync + 'static)> {
        self.0.source.as_deref()
    }

    pub(crate) fn invalid_data(message: impl Into<String>) -> Self {
        Self::named(INVALID_DATA_NAME, message)
    }

    /// Creates the error of a call that reaches no method. `text` is all that its client sees.
    pub(crate) fn refusal(text: String) -> Self {
        Self::new(text).at(CallStage::Refusing)
    }

    pub(crate) fn at(mut self, stage: CallStage) -> Self {
        self.0.stage = stage;
        self
    }

    pub(crate) fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(crate) fn stage(&self) -> CallStage {
        self.0.stage
    }

    /// Whether a client caused it: a policy refuses its user, it disconnected, or it does not answer. Not a failure of
    /// the app, because anyone can do that.
    pub(crate) fn is_of_client(&self) -> bool {
        use InvokeError as I;
        let is_of_client = |source: &(dyn StdError + Send + Sync + 'static)| match source.downcast_ref() {
            Some(I::DoesNotExist(_) | I::Disconnected(_) | I::Timeout(_) | I::Type { .. } | I::InboxOverfull(_)) => {
                true
            }
            Some(_) => false,
            None => source.is::<UploadCutOff>(),
        };
        self.0.stage == CallStage::Authorizing || self.source().is_some_and(is_of_client)
    }

    pub(crate) fn from_panic(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Self::named("Panic", text.unwrap_or_else(|| "without a text".into()))
    }

    /// Formats the base text, with details if the client may see them.
    pub(crate) fn describe(&self, base: &str, detailed: bool) -> String {
        if detailed || self.is_shown() {
            format!("{base} {}: {}", self.0.name, self.0.message)
        } else {
            base.to_owned()
        }
    }

    fn build(
        audience: Audience,
        name: Cow<'static, str>,
        message: String,
        source: Option<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self(Box::new(HubErrorInner { audience, stage: CallStage::Invoking, name, message, source }))
    }
}

/// Converts any error, boxed or not, including `anyhow::Error` and strings.
impl<E: Into<Box<dyn StdError + Send + Sync>> + 'static> From<E> for HubError {
    fn from(error: E) -> Self {
        let known = (&error as &dyn Any).downcast_ref();
        let (audience, advice) = match known {
            // An error text from a client is meant for clients.
            Some(InvokeError::Client(_)) => (Audience::Client, ""),
            // The call can be repeated immediately: another app server has the client.
            Some(InvokeError::Leaving) => (Audience::Client, ", call again"),
            _ => (Audience::Log, ""),
        };
        let error = error.into();
        let name = if audience == Audience::Client { SHOWN_NAME } else { type_name_of::<E>() };
        Self::build(audience, name.into(), format!("{error}{advice}"), Some(error))
    }
}

impl fmt::Display for HubError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.name, self.0.message)
    }
}

impl fmt::Debug for HubError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut cause = self.0.source.as_deref().and_then(|error| error.source());
        while let Some(error) = cause {
            write!(f, "; caused by: {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Name of an error's type; for boxed errors of unknown type, that of the base class.
fn type_name_of<E>() -> &'static str {
    match short_type_name::<E>() {
        "Box" | "Error" | "String" | "&str" | "str" => INTERNAL_NAME,
        name => name,
    }
}

/// Last segment of a type's path, such as `ParseIntError`, without generic parameters.
pub(crate) fn short_type_name<E>() -> &'static str {
    let whole = std::any::type_name::<E>();
    let plain = whole.split('<').next().unwrap_or(whole);
    plain.rsplit("::").next().unwrap_or(plain)
}

/// Error of a send that was not queued. A send without receivers is not an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// An argument cannot be encoded in a hub protocol. Nothing was sent.
    #[error("argument can't be encoded: {0}")]
    Encode(#[source] PayloadError),
    /// Empty group name. Nothing was sent.
    #[error("Cannot send to an empty group name.")]
    EmptyGroupName,
    /// The message with its list of receivers exceeds the maximum frame size of a link, or the limit of its only
    /// client. Nothing was sent.
    #[error("message of {length} bytes is over the limit of {limit} for one frame")]
    TooLarge {
        /// Length of the message.
        length: usize,
        /// Limit that it exceeds: of a link's frame, or of the client's proxy.
        limit: usize,
    },
    /// Too many sends to this client are already waiting. Nothing was sent.
    #[error("{0} sends wait for this client already: await each before the next")]
    TooManyWaiting(usize),
    /// The message to a recorded group or user was not recorded, or no node has confirmed it.
    #[error(transparent)]
    History(#[from] HistoryError),
}

/// Error of a [record](crate::Hub::history). A refused send reaches no client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The record is finished. It takes messages again after its deletion or the end of its age.
    #[error("the record is finished: delete it to begin another one")]
    Finished,
    /// There is no record to end or delete.
    #[error("there is no such record")]
    NotFound,
    /// Another message was sent with this [id](crate::Receivers::id).
    #[error("another message was sent with this id")]
    OtherMessage,
    /// The group or user of a send with an id is not recorded.
    #[error("an id is for sends to recorded groups and users: see Hub::history")]
    NotRecorded,
    /// The [id](crate::Receivers::id) is empty or too long. Nothing was sent.
    #[error("the id of a send has {0} bytes, but must have 1 to {SEND_ID_MAX_BYTES}")]
    IdLength(usize),
    /// The message is larger than a recorded one may be.
    #[error("{0}")]
    TooLarge(String),
    /// No node has confirmed the message. It may have been recorded: a repeated send with the same
    /// [id](crate::Receivers::id) is recorded once.
    #[error("the record is not available: {0}")]
    Unavailable(String),
}

/// Error of a message to a raw connection that was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RawSendError {
    /// The connection has closed.
    #[error("the connection has ended")]
    Closed,
    /// The message exceeds the maximum frame size of a link, or the limit of its client. Nothing was sent.
    #[error("message of {length} bytes is over the limit of {limit} for one frame")]
    TooLarge {
        /// Length of the message.
        length: usize,
        /// Limit that it exceeds: of a link's frame, or of the client's proxy.
        limit: usize,
    },
    /// Too many sends to this client are already waiting. Nothing was sent.
    #[error("{0} sends wait for this client already: await each before the next")]
    TooManyWaiting(usize),
}

/// Error of a request for a client result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvokeError {
    /// No proxy has a connection with this ID.
    #[error("Connection '{0}' does not exist.")]
    DoesNotExist(String),
    /// The client disconnected before it answered.
    #[error("Connection '{0}' disconnected.")]
    Disconnected(String),
    /// The client's app server is stopping, and its [timeout](crate::Server::shutdown_timeout) has expired before the
    /// client answered. The client continues on another app server. With `?`, the caller sees this text and that it may
    /// call again.
    #[error("this app server is stopping")]
    Leaving,
    /// The client did not answer in time. A late result is dropped.
    #[error("the client gave no result within {0:?}")]
    Timeout(Duration),
    /// The client returned an error, from its handler or because it has none.
    #[error("{0}")]
    Client(String),
    /// The result has a different type.
    #[error("Error trying to deserialize result to {expected}. {detail}")]
    Type {
        /// Type that the caller expects.
        expected: &'static str,
        /// Error of the deserializer.
        detail: String,
    },
    /// Too many results are pending. No request was sent.
    #[error("{0} client results are already pending; the limit can be configured by Hub::client_results_max")]
    TooMany(usize),
    /// Too many bytes are queued for the methods of the calling client; the result might be behind them.
    #[error(
        "more than {0} bytes of this client wait for its methods, and the client's result may be behind these bytes; \
         the limit can be configured by Hub::waiting_inbox_max_bytes"
    )]
    InboxOverfull(usize),
    /// A client cannot answer before it is connected.
    #[error("Client results inside OnConnectedAsync Hub methods are not allowed.")]
    InsideOnConnected,
    /// The client's app server could not send the request to it.
    #[error("the client's app server did not invoke the client: {0}")]
    Refused(String),
    /// The request could not be sent.
    #[error(transparent)]
    Send(#[from] SendError),
}

/// Source of the error of an upload after its connection was closed.
#[derive(Debug, thiserror::Error)]
#[error("The connection ended before the upload did.")]
pub(crate) struct UploadCutOff;

/// Error of a group change. The connection may or may not have joined or left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// The group name is empty.
    #[error("a group needs a name")]
    EmptyGroupName,
    /// The group name is too long. Nothing was changed.
    #[error("the group name has {length} bytes, but at most {limit} are allowed: see Hub::group_name_max_bytes")]
    NameTooLong {
        /// Length of the name.
        length: usize,
        /// Limit of the hub.
        limit: usize,
    },
    /// No acknowledgement in time. The change may still take effect.
    #[error("group change was not acknowledged within 10 s")]
    Timeout,
    /// The last link to the proxy was lost, and probably the connection with it.
    #[error("link was lost before the group change was acknowledged")]
    LinkLost,
    /// The proxy could not apply it.
    #[error("group change failed at the proxy: {0}")]
    Failed(String),
}

/// Error of a query to the proxies, or of a command such as a close. The result is unknown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// No proxy is linked.
    #[error("no proxy is linked")]
    NoProxy,
    /// A proxy did not reply in time. A command may still be executed.
    #[error("a proxy gave no answer within 10 s")]
    Timeout,
    /// The last link to a proxy was lost before its reply, and probably its clients with it.
    #[error("the link to a proxy was lost before its answer came")]
    LinkLost,
    /// A proxy could not execute it.
    #[error("a proxy could not answer: {0}")]
    Failed(String),
    /// The group name is empty. Nothing was sent.
    #[error("a group needs a name")]
    EmptyGroupName,
    /// The group or user has more connections than fit into one result. List them by pages.
    #[error("there are more than {0} connections; list them a page at a time, by Members::next_page")]
    TooMany(usize),
    /// More queries than this are pending. This one was not sent. Query less often, or cache results.
    #[error("more than {0} queries wait for answers of proxies: query less often, or cache answers briefly")]
    TooManyQuestions(usize),
    /// The text is not a continuation token of a member list.
    #[error("not a continuation token of a list of members")]
    Token,
    /// The query could not be sent.
    #[error(transparent)]
    Send(#[from] SendError),
}

/// Error for a name that matches no hub or raw endpoint of the server.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no hub or raw endpoint named '{0}'")]
pub struct UnknownHub(pub(crate) String);

/// Same as `Display`, so that a `main` that returns it shows a readable text.
impl fmt::Debug for UnknownHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "An unexpected error occurred invoking 'M' on the server.";

    #[test]
    fn the_text_of_a_hub_error_is_always_shown() {
        let error = HubError::new("x");
        assert_eq!(error.describe(BASE, false), format!("{BASE} HubException: x"));
    }

    #[test]
    fn a_stop_is_shown_by_its_name() {
        assert_eq!(InvokeError::Leaving.to_string(), "this app server is stopping");
        let error = HubError::from(InvokeError::Leaving);
        assert_eq!(
            error.describe(BASE, false),
            format!("{BASE} HubException: this app server is stopping, call again")
        );
    }

    #[test]
    fn other_errors_are_shown_only_in_detail() {
        let error = HubError::from("x".parse::<u8>().unwrap_err());
        assert_eq!(error.describe(BASE, false), BASE);
        assert_eq!(error.describe(BASE, true), format!("{BASE} ParseIntError: invalid digit found in string"));
        let named = HubError::named("InvalidOperationException", "not now");
        assert_eq!(named.describe(BASE, false), BASE);
        assert_eq!(named.describe(BASE, true), format!("{BASE} InvalidOperationException: not now"));
    }

    #[test]
    fn a_question_mark_takes_any_error() {
        fn fails() -> Result<u8, HubError> {
            Ok("x".parse()?)
        }
        let error = fails().unwrap_err();
        assert!(!error.is_shown());
        assert!(error.source().is_some());
    }

    #[test]
    fn boxed_errors_keep_their_sources_and_are_internal() {
        let error: Box<dyn StdError + Send + Sync> = Box::new(HalfError(std::fmt::Error));
        let error = HubError::internal(error);
        assert!(!error.is_shown());
        assert!(error.source().unwrap().source().is_some());
        assert_eq!(
            format!("{error:?}"),
            "Exception: no half; caused by: an error occurred when formatting an argument"
        );
        assert_eq!(HubError::internal("a text").describe(BASE, true), format!("{BASE} Exception: a text"));
    }

    #[derive(Debug, thiserror::Error)]
    #[error("no half")]
    struct HalfError(#[source] std::fmt::Error);

    #[test]
    fn generic_types_have_short_names() {
        struct Wrapped<T>(T);
        let _ = Wrapped(0u8).0;
        assert_eq!(short_type_name::<Wrapped<std::io::Error>>(), "Wrapped");
    }
}
