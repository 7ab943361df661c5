//! `Expect: 100-continue`: a body is neither relayed nor requested before the other end accepts it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::EXPECT;
use http::{HeaderMap, Request, StatusCode};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::timeout;

/// Time after which the body is sent anyway, because some servers ignore the header.
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

/// Body behind a gate. Our server sends 100 on the first read of the body, so delaying the read is enough: if the other
/// end refuses, the client never gets a 100.
struct GatedBody {
    gate: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    body: Body,
}

/// Delays the body of a request with `Expect: 100-continue` until the other end accepts it.
pub(crate) fn gate(mut request: Request<Body>) -> Request<Body> {
    if !expects_continue(request.headers()) {
        return request;
    }
    let opened = Arc::new(Notify::new());
    let open = opened.clone();
    hyper::ext::on_informational(&mut request, move |answer| {
        if answer.status() == StatusCode::CONTINUE {
            open.notify_one();
        }
    });
    request.map(|body| {
        let gate = Box::pin(async move { drop(timeout(CONTINUE_TIMEOUT, opened.notified()).await) });
        Body::new(GatedBody { gate: Some(gate), body })
    })
}

fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

impl HttpBody for GatedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(gate) = &mut self.gate {
            ready!(gate.as_mut().poll(cx));
            self.gate = None;
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
