//! Negotiation at the app itself, which redirects each client to a dialled service: the app determines the user, and a
//! token passes it to the service. The dialled services are set up here too.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use tokio::runtime::Handle;
use tower::ServiceExt;
use trunkline_link::StatefulReconnects;
use trunkline_protocol::access_token::User as TokenUser;
use trunkline_protocol::dial_in::{CLIENT_TOKEN_MAX_CHARS, ClientTicket, ConnectionString};
use trunkline_protocol::id::{random_bytes, random_id};
use trunkline_protocol::manifest::{Authentication, EndpointKind, HubManifest};
use trunkline_protocol::negotiate::Decision;
use trunkline_protocol::wire::{NEGOTIATE_SUFFIX, bearer};

use super::negotiation::{Applicant, Negotiation};
use super::server_core::{ReadyServer, ServerCore};
use super::user::{TokenError, User};
use super::user_extractor::ProxyVerified;
use crate::dial::{DialledService, PlainHttp, PoolParts, ServerPool};
use crate::error::BuildError;
use crate::outbound::Endpoint;

#[derive(Clone)]
pub(super) struct NegotiationRoute {
    pub(super) core: Arc<ServerCore>,
    pub(super) hub: Arc<HubManifest>,
    /// The hub's server connections, with a pool for each service.
    pub(super) pools: Arc<[Arc<ServerPool>]>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Redirect {
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<String>,
    /// Always empty: older clients require the field.
    available_transports: [(); 0],
}

#[derive(Debug, thiserror::Error)]
pub(super) enum NegotiationRefusal {
    #[error("an access token is needed: `Authorization: Bearer`")]
    NoUser,
    #[error("{0}")]
    Token(#[from] TokenError),
    #[error("the app server has no connection to the service yet: try again in a moment")]
    NotConnected,
    #[error(
        "the claims of the user make a token of {0} characters, but a service accepts at most \
         {CLIENT_TOKEN_MAX_CHARS}: use fewer claims"
    )]
    TokenTooLong(usize),
}

/// Route `POST {hub}/negotiate`: redirects the client to a service.
pub(super) async fn negotiate(
    State(route): State<NegotiationRoute>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    request: Request,
) -> Result<Response, NegotiationRefusal> {
    let path = request.uri().path().strip_suffix(NEGOTIATE_SUFFIX).unwrap_or_default().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let token_user = token_user(&route.core, request.headers());
    let guarded = route.core.hub(&route.hub.name).filter(|hub| hub.has_policies());
    let verified = || token_user.as_ref().ok().cloned().flatten();
    let peer = peer.map(|Extension(ConnectInfo(address))| address);
    let applicant = guarded.map(|hub| (Applicant::of_own_port(peer, &request, verified()), hub));
    let (decision, mut headers) = match route.decision(request, &token_user).await {
        Ok(decided) => decided,
        Err(refusal) => return Ok(refusal),
    };
    if let Some(refusal) = applicant.and_then(|(applicant, hub)| applicant.refuse(&hub, &decision)) {
        return Ok(refusal);
    }
    let redirect = match decision {
        Decision { url: Some(url), access_token, .. } => Redirect { url, access_token, available_transports: [] },
        decision => {
            let ticket = route.ticket(decision, token_user)?;
            let pool = route.pool().ok_or(NegotiationRefusal::NotConnected)?;
            let (service, hub) = (&pool.parts.service, &pool.service_hub);
            let token = service.client_token(hub, &ticket);
            if token.len() > CLIENT_TOKEN_MAX_CHARS {
                return Err(NegotiationRefusal::TokenTooLong(token.len()));
            }
            let url = service.client_url(hub, &path, &query, &random_id());
            Redirect { url, access_token: Some(token), available_transports: [] }
        }
    };
    let mut answer = Json(redirect).into_response();
    headers.remove(CONTENT_TYPE);
    headers.remove(CONTENT_LENGTH);
    answer.headers_mut().extend(headers);
    Ok(answer)
}

impl NegotiationRoute {
    /// Calls the hub's handler, if there is one. Returns its refusal as an error.
    async fn decision(
        &self,
        mut request: Request,
        user: &Result<Option<TokenUser>, TokenError>,
    ) -> Result<(Decision, HeaderMap), Response> {
        let handler = self.core.ready.get().and_then(|ready| ready.negotiators.get(&self.hub.name)).cloned();
        let Some(handler) = handler else { return Ok((Decision::default(), HeaderMap::new())) };
        let verified = user.as_ref().ok().cloned().flatten().and_then(User::from_verified);
        request.extensions_mut().insert(ProxyVerified(verified));
        let mut answer = handler.oneshot(request).await.into_response();
        match Negotiation::take_decision(&mut answer) {
            Some(decision) => Ok((decision, std::mem::take(answer.headers_mut()))),
            None => Err(answer),
        }
    }

    fn ticket(
        &self,
        decision: Decision,
        token_user: Result<Option<TokenUser>, TokenError>,
    ) -> Result<ClientTicket, NegotiationRefusal> {
        let Decision { user, claims, expires_s, .. } = decision;
        let user = match user {
            Some(id) => TokenUser { id: Some(id), claims, expires_s },
            None => {
                let known = token_user?.unwrap_or_default();
                let claims = known.claims.into_iter().chain(claims).collect();
                TokenUser { id: known.id, claims, expires_s: expires_s.or(known.expires_s) }
            }
        };
        if self.hub.authentication == Authentication::Required && !user.is_named() {
            return Err(NegotiationRefusal::NoUser);
        }
        Ok(ClientTicket {
            closes_at_s: user.expires_s.filter(|_| self.hub.close_on_token_expiry),
            user: user.id,
            claims: user.claims,
            detailed_errors: self.hub.detailed_errors,
            handshake_timeout_s: Some(self.hub.handshake_timeout_ms.div_ceil(1000)),
            transports: self.hub.transports.clone(),
        })
    }

    /// Selects a random service with a connection to this app server.
    fn pool(&self) -> Option<&ServerPool> {
        let online: Vec<_> = self.pools.iter().filter(|pool| pool.is_online()).collect();
        let chance = usize::from(u16::from_be_bytes(random_bytes()));
        online.get(chance.checked_rem(online.len())?).map(|pool| &***pool)
    }
}

/// User of the request's access token; `None` without a token.
fn token_user(core: &ServerCore, headers: &HeaderMap) -> Result<Option<TokenUser>, TokenError> {
    let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(bearer);
    token.map(|token| core.verify_token(token)).transpose()
}

impl IntoResponse for NegotiationRefusal {
    fn into_response(self) -> Response {
        let text = self.to_string();
        match self {
            Self::NoUser => (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], text).into_response(),
            Self::Token(_) => {
                let challenge = [(WWW_AUTHENTICATE, "Bearer error=\"invalid_token\"")];
                (StatusCode::UNAUTHORIZED, challenge, text).into_response()
            }
            Self::NotConnected => (StatusCode::SERVICE_UNAVAILABLE, text).into_response(),
            Self::TokenTooLong(_) => (StatusCode::PAYLOAD_TOO_LARGE, text).into_response(),
        }
    }
}

/// Starts the server connections of each hub, and returns the negotiate routes. Services don't support raw endpoints.
pub(super) fn start(
    core: &Arc<ServerCore>,
    ready: &ReadyServer,
    (places, plain_http): (Vec<ConnectionString>, PlainHttp),
    connections: u32,
) -> Result<Router, BuildError> {
    Handle::try_current().map_err(|_| BuildError::NoRuntime)?;
    let services = services(core, places, plain_http.or_by_environment())?;
    let (mut router, mut all) = (Router::new(), Vec::new());
    for manifest in ready.manifest.hubs.iter().filter(|hub| hub.kind == EndpointKind::Hub) {
        let Some(dispatcher) = core.hub(&manifest.name) else { continue };
        let pool = |service: &Arc<DialledService>| {
            let parts = PoolParts {
                service: Arc::clone(service),
                hub: manifest.name.as_str().into(),
                endpoint: Arc::new(Arc::clone(&dispatcher)) as Arc<dyn Endpoint>,
                slots: Arc::clone(&core.slots),
                ring_max_bytes: ready.outbox_max_bytes,
                // An interval of zero would disable the keep-alive.
                keep_alive_interval: Duration::from_millis(manifest.keep_alive_interval_ms.max(1)),
                reconnects: match manifest.stateful_reconnect_buffer_bytes {
                    Some(_) => StatefulReconnects::Allowed,
                    None => StatefulReconnects::Refused,
                },
                tasks: core.tasks.clone(),
                draining: core.draining.clone(),
                shutdown: core.shutdown.clone(),
            };
            ServerPool::start(parts, connections)
        };
        let pools: Vec<_> = services.iter().map(pool).collect();
        all.extend(pools.iter().cloned());
        let path = format!("{}{NEGOTIATE_SUFFIX}", manifest.path.trim_end_matches('/'));
        if path.contains(['{', '}']) || path.contains("/:") || path.contains("/*") {
            return Err(BuildError::DialledPath(manifest.path.clone()));
        }
        let route = NegotiationRoute { core: Arc::clone(core), hub: Arc::new(manifest.clone()), pools: pools.into() };
        router = router.route(&path, post(negotiate).with_state(route));
    }
    // A server creates one router, so no pools are set yet.
    let _ = core.pools.set(all);
    Ok(router)
}

fn services(
    core: &ServerCore,
    places: Vec<ConnectionString>,
    plain_http: PlainHttp,
) -> Result<Vec<Arc<DialledService>>, BuildError> {
    let mut services: Vec<Arc<DialledService>> = Vec::new();
    for place in places {
        let service = DialledService::new(place, plain_http, Arc::clone(&core.instance))
            .map_err(|error| BuildError::Tls(error.to_string()))?;
        if services.iter().any(|known| known.name == service.name) {
            return Err(BuildError::DuplicateService(service.name.to_string()));
        }
        services.push(Arc::new(service));
    }
    Ok(services)
}
