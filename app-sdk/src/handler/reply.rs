//! Replies of methods: a value or a stream, and the markers that select which.

use std::fmt;
use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use serde::Serialize;
use trunkline_protocol::hub::Payload;

use crate::error::HubError;
use crate::naming::Codec;

use marker::{TheErrorMustBeHubError, ViaResult, ViaStream, ViaStreamResult, ViaValue};

/// Markers that select how a result becomes a reply. The compiler infers them.
pub mod marker {
    use std::marker::PhantomData;

    /// A plain value, without `Result`.
    #[derive(Debug)]
    pub enum ViaValue {}
    /// A value or a [`HubError`](crate::HubError).
    #[derive(Debug)]
    pub enum ViaResult {}
    /// A stream; `M` is the marker of its items.
    #[derive(Debug)]
    pub struct ViaStream<M>(PhantomData<M>);
    /// A stream or a [`HubError`](crate::HubError); `M` is the marker of the items.
    #[derive(Debug)]
    pub struct ViaStreamResult<M>(PhantomData<M>);
    /// A `Result` with a different error than [`HubError`](crate::HubError). Never used: it makes such a `Result`
    /// ambiguous. Otherwise its `Err` would reach the client as a success.
    #[derive(Debug)]
    pub enum TheErrorMustBeHubError {}
}

pub(crate) type ReplyFuture = Pin<Box<dyn Future<Output = Result<Reply, HubError>> + Send>>;

/// Reply of a method, encoded for the caller.
pub struct Reply(pub(crate) ReplyBody);

/// Stream of items, encoded as they are polled.
pub(crate) type ItemStream = Pin<Box<dyn Stream<Item = Result<Payload, HubError>> + Send>>;

pub(crate) enum ReplyBody {
    Value(Payload),
    Stream(ItemStream),
    Nothing,
}

const WRONG_ERROR: &str = "the method's error is not a HubError";

/// A result of a hub method: a serializable value, a [`Stream`] of such values, or a `Result` of either with
/// [`HubError`].
#[diagnostic::on_unimplemented(
    message = "a hub method can't return `{Self}`",
    label = "neither serializable, nor a stream, nor a `Result` of these with `HubError`",
    note = "return `()`, a type that derives `serde::Serialize`, or an `impl Stream` of such a type",
    note = "or `Result<T, trunkline::HubError>` of any of these; a stream must be `Send` and `'static`",
    note = "inside the method `?` turns any error into a `HubError`"
)]
pub trait IntoReply<M> {
    /// Whether the method streams.
    #[doc(hidden)]
    const IS_STREAMING: bool = false;

    #[doc(hidden)]
    fn into_reply(self, codec: Codec) -> Result<Reply, HubError>;
}

/// An item of a stream that a hub method returns: a serializable value, or a `Result` with [`HubError`]; an error
/// ends the stream.
#[diagnostic::on_unimplemented(
    message = "a stream of `{Self}` can't be returned by a hub method",
    label = "neither serializable nor `Result<_, HubError>`",
    note = "derive `serde::Serialize` for the items, or stream `Result<T, trunkline::HubError>`: other errors by \
            `.map_err(HubError::internal)`"
)]
pub trait IntoItem<M> {
    #[doc(hidden)]
    fn into_item(self, codec: Codec) -> Result<Payload, HubError>;
}

#[diagnostic::do_not_recommend]
impl<T: Serialize> IntoItem<ViaValue> for T {
    fn into_item(self, codec: Codec) -> Result<Payload, HubError> {
        Ok(codec.payload(&self)?)
    }
}

#[diagnostic::do_not_recommend]
impl<T: Serialize> IntoItem<ViaResult> for Result<T, HubError> {
    fn into_item(self, codec: Codec) -> Result<Payload, HubError> {
        self?.into_item(codec)
    }
}

#[diagnostic::do_not_recommend]
impl<T: Serialize, E: Serialize> IntoItem<TheErrorMustBeHubError> for Result<T, E> {
    fn into_item(self, codec: Codec) -> Result<Payload, HubError> {
        self.map_err(|_| HubError::new(WRONG_ERROR))?.into_item(codec)
    }
}

#[diagnostic::do_not_recommend]
impl<T: Serialize, E: Serialize> IntoReply<TheErrorMustBeHubError> for Result<T, E> {
    fn into_reply(self, codec: Codec) -> Result<Reply, HubError> {
        Reply::value(&self.map_err(|_| HubError::new(WRONG_ERROR))?, codec)
    }
}

#[diagnostic::do_not_recommend]
impl<T: Serialize> IntoReply<ViaValue> for T {
    fn into_reply(self, codec: Codec) -> Result<Reply, HubError> {
        Reply::value(&self, codec)
    }
}

#[diagnostic::do_not_recommend]
impl<T: Serialize> IntoReply<ViaResult> for Result<T, HubError> {
    fn into_reply(self, codec: Codec) -> Result<Reply, HubError> {
        Reply::value(&self?, codec)
    }
}

#[diagnostic::do_not_recommend]
impl<S, M> IntoReply<ViaStream<M>> for S
where
    S: Stream + Send + 'static,
    S::Item: IntoItem<M>,
{
    const IS_STREAMING: bool = true;

    fn into_reply(self, codec: Codec) -> Result<Reply, HubError> {
        Ok(Reply(ReplyBody::Stream(Box::pin(self.map(move |item| item.into_item(codec))))))
    }
}

#[diagnostic::do_not_recommend]
impl<S, M> IntoReply<ViaStreamResult<M>> for Result<S, HubError>
where
    S: Stream + Send + 'static,
    S::Item: IntoItem<M>,
{
    const IS_STREAMING: bool = true;

    fn into_reply(self, codec: Codec) -> Result<Reply, HubError> {
        self?.into_reply(codec)
    }
}

impl Reply {
    pub(crate) fn nothing() -> Self {
        Self(ReplyBody::Nothing)
    }

    pub(crate) fn value<T: Serialize>(value: &T, codec: Codec) -> Result<Self, HubError> {
        Ok(Self(ReplyBody::Value(codec.payload(value)?)))
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            ReplyBody::Value(payload) => f.debug_tuple("Value").field(payload).finish(),
            ReplyBody::Stream(_) => f.write_str("Stream"),
            ReplyBody::Nothing => f.write_str("Nothing"),
        }
    }
}
