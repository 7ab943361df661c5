//! Checks that `#[debug_method]`, `#[debug_hook]` and `#[debug_filter]` generate next to a function, one per kind of
//! mistake.
//!
//! None of them runs. The compiler prints their names and type parameters.

use std::future::Future;

use super::filter::{HubCall, Next};
use super::hook::IntoEnd;
use super::reply::{IntoItem, IntoReply, Reply};
use crate::call::FromCall;
use crate::call::marker::OfExtractor;
use crate::error::HubError;

/// Error type of a method or a streamed item: only [`HubError`].
#[diagnostic::on_unimplemented(
    message = "the error must be `HubError`, not `{Self}`",
    label = "not `trunkline::HubError`",
    note = "return `Result<_, trunkline::HubError>`: inside, `?` turns any error into it, and so does \
            `.map_err(HubError::internal)`",
    note = "make errors for clients by `HubError::new(\"…\")`"
)]
pub trait IsHubError {}

#[diagnostic::do_not_recommend]
impl IsHubError for HubError {}

/// A `Result` alias with a fixed error type.
pub trait ResultAlias {
    /// Error type of the alias.
    type Error;
}

impl<T, E> ResultAlias for Result<T, E> {
    type Error = E;
}

/// Second to last parameter of a filter.
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

/// Result type of a filter.
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

/// Checks a parameter of a hook, or an extractor of a filter.
pub fn extractor<T: FromCall<S, M>, S, M: OfExtractor>() {}

/// Checks the result of a method, apart from its error.
pub fn reply<T: IntoReply<M>, M>() {}

/// Checks the items of a stream.
pub fn item<T: IntoItem<M>, M>() {}

/// Checks the error of a method.
pub fn error<T: IsHubError>() {}

/// Checks the error type inside a `Result` alias.
pub fn aliased_error<T: ResultAlias<Error: IsHubError>>() {}

/// Checks the result of a hook.
pub fn end<T: IntoEnd>() {}

/// Checks the second to last parameter of a filter.
pub fn hub_call<T: IsHubCall>() {}

/// Checks the last parameter of a filter.
pub fn next<T: IsNext>() {}

/// Checks the result of a filter.
pub fn filtered<T: IsFilterResult>() {}

/// Checks that a function returns a `Send` future.
pub fn future<F: Future + Send>(_future: F) {}

/// Placeholder for a value of any type in code that never runs.
#[must_use]
pub fn never<T>() -> T {
    unreachable!("checks never run")
}
