//! Pass-through: what is not a hub's goes to an app server, as it is, and its answer comes back as it is.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::request::Parts;
use http::{Method, StatusCode};
use hyper::body::Body as _;
use hyper::upgrade::OnUpgrade;
use trunkline_protocol::cause::Cause;

use super::body::{Meter, Progress, RequestBody};
use super::{Relay, client, forwarded, headers, onward, tunnel};
use crate::frontend::answers::Counted;
use crate::frontend::{Endpoint, OfApp, plain, unavailable};
use crate::metrics::{Passed, RelayFailure};
use crate::upstream::{AppServer, AppTarget};

/// A request that is for whichever app server takes it.
struct Exchange<'a> {
    endpoint: &'a Endpoint,
    parts: Parts,
    body: Body,
    client: Option<OnUpgrade>,
    is_upgrade: bool,
}

/// Passes a request through.
pub(in crate::frontend) async fn pass(endpoint: &Endpoint, request: Request) -> Response {
    if request.method() == Method::CONNECT {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "this method is not allowed here");
    }
    let counters = &endpoint.counters.relay;
    let app_servers = endpoint.relay.in_turn(endpoint.shared.hubs.linked_app_servers());
    let (outcome, answer) = if app_servers.is_empty() {
        (Passed::NoAppServer, unavailable(Cause::NoAppServer, "no app server is linked at the moment"))
    } else {
        match Exchange::new(endpoint, request).run(&app_servers).await {
            Ok(mut answer) => {
                answer.extensions_mut().insert(OfApp);
                (Passed::Answered, answer)
            }
            Err(failure) => (Passed::Failed(failure), refusal(failure)),
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

impl Relay {
    /// The app servers in the order in which to try them.
    fn in_turn(&self, mut app_servers: Vec<Arc<AppServer>>) -> Vec<Arc<AppServer>> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let first = turn.checked_rem(app_servers.len()).unwrap_or_default();
        app_servers.rotate_left(first);
        app_servers
    }
}

impl<'a> Exchange<'a> {
    fn new(endpoint: &'a Endpoint, request: Request) -> Self {
        let (mut parts, body) = request.into_parts();
        let client = parts.extensions.remove();
        let upgrade = onward::depart(&mut parts);
        forwarded::tell(&mut parts);
        if let Some(protocol) = &upgrade {
            headers::ask_upgrade(&mut parts.headers, protocol.clone());
        }
        parts.extensions.clear();
        Self { endpoint, parts, body, client, is_upgrade: upgrade.is_some() }
    }

    /// Tries one app server after the other, until something was sent.
    async fn run(self, app_servers: &[Arc<AppServer>]) -> Result<Response, RelayFailure> {
        let Self { endpoint, parts, body, client, is_upgrade } = self;
        let under_way = Counted::new(endpoint.shared.clone());
        let progress = Progress::new();
        let patience = endpoint.shared.settings.relay.upstream_answer_timeout;
        let has_body = !body.is_end_stream();
        let meter = Some(Meter::up(&endpoint.counters));
        let mut body = has_body.then(|| Body::new(RequestBody { body, progress: progress.clone(), meter }));
        let mut outcome = Err(RelayFailure::Unreachable);
        for app in app_servers {
            let AppTarget::Network(address) = &app.target else { continue };
            let request = onward::request(parts.clone(), body.take().unwrap_or_default());
            outcome = client::send(&endpoint.relay.app_servers, address, request, &progress, patience).await;
            if has_body || !matches!(outcome, Err(RelayFailure::Unreachable)) {
                break;
            }
        }
        let mut answer = outcome?;
        let upgrade = onward::arrive(&mut answer);
        headers::drop_private(answer.headers_mut());
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(onward::answer(answer, Some(Meter::down(&endpoint.counters)), under_way));
        }
        let (Some(client), Some(protocol), true) = (client, upgrade, is_upgrade) else {
            return Err(RelayFailure::Broken);
        };
        endpoint.counters.relay.upgrades.increment();
        tunnel::open(endpoint.counters.clone(), client, hyper::upgrade::on(&mut answer));
        headers::ask_upgrade(answer.headers_mut(), protocol);
        Ok(answer.map(|_| Body::empty()))
    }
}
