//! Pass-through: forwards a request that is not a hub's to an app server, and its answer to the client, both unchanged.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::body::Body as _;
use hyper::upgrade::OnUpgrade;
use trunkline_protocol::cause::Cause;

use crate::frontend::endpoint::Endpoint;
use crate::frontend::hop_header;
use crate::frontend::in_flight::InFlight;
use crate::frontend::plain_response::{plain, unavailable};
use crate::frontend::request_extension::FromApp;
use crate::frontend::reverse_proxy::relayed_body::{ByteMeter, RelayedRequestBody, SilenceTimer};
use crate::frontend::reverse_proxy::{next_hop, silence_limit, tunnel, x_forwarded};
use crate::metrics::{PassThroughOutcome, RelayFailure};
use crate::upstream::{AppServer, AppTarget};

/// Request for the first app server that takes it.
struct PassThrough<'a> {
    endpoint: &'a Endpoint,
    parts: Parts,
    body: Body,
    client: Option<OnUpgrade>,
    is_upgrade: bool,
}

/// Passes a request through.
pub(crate) async fn pass_through(endpoint: &Endpoint, request: Request) -> Response {
    let counters = &endpoint.counters.relay;
    let app_servers = endpoint.proxy_client.in_turn(endpoint.shared.hubs.linked_app_servers());
    let (outcome, answer) = if app_servers.is_empty() {
        (PassThroughOutcome::NoAppServer, unavailable(Cause::NoAppServer, "no app server is linked at the moment"))
    } else {
        match PassThrough::new(endpoint, request).run(&app_servers).await {
            Ok(mut answer) => {
                answer.extensions_mut().insert(FromApp);
                (PassThroughOutcome::Answered, answer)
            }
            Err(failure) => (PassThroughOutcome::Failed(failure), refusal(failure)),
        }
    };
    counters.passed(outcome).increment();
    answer
}

fn refusal(failure: RelayFailure) -> Response {
    let status = match failure {
        RelayFailure::Unreachable | RelayFailure::Broken => StatusCode::BAD_GATEWAY,
        RelayFailure::Timeout => StatusCode::GATEWAY_TIMEOUT,
    };
    plain(status, format!("the app server gave no answer: {failure}"))
}

impl<'a> PassThrough<'a> {
    fn new(endpoint: &'a Endpoint, request: Request) -> Self {
        let (mut parts, body) = request.into_parts();
        let client = parts.extensions.remove();
        let upgrade = next_hop::prepare_request(&mut parts);
        x_forwarded::set_headers(&mut parts);
        if let Some(protocol) = &upgrade {
            hop_header::set_upgrade(&mut parts.headers, protocol.clone());
        }
        parts.extensions.clear();
        Self { endpoint, parts, body, client, is_upgrade: upgrade.is_some() }
    }

    /// Tries one app server after the other, until a request was sent.
    async fn run(self, app_servers: &[Arc<AppServer>]) -> Result<Response, RelayFailure> {
        let Self { endpoint, mut parts, body, client, is_upgrade } = self;
        let in_flight = InFlight::new(endpoint.shared.clone());
        let silence = SilenceTimer::new();
        let limit = endpoint.shared.settings.relay.upstream_answer_timeout;
        let has_body = !body.is_end_stream();
        if has_body {
            announce_body(&mut parts.headers);
        }
        let meter = Some(ByteMeter::up(&endpoint.counters));
        let mut body = has_body.then(|| Body::new(RelayedRequestBody { body, silence: silence.clone(), meter }));
        let mut outcome = Err(RelayFailure::Unreachable);
        for app in app_servers {
            let AppTarget::Network(address) = &app.target else { continue };
            let request = next_hop::request(parts.clone(), body.take().unwrap_or_default());
            outcome = silence_limit::send(&endpoint.proxy_client.app_servers, address, request, &silence, limit).await;
            if has_body || !matches!(outcome, Err(RelayFailure::Unreachable)) {
                break;
            }
        }
        let mut answer = outcome?;
        let upgrade = next_hop::prepare_answer(&mut answer);
        hop_header::drop_private(answer.headers_mut());
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(next_hop::answer(answer, Some(ByteMeter::down(&endpoint.counters)), in_flight));
        }
        let (Some(client), Some(protocol), true) = (client, upgrade, is_upgrade) else {
            return Err(RelayFailure::Broken);
        };
        endpoint.counters.relay.upgrades.increment();
        tunnel::open(endpoint.counters.clone(), client, hyper::upgrade::on(&mut answer));
        hop_header::set_upgrade(answer.headers_mut(), protocol);
        Ok(answer.map(|_| Body::empty()))
    }
}

/// Says that a body of unknown length follows. Without it the HTTP client takes a GET for one that has none, and leaves
/// its body out.
fn announce_body(headers: &mut HeaderMap) {
    if !headers.contains_key(CONTENT_LENGTH) {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_get_keeps_its_body() {
        let chunks = futures_util::stream::iter([Ok::<_, std::io::Error>("a query")]);
        let mut request = Request::get("/search").header("host", "a").body(Body::from_stream(chunks)).unwrap();
        announce_body(request.headers_mut());
        let (near, mut far) = duplex(1024);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await.unwrap();
        tokio::spawn(connection);
        tokio::spawn(async move { sender.send_request(request).await });
        let mut sent = String::new();
        while !sent.ends_with("0\r\n\r\n") {
            let mut bytes = [0; 256];
            let read = far.read(&mut bytes).await.unwrap();
            assert!(read > 0, "the body is left out: {sent}");
            sent.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        }
        assert!(sent.contains("7\r\na query\r\n"), "{sent}");
    }

    #[test]
    fn a_length_that_is_told_stays() {
        let mut headers = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("5"))]);
        announce_body(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), [CONTENT_LENGTH]);
    }
}
