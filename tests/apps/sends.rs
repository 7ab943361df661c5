//! Test app server: all kinds of sends, all kinds of errors, hubs with different settings.
//!
//! | hub | purpose |
//! |---|---|
//! | `/sends` | sends, groups, errors |
//! | `/hasty` | very short timeout for the hub handshake |
//! | `/detailed` | clients receive error details |
//! | `/lively` | frequent keep-alives and a short client timeout |
//! | `/lossy` | slow clients lose messages to many receivers |

use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use trunkline::{Context, Hub, HubError, Server, SlowClients, Transport};

use crate::plain::serve_plainly;

/// Its argument is a tag that identifies the call.
const RECEIVED: &str = "Received";
const FENCE: &str = "Fence";

/// Handshake timeout: long enough for an immediate handshake, short enough for a test to wait.
const HASTY_HANDSHAKE_TIMEOUT: Duration = Duration::from_millis(300);

/// Keep-alive interval short enough for a test to wait.
const LIVELY_KEEP_ALIVE_INTERVAL: Duration = Duration::from_millis(100);

/// Client timeout: longer than a busy machine delays a ping, short enough for a test to wait.
const LIVELY_CLIENT_TIMEOUT: Duration = Duration::from_secs(2);

/// Duration of a slow call, far longer than others take.
const DAWDLE: Duration = Duration::from_millis(100);

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

/// Sends numbers from 0, each with another kind of send that reaches only the caller.
async fn mixed_to_me(ctx: Context, count: u64) -> Done {
    let clients = ctx.clients();
    let me = ctx.connection_id();
    for number in 0..count {
        match number % 3 {
            0 => clients.caller().send("ToMe", (number,)).await?,
            1 => clients.client(me).send("ToMe", (number,)).await?,
            _ => clients.clients([me]).send("ToMe", (number,)).await?,
        };
    }
    Ok(())
}

/// Sends numbers from 0, each with another kind of send that reaches everyone. `mixed` is their group, `alice` their
/// user.
async fn mixed_to_everyone(ctx: Context, everyone: Vec<String>, count: u64) -> Done {
    let clients = ctx.clients();
    let nobody: [&str; 0] = [];
    let ways = [
        clients.all(),
        clients.group("mixed"),
        clients.user("alice"),
        clients.clients(&everyone),
        clients.all_except(["nobody"]),
        clients.groups(["mixed", "empty"]),
        clients.users(["alice", "nobody"]),
        clients.group_except("mixed", nobody),
    ];
    for (number, way) in (0..count).zip(ways.iter().cycle()) {
        way.send("ToEveryone", (number,)).await?;
    }
    Ok(())
}

/// Is slow, so that calls of this client queue behind it.
async fn dawdle(_padding: String) {
    tokio::time::sleep(DAWDLE).await;
}

async fn hang() {
    std::future::pending().await
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

async fn length(text: String) -> usize {
    text.len()
}

async fn repeat(text: String, times: usize) -> String {
    text.repeat(times)
}

/// Fails with a text that the caller may see.
async fn refuse(reason: String) -> Done {
    Err(HubError::new(reason))
}

/// Fails with a text that only the log may contain.
async fn fail(secret: String) -> Done {
    Err(std::io::Error::other(secret).into())
}

#[expect(clippy::panic, reason = "the tests want to see that a panic ends one call and nothing else")]
async fn panic() {
    panic!("asked for");
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
        .method("MixedToMe", mixed_to_me)
        .method("MixedToEveryone", mixed_to_everyone)
        .method("Dawdle", dawdle)
        .method("Hang", hang)
        .method("Fence", fence)
        .method("Join", join)
        .method("Leave", leave)
        .method("ConnectionId", connection_id)
        .method("Add", add)
        .method("Length", length)
        .method("Repeat", repeat)
        .method("Refuse", refuse)
        .method("Break", fail)
        .method("Panic", panic)
}

pub(crate) async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    let lively = hub("/lively").keep_alive_interval(LIVELY_KEEP_ALIVE_INTERVAL).client_timeout(LIVELY_CLIENT_TIMEOUT);
    let server = Server::new()
        .hub(hub("/sends"))
        .hub(hub("/hasty").handshake_timeout(HASTY_HANDSHAKE_TIMEOUT))
        .hub(hub("/detailed").detailed_errors().transports([Transport::WebSockets]))
        .hub(hub("/lossy").slow_clients(SlowClients::Drop))
        .hub(lively);
    let metrics = server.handle().metrics();
    let app = Router::new().route("/metrics", metrics).merge(server.into_router()?);
    serve_plainly(listener, app).await
}
