//! REST data plane: back ends in any language send to clients, query presence and change groups by single requests.
//!
//! ```text
//!  request ─► token ─► permit ─► operation of the path ─► body, query ─┬─► clients of all nodes ─► 202
//!                                                                      │     └─ stream item ─► wait for the client
//!                                                                      ├─► queries to all nodes ─► 200 or 404
//!                                                                      └─► client invocation, without the permit
//! ```
//!
//! Implements the API of Azure SignalR Service. Any node of a fleet accepts requests: it queries each other node once,
//! and lists the nodes without an answer.

mod addressee;
mod client_token;
mod command_batch;
mod execution;
mod listed_part;
mod lister;
mod message_body;
mod operation;
mod query;
mod record_order;
mod refresh_body;
mod rest_error;
mod send_batch;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::request::Parts;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;

use crate::engine::shard::Shared;
use crate::features::admission::{Admission, RestAudience, TokenError};
use crate::fleet::{Fleet, FleetEntry, NamedHub, QUESTIONS_MAX};
use crate::ground::auth::{Signer, TokenSigner};
use crate::ground::bounded::{Permit, Permits};
use crate::ground::limits::{RestPermit, RestPermits, RestShare, SignerShare};
use crate::ground::metrics::RestCounters;
use crate::ground::net::http_client::without_byte_order_mark;
use client_token::RestCaller;
use execution::Execution;
use operation::{HubOperation, Operation, is_of_data_plane};
use query::RestQuery;
use rest_error::RestError;

pub(crate) use addressee::{Addressee, join_order, leave_order, to_clients};
pub(crate) use listed_part::{ListedPart, PART_PATH, PartQuestion};
pub(crate) use record_order::{begin_send, set_of};

/// Path where load balancers and SDKs check the data plane.
const HEALTH_PATH: &str = "/api/health";

const OPENAPI_PATH: &str = "/api/openapi.json";

const OPENAPI: &str = include_str!("rest/openapi.json");

/// Reasons for the refusal of a token without a valid signature.
const USER_TOKEN: &str = "it is the token of a user, and the data plane needs that of a back end";
const NO_KEY: &str = "no key of this node has signed it (--access-key, --app-key)";

/// Maximum number of lists and counts in progress, each with a part of every node. If apps have keys, half is for one.
const LISTS_MAX: usize = 16;

/// Timeout for a request body, which is as small as a message.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum wait of a response to a stream item for the client, less than a request at the admin port may take.
const ITEM_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of responses that wait for clients; further ones don't wait. If apps have keys, half is for one app.
const ITEM_WAITS_MAX: usize = QUESTIONS_MAX / 4;

#[derive(Debug, Clone)]
pub(crate) struct Rest(Arc<RestState>);

#[derive(Debug)]
struct RestState {
    shared: Arc<Shared>,
    admission: Arc<Admission>,
    fleet: FleetEntry,
    permits: RestPermits,
    /// Client invocations waiting for results.
    calls: Permits<Signer>,
    lists: Permits<Signer>,
    /// Responses to stream items waiting for the client.
    item_waits: Permits<Signer>,
    hasher: RandomState,
}

impl Rest {
    pub(crate) fn new(shared: Arc<Shared>, fleet: Fleet) -> Self {
        let most = shared.settings.rest.requests_max.get();
        let (permits, calls) = (RestPermits::new(most), Permits::new(QUESTIONS_MAX, most));
        let (lists, item_waits) = (Permits::new(LISTS_MAX, LISTS_MAX), Permits::new(ITEM_WAITS_MAX, usize::MAX));
        let (admission, fleet, hasher) =
            (fleet.admission().clone(), FleetEntry::from_fleet(&fleet), RandomState::new());
        Self(Arc::new(RestState { shared, admission, fleet, permits, calls, lists, item_waits, hasher }))
    }

    /// Whether a path belongs to the data plane.
    #[must_use]
    pub(crate) fn takes(path: &str) -> bool {
        is_of_data_plane(path) || path == HEALTH_PATH || path == OPENAPI_PATH
    }

    /// Handles a request from this address. `origin` is the node's URL for its clients, such as `https://node.example`.
    pub(crate) async fn answer_request(
        &self,
        request: Request<Body>,
        address: Option<IpAddr>,
        origin: &str,
    ) -> Response {
        let is_read = request.method() == Method::GET || request.method() == Method::HEAD;
        let answer = match request.uri().path() {
            HEALTH_PATH | OPENAPI_PATH if !is_read => Err(RestError::not_allowed("GET, HEAD")),
            HEALTH_PATH => self.health(),
            OPENAPI_PATH => Ok(([(CONTENT_TYPE, "application/json")], OPENAPI).into_response()),
            _ => self.operate(request, address, origin).await,
        };
        let answer = answer.unwrap_or_else(IntoResponse::into_response);
        self.counters().answered(answer.status());
        answer
    }

    /// Whether no request is in progress, except invocations that wait for their clients.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.permits.is_empty()
    }

    fn counters(&self) -> &RestCounters {
        &self.0.shared.reports.rest_counters
    }

    fn health(&self) -> Result<Response, RestError> {
        match self.0.shared.has_begun_drain() {
            true => Err(RestError::stopping()),
            false => Ok(StatusCode::OK.into_response()),
        }
    }

    async fn operate(
        &self,
        request: Request<Body>,
        address: Option<IpAddr>,
        origin: &str,
    ) -> Result<Response, RestError> {
        let shared = &self.0.shared;
        let (head, body) = request.into_parts();
        let signer = self.authorize(&head)?;
        if shared.have_requests_ended() {
            return Err(RestError::stopping());
        }
        let operation = HubOperation::from_request(&head.method, head.uri.path())?;
        let permit = self.permit(&head, &operation, &signer.signer, address)?;
        let body = tokio::select! {
            biased;
            body = self.body(body) => body?,
            () = permit.revoked() => {
                self.counters().displaced.increment();
                return Err(RestError::displaced());
            }
        };
        permit.body_has_come();
        // The client may take half a minute, so the permit is returned meanwhile.
        let (permit, call) = match operation.operation {
            Operation::Invoke { .. } => {
                drop(permit);
                (None, Some(self.call(&signer.signer)?))
            }
            ref operation if operation.is_list() => (Some(permit), Some(self.list(&signer.signer)?)),
            _ => (Some(permit), None),
        };
        let share = shared.share_of(&signer.signer);
        let caller = RestCaller { signer, origin: origin.to_owned() };
        let execution =
            Execution::new((shared.clone(), self.0.admission.clone()), self.0.fleet.clone(), head, body, caller);
        let streamed = execution.streams_to(&operation);
        // Runs in its own task, so a disconnecting caller can't interrupt it halfway.
        let executing = tokio::spawn(async move {
            let _permits = (permit, call);
            execution.run(operation).await
        });
        let answer = executing.await.unwrap_or_else(|_| Err(RestError::stopping()))?;
        if let Some((hub, connection)) = streamed.filter(|_| answer.status().is_success()) {
            self.wait_for_client(&share, &hub, &connection).await;
        }
        Ok(answer)
    }

    /// Waits for the client of a stream item. A back end that waits for each response sends no faster than its client
    /// reads.
    async fn wait_for_client(&self, share: &SignerShare, hub: &NamedHub, connection: &str) {
        if let Ok(_wait) = share.take(&self.0.item_waits) {
            self.0.fleet.wait_for_client(hub, connection, ITEM_TIMEOUT).await;
        }
    }

    /// Takes a permit for a request, counted by hub, token, signer and address.
    fn permit(
        &self,
        head: &Parts,
        operation: &HubOperation,
        signer: &Signer,
        address: Option<IpAddr>,
    ) -> Result<RestPermit, RestError> {
        let token = RestShare::Token(self.0.hasher.hash_one(head.headers.get(AUTHORIZATION)));
        let hub = RestShare::Hub(operation.hub.to_ascii_lowercase());
        let shares = [hub, token, RestShare::Signer(signer.clone())];
        let shares = shares.into_iter().chain(address.map(|ip| RestShare::Address(ip.into())));
        self.0.permits.take(shares).ok_or_else(|| RestError::busy(self.0.shared.settings.rest.requests_max.get()))
    }

    fn list(&self, signer: &Signer) -> Result<Permit<Signer>, RestError> {
        let taken = self.0.shared.share_of(signer).take(&self.0.lists);
        taken.map_err(|full| RestError::too_many_lists(&full))
    }

    fn call(&self, signer: &Signer) -> Result<Permit<Signer>, RestError> {
        let taken = self.0.shared.share_of(signer).take(&self.0.calls);
        taken.map_err(|full| RestError::too_many_calls(&full))
    }

    fn authorize(&self, head: &Parts) -> Result<TokenSigner, RestError> {
        let value = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (scheme, token) = value.split_once(' ').unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(RestError::unauthorized("there is no access token"));
        }
        let query = RestQuery::from_uri(&head.uri);
        let verifier = &self.0.admission.service_verifier;
        let settings = &self.0.shared.settings;
        let hosts = &settings.rest.audience_hosts;
        let audience = RestAudience { hosts, without_prefix: &|path| settings.path_prefix.strip(path) };
        let verified = verifier.verify_rest(token.trim(), (head.uri.path(), query.application()), audience);
        verified.map_err(|error| {
            if error == TokenError::Revoked {
                self.0.admission.verifier.count_refused(&error);
            }
            let demanded = match hosts.is_empty() {
                true => String::new(),
                false => format!("; its audience has to name the host {} (--rest-audience)", hosts.join(" or ")),
            };
            let reason = match error {
                TokenError::Signature | TokenError::Malformed if self.is_of_user(token.trim(), head) => {
                    USER_TOKEN.into()
                }
                TokenError::Signature => format!("{error}: {NO_KEY}"),
                _ => {
                    let audience = format!("https://HOST{}, or a part that ends with /", head.uri.path());
                    error.describe(token.trim(), (&audience, "none"))
                }
            };
            RestError::unauthorized(&format!("the access token is refused: {reason}{demanded}"))
        })
    }

    /// Whether a refused token is one of a user. The keys of its issuer are not fetched.
    fn is_of_user(&self, token: &str, head: &Parts) -> bool {
        let hub = HubOperation::from_request(&head.method, head.uri.path())
            .map(|operation| operation.hub)
            .unwrap_or_default();
        let verified = self.0.admission.verifier.verify_now(token, &hub);
        !matches!(verified, Err(TokenError::Signature | TokenError::UnknownKey | TokenError::Malformed))
    }

    async fn body(&self, body: Body) -> Result<Bytes, RestError> {
        let max = self.0.shared.settings.rest.body_max_bytes;
        let too_large = || {
            let text = format!("the body is larger than {max} bytes: see --rest-body-max-bytes");
            RestError::new(StatusCode::PAYLOAD_TOO_LARGE, "Error.Request.TooLarge", text)
        };
        // `size_hint` is the announced length, so an oversized body is not read at all.
        if usize::try_from(body.size_hint().lower()).is_ok_and(|announced| announced > max) {
            return Err(too_large());
        }
        match timeout(BODY_TIMEOUT, Limited::new(body, max).collect()).await {
            Ok(Ok(body)) => Ok(without_byte_order_mark(body.to_bytes())),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(_)) => Err(RestError::bad_value("body", "broke off")),
            Err(_) => {
                let text = format!("the body did not come within {} s", BODY_TIMEOUT.as_secs());
                Err(RestError::new(StatusCode::REQUEST_TIMEOUT, "Error.Request.Timeout", text))
            }
        }
    }
}
