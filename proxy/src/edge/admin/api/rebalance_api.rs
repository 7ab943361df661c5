//! Rebalances in the API: `POST /api/rebalance` starts one, `GET` shows its progress, `DELETE` stops it.

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;

use crate::edge::admin::access::check_node;
use crate::edge::admin::api_error::ApiError;
use crate::edge::admin::guard::AdminContext;
use crate::edge::admin::parameter::{BodyFields, NAME_MAX_CHARS, OrderFields, QueryParameters, Scope};
use crate::edge::observer::{
    RebalanceError, RebalanceGoal, RebalanceReport, RebalanceRequest, SHED_PATH, SHED_PER_SECOND_MAX, STOP_PATH,
};
use crate::fleet::FromNode;

/// Maximum body: a goal and a few numbers.
const BODY_MAX_BYTES: usize = 4 * 1024;

/// Default maximum number of clients shed per second by all nodes together.
const PER_SECOND_DEFAULT: u64 = 100;

/// Path for operators, instead of the node paths.
const PATH: &str = "/api/rebalance";

pub(super) fn routes() -> Router<AdminContext> {
    Router::new()
        .route(PATH, get(progress).post(begin_rebalance).delete(stop))
        .route(SHED_PATH, post(shed))
        .route(STOP_PATH, post(stop_own))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
}

async fn begin_rebalance(
    State(context): State<AdminContext>,
    OrderFields(fields): OrderFields<BODY_MAX_BYTES>,
) -> Result<Json<RebalanceReport>, ApiError> {
    context.observer.rebalancer.begin_rebalance(request(fields)?).await.map(Json).map_err(|error| refusal(&error))
}

async fn progress(State(context): State<AdminContext>, scope: Scope) -> Json<RebalanceReport> {
    Json(match scope {
        Scope::Fleet => context.observer.rebalancer.report().await,
        Scope::Node => context.observer.rebalancer.own(),
    })
}

async fn stop(State(context): State<AdminContext>, uri: Uri) -> Result<Json<RebalanceReport>, ApiError> {
    QueryParameters::from_uri(&uri)?.refuse_rest()?;
    context.observer.rebalancer.stop().await.map(Json).ok_or_else(none_runs)
}

async fn stop_own(
    State(context): State<AdminContext>,
    from: Option<Extension<FromNode>>,
) -> Result<Json<RebalanceReport>, ApiError> {
    check_node(from.as_ref(), PATH)?;
    context.observer.rebalancer.stop_own().map(Json).ok_or_else(none_runs)
}

/// Makes some clients reconnect elsewhere, for a rebalance coordinated by another node.
async fn shed(
    State(context): State<AdminContext>,
    from: Option<Extension<FromNode>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    check_node(from.as_ref(), PATH)?;
    let mut fields = BodyFields::from_body(&headers, &body)?;
    let clients = fields.number("clients", 1, SHED_PER_SECOND_MAX)?;
    let clients = clients.ok_or_else(|| ApiError::field("clients", "is missing"))?;
    Ok(Json(context.observer.rebalancer.shed(clients).await).into_response())
}

fn request(mut fields: BodyFields) -> Result<RebalanceRequest, ApiError> {
    let to = fields.required_text("to", NAME_MAX_CHARS).map_err(|_| unknown_goal())?;
    let percent = fields.number("percent", 1, 100)?;
    let node = fields.name("node", NAME_MAX_CHARS)?;
    let per_second = fields.number("per_second", 1, SHED_PER_SECOND_MAX)?.unwrap_or(PER_SECOND_DEFAULT);
    let is_dry_run = fields.flag("dry_run")?;
    fields.refuse_rest()?;
    let goal = match (to.as_str(), percent, node) {
        ("mean", None, None) => RebalanceGoal::Mean,
        ("percent", Some(percent), None) => RebalanceGoal::Percent(percent),
        ("percent", None, None) => {
            return Err(ApiError::field(
                "percent",
                "is missing: with \"to\": \"percent\" it must be a number from 1 to 100",
            ));
        }
        ("node", None, Some(name)) => RebalanceGoal::Node(name),
        ("node", None, None) => {
            return Err(ApiError::field("node", "is missing: with \"to\": \"node\" it must be the name of a node"));
        }
        ("mean" | "node", Some(_), _) => {
            return Err(ApiError::field("percent", "can only be given with \"to\": \"percent\""));
        }
        ("mean" | "percent", _, Some(_)) => {
            return Err(ApiError::field("node", "can only be given with \"to\": \"node\""));
        }
        _ => return Err(unknown_goal()),
    };
    Ok(RebalanceRequest { goal, per_second, is_dry_run })
}

fn unknown_goal() -> ApiError {
    ApiError::field("to", "must be mean, percent or node")
}

fn none_runs() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "no rebalance runs in the fleet")
}

fn refusal(error: &RebalanceError) -> ApiError {
    match error {
        RebalanceError::Running(_) => ApiError::new(StatusCode::CONFLICT, error.to_string()),
        RebalanceError::Node(problem) => ApiError::field("node", problem),
        RebalanceError::Stopping => ApiError::stopping(),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use axum::http::header::CONTENT_TYPE;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    use super::*;

    fn read(body: &Value) -> Result<RebalanceRequest, ApiError> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        request(BodyFields::from_body(&headers, body.to_string().as_bytes())?)
    }

    #[test]
    fn a_rebalance_has_one_goal_a_rate_and_may_be_only_planned() {
        let request = |goal, per_second, is_dry_run| RebalanceRequest { goal, per_second, is_dry_run };
        assert_eq!(read(&json!({ "to": "mean" })).unwrap(), request(RebalanceGoal::Mean, 100, false));
        let some = json!({ "to": "percent", "percent": 20, "node": null, "per_second": 10_000, "dry_run": true });
        assert_eq!(read(&some).unwrap(), request(RebalanceGoal::Percent(20), 10_000, true));
        let one = json!({ "to": "node", "node": "proxy-a", "per_second": 1 });
        assert_eq!(read(&one).unwrap(), request(RebalanceGoal::Node("proxy-a".into()), 1, false));
    }

    #[tokio::test]
    async fn a_field_that_does_not_fit_is_named_with_what_is_taken() {
        for (body, field, text) in [
            (json!({}), "to", "mean, percent or node"),
            (json!({ "to": "even" }), "to", "mean, percent or node"),
            (json!({ "to": 7 }), "to", "mean, percent or node"),
            (json!({ "to": "percent" }), "percent", "from 1 to 100"),
            (json!({ "to": "percent", "percent": 0 }), "percent", "from 1 to 100"),
            (json!({ "to": "percent", "percent": 101 }), "percent", "from 1 to 100"),
            (json!({ "to": "percent", "percent": 1.5 }), "percent", "from 1 to 100"),
            (json!({ "to": "node" }), "node", "name of a node"),
            (json!({ "to": "node", "node": "" }), "node", "must not be empty"),
            (json!({ "to": "mean", "percent": 5 }), "percent", "can only be given with"),
            (json!({ "to": "mean", "node": "a" }), "node", "can only be given with"),
            (json!({ "to": "mean", "per_second": 0 }), "per_second", "from 1 to 10000"),
            (json!({ "to": "mean", "per_second": 10_001 }), "per_second", "from 1 to 10000"),
            (json!({ "to": "mean", "dry_run": "yes" }), "dry_run", "true or false"),
            (json!({ "to": "mean", "fast": true }), "fast", "is not a field here"),
        ] {
            let answer = read(&body).unwrap_err().into_response();
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{body}");
            let told: Value = serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
            assert_eq!(told["field"], field, "{body}: {told}");
            assert!(told["error"].as_str().unwrap().contains(text), "{body}: {told}");
        }
    }
}
