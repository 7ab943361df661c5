//! Method's side of a stream that a client uploads.

use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};

use bytestring::ByteString;
use futures_util::Stream;
use serde::de::DeserializeOwned;
use trunkline_protocol::hub::Payload;

use crate::brief_debug::brief_debug;
use crate::connection::{CallScope, UploadEnd, UploadEvent};
use crate::context::Context;
use crate::error::{HubError, InvokeError, text};
use crate::hub_core::HubCore;

/// A stream of items that the client uploads: a method parameter, one per stream of the call.
///
/// A call with uploads runs concurrently with the client's other calls. A client faster than the method is paused. The
/// stream yields an error if the client reports one, an item does not fit `T`, the connection closes, or the app server
/// stops and its [timeout](crate::Server::shutdown_timeout) expires; `?` makes it the method's error. Unread items are
/// dropped when the method returns.
///
/// ```
/// use trunkline::{Hub, HubError, UploadStream};
///
/// async fn sum(mut numbers: UploadStream<f64>, factor: f64) -> Result<f64, HubError> {
///     let mut sum = 0.0;
///     while let Some(number) = numbers.next().await {
///         sum += number?;
///     }
///     Ok(sum * factor)
/// }
///
/// let hub: Hub = Hub::new("/math").method("Sum", sum);
/// ```
pub struct UploadStream<T> {
    reader: UploadReader,
    is_over: bool,
    item: PhantomData<fn() -> T>,
}

/// Reads one upload of a call.
pub(crate) struct UploadReader {
    pub(crate) scope: Arc<CallScope>,
    pub(crate) core: Arc<HubCore>,
    pub(crate) id: ByteString,
}

impl UploadReader {
    pub(crate) fn poll_event(&self, context: &mut TaskContext<'_>) -> Poll<UploadEvent> {
        let connection = &self.scope.connection;
        let limits = &self.core.limits;
        let mut inbox = connection.inbox();
        let is_overfull = inbox.is_overfull(limits);
        let (calls, flow) = inbox.calls();
        let Some(uploads) = calls.uploads() else { return Poll::Ready(UploadEvent::Closed) };
        let mut event = uploads.poll(&self.id, &self.scope, limits.upload_max_items, flow, context);
        if event.is_pending() && is_overfull {
            uploads.close_upload(&self.id, &self.scope, flow);
            event = Poll::Ready(UploadEvent::End(UploadEnd::Overfull));
        }
        calls.shrink();
        self.core.apply_flow_control(connection, &mut inbox);
        event
    }

    /// Closes the upload and drops its items. Returns the waker of a waiting reader.
    pub(crate) fn close_upload(&self) -> Option<Waker> {
        let connection = &self.scope.connection;
        let mut inbox = connection.inbox();
        let (calls, flow) = inbox.calls();
        let waker = calls.uploads().and_then(|uploads| uploads.close_upload(&self.id, &self.scope, flow));
        calls.shrink();
        self.core.apply_flow_control(connection, &mut inbox);
        waker
    }
}

impl<T> UploadStream<T> {
    pub(crate) fn new(context: &Context, id: ByteString) -> Self {
        let (scope, core) = (Arc::clone(&context.scope), Arc::clone(&context.core));
        Self { reader: UploadReader { scope, core, id }, is_over: false, item: PhantomData }
    }

    fn close(&self) {
        // Only the dropped owner of this stream waits for its items.
        drop(self.reader.close_upload());
    }
}

impl<T: DeserializeOwned> UploadStream<T> {
    /// Returns the next item, or `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Result<T, HubError>> {
        poll_fn(|context| self.poll_item(context)).await
    }

    fn poll_item(&mut self, context: &mut TaskContext<'_>) -> Poll<Option<Result<T, HubError>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let item = match std::task::ready!(self.reader.poll_event(context)) {
            UploadEvent::Item(item) => Some(self.read_item(&item.payload)),
            UploadEvent::End(end) => end_of_upload(end, self.reader.core.limits.waiting_inbox_max_bytes).map(Err),
            UploadEvent::Closed => None,
        };
        self.is_over = !matches!(item, Some(Ok(_)));
        Poll::Ready(item)
    }

    fn read_item(&self, payload: &Payload) -> Result<T, HubError> {
        let UploadReader { scope, core, id } = &self.reader;
        core.outbound.metrics.items_up.inc();
        core.codec(scope.connection.protocol).value(payload).map_err(|error| {
            tracing::debug!(hub = %core.name(), stream = %id, %error, "item does not fit");
            self.close();
            text::item_not_bound()
        })
    }
}

/// Error for the method at the end of the upload; `None` if the upload is complete.
fn end_of_upload(end: UploadEnd, waiting_inbox_max_bytes: usize) -> Option<HubError> {
    match end {
        UploadEnd::Complete => None,
        UploadEnd::Failed(text) => Some(HubError::new(&*text)),
        UploadEnd::ConnectionClosed => Some(text::upload_cut_off()),
        UploadEnd::Leaving => Some(InvokeError::Leaving.into()),
        UploadEnd::Overfull => Some(InvokeError::InboxOverfull(waiting_inbox_max_bytes).into()),
    }
}

impl<T: DeserializeOwned> Stream for UploadStream<T> {
    type Item = Result<T, HubError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        self.poll_item(context)
    }
}

impl<T> Drop for UploadStream<T> {
    fn drop(&mut self) {
        if !self.is_over {
            self.close();
        }
    }
}

brief_debug!(UploadStream<T>, |it| { id: it.reader.id, is_over: it.is_over });
