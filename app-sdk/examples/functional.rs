//! Hub and raw endpoint of the official SignalR functional tests, for the official clients' test suite and our
//! end-to-end tests.
//!
//! `/testhub` supports both hub protocols, with detailed errors; `/testhub-nowebsockets` is the same without
//! WebSockets; `/echo` echoes messages without a hub protocol; `/echoredirect` redirects to it;
//! `/clientresult/{connectionId}` requests a client result. `/authorizedhub` requires a token from
//! `/generateJwtToken`; `/redirect` redirects clients to `/testhub`, and `/bad-negotiate` refuses them with a custom
//! body. Run it behind proxies or with `--embedded`. The HTTP routes belong to the app: behind proxies, send these
//! requests to the app.
//!
//! Not supported yet:
//!
//! | endpoint of the suite | requires |
//! |---|---|
//! | `/clientresult`, `/echoredirect`, `/deployment`, `/generateJwtToken` at a proxy | pass-through of the app's HTTP endpoints |

#[path = "common/serve.rs"]
mod serve;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::header::SET_COOKIE;
use axum::http::{StatusCode, Uri};
use axum::response::{AppendHeaders, IntoResponse, Redirect};
use axum::routing::{any, get};
use axum::{Json, Router};
use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize};
use trunkline::value::{Binary, Timestamp};
use trunkline::{
    Cancellation, Context, Hub, HubError, HubHandle, Negotiation, RawConnection, RawEndpoint, Server, ServerHandle,
    Transport, UploadStream,
};

/// The official suites echo messages of up to four megabytes.
const ECHO_MAX_BYTES: usize = 8 * 1024 * 1024;

/// Unix time of 2000-01-01T00:00:00Z.
const MILLENNIUM_UNIX_SECONDS: i64 = 946_684_800;

/// Members are serialized in Pascal case, as the suite's clients expect.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CustomObject {
    name: String,
    value: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ComplexObject {
    byte_array: Binary,
    date_time: Timestamp,
    guid: String,
    int_array: Vec<i32>,
    string: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Deployment {
    server: &'static str,
    version: &'static str,
    instance: String,
}

async fn echo(message: String) -> String {
    message
}

async fn get_caller_connection_id(ctx: Context) -> String {
    ctx.connection_id().to_owned()
}

async fn get_num_redirects(ctx: Context) -> Result<u32, HubError> {
    Ok(ctx.query().get("numRedirects").unwrap_or_default().parse()?)
}

async fn throw_exception(message: String) -> Result<(), HubError> {
    Err(HubError::named("InvalidOperationException", message))
}

async fn invoke_with_string(ctx: Context, message: String) -> Result<(), HubError> {
    ctx.clients().caller().send("Message", (message,)).await?;
    Ok(())
}

async fn send_custom_object(ctx: Context, object: CustomObject) -> Result<(), HubError> {
    ctx.clients().caller().send("CustomObject", (object,)).await?;
    Ok(())
}

async fn stream_letters() -> impl Stream<Item = &'static str> {
    stream::iter(["a", "b", "c"])
}

async fn empty_stream() -> impl Stream<Item = String> {
    stream::empty()
}

/// Yields nothing until the client cancels, then sends `StreamCanceled`.
async fn infinite_stream(ctx: Context, cancelled: Cancellation) -> impl Stream<Item = String> {
    tokio::spawn(async move {
        cancelled.cancelled().await;
        ctx.clients().caller().send("StreamCanceled", ()).await
    });
    stream::pending()
}

async fn stream_throw_exception(message: String) -> Result<stream::Empty<String>, HubError> {
    Err(HubError::named("InvalidOperationException", message))
}

async fn streaming_concat(mut parts: UploadStream<String>) -> Result<String, HubError> {
    let mut whole = String::new();
    while let Some(part) = parts.next().await {
        whole += &part?;
    }
    Ok(whole)
}

async fn get_active_transport_name(ctx: Context) -> &'static str {
    ctx.transport().name()
}

async fn echo_complex_object(object: ComplexObject) -> ComplexObject {
    object
}

async fn send_complex_object() -> Result<ComplexObject, HubError> {
    Ok(ComplexObject {
        byte_array: [1, 2, 3].into_iter().collect(),
        date_time: Timestamp::new(MILLENNIUM_UNIX_SECONDS, 0)?,
        guid: "00010203-0405-0607-0706-050403020100".into(),
        int_array: vec![1, 2, 3],
        string: "hello world".into(),
    })
}

async fn get_header(ctx: Context, name: String) -> Option<String> {
    Some(ctx.headers().get(name)?.to_str().ok()?.to_owned())
}

async fn get_cookie(ctx: Context, name: String) -> Option<String> {
    let headers = ctx.headers();
    let cookies = headers.get_all("cookie").iter().filter_map(|header| header.to_str().ok());
    let mut pairs = cookies.flat_map(|header| header.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
}

async fn get_content_type_header(ctx: Context) -> Option<String> {
    get_header(ctx, "content-type".into()).await
}

/// Invokes `Result` on a client and returns the number or the error text.
async fn client_result(State(hub): State<HubHandle>, Path(connection_id): Path<String>) -> String {
    match hub.clients().client(connection_id).invoke::<i64>("Result", ()).await {
        Ok(number) => number.to_string(),
        Err(error) => error.to_string(),
    }
}

/// Echoes every message in its own format (text or binary).
async fn echo_back(mut connection: RawConnection) -> Result<(), HubError> {
    while let Some(message) = connection.recv().await {
        connection.send(message).await?;
    }
    Ok(())
}

/// Redirects `/echoredirect` and all paths below to `/echo`, and keeps the query.
async fn redirect_to_echo(uri: Uri) -> Redirect {
    Redirect::temporary(&uri.to_string().replacen("/echoredirect", "/echo", 1))
}

/// Adds two cookies to a negotiate response and deletes a third.
fn with_cookies(negotiation: Negotiation) -> impl IntoResponse {
    let cookies = ["testCookie=testValue", "testCookie2=testValue2", "expiredCookie=doesntmatter; Max-Age=0"];
    (AppendHeaders(cookies.map(|cookie| (SET_COOKIE, cookie))), negotiation)
}

async fn set_cookies() -> impl IntoResponse {
    with_cookies(Negotiation::new())
}

/// Redirects clients to the test hub at the base URL in the query, and counts the redirects.
async fn redirect(State(redirects): State<Arc<AtomicU32>>, Query(asked): Query<Destination>) -> impl IntoResponse {
    let number = redirects.fetch_add(1, Ordering::Relaxed) + 1;
    with_cookies(Negotiation::redirect(format!("{}/testhub?numRedirects={number}", asked.base_url)))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Destination {
    base_url: String,
}

async fn refuse() -> (StatusCode, &'static str) {
    (StatusCode::BAD_REQUEST, "Some response from server")
}

/// Creates a token for the test user, valid for five seconds.
async fn generate_jwt_token(State(server): State<ServerHandle>) -> Result<String, (StatusCode, String)> {
    let token = server.token("testuser").lifetime(Duration::from_secs(5)).sign();
    token.map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string()))
}

fn test_hub(path: &str) -> Hub {
    Hub::new(path)
        .detailed_errors()
        .on_negotiate(set_cookies)
        .method("Echo", echo)
        .method("GetCallerConnectionId", get_caller_connection_id)
        .method("GetNumRedirects", get_num_redirects)
        .method("ThrowException", throw_exception)
        .method("InvokeWithString", invoke_with_string)
        .method("SendCustomObject", send_custom_object)
        .method("Stream", stream_letters)
        .method("EmptyStream", empty_stream)
        .method("InfiniteStream", infinite_stream)
        .method("StreamThrowException", stream_throw_exception)
        .method("StreamingConcat", streaming_concat)
        .method("GetActiveTransportName", get_active_transport_name)
        .method("EchoComplexObject", echo_complex_object)
        .method("SendComplexObject", send_complex_object)
        .method("GetHeader", get_header)
        .method("GetCookie", get_cookie)
        .method("GetContentTypeHeader", get_content_type_header)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let without_web_sockets = [Transport::ServerSentEvents, Transport::LongPolling];
    let authorized = Hub::new("/authorizedhub").require_authentication().on_negotiate(set_cookies).method("Echo", echo);
    let server = Server::new()
        .hub(test_hub("/testhub"))
        .hub(test_hub("/testhub-nowebsockets").transports(without_web_sockets))
        .hub(authorized)
        .hub(Hub::new("/redirect").on_negotiate(redirect).with_state(Arc::default()))
        .hub(Hub::new("/bad-negotiate").on_negotiate(refuse))
        .raw_endpoint(RawEndpoint::new("/echo", echo_back).message_max_bytes(ECHO_MAX_BYTES));
    let handle = server.handle();
    let deployment =
        Deployment { server: "trunkline", version: env!("CARGO_PKG_VERSION"), instance: handle.instance().to_owned() };
    let deployment = serde_json::to_value(&deployment)?;
    let routes = Router::new()
        .route("/clientresult/{connection_id}", get(client_result))
        .with_state(handle.hub("testhub")?)
        .route("/echoredirect", any(redirect_to_echo))
        .route("/echoredirect/{*below}", any(redirect_to_echo))
        .route("/generateJwtToken", get(generate_jwt_token).with_state(handle.clone()))
        .route("/deployment", get(async || Json(deployment)));
    serve::read::<serve::ServeArguments>().serve(server, routes).await
}
