//! Revocations in the API: `POST /api/revocations` invalidates access tokens before they expire, `GET` lists
//! revocations.

use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;

use crate::edge::admin::access::check_node;
use crate::edge::admin::api_error::ApiError;
use crate::edge::admin::guard::AdminContext;
use crate::edge::admin::parameter::{BodyFields, NAME_MAX_CHARS, OrderFields, QueryParameters};
use crate::edge::observer::{
    REVOKE_OWN_PATH, RevocationError, RevocationList, RevocationOrder, RevocationReport, RevokedTokens,
};
use crate::features::admission::REVOCATION_KEPT_MAX_S;
use crate::fleet::FromNode;
use crate::ground::clock::unix_seconds;

/// Path for operators, instead of the node path.
const PATH: &str = "/api/revocations";

/// Maximum body: three names, possibly fully escaped.
const BODY_MAX_BYTES: usize = 20 * 1024;

/// Minimum retention of a revocation, in seconds.
const KEEP_MIN_S: u64 = 60;

/// Default retention of a revocation, in seconds: thirty days.
const KEEP_DEFAULT_S: u64 = 30 * 24 * 3600;

/// Tolerated clock skew of issuers, in seconds. A later time is in milliseconds or a mistake.
const AHEAD_MAX_S: u64 = 3600;

/// Default number of listed revocations.
const LIMIT_DEFAULT: usize = 100;

/// Maximum number of listed revocations.
const LIMIT_MAX: usize = 1000;

/// Suggested wait before the next revocation, in seconds.
const RETRY_S: u16 = 1;

pub(super) fn routes() -> Router<AdminContext> {
    Router::new()
        .route(PATH, get(list).post(revoke))
        .route(REVOKE_OWN_PATH, post(revoke_own))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
}

async fn list(State(context): State<AdminContext>, uri: Uri) -> Result<Json<RevocationList>, ApiError> {
    let mut parameters = QueryParameters::from_uri(&uri)?;
    let user = parameters.text("user", NAME_MAX_CHARS)?;
    let limit = parameters.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT);
    parameters.refuse_rest()?;
    Ok(Json(context.observer.revoker.list(user.as_deref(), limit)))
}

async fn revoke(
    State(context): State<AdminContext>,
    OrderFields(fields): OrderFields<BODY_MAX_BYTES>,
) -> Result<Json<RevocationReport>, ApiError> {
    let order = order(fields, unix_seconds())?;
    context.observer.revoker.revoke(order).await.map(Json).map_err(|error| refusal(&error))
}

async fn revoke_own(
    State(context): State<AdminContext>,
    from: Option<Extension<FromNode>>,
    body: Bytes,
) -> Result<Response, ApiError> {
    check_node(from.as_ref(), PATH)?;
    // Later versions may send additional fields.
    let order: RevocationOrder =
        serde_json::from_slice(&body).map_err(|error| ApiError::field("body", format!("is invalid: {error}")))?;
    let answer = context.observer.revoker.revoke_own(&order).await.map_err(|error| refusal(&error))?;
    Ok(Json(answer).into_response())
}

fn order(mut fields: BodyFields, now_s: u64) -> Result<RevocationOrder, ApiError> {
    let user = fields.name("user", NAME_MAX_CHARS)?;
    let audience = fields.name("audience", NAME_MAX_CHARS)?;
    let app = fields.name("app", NAME_MAX_CHARS)?;
    let all = fields.flag("all")?;
    let issued_before = fields.number("issued_before", 1, u64::MAX)?.unwrap_or(now_s);
    let keep_s = fields.number("keep_s", KEEP_MIN_S, REVOCATION_KEPT_MAX_S)?.unwrap_or(KEEP_DEFAULT_S);
    let close = fields.flag("close")?;
    fields.refuse_rest()?;
    if all == (user.is_some() || audience.is_some() || app.is_some()) {
        let problem = "must be true to revoke all tokens, and can't be combined with user, audience or app";
        return Err(ApiError::field("all", problem));
    }
    if close && (user.is_none() || audience.is_some() || app.is_some()) {
        return Err(ApiError::field(
            "close",
            "can only be given with a user alone: it closes all connections of the user",
        ));
    }
    if issued_before > now_s.saturating_add(AHEAD_MAX_S) {
        let problem = "is in the future: seconds since 1970 are expected, at most an hour ahead of now";
        return Err(ApiError::field("issued_before", problem));
    }
    let tokens = RevokedTokens { user, audience, app, issued_before, kept_until: now_s.saturating_add(keep_s) };
    Ok(RevocationOrder { tokens, close, closed_ms: 0 })
}

fn refusal(error: &RevocationError) -> ApiError {
    match error {
        RevocationError::Refused(_) => ApiError::new(StatusCode::CONFLICT, error.to_string()),
        RevocationError::TooMany => ApiError::new(StatusCode::TOO_MANY_REQUESTS, error.to_string())
            .with_header(RETRY_AFTER, HeaderValue::from(RETRY_S)),
        RevocationError::Stopping => ApiError::stopping(),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;
    use axum::http::header::CONTENT_TYPE;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    use super::*;

    const NOW_S: u64 = 1_000_000;

    fn read(body: &Value) -> Result<RevocationOrder, ApiError> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        order(BodyFields::from_body(&headers, body.to_string().as_bytes())?, NOW_S)
    }

    #[test]
    fn a_revocation_names_a_user_audience_app_or_all_and_applies_up_to_now_by_default() {
        let now = RevokedTokens { issued_before: NOW_S, kept_until: NOW_S + KEEP_DEFAULT_S, ..Default::default() };
        let order = |tokens, close| RevocationOrder { tokens, close, closed_ms: 0 };
        let of_user = RevokedTokens { user: Some("ann".into()), ..now.clone() };
        assert_eq!(read(&json!({ "user": "ann", "close": true })).unwrap(), order(of_user.clone(), true));
        assert_eq!(read(&json!({ "all": true, "user": null })).unwrap(), order(now, false));
        let body = json!({
            "user": "ann", "audience": "shop", "app": "store", "issued_before": NOW_S + 3600, "keep_s": 60,
        });
        let exact = RevokedTokens {
            audience: Some("shop".into()),
            app: Some("store".into()),
            issued_before: NOW_S + 3600,
            kept_until: NOW_S + 60,
            ..of_user
        };
        assert_eq!(read(&body).unwrap(), order(exact.clone(), false));
        let between_nodes = json!(order(exact.clone(), true)).to_string();
        assert_eq!(serde_json::from_str::<RevocationOrder>(&between_nodes).unwrap(), order(exact, true));
    }

    #[tokio::test]
    async fn a_field_that_does_not_fit_is_named_with_what_is_taken() {
        let long = "x".repeat(NAME_MAX_CHARS + 1);
        for (body, field, text) in [
            (json!({}), "all", "must be true to revoke"),
            (json!({ "all": false }), "all", "must be true to revoke"),
            (json!({ "all": true, "user": "ann" }), "all", "can't be combined with user"),
            (json!({ "user": "" }), "user", "must not be empty"),
            (json!({ "user": long }), "user", "1000"),
            (json!({ "app": 7 }), "app", "must be a text"),
            (json!({ "all": true, "close": true }), "close", "with a user alone"),
            (json!({ "user": "ann", "app": "shop", "close": true }), "close", "with a user alone"),
            (json!({ "user": "ann", "issued_before": NOW_S + 3601 }), "issued_before", "seconds since 1970"),
            (json!({ "user": "ann", "issued_before": NOW_S * 1000 }), "issued_before", "seconds since 1970"),
            (json!({ "user": "ann", "issued_before": "now" }), "issued_before", "must be a number"),
            (json!({ "user": "ann", "keep_s": 59 }), "keep_s", "from 60 to"),
            (json!({ "user": "ann", "keep_s": REVOCATION_KEPT_MAX_S + 1 }), "keep_s", "from 60 to"),
            (json!({ "user": "ann", "token": "x" }), "token", "is not a field here"),
        ] {
            let answer = read(&body).unwrap_err().into_response();
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{body}");
            let told: Value = serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
            assert_eq!(told["field"], field, "{body}: {told}");
            assert!(told["error"].as_str().unwrap().contains(text), "{body}: {told}");
        }
    }
}
