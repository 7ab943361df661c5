//! Authorizes clients by calling app servers, in turn until one is reachable.
//!
//! Calls of a hub, and of an app key, have a [fair share](crate::ground::bounded), so app servers that don't answer
//! leave calls to other hubs. Clients of a hub wait in order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;
use tracing::debug;

use crate::engine::upstream::{AppServer, AppTarget, HubIndex};
use crate::ground::auth::Signer;
use crate::ground::bounded::{Permit, Permits};
use crate::ground::limits::SignerShare;
use crate::ground::net::http_client::{HttpClient, HttpError};

/// Maximum response body. A decision is small, and a refusal is at most a page.
const ANSWER_MAX_BYTES: usize = 256 * 1024;

/// Maximum number of concurrent calls per shard, each a connection to an app server; further calls wait. One hub alone
/// may have half.
const CALLS_MAX: usize = 512;

/// A call may wait for a permit for the timeout divided by this.
const WAIT_SHARE: u32 = 4;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AuthorizeError {
    #[error("no app server is linked")]
    NoAppServer,
    /// No permit became available in time.
    #[error(
        "the {CALLS_MAX} calls of a shard, or the share of this hub or its app key, are in flight, and none ended within \
         {} ms, a quarter of --negotiate-timeout", .0.as_millis()
    )]
    Full(Duration),
    #[error("no answer within {} s (--negotiate-timeout)", .0.as_secs())]
    Timeout(Duration),
    #[error("no answer from {target}: {source}")]
    Exchange {
        /// The app server called last.
        target: AppTarget,
        source: HttpError,
    },
    /// The response broke off or is too large.
    #[error("the answer can't be read: {0}")]
    Body(String),
    #[error("the question can't be written: {0}")]
    Request(#[from] http::Error),
}

#[derive(Debug, Clone)]
pub(crate) struct Authorizer {
    client: HttpClient,
    timeout: Duration,
    calls: Arc<Calls>,
}

/// Calls in flight, by app and by hub.
#[derive(Debug)]
struct Calls {
    of_apps: Permits<Signer>,
    of_hubs: Permits<HubIndex>,
    /// Only the first waiting call of a hub competes for permits. Indices of hubs are reused, so there are few lines.
    lines: Mutex<HashMap<HubIndex, Arc<Semaphore>>>,
    ended: Notify,
}

#[derive(Debug)]
struct CallPermit<'a> {
    permits: Option<(Permit<Signer>, Permit<HubIndex>)>,
    ended: &'a Notify,
}

impl Drop for CallPermit<'_> {
    fn drop(&mut self) {
        drop(self.permits.take());
        self.ended.notify_waiters();
    }
}

impl Calls {
    fn new() -> Self {
        let (of_apps, of_hubs) = (Permits::new(CALLS_MAX, usize::MAX), Permits::new(CALLS_MAX, usize::MAX));
        Self { of_apps, of_hubs, lines: Mutex::default(), ended: Notify::new() }
    }

    /// Waits for a permit.
    async fn permit(&self, hub: HubIndex, app: &SignerShare) -> CallPermit<'_> {
        let lines = || self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = lines().entry(hub).or_insert_with(|| Arc::new(Semaphore::new(1))).clone();
        let _first = line.acquire().await;
        loop {
            let ended = self.ended.notified();
            if let (Ok(of_app), Ok(of_hub)) = (app.take(&self.of_apps), self.of_hubs.take_fair(hub)) {
                return CallPermit { permits: Some((of_app, of_hub)), ended: &self.ended };
            }
            ended.await;
        }
    }
}

impl Authorizer {
    /// Uses this HTTP client, with a timeout per call.
    pub(crate) fn new(client: HttpClient, timeout: Duration) -> Self {
        Self { client, timeout, calls: Arc::new(Calls::new()) }
    }

    /// Calls the first reachable app server of a hub, within the share of the hub and its app. The request has no body.
    /// Over the network it is signed, so that the app can recognise a node of the fleet.
    ///
    /// # Errors
    /// Without a complete response in time.
    pub(crate) async fn authorize(
        &self,
        (hub, app): (HubIndex, &SignerShare),
        apps: &[Arc<AppServer>],
        node: &str,
        request: Parts,
    ) -> Result<Response<Bytes>, AuthorizeError> {
        // A call gets its full timeout even after a long wait, because an abandoned call costs the app as much. So the
        // wait must end while a call may still help the client.
        let wait = self.timeout / WAIT_SHARE;
        let _permit = timeout(wait, self.calls.permit(hub, app)).await.map_err(|_| AuthorizeError::Full(wait))?;
        let authorized = self.authorize_in_turn(apps, node, request);
        timeout(self.timeout, authorized).await.unwrap_or(Err(AuthorizeError::Timeout(self.timeout)))
    }

    async fn authorize_in_turn(
        &self,
        apps: &[Arc<AppServer>],
        node: &str,
        request: Parts,
    ) -> Result<Response<Bytes>, AuthorizeError> {
        let mut outcome = Err(AuthorizeError::NoAppServer);
        for app in apps {
            outcome = self.exchange(app, node, request.clone()).await;
            match &outcome {
                Err(error @ AuthorizeError::Exchange { source, .. }) if source.is_unreachable() => {
                    debug!(%error, "another app server is asked, if there is one");
                }
                _ => break,
            }
        }
        outcome
    }

    async fn exchange(
        &self,
        app: &AppServer,
        node: &str,
        mut request: Parts,
    ) -> Result<Response<Bytes>, AuthorizeError> {
        let answer = match &app.target {
            AppTarget::Memory(app) => app.ask(Request::from_parts(request, Body::empty())).await,
            AppTarget::DialsIn(_) => return Err(AuthorizeError::Body("the app server dials in".into())),
            AppTarget::Network(address) => {
                let terms = app.group.terms();
                terms.caller(node).introduce(&mut request.headers)?;
                let client = self.client.through(terms.channels.for_clients());
                let answer = client.send(address, Request::from_parts(request, Body::empty())).await;
                let failed = |source| AuthorizeError::Exchange { target: app.target.clone(), source };
                answer.map_err(failed)?.map(Body::new)
            }
        };
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_MAX_BYTES).collect().await;
        let body = body.map_err(|error| AuthorizeError::Body(error.to_string()))?.to_bytes();
        Ok(Response::from_parts(parts, body))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;
    use futures_util::future::join_all;

    use super::*;
    use crate::engine::upstream::{AppServerId, MemoryDialler, MemoryLink};
    use crate::ground::net::connector::Connector;

    /// App that never decides.
    #[derive(Debug, Default)]
    struct MuteApp {
        calls: AtomicUsize,
    }

    impl MemoryDialler for MuteApp {
        fn dial(&self, _hub: &str, _node: &str, _boot: &str, _slot: usize, _link: MemoryLink) {}

        fn ask(&self, _request: Request<Body>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_of_clients_has_a_bounded_number_of_calls_under_way_and_the_others_wait() {
        let app = Arc::new(MuteApp::default());
        let server = AppServer {
            id: AppServerId::NONE,
            instance: "app-1".into(),
            name: String::new(),
            target: AppTarget::Memory(app.clone()),
            group: Arc::default(),
        };
        let apps = [Arc::new(server)];
        let authorizer = Authorizer::new(HttpClient::without_pool(Connector::default()), Duration::from_secs(10));
        let request = || Request::new(()).into_parts().0;
        let share = SignerShare::new(Signer::Fleet, false);
        let calls =
            (0..10 * CALLS_MAX).map(|_| authorizer.authorize((HubIndex::from(0), &share), &apps, "n1", request()));
        let mut storm = Box::pin(join_all(calls));
        assert!(timeout(Duration::from_secs(1), &mut storm).await.is_err(), "the app decides nothing");
        assert_eq!(app.calls.load(Ordering::Relaxed), CALLS_MAX / 2, "the share of a hub");
        let outcomes = storm.await;
        let count = |is: fn(&AuthorizeError) -> bool| {
            outcomes.iter().filter_map(|one| one.as_ref().err()).filter(|e| is(e)).count()
        };
        // Started calls get the full timeout; the others fail after a quarter of it.
        assert_eq!(count(|error| matches!(error, AuthorizeError::Timeout(_))), CALLS_MAX / 2);
        assert_eq!(count(|error| matches!(error, AuthorizeError::Full(_))), 10 * CALLS_MAX - CALLS_MAX / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_app_with_many_hubs_leaves_calls_to_others_and_the_waiting_calls_of_a_hub_begin_in_order() {
        let (calls, shop) = (Calls::new(), SignerShare::new(Signer::App("shop".into()), true));
        let news = SignerShare::new(Signer::App("news".into()), true);
        let permit =
            async |hub, app| timeout(Duration::from_secs(1), calls.permit(HubIndex::from(hub), app)).await.ok();
        let mut taken = Vec::new();
        for hub in 0..100 {
            for _ in 0..CALLS_MAX {
                let Some(permit) = permit(hub, &shop).await else { break };
                taken.push(permit);
            }
        }
        assert_eq!(taken.len(), CALLS_MAX / 2, "the share of an app");
        let other = permit(200, &news).await.unwrap();
        let (mut first, mut second) = (Box::pin(permit(3, &shop)), Box::pin(permit(3, &shop)));
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        drop(taken.pop());
        let _begun = first.await.unwrap();
        assert!(second.as_mut().now_or_never().is_none());
        drop((other, taken));
        assert!(second.await.is_some());
        assert_eq!((calls.of_hubs.len(), calls.of_apps.len()), (1, 1));
    }
}
