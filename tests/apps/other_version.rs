//! App server of another version, as far as its proxies can see: a real one behind a relay that changes its manifest
//! and upgrades.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use trunkline_protocol::manifest::{CAPABILITIES_HEADER, MANIFEST_PATH};

use super::channel_host::{dial_channel, in_channels};
use crate::harness::balancer::{bad_gateway, carry};

/// Differences of the other version.
#[derive(Debug, Clone, Copy)]
pub struct Difference {
    /// Changes the manifest of the app server and its hubs.
    pub manifest: fn(&mut Value),
    /// Capabilities that it offers, in front of the others; with `None` neither end offers any.
    pub capabilities: Option<&'static str>,
}

/// App server of another version; it ends with this value.
#[derive(Debug)]
pub struct OtherVersion {
    address: String,
    links: Arc<AtomicUsize>,
    accepting: AbortHandle,
}

impl OtherVersion {
    /// Starts it in front of the app server at `host:port`.
    pub async fn start(app: &str, difference: Difference) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let links = Arc::new(AtomicUsize::new(0));
        let app: Arc<str> = app.into();
        let counted = links.clone();
        let inside = Router::new().fallback(move |request| {
            let (app, links) = (app.clone(), counted.clone());
            async move { pass(request, &app, difference, &links).await.unwrap_or_else(|_| bad_gateway()) }
        });
        let router = in_channels(inside)?;
        let accepting = tokio::spawn(async move { axum::serve(listener, router).await }).abort_handle();
        Ok(Self { address, links, accepting })
    }

    /// Listening address as `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Number of links opened so far.
    #[must_use]
    pub fn links(&self) -> usize {
        self.links.load(Ordering::Relaxed)
    }
}

impl Drop for OtherVersion {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(
    mut request: Request<Body>,
    app: &str,
    difference: Difference,
    links: &AtomicUsize,
) -> Result<Response<Body>> {
    let is_manifest = request.uri().path() == MANIFEST_PATH;
    change(request.headers_mut(), difference)?;
    let mut answer = carry(request, dial_channel(app).await?).await?;
    change(answer.headers_mut(), difference)?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        links.fetch_add(1, Ordering::Relaxed);
    }
    if !is_manifest || !answer.status().is_success() {
        return Ok(answer);
    }
    let (mut head, body) = answer.into_parts();
    let mut manifest = serde_json::from_slice(&body.collect().await?.to_bytes()).context("a manifest")?;
    (difference.manifest)(&mut manifest);
    head.headers.remove(CONTENT_LENGTH);
    Ok(Response::from_parts(head, Body::from(manifest.to_string())))
}

/// Changes the capabilities that either end offers.
fn change(headers: &mut HeaderMap, difference: Difference) -> Result<()> {
    match (headers.get(CAPABILITIES_HEADER), difference.capabilities) {
        (Some(own), Some(more)) => {
            let changed = HeaderValue::from_str(&format!("{more}{}", own.to_str()?))?;
            headers.insert(CAPABILITIES_HEADER, changed);
        }
        (_, None) => drop(headers.remove(CAPABILITIES_HEADER)),
        (None, Some(_)) => {}
    }
    Ok(())
}
