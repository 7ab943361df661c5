//! Exchange with the next hop, as needed by owner hop, pass-through and links of other nodes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, Version};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::io::InspectReader;
use tracing::debug;

use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::plain_response::plain;
use crate::edge::frontend::reverse_proxy::relayed_body::{ByteMeter, RelayedResponseBody, SilenceTimer};
use crate::edge::frontend::{InFlight, hop_header};
use crate::ground::limits::{LinkPermit, RelayPermit};
use crate::ground::metrics::{Counters, RelayFailure};
use crate::ground::net::address::Address;
use crate::ground::net::http_client::{HttpClient, HttpError, Patience};

/// Prepares a request for the next hop: removes headers of our client's connection and of the fleet. Returns the
/// requested upgrade protocol.
pub(crate) fn prepare_request(parts: &mut Parts) -> Option<HeaderValue> {
    let upgrade = hop_header::end_hop(&mut parts.headers);
    hop_header::drop_private(&mut parts.headers);
    parts.version = Version::HTTP_11;
    upgrade
}

pub(crate) fn request(parts: Parts, body: Body) -> Request<Body> {
    gate(Request::from_parts(parts, body))
}

pub(crate) fn target(uri: &Uri) -> PathAndQuery {
    uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}

/// Removes headers of our own connection from a response. Returns the granted upgrade protocol.
pub(crate) fn prepare_answer(answer: &mut http::Response<Incoming>) -> Option<HeaderValue> {
    *answer.version_mut() = Version::HTTP_11;
    hop_header::end_hop(answer.headers_mut())
}

pub(crate) fn answer_forwarded(
    answer: http::Response<Incoming>,
    meter: Option<ByteMeter>,
    in_flight: InFlight,
    permit: Option<Arc<RelayPermit>>,
) -> Response {
    // Without room in the client's window, the body is not polled even once.
    permit.iter().for_each(|permit| permit.progress().wait_for_reader());
    let is_length_known = answer.headers().contains_key(CONTENT_LENGTH);
    answer.map(|body| Body::new(RelayedResponseBody { body, meter, is_length_known, _in_flight: in_flight, permit }))
}

/// Time after which the body is sent anyway, because some servers ignore the header.
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

/// Body behind a gate, for `Expect: 100-continue`. Our server sends 100 on the first read of the body, so delaying the
/// read is enough: if the other end refuses, the client never gets a 100.
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

/// Sends a request and waits for the response head. `limit` is the maximum silence of the other end, restarted whenever
/// the request body makes progress.
pub(crate) async fn send(
    client: &HttpClient,
    address: &Address,
    request: Request<Body>,
    silence: &Arc<SilenceTimer>,
    limit: Duration,
) -> Result<http::Response<Incoming>, RelayFailure> {
    send_patiently(client, address, request, silence, (limit, Patience::None)).await
}

/// Like [`send`], with the given patience for connecting.
pub(crate) async fn send_patiently(
    client: &HttpClient,
    address: &Address,
    request: Request<Body>,
    silence: &Arc<SilenceTimer>,
    (limit, patience): (Duration, Patience),
) -> Result<http::Response<Incoming>, RelayFailure> {
    tokio::select! {
        answer = client.send_patiently(address, request, patience) => answer.map_err(|error| failure(&error, silence)),
        () = silence.expired(limit) => Err(RelayFailure::Timeout),
    }
}

fn failure(error: &HttpError, silence: &SilenceTimer) -> RelayFailure {
    debug!(%error, "no response to a request");
    match error {
        _ if silence.is_client_late() => RelayFailure::ClientLate,
        _ if silence.is_client_broken() => RelayFailure::ClientBroken,
        _ if error.is_connect_timeout() => RelayFailure::Timeout,
        _ if error.is_unreachable() => RelayFailure::Unreachable,
        _ => RelayFailure::Broken,
    }
}

/// Tunnel of an upgraded connection: forwards bytes unchanged until both directions have ended.
///
/// Joins both ends once they are upgraded. Either may end its direction and still read the other. Only the ends know
/// the meaning of silence, so the tunnel, and its permit, last without a time limit.
pub(crate) fn open_tunnel(counters: Arc<Counters>, client: OnUpgrade, app: OnUpgrade, permit: impl Send + 'static) {
    tokio::spawn(async move {
        let _permit = permit;
        let (client, app) = match tokio::try_join!(client, app) {
            Ok(ends) => ends,
            Err(error) => return debug!(%error, "upgrade accepted, but one end has disconnected"),
        };
        let relay = &counters.relay;
        let mut client = InspectReader::new(TokioIo::new(client), |bytes| relay.bytes_up.add(bytes.len() as u64));
        let mut app = InspectReader::new(TokioIo::new(app), |bytes| relay.bytes_down.add(bytes.len() as u64));
        if let Err(error) = copy_bidirectional(&mut client, &mut app).await {
            debug!(%error, "tunnel failed");
        }
    });
}

/// Forwards a link of an app server to another node that the load balancer does not route it to. The app server's token
/// is forwarded, and verified again at the other node.
pub(crate) async fn carry_link(
    endpoint: &Endpoint,
    node: &Address,
    (mut parts, permit): (Parts, Arc<LinkPermit>),
) -> Result<Response, Response> {
    let app_server: Option<OnUpgrade> = parts.extensions.remove();
    let protocol = prepare_request(&mut parts);
    parts.extensions.clear();
    let (Some(app_server), Some(protocol)) = (app_server, protocol) else {
        return Err(plain(StatusCode::BAD_REQUEST, "app servers dial in by a WebSocket upgrade"));
    };
    hop_header::set_upgrade(&mut parts.headers, protocol.clone());
    let (request, limit) = (request(parts, Body::empty()), endpoint.shared.settings.relay.hop_timeout);
    let sent = send(&endpoint.proxy_client.nodes, node, request, &SilenceTimer::new(), limit).await;
    let mut answer = sent.map_err(|failure| {
        plain(StatusCode::BAD_GATEWAY, format!("the node of this connection does not answer: {failure}"))
    })?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let text = format!("the node of this connection answers {}", answer.status());
        return Err(plain(StatusCode::BAD_GATEWAY, text));
    }
    prepare_answer(&mut answer);
    hop_header::drop_private(answer.headers_mut());
    open_tunnel(endpoint.counters.clone(), app_server, hyper::upgrade::on(&mut answer), permit);
    hop_header::set_upgrade(answer.headers_mut(), protocol);
    Ok(answer.map(|_| Body::empty()))
}

#[cfg(test)]
mod tests {
    use http::header::{CONNECTION, HOST, UPGRADE};

    use super::*;

    #[test]
    fn a_request_for_the_next_hop_has_no_headers_of_this_hop_or_the_fleet() {
        let request = Request::get("/page?x=1")
            .version(Version::HTTP_10)
            .header(HOST, "chat.example")
            .header(CONNECTION, "upgrade, x-own")
            .header(UPGRADE, "my-protocol")
            .header("x-own", "1")
            .header("x-trunkline-forward", "forged")
            .header("x-other", "stays")
            .body(())
            .unwrap();
        let (mut parts, ()) = request.into_parts();
        assert_eq!(prepare_request(&mut parts), Some(HeaderValue::from_static("my-protocol")));
        let names: Vec<_> = parts.headers.keys().map(http::HeaderName::as_str).collect();
        assert_eq!(names, ["host", "x-other"]);
        assert_eq!(parts.version, Version::HTTP_11);
        assert_eq!(target(&parts.uri), "/page?x=1");
    }
}
