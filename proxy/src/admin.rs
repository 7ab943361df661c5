//! The admin port: health, readiness, metrics for Prometheus, the observer page and its API.

mod access;
mod api;
mod api_error;
mod context;
mod exposition;
mod guard;
mod page;
mod parameter;
mod probe;
mod session;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::{self, Next};
use axum::response::Response;
use trunkline_protocol::wire::NODE_HEADER;

use crate::config::AdminSettings;
use crate::observer::{Observer, Readiness};

use context::AdminContext;
use guard::Guard;

pub(crate) use guard::Exposure;

/// Builds the router of the admin port. Needs a runtime.
pub(crate) fn router(readiness: Readiness, settings: &AdminSettings, exposure: Exposure) -> Router {
    let guard = Guard::new(exposure, settings);
    let node = HeaderValue::from_str(&readiness.shared().settings.node).ok();
    let context = AdminContext { observer: Observer::new(readiness.clone(), settings), guard: guard.clone() };
    let guarded = api::guarded().layer(middleware::from_fn_with_state(guard.clone(), guard::check));
    let observer = guarded.merge(api::open()).merge(page::router()).with_state(context);
    probe::router(readiness, guard)
        .merge(observer)
        .fallback(api::unknown)
        .layer(middleware::from_fn_with_state(node, name_node))
}

/// Middleware that adds the name of this node to each answer.
async fn name_node(State(node): State<Option<HeaderValue>>, request: Request, next: Next) -> Response {
    let mut answer = next.run(request).await;
    if let Some(node) = node {
        answer.headers_mut().insert(HeaderName::from_static(NODE_HEADER), node);
    }
    answer
}
