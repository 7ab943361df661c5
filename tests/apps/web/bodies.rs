//! Bodies that arrive in pieces.

use std::io;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use http_body_util::{BodyExt, Full};
use tokio::sync::broadcast::error::RecvError;

use super::state::Web;

/// Body with a trailer, which its head announces.
pub(crate) async fn trailers() -> Response {
    let trailers = HeaderMap::from_iter([(HeaderName::from_static("x-sum"), HeaderValue::from_static("42"))]);
    let body = Full::new(Bytes::from_static(b"body")).with_trailers(async move { Some(Ok(trailers)) });
    // A stream has no known length, so it is sent in chunks, which trailers require.
    let body = http_body_util::StreamBody::new(http_body_util::BodyStream::new(body));
    ([("trailer", "x-sum")], Body::new(body)).into_response()
}

/// Event stream of texts sent to `/tell` from now on.
pub(crate) async fn events(State(web): State<Web>) -> Response {
    let receiver = web.events.subscribe();
    let opening = stream::iter([Ok::<_, io::Error>(": open\n\n".to_owned())]);
    let told = stream::unfold(receiver, async |mut receiver| match receiver.recv().await {
        Ok(text) => Some((Ok(format!("data: {text}\n\n")), receiver)),
        Err(RecvError::Closed | RecvError::Lagged(_)) => None,
    });
    let body = Body::from_stream(futures_util::StreamExt::chain(opening, told));
    ([("content-type", "text/event-stream")], body).into_response()
}

/// Sends text to all readers of events and returns their number.
pub(crate) async fn tell(State(web): State<Web>, text: String) -> String {
    web.events.send(text).unwrap_or_default().to_string()
}

/// Reports when it is dropped.
struct Abandoned(Web);

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.0.abandoned.notify_one();
    }
}

/// Infinite body in pieces of 64 KiB.
pub(crate) async fn endless(State(web): State<Web>) -> Body {
    let reader = Abandoned(web);
    Body::from_stream(pieces(reader))
}

fn pieces(reader: Abandoned) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::unfold(reader, async |reader| Some((Ok(Bytes::from_static(&[b'x'; 64 * 1024])), reader)))
}

/// Half of a body; it ends with the next text to `/tell`, so that the half has been sent by then.
pub(crate) async fn broken(State(web): State<Web>) -> Body {
    let mut receiver = web.events.subscribe();
    let half = stream::iter([Ok(Bytes::from_static(b"half"))]);
    let end = stream::once(async move {
        drop(receiver.recv().await);
        Err(io::Error::other("the other half is missing"))
    });
    Body::from_stream(futures_util::StreamExt::chain(half, end))
}
