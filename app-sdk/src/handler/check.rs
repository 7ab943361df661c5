//! Checks that `#[debug_method]`, `#[debug_hook]` and `#[debug_filter]` write beside a function, one for each mistake.
//!
//! None of them runs. Compilers print their names, and those of their type parameters.

use std::future::Future;

use super::filter::{HubCall, Next};
use super::hook::IntoEnd;
use super::reply::{IntoItem, IntoReply, Reply};
use crate::call::FromCall;
use crate::call::marker::OfExtractor;
use crate::error::HubError;

/// The error of a method or of a streamed item: [`HubError`] alone.
#[diagnostic::on_unimplemented(
    message = "the error must be `HubError`, not `{Self}`",
    label = "not `trunkline::HubError`",
    note = "return `Result<_, trunkline::HubError>`: inside, `?` turns any error into it, and so does `.map_err(HubError::internal)`",
    note = "what clients shall read is made by `HubError::new(\"…\")`"
)]
pub trait IsHubError {}

#[diagnostic::do_not_recommend]
impl IsHubError for HubError {}

/// A `Result` whose error is inside of an alias.
pub trait ResultAlias {
    /// The error in the alias.
    type Error;
}

impl<T, E> ResultAlias for Result<T, E> {
    type Error = E;
}

/// Last parameter but one of a filter.
#[diagnostic::on_unimplemented(
    message = "the last parameters of a filter are `HubCall` and `Next`, not `{Self}`",
    label = "`trunkline::HubCall` belongs here",
    note = "a filter is `async fn(extractors…, call: HubCall, next: Next) -> Result<Reply, HubError>`"
)]
pub trait IsHubCall {}

#[diagnostic::do_not_recommend]
impl IsHubCall for HubCall {}

/// Last parameter of a filter.
#[diagnostic::on_unimplemented(
    message = "the last parameters of a filter are `HubCall` and `Next`, not `{Self}`",
    label = "`trunkline::Next` belongs here",
    note = "a filter is `async fn(extractors…, call: HubCall, next: Next) -> Result<Reply, HubError>`"
)]
pub trait IsNext {}

#[diagnostic::do_not_recommend]
impl IsNext for Next {}

/// Result of a filter.
#[diagnostic::on_unimplemented(
    message = "a filter can't return `{Self}`",
    label = "not `Result<trunkline::Reply, trunkline::HubError>`",
    note = "return what `next.run(call).await` returns, or `Err(HubError::new(\"…\"))` to refuse the call"
)]
pub trait IsFilterResult {}

#[diagnostic::do_not_recommend]
impl IsFilterResult for Result<Reply, HubError> {}

/// Checks a parameter of a method.
pub fn parameter<T: FromCall<S, ExtractorXorDeserialize>, S, ExtractorXorDeserialize>() {}

/// Checks a parameter of a hook, or one of a filter before its last two.
pub fn extractor<T: FromCall<S, M>, S, M: OfExtractor>() {}

/// Checks the result of a method, without its error.
pub fn reply<T: IntoReply<M>, M>() {}

/// Checks the items of a stream.
pub fn item<T: IntoItem<M>, M>() {}

/// Checks the error of a method.
pub fn error<T: IsHubError>() {}

/// Checks the error of a method that is inside of an alias.
pub fn aliased_error<T: ResultAlias<Error: IsHubError>>() {}

/// Checks the end of a hook.
pub fn end<T: IntoEnd>() {}

/// Checks the last parameter but one of a filter.
pub fn hub_call<T: IsHubCall>() {}

/// Checks the last parameter of a filter.
pub fn next<T: IsNext>() {}

/// Checks the result of a filter.
pub fn filtered<T: IsFilterResult>() {}

/// Checks that what a function makes is a future, and may move between threads.
pub fn future<F: Future + Send>(_future: F) {}

/// Stands for a value of any type in a call that never runs.
#[must_use]
pub fn never<T>() -> T {
    unreachable!("checks never run")
}
