//! Filters: code of the app around every method of a hub.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytestring::ByteString;
use serde::Serialize;

use crate::context::Context;
use crate::error::HubError;
use crate::handler::{Method, Reply, ReplyFuture};

type FilterFuture = Pin<Box<dyn Future<Output = Result<Reply, HubError>> + Send>>;

type Filter = dyn Fn(HubCall, Next) -> FilterFuture + Send + Sync;

/// The filters of a hub, the outermost first.
#[derive(Clone, Default)]
pub(crate) struct Filters(Vec<Arc<Filter>>);

/// Call on its way through the [filters](crate::Hub::filter) of its hub.
#[derive(Debug, Clone)]
pub struct HubCall {
    context: Context,
    method: ByteString,
    arguments: usize,
    uploads: usize,
    is_streaming: bool,
}

/// Rest of the chain: the inner filters, and the method.
pub struct Next {
    filters: std::vec::IntoIter<Arc<Filter>>,
    method: ReplyFuture,
}

impl Filters {
    pub(crate) fn add<F, Fut>(&mut self, filter: F)
    where
        F: Fn(HubCall, Next) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply, HubError>> + Send + 'static,
    {
        self.0.push(Arc::new(move |call, next| Box::pin(filter(call, next))));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts the filters around a method.
    pub(crate) fn wrap(&self, context: Context, method: &Method, replying: ReplyFuture) -> ReplyFuture {
        let call = HubCall {
            context,
            method: method.name.clone(),
            arguments: method.arguments,
            uploads: method.uploads,
            is_streaming: method.is_streaming,
        };
        let next = Next { filters: self.0.clone().into_iter(), method: replying };
        Box::pin(next.run(call))
    }
}

impl HubCall {
    /// The connection of the caller.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Name of the method, as the hub has it.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Number of arguments that the client gave.
    #[must_use]
    pub fn arguments(&self) -> usize {
        self.arguments
    }

    /// Number of streams that the client uploads.
    #[must_use]
    pub fn uploads(&self) -> usize {
        self.uploads
    }

    /// Whether the method answers with a stream.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        self.is_streaming
    }

    /// Makes a reply in place of the method's own. A streaming method has none: only an error can replace its stream.
    ///
    /// # Errors
    /// When the value can't be written in the client's hub protocol.
    pub fn reply<T: Serialize>(&self, value: &T) -> Result<Reply, HubError> {
        Reply::value(value, self.context.codec())
    }
}

impl Next {
    /// Runs the rest of the chain. Without this the method is never called.
    ///
    /// # Errors
    /// With what the method failed.
    pub async fn run(mut self, call: HubCall) -> Result<Reply, HubError> {
        match self.filters.next() {
            Some(filter) => filter(call, self).await,
            None => self.method.await,
        }
    }
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").field("filters", &self.filters.len()).finish_non_exhaustive()
    }
}
