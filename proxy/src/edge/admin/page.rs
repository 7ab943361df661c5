//! The observer page: static HTML, CSS and JavaScript in the binary. It uses the public API.

use axum::Router;
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::access::AdminCaller;
use super::guard::AdminContext;
use super::session::PAGE_PATH;
use crate::edge::observer::ApiError;

/// Content security policy: allows only content of this node, and no framing or requests elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Files loaded by the page: path, content type, text.
const ASSETS: [(&str, &str, &str); 16] = [
    ("/page/style.css", CSS, include_str!("page/style.css")),
    ("/page/login.js", SCRIPT, include_str!("page/login.js")),
    ("/page/main.js", SCRIPT, include_str!("page/main.js")),
    ("/page/acts.js", SCRIPT, include_str!("page/acts.js")),
    ("/page/announce.js", SCRIPT, include_str!("page/announce.js")),
    ("/page/api.js", SCRIPT, include_str!("page/api.js")),
    ("/page/conditions.js", SCRIPT, include_str!("page/conditions.js")),
    ("/page/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("/page/format.js", SCRIPT, include_str!("page/format.js")),
    ("/page/graph.js", SCRIPT, include_str!("page/graph.js")),
    ("/page/lists.js", SCRIPT, include_str!("page/lists.js")),
    ("/page/client.js", SCRIPT, include_str!("page/client.js")),
    ("/page/life.js", SCRIPT, include_str!("page/life.js")),
    ("/page/nodes.js", SCRIPT, include_str!("page/nodes.js")),
    ("/page/timeline.js", SCRIPT, include_str!("page/timeline.js")),
    ("/page/trace.js", SCRIPT, include_str!("page/trace.js")),
];

pub(super) fn router() -> Router<AdminContext> {
    let page = Router::new().route("/", get(page)).route(&format!("{PAGE_PATH}/"), get(page));
    // URLs are relative, because the page has two paths.
    ASSETS.into_iter().fold(page, |router, (path, kind, text)| {
        let file = || get(async move |State(context): State<AdminContext>| asset(&context, kind, text));
        router.route(path, file()).route(&format!("{PAGE_PATH}{path}"), file())
    })
}

/// Serves the page, or a log-in form if a token is needed first.
async fn page(State(context): State<AdminContext>, caller: AdminCaller, headers: HeaderMap) -> Response {
    match context.guard.access(&headers, caller).await {
        Ok(_) => text(HTML, include_str!("page/index.html")).into_response(),
        Err(error) if error.status() == StatusCode::UNAUTHORIZED => {
            (error.status(), text(HTML, include_str!("page/login.html"))).into_response()
        }
        Err(error) => error.into_response(),
    }
}

fn asset(context: &AdminContext, kind: &'static str, content: &'static str) -> Result<Response, ApiError> {
    context.guard.check_served()?;
    Ok(text(kind, content).into_response())
}

fn text(kind: &'static str, content: &'static str) -> impl IntoResponse {
    // Prevents the browser from showing an old version's page after an update.
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")], content)
}

/// Adds security headers. API responses get them too, because they contain text chosen by clients.
pub(super) async fn secure(response: Response) -> impl IntoResponse {
    let headers = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    (headers, response)
}
