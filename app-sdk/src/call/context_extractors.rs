//! Built-in extractors: the connection itself, and axum extractors that read its connect request.

use axum::Extension;
use axum::extract::{FromRef, Query, State};
use http::HeaderMap;
use serde::de::DeserializeOwned;

use super::FromContext;
use crate::context::{Cancellation, Context};
use crate::error::HubError;

impl<S: Sync> FromContext<S> for Context {
    async fn from_context(ctx: &Context, _state: &S) -> Result<Self, HubError> {
        Ok(ctx.clone())
    }
}

impl<S: Sync> FromContext<S> for Cancellation {
    async fn from_context(ctx: &Context, _state: &S) -> Result<Self, HubError> {
        Ok(ctx.call_cancellation())
    }
}

/// A part of the hub's state.
impl<S: Sync, T: FromRef<S> + Send> FromContext<S> for State<T> {
    async fn from_context(_ctx: &Context, state: &S) -> Result<Self, HubError> {
        Ok(State(T::from_ref(state)))
    }
}

/// Headers of the connect request.
impl<S: Sync> FromContext<S> for HeaderMap {
    async fn from_context(ctx: &Context, _state: &S) -> Result<Self, HubError> {
        Ok(ctx.headers())
    }
}

/// Query of the connect request.
impl<S: Sync, T: DeserializeOwned> FromContext<S> for Query<T> {
    async fn from_context(ctx: &Context, _state: &S) -> Result<Self, HubError> {
        let uri = http::Uri::builder().path_and_query(format!("/?{}", ctx.query().raw())).build()?;
        Query::try_from_uri(&uri).map_err(|error| HubError::new(error.to_string()))
    }
}

/// A value that a filter has [inserted into the call](crate::HubCall::insert).
impl<S: Sync, T: Clone + Send + Sync + 'static> FromContext<S> for Extension<T> {
    async fn from_context(ctx: &Context, _state: &S) -> Result<Self, HubError> {
        let missing =
            || HubError::named("MissingExtension", format!("no filter has inserted a {}", std::any::type_name::<T>()));
        ctx.scope().value().map(Extension).ok_or_else(missing)
    }
}
