//! Test app server: all kinds of sends, hubs with different settings.
//!
//! | hub | purpose |
//! |---|---|
//! | `/sends` | sends, groups |
//! | `/lively` | frequent keep-alives and a short client timeout |

use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use trunkline::{Context, Hub, HubError, Server};

use crate::plain::serve_plainly;

/// Its argument is a tag that identifies the call.
const RECEIVED: &str = "Received";
const FENCE: &str = "Fence";

/// Keep-alive interval short enough for a test to wait.
const LIVELY_KEEP_ALIVE_INTERVAL: Duration = Duration::from_millis(100);

/// Client timeout: longer than a busy machine delays a ping, short enough for a test to wait.
const LIVELY_CLIENT_TIMEOUT: Duration = Duration::from_secs(2);

type Done = Result<(), HubError>;

async fn to_all(ctx: Context, tag: String) -> Done {
    ctx.clients().all().send(RECEIVED, (tag,)).await?;
    Ok(())
}

async fn to_others(ctx: Context, tag: String) -> Done {
    ctx.clients().others().send(RECEIVED, (tag,)).await?;
    Ok(())
}

async fn to_all_except(ctx: Context, left_out: Vec<String>, tag: String) -> Done {
    ctx.clients().all_except(left_out).send(RECEIVED, (tag,)).await?;
    Ok(())
}

async fn to_caller(ctx: Context, tag: String) -> Done {
    ctx.clients().caller().send(RECEIVED, (tag,)).await?;
    Ok(())
}

async fn to_client(ctx: Context, connection_id: String, tag: String) -> Done {
    ctx.clients().client(connection_id).send(RECEIVED, (tag,)).await?;
    Ok(())
}

async fn to_clients(ctx: Context, connection_ids: Vec<String>, tag: String) -> Done {
    ctx.clients().clients(connection_ids).send(RECEIVED, (tag,)).await?;
    Ok(())
}

async fn to_group(ctx: Context, group: String, tag: String) -> Done {
    ctx.clients().group(group).send(RECEIVED, (tag,)).await?;
    Ok(())
}

async fn to_groups(ctx: Context, groups: Vec<String>, tag: String) -> Done {
    ctx.clients().groups(groups).send(RECEIVED, (tag,)).await?;
    Ok(())
}

async fn to_group_except(ctx: Context, group: String, left_out: Vec<String>, tag: String) -> Done {
    ctx.clients().group_except(group, left_out).send(RECEIVED, (tag,)).await?;
    Ok(())
}

async fn to_others_in_group(ctx: Context, group: String, tag: String) -> Done {
    ctx.clients().others_in_group(group).send(RECEIVED, (tag,)).await?;
    Ok(())
}

async fn to_user(ctx: Context, user: String, tag: String) -> Done {
    ctx.clients().user(user).send(RECEIVED, (tag,)).await?;
    Ok(())
}

async fn to_users(ctx: Context, users: Vec<String>, tag: String) -> Done {
    ctx.clients().users(users).send(RECEIVED, (tag,)).await?;
    Ok(())
}

/// Fence: arrives after everything sent earlier.
async fn fence(ctx: Context, number: u64) -> Done {
    ctx.clients().all().send(FENCE, (number,)).await?;
    Ok(())
}

async fn join(ctx: Context, group: String) -> Done {
    ctx.join(group).await?;
    Ok(())
}

async fn leave(ctx: Context, group: String) -> Done {
    ctx.leave(group).await?;
    Ok(())
}

async fn connection_id(ctx: Context) -> String {
    ctx.connection_id().to_owned()
}

async fn add(first: i64, second: i64) -> i64 {
    first + second
}

async fn repeat(text: String, times: usize) -> String {
    text.repeat(times)
}

fn hub(path: &str) -> Hub {
    Hub::new(path)
        .method("ToAll", to_all)
        .method("ToOthers", to_others)
        .method("ToAllExcept", to_all_except)
        .method("ToCaller", to_caller)
        .method("ToClient", to_client)
        .method("ToClients", to_clients)
        .method("ToGroup", to_group)
        .method("ToGroups", to_groups)
        .method("ToGroupExcept", to_group_except)
        .method("ToOthersInGroup", to_others_in_group)
        .method("ToUser", to_user)
        .method("ToUsers", to_users)
        .method("Fence", fence)
        .method("Join", join)
        .method("Leave", leave)
        .method("ConnectionId", connection_id)
        .method("Add", add)
        .method("Repeat", repeat)
}

pub(crate) async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    let lively = hub("/lively").keep_alive_interval(LIVELY_KEEP_ALIVE_INTERVAL).client_timeout(LIVELY_CLIENT_TIMEOUT);
    let server = Server::new().hub(hub("/sends")).hub(lively);
    let metrics = server.handle().metrics();
    let app = Router::new().route("/metrics", metrics).merge(server.into_router()?);
    serve_plainly(listener, app).await
}
