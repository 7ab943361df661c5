//! Test app server for authorization.
//!
//! | hub | purpose |
//! |---|---|
//! | `/open` | accepts everybody; validates tokens if present |
//! | `/members` | accepts users only, and only until their tokens expire |
//! | `/present` | users and groups; its hooks print arrivals and departures |
//! | `/asked` | the app decides: its handler checks a cookie and takes further instructions from the query |

use std::net::SocketAddr;

use axum::Router;
use axum::extract::{ConnectInfo, Query};
use axum::response::{AppendHeaders, IntoResponse};
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use trunkline::{Context, GroupChanged, Hub, HubError, Negotiation, Server, UserOffline, UserOnline};

use crate::plain::serve_plainly;

/// Describes the caller as the hub sees it.
async fn who_am_i(ctx: Context) -> Value {
    let (headers, query, claims) = (ctx.headers(), ctx.query(), ctx.claims());
    let headers: Vec<_> = headers.keys().map(http::HeaderName::as_str).collect();
    let query: Vec<_> = query.iter().collect();
    let claims: Vec<_> = claims.iter().collect();
    json!({ "userId": ctx.user_id(), "claims": claims, "headers": headers, "query": query })
}

#[derive(Debug, Deserialize)]
struct NegotiateRequest {
    /// Redirect to another URL, with this token.
    elsewhere: Option<String>,
    token: Option<String>,
    /// Decision that is never answered.
    hang: Option<String>,
}

/// Accepts the owner of a cookie, with a claim and two cookies; refuses others with a custom text.
async fn decide(
    headers: HeaderMap,
    Query(wish): Query<NegotiateRequest>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
) -> Result<impl IntoResponse, impl IntoResponse> {
    if wish.hang.is_some() {
        std::future::pending::<()>().await;
    }
    let cookie = headers.get(COOKIE).and_then(|cookie| cookie.to_str().ok()).unwrap_or_default();
    let session = cookie.split("; ").find_map(|pair| pair.strip_prefix("session="));
    let negotiation = match (wish.elsewhere, session) {
        (Some(url), _) => Negotiation::redirect(url).access_token(wish.token.unwrap_or_default()),
        (None, Some("token")) => Negotiation::new(),
        (None, Some(user)) => Negotiation::user(user).claim("ip", address.ip().to_string()),
        (None, None) => return Err((StatusCode::IM_A_TEAPOT, [("x-reason", "no session")], "log in first")),
    };
    Ok((AppendHeaders([(SET_COOKIE, "a=1"), (SET_COOKIE, "b=2")]), negotiation))
}

fn hub(path: &str) -> Hub {
    Hub::new(path).method("WhoAmI", who_am_i)
}

#[expect(clippy::print_stdout, reason = "the tests read what hooks were told")]
fn print(told: &str) {
    println!("told {told}");
}

async fn online(ctx: Context, user: String) -> Result<(bool, u64), HubError> {
    Ok((*ctx.users().online(&user).await?, *ctx.users().count(&user).await?))
}

fn present() -> Hub {
    Hub::new("/present")
        .method("Join", async |ctx: Context, group: String| -> Result<(), HubError> { Ok(ctx.join(group).await?) })
        .method("Online", online)
        .on_user_online(async |user: UserOnline| print(&format!("{} online", user.user_id)))
        .on_user_offline(async |user: UserOffline| print(&format!("{} offline", user.user_id)))
        .on_group_changed(async |change: GroupChanged| {
            let GroupChanged { group, joined, left, count, .. } = change;
            print(&format!("{group} +{} -{} ={count}", joined.len(), left.len()));
        })
}

pub(crate) async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    let members = hub("/members").require_authentication().close_on_token_expiry();
    let asked = hub("/asked").require_authentication().on_negotiate(decide);
    let server = Server::new().hub(hub("/open")).hub(members).hub(asked).hub(present());
    let metrics = server.handle().metrics();
    let app = Router::new().route("/metrics", metrics).merge(server.into_router()?);
    serve_plainly(listener, app).await
}
