//! Markers that tell apart the ways to answer; the compiler infers which one is meant.

use std::marker::PhantomData;

/// A plain value, without `Result`.
#[derive(Debug)]
pub enum ViaValue {}
/// A value or a [`HubError`](crate::HubError).
#[derive(Debug)]
pub enum ViaResult {}
/// A stream of items; `M` tells which kind of item.
#[derive(Debug)]
pub struct ViaStream<M>(PhantomData<M>);
/// A stream or a [`HubError`](crate::HubError); `M` tells which kind of item.
#[derive(Debug)]
pub struct ViaStreamResult<M>(PhantomData<M>);
/// A `Result` with another error than [`HubError`](crate::HubError). Nothing returns by this way: it makes such a
/// `Result` ambiguous, because its `Err` would reach the client as a success.
#[derive(Debug)]
pub enum TheErrorMustBeHubError {}
