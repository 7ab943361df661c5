//! Source of a refusal: the SDK, which marks its refusals, or a component in front of it, such as middleware of the
//! app.

use http::{HeaderMap, StatusCode};
use trunkline_protocol::wire::{REFUSAL_HEADER, REFUSED_DEVELOPMENT_KEY, REFUSED_KEY};

/// Remedy for a refusal by an app's middleware; follows the status.
pub(crate) const MIDDLEWARE_HINT: &str =
    "but not by Trunkline's SDK: is a middleware around `Server::into_router`? Merge that router after `.layer(...)`";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusalSource {
    /// The SDK, which does not have this node's key.
    AccessKey,
    /// The SDK: it has only the development key, and this node is on another machine.
    DevelopmentKey,
    /// The SDK, for a reason given in the body.
    Sdk,
    /// A component in front of the SDK requires a login: the app's middleware or a gateway.
    Middleware,
    /// Apparently not the SDK.
    Stranger,
}

impl RefusalSource {
    /// Determines the source by the SDK's mark, or else by the status.
    pub(crate) fn of(status: StatusCode, headers: &HeaderMap) -> Self {
        match headers.get(REFUSAL_HEADER).map(|mark| mark.to_str().unwrap_or_default()) {
            Some(REFUSED_KEY) => Self::AccessKey,
            Some(REFUSED_DEVELOPMENT_KEY) => Self::DevelopmentKey,
            Some(_) => Self::Sdk,
            // A login page is a redirect for browsers.
            None if status.is_redirection() => Self::Middleware,
            None if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Self::Middleware,
            None => Self::Stranger,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_a_marked_refusal_is_the_sdk_s() {
        let of = |status: u16, mark: Option<&'static str>| {
            let marked =
                mark.map(|mark| (http::HeaderName::from_static(REFUSAL_HEADER), HeaderValue::from_static(mark)));
            RefusalSource::of(StatusCode::from_u16(status).unwrap(), &marked.into_iter().collect())
        };
        assert_eq!(of(401, Some(REFUSED_KEY)), RefusalSource::AccessKey);
        assert_eq!(of(403, Some(REFUSED_DEVELOPMENT_KEY)), RefusalSource::DevelopmentKey);
        assert_eq!(of(503, Some("shutdown")), RefusalSource::Sdk);
        for status in [401, 403, 302, 307] {
            assert_eq!(of(status, None), RefusalSource::Middleware, "{status}");
        }
        for status in [404, 500, 503] {
            assert_eq!(of(status, None), RefusalSource::Stranger, "{status}");
        }
    }
}
