//! Test app server with recorded groups.
//!
//! | at | purpose |
//! |---|---|
//! | hub `/rust` | records the groups `room-*` |
//! | `POST /say/{group}/{number}` | sends a number to a group, with its text as the id; returns the position |

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::post;
use http::StatusCode;

use tokio::net::TcpListener;
use trunkline::{Hub, Server, ServerHandle};

use crate::plain::serve_plainly;

/// Sends to a group. Fails with 503 if no node confirms the record.
async fn say(
    State(handle): State<ServerHandle>,
    Path((group, number)): Path<(String, u64)>,
) -> Result<String, (StatusCode, String)> {
    let refused = |error: String| (StatusCode::SERVICE_UNAVAILABLE, error);
    let hub = handle.hub("rust").map_err(|error| refused(error.to_string()))?;
    let sent = hub.clients().group(&group).id(format!("{group}-{number}")).send("Said", (number,)).await;
    let sent = sent.map_err(|error| refused(error.to_string()))?;
    sent.position().map(str::to_owned).ok_or_else(|| refused("not recorded".into()))
}

pub(crate) async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    let server = Server::new().hub(Hub::new("/rust").history("room-*", 100_000, Duration::from_secs(3600)));
    let routes = Router::new().route("/say/{group}/{number}", post(say)).with_state(server.handle());
    serve_plainly(listener, server.into_router()?.merge(routes)).await
}
