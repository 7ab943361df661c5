//! Pass-through: forwards a request that is not for a hub to an app server, and its response to the client, both
//! unchanged.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::body::Body as _;
use hyper::upgrade::OnUpgrade;
use trunkline_protocol::cause::Cause;

use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::forwarded_header::{FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO};
use crate::edge::frontend::plain_response::{ResponseNotes, plain, unavailable};
use crate::edge::frontend::request_context::{RequestContext, RequestHead};
use crate::edge::frontend::request_limit::{
    refuse_broken_body, refuse_displaced, refuse_full_upstreams, refuse_slow_body, take_relay_permit,
};
use crate::edge::frontend::request_route::route_passed_through;
use crate::edge::frontend::reverse_proxy::next_hop;
use crate::edge::frontend::reverse_proxy::relayed_body::{ByteMeter, RelayedRequestBody, SilenceTimer};
use crate::edge::frontend::timed_body::TimedBody;
use crate::edge::frontend::{InFlight, hop_header};
use crate::engine::upstream::{AppServer, AppTarget, RouteChoice};
use crate::ground::limits::{FullUpstream, RelayPermit};
use crate::ground::metrics::{PassThroughOutcome, RelayFailure};
use crate::ground::net::socket::WriteStallLimit;

/// Request for the first app server that accepts it.
struct PassThrough<'a> {
    endpoint: &'a Endpoint,
    parts: Parts,
    body: Body,
    client: Option<OnUpgrade>,
    is_upgrade: bool,
    permit: RelayPermit,
}

enum PassThroughError {
    /// All app servers are at their limits of requests in flight.
    Full,
    /// Displaced by a newer request while waiting for its client.
    Displaced,
    Failed(RelayFailure),
}

impl From<RelayFailure> for PassThroughError {
    fn from(failure: RelayFailure) -> Self {
        Self::Failed(failure)
    }
}

pub(crate) async fn pass_through(endpoint: &Endpoint, head: RequestHead, body: Body) -> Response {
    let (outcome, answer) = pass_request(endpoint, head, body).await;
    endpoint.counters.relay.passed.of(outcome).increment();
    answer
}

async fn pass_request(
    endpoint: &Endpoint,
    (parts, context): RequestHead,
    body: Body,
) -> (PassThroughOutcome, Response) {
    let group = match route_passed_through(endpoint, (&parts, &context)) {
        Ok(group) => group,
        Err(refusal) => return (PassThroughOutcome::Rejected, refusal),
    };
    let group = RouteChoice::group_name(group.as_ref());
    let app_servers = endpoint.proxy_client.in_turn(endpoint.shared.hubs.linked_app_servers(group));
    if app_servers.is_empty() {
        let refusal = unavailable(Cause::NoAppServer, "no app server is linked at the moment");
        return (PassThroughOutcome::NoAppServer, refusal);
    }
    let permit = match take_relay_permit(endpoint, &context.source) {
        Ok(permit) => permit,
        Err(refusal) => return (PassThroughOutcome::Limited, refusal),
    };
    let displaced = permit.displacement();
    match PassThrough::new(endpoint, (parts, context), body, permit).run(&app_servers).await {
        Ok(mut answer) => {
            ResponseNotes::edit(&mut answer).is_counted_elsewhere = true;
            // After an upgrade, both ends may be silent and slow without limit.
            if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                let limit = endpoint.shared.settings.limits.body_timeout;
                WriteStallLimit::IdleUnless(limit, displaced).attach(&mut answer);
            }
            (PassThroughOutcome::Answered, answer)
        }
        Err(PassThroughError::Full) => (PassThroughOutcome::Limited, refuse_full_upstreams(endpoint)),
        Err(PassThroughError::Displaced) => (PassThroughOutcome::Limited, refuse_displaced()),
        Err(PassThroughError::Failed(failure)) => (failure.into(), refusal(endpoint, failure)),
    }
}

fn refusal(endpoint: &Endpoint, failure: RelayFailure) -> Response {
    let status = match failure {
        RelayFailure::ClientLate => return refuse_slow_body(endpoint),
        RelayFailure::ClientBroken => return refuse_broken_body(),
        RelayFailure::Unreachable | RelayFailure::Broken => StatusCode::BAD_GATEWAY,
        RelayFailure::Timeout => StatusCode::GATEWAY_TIMEOUT,
    };
    plain(status, format!("the app server did not answer: {failure}"))
}

impl<'a> PassThrough<'a> {
    fn new(endpoint: &'a Endpoint, (mut parts, context): RequestHead, body: Body, permit: RelayPermit) -> Self {
        let client = parts.extensions.remove();
        let upgrade = next_hop::prepare_request(&mut parts);
        // A webhook back end may also be behind pass-through.
        hop_header::drop_service(&mut parts.headers);
        set_forwarded_headers(&mut parts, &context);
        if let Some(protocol) = &upgrade {
            hop_header::set_upgrade(&mut parts.headers, protocol.clone());
        }
        parts.extensions.clear();
        Self { endpoint, parts, body, client, is_upgrade: upgrade.is_some(), permit }
    }

    /// Tries the app servers in turn until a request was sent.
    async fn run(self, app_servers: &[Arc<AppServer>]) -> Result<Response, PassThroughError> {
        let Self { endpoint, mut parts, body, client, is_upgrade, permit } = self;
        let settings = &endpoint.shared.settings;
        let in_flight = InFlight::new(endpoint.shared.clone());
        let silence = SilenceTimer::new();
        let has_body = !body.is_end_stream();
        if has_body {
            announce_body(&mut parts.headers);
        }
        let mut permit = Arc::new(permit);
        let mut body = has_body.then_some(body);
        let mut outcome = Err(PassThroughError::Full);
        let displaced = permit.displacement();
        for (app, when_full) in attempts(app_servers) {
            if when_full == FullUpstream::Displace && !matches!(outcome, Err(PassThroughError::Full)) {
                break;
            }
            let AppTarget::Network(address) = &app.target else { continue };
            // Not shared yet: a request with a body is sent once.
            if !Arc::get_mut(&mut permit).is_some_and(|permit| permit.choose(address, when_full)) {
                continue;
            }
            let body = body.take().map_or_else(Body::empty, |body| {
                let body = TimedBody::for_app(body, settings.limits.body_timeout);
                let (silence, meter) = (silence.clone(), Some(ByteMeter::up(&endpoint.counters)));
                Body::new(RelayedRequestBody { body, silence, meter, permit: Some(permit.clone()) })
            });
            let (request, limit) = (next_hop::request(parts.clone(), body), settings.relay.upstream_answer_timeout);
            let client = endpoint.proxy_client.app_servers.through(app.group.terms().plain.for_clients());
            let sent = tokio::select! {
                sent = next_hop::send(&client, address, request, &silence, limit) => sent,
                () = displaced.cancelled() => return Err(PassThroughError::Displaced),
            };
            let is_last = has_body || !matches!(sent, Err(RelayFailure::Unreachable));
            outcome = sent.map_err(PassThroughError::from);
            if is_last {
                break;
            }
        }
        let mut answer = outcome?;
        let upgrade = next_hop::prepare_answer(&mut answer);
        hop_header::drop_private(answer.headers_mut());
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            let meter = Some(ByteMeter::down(&endpoint.counters));
            return Ok(next_hop::answer_forwarded(answer, meter, in_flight, Some(permit)));
        }
        let (Some(client), Some(protocol), true) = (client, upgrade, is_upgrade) else {
            return Err(RelayFailure::Broken.into());
        };
        endpoint.counters.relay.upgrades.increment();
        permit.progress().read();
        next_hop::open_tunnel(endpoint.counters.clone(), client, hyper::upgrade::on(&mut answer), permit);
        hop_header::set_upgrade(answer.headers_mut(), protocol);
        Ok(answer.map(|_| Body::empty()))
    }
}

/// Order of attempts: app servers with room, then each once more, displacing a request that waits for its client.
fn attempts(app_servers: &[Arc<AppServer>]) -> impl Iterator<Item = (&Arc<AppServer>, FullUpstream)> {
    let with = |when_full| app_servers.iter().map(move |app| (app, when_full));
    with(FullUpstream::PassOver).chain(with(FullUpstream::Displace))
}

/// Announces a body of unknown length. Otherwise the HTTP client would omit the body of a GET.
fn announce_body(headers: &mut HeaderMap) {
    if !headers.contains_key(CONTENT_LENGTH) {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Sets the `X-Forwarded-*` headers for an app server. Normalisation has removed untrusted ones.
pub(crate) fn set_forwarded_headers(parts: &mut Parts, context: &RequestContext) {
    if let Some(value) = context.source.peer.and_then(|peer| HeaderValue::from_str(&peer.ip().to_string()).ok()) {
        parts.headers.insert(FORWARDED_FOR, value);
    }
    if let Some(host) = parts.headers.get(HOST).cloned() {
        parts.headers.insert(FORWARDED_HOST, host);
    }
    parts.headers.insert(FORWARDED_PROTO, HeaderValue::from_static(context.scheme_name()));
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::Router;
    use axum::extract::Request;
    use bytes::Bytes;
    use futures_util::stream::{FuturesUnordered, StreamExt, iter, pending};
    use http::header::HOST;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, duplex};
    use tokio::net::TcpListener;
    use tokio::sync::watch;
    use tokio::time::Instant;
    use tower::ServiceExt;
    use trunkline_protocol::key::{AccessKey, AccessKeys};
    use trunkline_protocol::manifest::HubManifest;

    use super::*;
    use crate::edge::frontend::forwarded_header::ForwardedScheme;
    use crate::edge::frontend::request_context::RequestSource;
    use crate::edge::frontend::request_query::RequestQuery;
    use crate::engine::shard::{ShardSender, Shared};
    use crate::engine::upstream::{LinkHandle, Pool};
    use crate::features::admission::Admission;
    use crate::ground::auth::AccessSettings;
    use crate::ground::config::{RelaySettings, Settings};
    use crate::ground::metrics::Limit;
    use crate::ground::net::connector::Connector;

    /// Four connections of 256 requests each, the number one address could once hold at an app server.
    const REQUESTS: usize = 4 * 256;

    /// App server that never responds: its address, and the number of connections to it.
    async fn mute_app() -> (SocketAddr, watch::Receiver<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, connections) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                sender.send_modify(|count| *count += 1);
                let sender = sender.clone();
                tokio::spawn(async move {
                    drop(stream.read_to_end(&mut Vec::new()).await);
                    sender.send_modify(|count| *count -= 1);
                });
            }
        });
        (address, connections)
    }

    /// Node with links to these app servers.
    fn node(apps: &[SocketAddr], relay: RelaySettings) -> (Arc<Shared>, Router) {
        let keys = AccessKeys::new(vec![AccessKey::random()]).unwrap();
        let relay = RelaySettings {
            pass_through: true,
            upstream_connect_timeout: std::time::Duration::from_secs(600),
            upstream_answer_timeout: std::time::Duration::from_secs(600),
            ..relay
        };
        let settings = Settings { relay, ..Settings::embedded(keys, Vec::new(), true) };
        let (shard, admission) =
            (ShardSender::new().0, Admission::new(&settings.keys, AccessSettings::default(), Connector::default()));
        let shared = Shared::alone(settings, vec![shard.clone()]);
        let hub =
            shared.hubs.register(HubManifest::new("chat", "/chat"), &crate::engine::upstream::ServerGroup::default());
        for app in apps {
            let id = shared.hubs.number(&app.to_string());
            let target = AppTarget::Network(format!("http://{app}").parse().unwrap());
            let server =
                AppServer { id, instance: app.to_string(), name: String::new(), target, group: Arc::default() };
            let pool = Arc::new(Pool::new(hub.identity.clone(), Arc::new(server), 1, Arc::default()));
            pool.opened(0, Arc::new(LinkHandle::opened(&hub.identity, id)));
            hub.add_pool(pool);
        }
        let router = Arc::new(Endpoint::new(shared.clone(), admission, shared.counters_of(0), shard)).into_router();
        (shared, router)
    }

    /// Request with an endless body that has sent one byte.
    fn upload(client: u8) -> Request {
        let body = iter([Ok::<_, std::io::Error>(Bytes::from_static(b"x"))]).chain(pending());
        let mut request = Request::post("/upload").header(HOST, "localhost").body(Body::from_stream(body)).unwrap();
        RequestSource::from_peer(([192, 0, 2, client], 40_000).into()).attach(&mut request);
        request
    }

    async fn send(router: Router, request: Request) -> StatusCode {
        router.oneshot(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn an_address_holds_no_more_requests_at_app_servers_than_it_may() {
        const MOST: usize = 256;
        let (app, mut connections) = mute_app().await;
        let requests_per_address_max = Some(256);
        let (shared, router) = node(&[app], RelaySettings { requests_per_address_max, ..RelaySettings::embedded() });
        let mut under_way: FuturesUnordered<_> = (0..REQUESTS).map(|_| send(router.clone(), upload(1))).collect();
        for _ in 0..REQUESTS - MOST {
            assert_eq!(under_way.next().await, Some(StatusCode::TOO_MANY_REQUESTS));
        }
        tokio::select! {
            _ = under_way.next() => panic!("nobody answers"),
            all = connections.wait_for(|count| *count == MOST) => drop(all.unwrap()),
        }
        assert_eq!(shared.counters_of(0).limit(Limit::PassThroughPerAddress).get(), (REQUESTS - MOST) as u64);
        tokio::select! {
            status = send(router.clone(), upload(2)) => panic!("{status}"),
            more = connections.wait_for(|count| *count == MOST + 1) => drop(more.unwrap()),
        }
        drop(under_way);
        drop(connections.wait_for(|count| *count == 0).await.unwrap());
        tokio::select! {
            status = send(router, upload(1)) => panic!("{status}"),
            again = connections.wait_for(|count| *count == 1) => drop(again.unwrap()),
        }
    }

    #[tokio::test]
    async fn a_full_app_server_is_skipped_and_counted_if_all_are_full() {
        let ((one, mut at_one), (two, mut at_two)) = (mute_app().await, mute_app().await);
        let requests_per_upstream_max = Some(2);
        let relay = RelaySettings { requests_per_upstream_max, ..RelaySettings::embedded() };
        let (shared, router) = node(&[one, two], relay);
        let mut under_way: FuturesUnordered<_> = (0..7).map(|_| send(router.clone(), upload(1))).collect();
        for _ in 0..3 {
            assert_eq!(under_way.next().await, Some(StatusCode::SERVICE_UNAVAILABLE));
        }
        tokio::select! {
            _ = under_way.next() => panic!("nobody answers"),
            all = async { (at_one.wait_for(|count| *count == 2).await, at_two.wait_for(|count| *count == 2).await) } => {
                assert!(all.0.is_ok() && all.1.is_ok());
            }
        }
        assert_eq!(shared.counters_of(0).limit(Limit::PassThroughPerUpstream).get(), 3);
    }

    #[tokio::test]
    async fn an_upload_whose_rest_does_not_come_makes_room_for_a_newer_request() {
        let (app, mut connections) = mute_app().await;
        let requests_max = Some(2);
        let (shared, router) = node(&[app], RelaySettings { requests_max, ..RelaySettings::embedded() });
        let mut under_way: FuturesUnordered<_> =
            [1, 3].map(|ip| send(router.clone(), upload(ip))).into_iter().collect();
        tokio::select! {
            _ = under_way.next() => panic!("nobody answers"),
            all = connections.wait_for(|count| *count == 2) => drop(all.unwrap()),
        }
        assert_eq!(send(router.clone(), upload(2)).await, StatusCode::SERVICE_UNAVAILABLE, "they may come yet");
        tokio::select! {
            _ = under_way.next() => panic!("nobody answers"),
            // sleep: for a second a place is safe, and sockets are real.
            () = tokio::time::sleep(std::time::Duration::from_millis(1_100)) => {}
        }
        let mut newer = std::pin::pin!(send(router, upload(2)));
        tokio::select! {
            ended = under_way.next() => assert_eq!(ended, Some(StatusCode::SERVICE_UNAVAILABLE)),
            status = &mut newer => panic!("{status}"),
        }
        assert_eq!(shared.limits.relays.displaced(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_stands_still_is_ended_and_frees_its_connection() {
        let (app, mut connections) = mute_app().await;
        let (shared, router) = node(&[app], RelaySettings::embedded());
        let began = Instant::now();
        assert_eq!(send(router, upload(1)).await, StatusCode::REQUEST_TIMEOUT);
        assert_eq!(began.elapsed().as_secs(), shared.settings.limits.body_timeout.as_secs());
        drop(connections.wait_for(|count| *count == 0).await.unwrap());
    }

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
    fn a_stated_length_is_kept() {
        let mut headers = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("5"))]);
        announce_body(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), [CONTENT_LENGTH]);
    }

    #[test]
    fn an_app_server_gets_address_scheme_and_host_of_the_client() {
        let (mut parts, ()) = Request::get("/").header(HOST, "chat.example:8443").body(()).unwrap().into_parts();
        let source = RequestSource::from_peer("203.0.113.9:4711".parse().unwrap());
        let context = RequestContext::new(source, RequestQuery::parse(&parts.uri));
        set_forwarded_headers(&mut parts, &RequestContext { scheme: Some(ForwardedScheme::Https), ..context });
        let names = [FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO];
        assert_eq!(names.map(|name| parts.headers[name].clone()), ["203.0.113.9", "chat.example:8443", "https"]);
    }
}
