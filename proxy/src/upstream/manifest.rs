//! Read the manifest of an app server.

use axum::body::Body;
use http::{Request, StatusCode};
use trunkline_protocol::manifest::{MANIFEST_PATH, Manifest};

use super::caller::{Caller, RequestError};
use crate::net::address::Address;
use crate::net::http_client::read_whole;

/// Maximum size of a manifest: it has some 300 bytes per hub, and anything larger comes from something else.
const MANIFEST_MAX_BYTES: usize = 1024 * 1024;

/// Why a manifest could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ReadManifestError {
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The two ends have different keys.
    #[error("{0} refuses our access key: give both ends the same --access-key or TRUNKLINE_ACCESS_KEY")]
    Key(String),
    /// Something else answers there.
    #[error("{authority} answers {status} to {MANIFEST_PATH}: no app server with the Trunkline SDK?")]
    Status { authority: String, status: StatusCode },
    /// The answer is not a manifest.
    #[error("{authority} gives a manifest that can't be read: {problem}")]
    Body { authority: String, problem: String },
}

impl ReadManifestError {
    /// Whether the connection was refused.
    #[must_use]
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Self::Request(error) if error.is_refused())
    }
}

/// Reads the manifest of the app server at an address.
///
/// # Errors
/// When it can't be had; worth another try after a while.
pub(crate) async fn read_manifest(address: &Address, caller: Caller<'_>) -> Result<Manifest, ReadManifestError> {
    let authority = address.authority();
    let request = Request::get(MANIFEST_PATH).body(Body::empty()).map_err(RequestError::from)?;
    let answer = caller.send(address, request).await?;
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(ReadManifestError::Key(authority.into())),
        status => return Err(ReadManifestError::Status { authority: authority.into(), status }),
    }
    let unreadable = |problem: String| ReadManifestError::Body { authority: authority.into(), problem };
    let answer = read_whole(answer, MANIFEST_MAX_BYTES).await.map_err(|error| unreadable(error.to_string()))?;
    let manifest: Manifest = serde_json::from_slice(answer.body()).map_err(|error| unreadable(error.to_string()))?;
    match manifest.hubs.iter().find(|hub| !hub.path.starts_with('/')) {
        Some(hub) => Err(unreadable(format!("the path {:?} of hub {:?} does not begin with /", hub.path, hub.name))),
        None => Ok(manifest),
    }
}
