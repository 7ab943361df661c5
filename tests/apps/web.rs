//! Test app server for everything except hubs: it reports requests, and gives all kinds of responses.
//!
//! | path | behaviour |
//! |---|---|
//! | `/mirror` and below | any method: describes the request in JSON, with the size of its body |
//! | `/name` | its name |
//! | `/status/{code}` | that status, without a body |
//! | `/hop-by-hop` | hop-by-hop headers and an ordinary header |
//! | `/trailers` | a body with trailers |
//! | `/events`, `POST /tell` | an event stream, and the text for it |
//! | `/endless`, `/abandoned` | an infinite body, and a response once a client has stopped reading it |
//! | `/broken` | half a body, which ends with the next text to `/tell` |
//! | `/silent` | never responds |
//! | `POST /refuse` | 413, without reading the body |
//! | `/socket` | a WebSocket that echoes |
//! | `/tally` | an upgrade to another protocol: counts bytes until the end, then replies |

mod bodies;
mod state;
mod upgrades;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use clap::Args;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, broadcast};
use trunkline::{Hub, Server};

use crate::plain::serve_plainly;

use state::Web;

/// Test app server for pages.
#[derive(Debug, Args)]
pub(crate) struct WebSettings {
    /// Name that it reports.
    #[arg(long, default_value = "web")]
    name: String,
}

async fn mirror(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut bytes = 0;
    let mut sum = 0_u64;
    let mut stream = body.into_data_stream();
    while let Some(Ok(chunk)) = stream.next().await {
        bytes += chunk.len();
        sum = chunk.iter().fold(sum, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    }
    let headers: Vec<[String; 2]> = parts.headers.iter().map(|(name, value)| [name.to_string(), text(value)]).collect();
    let uri = parts.uri.to_string();
    let seen = json!({ "method": parts.method.as_str(), "uri": uri, "headers": headers, "bytes": bytes, "sum": sum });
    // The app's own CORS rules.
    ([("access-control-allow-origin", "https://only.example")], Json::<Value>(seen)).into_response()
}

fn text(value: &axum::http::HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

async fn status(Path(code): Path<u16>) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_REQUEST)
}

async fn hop_by_hop() -> impl IntoResponse {
    let headers = [
        ("connection", "x-own"),
        ("x-own", "for this connection"),
        ("keep-alive", "timeout=5"),
        ("proxy-authenticate", "Basic"),
        ("x-trunkline-anything", "not from the fleet"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
    ];
    (AppendHeaders(headers), "x")
}

async fn refuse(_unread: Body) -> StatusCode {
    StatusCode::PAYLOAD_TOO_LARGE
}

pub(crate) async fn serve(listener: TcpListener, settings: WebSettings) -> anyhow::Result<()> {
    let web = Web {
        name: settings.name.clone().into(),
        events: broadcast::channel(16).0,
        abandoned: Arc::new(Notify::new()),
    };
    let server = Server::new().name(settings.name).hub(Hub::new("/hub"));
    let app = Router::new()
        .route("/mirror", any(mirror))
        .route("/mirror/{*rest}", any(mirror))
        .route("/api/{*rest}", any(mirror))
        .route("/name", get(async |State(web): State<Web>| web.name.to_string()))
        .route("/status/{code}", get(status))
        .route("/hop-by-hop", get(hop_by_hop))
        .route("/trailers", get(bodies::trailers))
        .route("/events", get(bodies::events))
        .route("/tell", post(bodies::tell))
        .route("/endless", get(bodies::endless))
        .route("/abandoned", get(async |State(web): State<Web>| web.abandoned.notified().await))
        .route("/broken", get(bodies::broken))
        .route("/silent", any(std::future::pending::<()>))
        .route("/refuse", post(refuse))
        .route("/socket", get(upgrades::socket))
        .route("/tally", get(upgrades::tally))
        .with_state(web)
        .merge(server.into_router()?);
    serve_plainly(listener, app).await
}
