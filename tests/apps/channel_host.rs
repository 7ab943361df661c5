//! Routes inside channels for app servers that do not use the SDK.

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use trunkline_channel::{ChannelStream, Dialled, HelloTable, accept, open_channel};
use trunkline_protocol::key::{AccessKey, AccessKeys, PeerKind};
use trunkline_protocol::wire::CHANNEL_PATH;

use crate::harness::fleet::ACCESS_KEY;

/// Router that accepts channels from proxies with these tests' key and serves these routes inside them.
pub(super) fn in_channels(inside: Router) -> Result<Router> {
    let (keys, hellos) = (keys()?, HelloTable::default());
    let host = move |request: Request| {
        let answer = host(request, (&keys, &hellos), inside.clone());
        async { answer }
    };
    Ok(Router::new().route(CHANNEL_PATH, get(host)))
}

fn host(request: Request, (keys, hellos): (&AccessKeys, &HelloTable), inside: Router) -> Response {
    let Ok(Some(accepted)) = accept(&request, keys, PeerKind::AppServer, hellos) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let (response, stream) = accepted.into_parts();
    tokio::spawn(async move {
        if let Ok(stream) = stream.await {
            let inside = TowerToHyperService::new(inside);
            let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), inside);
            // Fails only after the proxy has closed, which is harmless.
            drop(serving.with_upgrades().await);
        }
    });
    response.map(|()| Body::empty())
}

/// Opens a channel to an app server at `host:port`, as a proxy in these tests does.
pub(super) async fn dial_channel(app: &str) -> Result<ChannelStream<TcpStream>> {
    let dial = async || {
        let stream = TcpStream::connect(app).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    let dialled = Dialled { peer_kind: PeerKind::AppServer, name: app };
    open_channel(dial, dialled, &keys()?).await.with_context(|| format!("a channel to {app}"))
}

fn keys() -> Result<AccessKeys> {
    Ok(AccessKeys::new(vec![AccessKey::new(ACCESS_KEY)?])?)
}
