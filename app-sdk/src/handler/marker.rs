//! Markers that select how a result becomes a reply. The compiler infers them.

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
