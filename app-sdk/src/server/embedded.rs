//! Embedded node: the proxy's own code on a thread of its own, linked through memory.
//!
//! ```text
//!  client ══ axum's socket ══► shard thread ── pieces of memory ──► link tasks on the app's runtime
//! ```
//!
//! To the hubs it is a node like any other, with a send link of its own; proxies may serve the same hubs beside it.

use std::pin::Pin;
use std::sync::{Arc, Weak};

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use http::{Request, Response, StatusCode};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use trunkline_proxy::{Embedded, MemoryDialler, MemoryLink, OriginError, OriginPattern, Settings};

use super::access::Access;
use super::server_core::{ReadyServer, ServerCore};
use crate::error::BuildError;
use crate::link::{LinkSocket, SlotKey};

/// Opens links for the node. The server owns the node, so it must not own the server.
#[derive(Debug)]
struct EmbeddedDialler {
    core: Weak<ServerCore>,
    runtime: Handle,
}

/// Starts the node and returns the routes of its clients.
pub(super) fn start(
    core: &Arc<ServerCore>,
    ready: &ReadyServer,
    access: &Access,
    allow_origins: Vec<String>,
) -> Result<Router, BuildError> {
    let runtime = Handle::try_current().map_err(|_| BuildError::NoRuntime)?;
    let allow_origins = allow_origins.into_iter().map(origin).collect::<Result<_, _>>()?;
    let settings = Settings::embedded(access.keys().clone(), allow_origins, access.is_development());
    let dialler = EmbeddedDialler { core: Arc::downgrade(core), runtime };
    let node = Embedded::start(settings, ready.manifest.clone(), Arc::new(dialler)).map_err(BuildError::Thread)?;
    let routes = node.router();
    // A server makes one router, so it has no other node yet.
    let _ = core.embedded.set(node);
    Ok(routes)
}

fn origin(text: String) -> Result<OriginPattern, BuildError> {
    text.parse().map_err(|problem: OriginError| BuildError::Origin { origin: text, problem: problem.to_string() })
}

impl MemoryDialler for EmbeddedDialler {
    fn ask(&self, request: Request<Body>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
        let core = self.core.upgrade();
        Box::pin(async move {
            let answer = match core {
                Some(core) => core.negotiate_in_memory(request).await,
                None => None,
            };
            // Without the mark of a handler's answer the node refuses the client.
            answer.unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
        })
    }

    fn dial(&self, hub: &str, node: &str, boot: &str, slot: usize, link: MemoryLink) {
        // Without a far end the node finds the link closed, and tries again until it is stopped.
        let Some(core) = self.core.upgrade().filter(|core| !core.shutdown.is_cancelled()) else { return };
        let (Some(ready), Ok(slot)) = (core.ready.get(), u32::try_from(slot)) else { return };
        let key = SlotKey { hub: hub.into(), node: node.into(), boot: boot.into(), slot };
        // It ends with the node and not before: when the server shuts down, clients are to have a last word.
        if let Some(opened) = core.link(key, ready.outbox_max_bytes, CancellationToken::new()) {
            self.runtime.spawn(core.tasks.track_future(opened.run(LinkSocket::from(link))));
        }
    }
}
