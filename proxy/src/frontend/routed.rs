//! Result of routing a request, stored in its extensions.

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{Extensions, HeaderValue};
use trunkline_protocol::cause::Cause;

use crate::frontend::plain_response::because;
use crate::metrics::Counter;
use crate::routing::Rejection;
use crate::upstream::{RouteChoice, ServerGroup};

/// Route of a request, stored in its extensions. Without one, the default group is used.
#[derive(Debug, Clone)]
pub(crate) struct Routed {
    pub(super) choice: RouteChoice,
    pub(super) matched: Vec<Arc<Counter>>,
}

impl Routed {
    /// Group of a request; `None` for the default group.
    #[must_use]
    pub(crate) fn group_in(extensions: &Extensions) -> Option<Arc<ServerGroup>> {
        match &extensions.get::<Self>()?.choice {
            RouteChoice::Group(group) => group.clone(),
            RouteChoice::Rejected(_) => None,
        }
    }

    #[must_use]
    pub(crate) fn refusal_in(extensions: &Extensions) -> Option<Response> {
        let routed = extensions.get::<Self>()?;
        let RouteChoice::Rejected(rejection) = &routed.choice else { return None };
        routed.count();
        Some(refusal(rejection))
    }

    pub(crate) fn count_in(extensions: &Extensions) {
        if let Some(routed) = extensions.get::<Self>() {
            routed.count();
        }
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
