//! Marks of requests that another node has carried here: only the fleet can make them, each for one request.

use axum::extract::Request;
use http::request::Parts;
use http::{HeaderValue, Method, Uri};
use trunkline_protocol::limits::FORWARD_MARK_LIFETIME_S;
use trunkline_protocol::manifest::FORWARD_HEADER;
use trunkline_protocol::token::{ForwardMark, TokenError};

use super::onward;
use crate::config::{Settings, unix_seconds};
use crate::frontend::arrival::CameBy;
use crate::frontend::forwarded::Scheme;
use crate::frontend::request::peer;
use crate::frontend::{Endpoint, PeerAddress};

/// A request that another node has carried here; it goes no further.
#[derive(Debug, Clone)]
struct Carried;

/// Whether another node has carried a request here.
pub(in crate::frontend) fn is_carried(request: &Request) -> bool {
    request.extensions().get::<Carried>().is_some()
}

/// Believes a good mark: the request is its client's. A bad one is as if there were none.
pub(in crate::frontend) fn accept(endpoint: &Endpoint, request: &mut Request) {
    let Some(sealed) = request.headers_mut().remove(FORWARD_HEADER) else { return };
    match open(&endpoint.shared.settings, &sealed, request.method(), request.uri()) {
        Ok(mark) => {
            let extensions = request.extensions_mut();
            // The node that carried it is never taken for the client.
            extensions.remove::<PeerAddress>();
            if let Some(client) = mark.client {
                extensions.insert(PeerAddress(client));
            }
            if let Some(scheme) = mark.scheme.as_deref().and_then(Scheme::read) {
                extensions.insert(CameBy(scheme));
            }
            extensions.insert(Carried);
        }
        Err(error) => {
            tracing::debug!(%error, "a forward mark is not believed");
            endpoint.counters.relay.marks_refused.increment();
        }
    }
}

fn open(settings: &Settings, sealed: &HeaderValue, method: &Method, uri: &Uri) -> Result<ForwardMark, TokenError> {
    let sealed = sealed.to_str().map_err(|_| TokenError::Forged)?;
    ForwardMark::open(sealed, &settings.keys, method.as_str(), onward::target(uri).as_str(), unix_seconds())
}

/// Marks a request that leaves for the node that owns its connection.
pub(super) fn put(settings: &Settings, parts: &mut Parts) {
    let target = onward::target(&parts.uri);
    let expires = unix_seconds() + FORWARD_MARK_LIFETIME_S;
    let scheme = parts.extensions.get::<CameBy>().map(|CameBy(scheme)| scheme.name());
    let method = parts.method.as_str();
    let mark = ForwardMark::new(&settings.node, peer(parts), scheme, method, target.as_str(), expires);
    if let Ok(sealed) = HeaderValue::from_str(&mark.seal(&settings.keys)) {
        parts.headers.insert(FORWARD_HEADER, sealed);
    }
}
