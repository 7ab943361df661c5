//! Reads the manifest of an app server.

use axum::body::Body;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use trunkline_protocol::manifest::{MANIFEST_PATH, Manifest};
use trunkline_protocol::wire::{CHANNEL_PATH, NODE_HEADER};

use crate::edge::frontend::{MIDDLEWARE_HINT, RefusalSource};
use crate::engine::upstream::{Caller, RequestError};
use crate::ground::net::address::Address;
use crate::ground::net::http_client::read_whole;

/// Maximum size of a manifest. It has some 300 bytes per hub; anything larger is something else.
const MANIFEST_MAX_BYTES: usize = 1024 * 1024;

/// Maximum size of the SDK's refusal reason, which is one line.
const REFUSAL_MAX_BYTES: usize = 1024;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ReadManifestError {
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The two ends have different keys.
    #[error("{0} refuses this node's access key: give both ends the same --access-key or TRUNKLINE_ACCESS_KEY")]
    Key(String),
    /// The app server has only its machine's development key.
    #[error(
        "{0} has only the development key of its machine, which proxies on other machines can't use: give both ends an \
         access key (TRUNKLINE_ACCESS_KEY; `trunkline token key` makes one)"
    )]
    DevelopmentKey(String),
    /// The SDK refuses for another reason, such as a shutdown.
    #[error("{authority} answers {status}: {reason}")]
    Refused { authority: String, status: StatusCode, reason: String },
    /// A component in front of the SDK requires a login.
    #[error("{authority} answers {status}, {MIDDLEWARE_HINT}")]
    Middleware { authority: String, status: StatusCode },
    /// The client port of a node answers at the address.
    #[error("{0} is a Trunkline node: --upstream must be the address of an app server")]
    Node(String),
    /// Another program answers at the address.
    #[error(
        "{authority} answers {status} to {CHANNEL_PATH}: is it an app server with the Trunkline SDK, with \
         `Server::into_router` merged into the app's router, not nested below a path?"
    )]
    Status { authority: String, status: StatusCode },
    /// The response is not a manifest.
    #[error("{authority} sent an invalid manifest: {problem}")]
    Body { authority: String, problem: String },
}

impl ReadManifestError {
    /// Whether the SDK can't accept links because it is about to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        matches!(self, Self::Refused { status: StatusCode::SERVICE_UNAVAILABLE, .. })
    }

    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Self::Request(error) if error.is_refused())
    }
}

/// After an error, the caller may retry later.
pub(crate) async fn read_manifest(address: &Address, caller: Caller<'_>) -> Result<Manifest, ReadManifestError> {
    let authority = address.authority();
    let request = Request::get(MANIFEST_PATH).body(Body::empty()).map_err(RequestError::from)?;
    let answer = caller.send(address, request).await.map_err(refused_channel)?;
    if answer.status() != StatusCode::OK {
        return Err(refusal(authority.into(), answer).await);
    }
    let unreadable = |problem: String| ReadManifestError::Body { authority: authority.into(), problem };
    let answer = read_whole(answer, MANIFEST_MAX_BYTES).await.map_err(|error| unreadable(error.to_string()))?;
    let manifest: Manifest = serde_json::from_slice(answer.body()).map_err(|error| unreadable(error.to_string()))?;
    match manifest.hubs.iter().find(|hub| !hub.path.starts_with('/')) {
        Some(hub) => Err(unreadable(format!("the path {:?} of hub {:?} does not begin with /", hub.path, hub.name))),
        None => Ok(manifest),
    }
}

/// Determines which component refused the channel, and the remedy.
fn refused_channel(error: RequestError) -> ReadManifestError {
    let (RequestError::Connect { authority, .. }, Some(refused)) = (&error, error.refused_channel()) else {
        return error.into();
    };
    let (authority, status) = (authority.clone(), refused.status);
    match RefusalSource::from_answer(status, &refused.headers) {
        RefusalSource::AccessKey => ReadManifestError::Key(authority),
        RefusalSource::DevelopmentKey => ReadManifestError::DevelopmentKey(authority),
        RefusalSource::Sdk => ReadManifestError::Refused { authority, status, reason: refused.reason.clone() },
        RefusalSource::Middleware => ReadManifestError::Middleware { authority, status },
        RefusalSource::Stranger if refused.headers.contains_key(NODE_HEADER) => ReadManifestError::Node(authority),
        RefusalSource::Stranger => ReadManifestError::Status { authority, status },
    }
}

/// Determines why an authenticated app server sends no manifest.
async fn refusal(authority: String, answer: Response<Incoming>) -> ReadManifestError {
    let status = answer.status();
    let body = read_whole(answer, REFUSAL_MAX_BYTES).await;
    let reason = body.map(|answer| String::from_utf8_lossy(answer.body()).into_owned()).unwrap_or_default();
    ReadManifestError::Refused { authority, status, reason }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::response::{IntoResponse, Redirect};
    use trunkline_protocol::key::{AccessKey, AccessKeys, PeerKind};
    use trunkline_protocol::wire::{HELLO_HEADER, REFUSAL_HEADER, REFUSED_DEVELOPMENT_KEY, REFUSED_KEY};

    use super::*;
    use crate::ground::net::connector::Connector;

    /// The problem with an app server that always sends this response, without its address.
    async fn problem(answer: impl IntoResponse + Clone + Send + Sync + 'static) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let app = Router::new().fallback(async move || answer);
        let serving = tokio::spawn(async move { axum::serve(listener, app).await });
        let keys = AccessKeys::new(vec![AccessKey::random()]).unwrap();
        let connector = Connector::default().through_channels(&keys, PeerKind::AppServer);
        let caller = Caller { node: "node", connector: &connector };
        let address = format!("http://{authority}").parse().unwrap();
        let error = read_manifest(&address, caller).await.unwrap_err();
        serving.abort();
        error.to_string().replace(&authority, "it")
    }

    #[tokio::test]
    async fn a_refusal_of_the_sdk_is_distinguished_from_one_of_a_middleware() {
        let marked = |status: u16, mark: &'static str| {
            (StatusCode::from_u16(status).unwrap(), [(REFUSAL_HEADER, mark)], "this app server shuts down")
        };
        assert!(problem(marked(401, REFUSED_KEY)).await.starts_with("it refuses this node's access key"));
        assert!(problem(marked(403, REFUSED_DEVELOPMENT_KEY)).await.contains("only the development key"));
        let stopping = problem(marked(503, "shutdown")).await;
        assert_eq!(stopping, "it answers 503 Service Unavailable: this app server shuts down");
        let middleware = "but not by Trunkline's SDK: is a middleware around `Server::into_router`?";
        let unmarked = problem((StatusCode::UNAUTHORIZED, "log in first")).await;
        assert!(unmarked.starts_with(&format!("it answers 401 Unauthorized, {middleware}")), "{unmarked}");
        assert!(problem(StatusCode::FORBIDDEN).await.contains(middleware));
        assert!(problem(Redirect::to("/login")).await.contains(middleware));
        let stranger = problem((StatusCode::SWITCHING_PROTOCOLS, [(HELLO_HEADER, "A".repeat(64))])).await;
        assert!(stranger.contains("does not have the fleet's key"), "{stranger}");
        let node = problem((StatusCode::NOT_FOUND, [(NODE_HEADER, "n1")], "not found")).await;
        assert!(node.starts_with("it is a Trunkline node: --upstream"), "{node}");
        let elsewhere = problem(StatusCode::NOT_FOUND).await;
        assert!(elsewhere.contains("with the Trunkline SDK") && elsewhere.contains("nested"), "{elsewhere}");
    }
}
