//! Result of routing a request.

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use trunkline_protocol::cause::Cause;

use crate::frontend::plain_response::because;
use crate::metrics::Counter;
use crate::routing::Rejection;
use crate::upstream::{RouteChoice, ServerGroup};

/// Route of a request; by default, to the default group.
#[derive(Debug)]
pub(crate) struct Routed {
    pub(super) choice: RouteChoice,
    pub(super) matched: Vec<Arc<Counter>>,
}

impl Default for Routed {
    fn default() -> Self {
        Self { choice: RouteChoice::Group(None), matched: Vec::new() }
    }
}

impl Routed {
    /// Group of a request; `None` for the default group.
    pub(crate) fn group(&self) -> Option<Arc<ServerGroup>> {
        match &self.choice {
            RouteChoice::Group(group) => group.clone(),
            RouteChoice::Rejected(_) => None,
        }
    }

    pub(crate) fn refusal(&self) -> Option<Response> {
        let RouteChoice::Rejected(rejection) = &self.choice else { return None };
        self.count();
        Some(refusal(rejection))
    }

    /// Increments the counters of the matching rules.
    pub(super) fn count(&self) {
        self.matched.iter().for_each(|counter| counter.increment());
    }
}

pub(super) fn refusal(rejection: &Rejection) -> Response {
    let body = Body::from(rejection.body.to_string());
    let mut answer = (rejection.status, body).into_response();
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(rejection.content_type));
    because(Cause::RouteRefused, answer)
}
