//! Embedded node: the proxy on its own thread, linked through memory.
//!
//! ```text
//!  client ══ axum's socket ══► shard thread ── memory chunks ──► link tasks on the app's runtime
//! ```
//!
//! Hubs treat it like any other node. Proxies may serve the same hubs in addition.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::{Arc, Weak};

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use http::{Request, Response, StatusCode};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use trunkline_proxy::{AdminToken, Embedded, MemoryDialler, MemoryLink, OriginPattern, Settings};

use super::access::Access;
use super::server_core::{ReadyServer, ServerCore};
use crate::error::BuildError;
use crate::link::{LinkSocket, SlotKey};

const ADMIN_TOKEN_VARIABLE: &str = "TRUNKLINE_ADMIN_TOKEN";

/// Opens links for the node. Holds the server weakly, because the server owns the node.
#[derive(Debug)]
struct EmbeddedDialler {
    core: Weak<ServerCore>,
    runtime: Handle,
}

#[derive(Debug, Default)]
pub(super) struct NodeChoice {
    pub(super) is_embedded: bool,
    pub(super) allow_origins: Vec<String>,
    pub(super) admin: Option<io::Result<SocketAddr>>,
    pub(super) admin_token: Option<String>,
}

pub(super) fn start(
    core: &Arc<ServerCore>,
    ready: &ReadyServer,
    access: &Access,
    choice: NodeChoice,
) -> Result<Router, BuildError> {
    let NodeChoice { allow_origins, admin, admin_token, .. } = choice;
    let runtime = Handle::try_current().map_err(|_| BuildError::NoRuntime)?;
    let admin = admin.map(|address| listen(address, admin_token)).transpose()?;
    let allow_origins = allow_origins.into_iter().map(origin).collect::<Result<_, _>>()?;
    let settings = Settings::embedded(access.keys.clone(), allow_origins, access.is_development);
    let dialler = EmbeddedDialler { core: Arc::downgrade(core), runtime };
    let node = Embedded::start(settings, ready.manifest.clone(), Arc::new(dialler)).map_err(BuildError::Thread)?;
    let routes = node.router();
    if let Some((listener, token)) = admin {
        let address = node.serve_admin(listener, token).map_err(BuildError::Admin)?;
        tracing::info!(%address, "admin port of the embedded node");
    }
    // A server creates one router, so no node is set yet.
    let _ = core.embedded.set(node);
    Ok(routes)
}

/// Opens the admin port and reads its token: given in code, or from the environment.
fn listen(
    address: io::Result<SocketAddr>,
    given: Option<String>,
) -> Result<(TcpListener, Option<AdminToken>), BuildError> {
    let token = given.or_else(|| std::env::var(ADMIN_TOKEN_VARIABLE).ok()).filter(|token| !token.is_empty());
    let token = token.map(|token| AdminToken::new(&token)).transpose().map_err(BuildError::AdminToken)?;
    let listener = address.and_then(TcpListener::bind).map_err(BuildError::Admin)?;
    Ok((listener, token))
}

fn origin(text: String) -> Result<OriginPattern, BuildError> {
    text.parse().map_err(|problem: &str| BuildError::Origin { origin: text, problem: problem.to_owned() })
}

impl MemoryDialler for EmbeddedDialler {
    fn ask(&self, request: Request<Body>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
        let core = self.core.upgrade();
        // The node may call this on its own thread, where app code must not run.
        let asking = AbortOnDropHandle::new(self.runtime.spawn(async move {
            match core {
                Some(core) => core.negotiate_in_memory(request).await,
                None => None,
            }
        }));
        // Without the mark of a handler's response, as after a panic, the node refuses the client.
        Box::pin(async { asking.await.ok().flatten().unwrap_or_else(|| StatusCode::NOT_FOUND.into_response()) })
    }

    fn supports_traces(&self) -> bool {
        true
    }

    fn dial(&self, hub: &str, node: &str, boot: &str, slot: usize, link: MemoryLink) {
        // Without a peer the node sees a closed link, and retries until it is stopped.
        let Some(core) = self.core.upgrade().filter(|core| !core.shutdown.is_cancelled()) else { return };
        let (Some(ready), Ok(slot)) = (core.ready.get(), u32::try_from(slot)) else { return };
        let key = SlotKey { hub: hub.into(), node: node.into(), boot: boot.into(), slot };
        // Ends with the node, not earlier, so that clients get their last messages during shutdown.
        if let Some(opened) = core.link(key, ready.outbox_max_bytes, CancellationToken::new()) {
            self.runtime.spawn(core.tasks.track_future(opened.run(LinkSocket::from(link))));
        }
    }
}
