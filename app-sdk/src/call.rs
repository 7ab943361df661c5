//! Calls of methods, and the extraction of parameters from them.

pub(crate) mod rehomed;

use axum::extract::{FromRef, State};
use bytestring::ByteString;
use serde::de::DeserializeOwned;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{HubProtocol, Payload};

use crate::connection::ConnectionClose;
use crate::context::upload_stream::UploadStream;
use crate::context::{Cancellation, Context};
use crate::error::HubError;
use crate::naming::Codec;

/// Markers that tell apart the two ways to make a parameter; the compiler infers which one is meant.
pub mod marker {
    /// Marker of an extractor: [`Context`](crate::Context), [`State`](axum::extract::State), your own.
    #[derive(Debug)]
    pub enum ViaCall {}
    /// Marker of an argument, deserialized from the next one that the client gave.
    #[derive(Debug)]
    pub enum ViaArgument {}
}

use marker::{ViaArgument, ViaCall};

/// Call of a method, from which its parameters are extracted.
#[derive(Debug)]
pub struct Call<S> {
    context: Context,
    state: S,
    arguments: std::vec::IntoIter<Payload>,
    stream_ids: std::vec::IntoIter<ByteString>,
    taken: usize,
    close: Option<ConnectionClose>,
}

/// Input of a method or a hook.
pub(crate) struct CallInput {
    pub(crate) context: Context,
    pub(crate) arguments: Vec<Payload>,
    pub(crate) stream_ids: Vec<ByteString>,
    /// The close of the connection, for `on_disconnected`.
    pub(crate) close: Option<ConnectionClose>,
}

/// Error of a call: it did not reach its method, or the method failed.
#[derive(Debug)]
pub struct Rejection {
    pub(crate) error: HubError,
    pub(crate) stage: RejectionStage,
}

/// Step at which a call failed; clients read different texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RejectionStage {
    /// The arguments don't fit the method.
    Binding,
    /// An extractor or the method itself failed.
    Invoking,
}

/// A parameter of a hub method.
///
/// Implemented for [`Context`], [`State<T>`](State), [`Cancellation`], [`CloseReason`] and [`Cause`], for [`UploadStream`], which takes
/// the client's next stream, and for every type that can be deserialized, which takes its next argument. Make your own for what many methods need:
///
/// ```
/// use trunkline::call::{Call, FromCall, Rejection, marker::ViaCall};
/// use trunkline::{Context, HubError};
///
/// struct User(String);
///
/// impl<S> FromCall<S, ViaCall> for User {
///     const ARGUMENTS: usize = 0;
///
///     fn from_call(call: &mut Call<S>) -> Result<Self, Rejection> {
///         let user = call.context().user_id().ok_or_else(|| HubError::new("log in first"))?;
///         Ok(User(user.to_owned()))
///     }
/// }
///
/// async fn whisper(ctx: Context, User(from): User, to: String, text: String) -> Result<(), HubError> {
///     ctx.clients().user(to).send("Whisper", (from, text)).await?;
///     Ok(())
/// }
/// # let _ = trunkline::Hub::<()>::new("/chat").method("Whisper", whisper);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be a parameter of a hub method",
    label = "neither an extractor nor an argument that can be deserialized",
    note = "arguments of the client need `serde::de::DeserializeOwned`: derive `Deserialize`, and take `String` instead of `&str`",
    note = "`State<T>` needs a hub whose state gives a `T` (`axum::extract::FromRef`)"
)]
pub trait FromCall<S, M>: Sized {
    /// Number of the client's arguments that it takes.
    const ARGUMENTS: usize;
    /// Number of the client's streams that it takes.
    const UPLOADS: usize = 0;

    /// Makes the parameter.
    ///
    /// # Errors
    /// When it can't be made; the method is not called then, and the client is answered with the error.
    fn from_call(call: &mut Call<S>) -> Result<Self, Rejection>;
}

/// Error with which the connection closed, for `on_disconnected`: `None` when the client simply left. A [`Cause`] says
/// the reason more exactly, in the words of metrics and logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseReason(pub Option<String>);

impl<S> Call<S> {
    pub(crate) fn new(input: CallInput, state: S) -> Self {
        let CallInput { context, arguments, stream_ids, close } = input;
        Self { context, state, arguments: arguments.into_iter(), stream_ids: stream_ids.into_iter(), taken: 0, close }
    }

    /// The connection of the caller.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// State that the hub was given by `with_state`.
    #[must_use]
    pub fn state(&self) -> &S {
        &self.state
    }

    pub(crate) fn codec(&self) -> Codec {
        self.context.codec()
    }

    fn next_argument<T: DeserializeOwned>(&mut self) -> Result<T, Rejection> {
        let codec = self.codec();
        let value = self.arguments.next().ok_or_else(|| HubError::invalid_data("An argument is missing."));
        let value = value.and_then(|payload| {
            self.taken += 1;
            codec.value(&payload).map_err(|error| {
                tracing::debug!(hub = self.context.hub(), argument = self.taken, %error, "argument does not fit");
                unfit(codec.protocol(), self.taken)
            })
        });
        value.map_err(|error| Rejection { error, stage: RejectionStage::Binding })
    }
}

/// Error texts of the official server: only its MessagePack half names the argument.
fn unfit(protocol: HubProtocol, argument: usize) -> HubError {
    const ADVICE: &str =
        "Make sure that the types of the provided values match the types of the hub method being invoked.";
    HubError::invalid_data(match protocol {
        HubProtocol::Json => format!("Error binding arguments. {ADVICE}"),
        HubProtocol::MessagePack => format!("Error binding argument {argument}. {ADVICE}"),
    })
}

impl Rejection {
    pub(crate) fn into_error(self) -> HubError {
        self.error
    }
}

impl From<HubError> for Rejection {
    fn from(error: HubError) -> Self {
        Self { error, stage: RejectionStage::Invoking }
    }
}

impl<S> FromCall<S, ViaCall> for Context {
    const ARGUMENTS: usize = 0;

    fn from_call(call: &mut Call<S>) -> Result<Self, Rejection> {
        Ok(call.context.clone())
    }
}

impl<S, T: FromRef<S>> FromCall<S, ViaCall> for State<T> {
    const ARGUMENTS: usize = 0;

    fn from_call(call: &mut Call<S>) -> Result<Self, Rejection> {
        Ok(State(T::from_ref(&call.state)))
    }
}

impl<S> FromCall<S, ViaCall> for CloseReason {
    const ARGUMENTS: usize = 0;

    fn from_call(call: &mut Call<S>) -> Result<Self, Rejection> {
        Ok(CloseReason(call.close.as_ref().and_then(|close| close.error.as_deref().map(str::to_owned))))
    }
}

impl<S> FromCall<S, ViaCall> for Cause {
    const ARGUMENTS: usize = 0;

    fn from_call(call: &mut Call<S>) -> Result<Self, Rejection> {
        let close = call.close.as_ref().ok_or_else(|| HubError::new("only on_disconnected is told a cause"))?;
        Ok(close.cause)
    }
}

impl<S> FromCall<S, ViaCall> for Cancellation {
    const ARGUMENTS: usize = 0;

    fn from_call(call: &mut Call<S>) -> Result<Self, Rejection> {
        Ok(call.context.call_cancellation())
    }
}

impl<S, T> FromCall<S, ViaCall> for UploadStream<T> {
    const ARGUMENTS: usize = 0;
    const UPLOADS: usize = 1;

    fn from_call(call: &mut Call<S>) -> Result<Self, Rejection> {
        // Their number was checked before; an extractor that takes more than it declares gets an error.
        let id = call.stream_ids.next().ok_or_else(|| HubError::invalid_data("A stream is missing."))?;
        Ok(UploadStream::new(&call.context, id))
    }
}

impl<S, T: DeserializeOwned> FromCall<S, ViaArgument> for T {
    const ARGUMENTS: usize = 1;

    fn from_call(call: &mut Call<S>) -> Result<Self, Rejection> {
        call.next_argument()
    }
}
