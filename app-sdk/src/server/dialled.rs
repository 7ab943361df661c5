//! Services of a server: pools of server connections, and routes that redirect clients to the services.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use tokio::runtime::Handle;
use trunkline_link::StatefulReconnects;
use trunkline_protocol::dial_in::ConnectionString;
use trunkline_protocol::manifest::EndpointKind;
use trunkline_protocol::wire::NEGOTIATE_SUFFIX;

use super::server_core::{ReadyServer, ServerCore};
use super::service_negotiation::{NegotiationRoute, negotiate};
use crate::dial::{DialledService, PlainHttp, PoolParts, ServerPool};
use crate::endpoint::Endpoint;
use crate::error::BuildError;

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
        if services.iter().any(|known| known.name() == service.name()) {
            return Err(BuildError::DuplicateService(service.name().to_string()));
        }
        services.push(Arc::new(service));
    }
    Ok(services)
}
