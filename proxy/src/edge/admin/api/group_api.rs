//! Groups in the API: with `POST /api/groups/join` and `POST /api/groups/leave` an operator changes the members of a
//! group, at all nodes.

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};

use super::client_api::check_id;
use crate::edge::admin::api_error::ApiError;
use crate::edge::admin::guard::AdminContext;
use crate::edge::admin::parameter::{BODY_MAX_BYTES, BodyFields, NAME_MAX_CHARS, OrderFields};
use crate::edge::observer::{GroupOrder, GroupOrderError, GroupReport, GroupStep};
use crate::edge::rest::Addressee;

pub(super) fn routes() -> Router<AdminContext> {
    Router::new()
        .route("/api/groups/join", post(|state, fields| change(state, GroupStep::Join, fields)))
        .route("/api/groups/leave", post(|state, fields| change(state, GroupStep::Leave, fields)))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
}

async fn change(
    State(context): State<AdminContext>,
    step: GroupStep,
    OrderFields(fields): OrderFields<BODY_MAX_BYTES>,
) -> Result<Json<GroupReport>, ApiError> {
    let order = order(step, fields)?;
    let hub = order.hub.clone();
    context.observer.groups.change(order).await.map(Json).map_err(|error| refusal(&hub, &error))
}

fn order(step: GroupStep, mut fields: BodyFields) -> Result<GroupOrder, ApiError> {
    let hub = fields.required_text("hub", NAME_MAX_CHARS)?;
    let group = fields.required_text("group", NAME_MAX_CHARS)?;
    let subject = match (fields.name("client", NAME_MAX_CHARS)?, fields.name("user", NAME_MAX_CHARS)?) {
        (Some(id), None) => Addressee::Connection(id),
        (None, Some(user)) => Addressee::User(user),
        (None, None) => return Err(ApiError::field("client", "is missing: a client or a user is needed")),
        (Some(_), Some(_)) => return Err(ApiError::field("user", "can't be given together with client")),
    };
    fields.refuse_rest()?;
    if let Addressee::Connection(id) = &subject {
        check_id(id)?;
    }
    Ok(GroupOrder { hub, group, subject, step })
}

fn refusal(hub: &str, error: &GroupOrderError) -> ApiError {
    match error {
        GroupOrderError::UnknownHub => ApiError::unknown_hub(Some(hub)),
        GroupOrderError::UnknownClient(id) => ApiError::unknown_client(id),
        GroupOrderError::UnknownUser => ApiError::new(StatusCode::NOT_FOUND, error.to_string()),
        GroupOrderError::NameTooLong(..) => ApiError::field("group", error),
        GroupOrderError::NoAnswer(_) => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        GroupOrderError::Refused(_) => ApiError::new(StatusCode::CONFLICT, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header::CONTENT_TYPE;
    use axum::http::{HeaderMap, HeaderValue};
    use axum::response::IntoResponse;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "abcdefghijklmnopqrstuv";

    fn read(body: &Value) -> Result<GroupOrder, ApiError> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        order(GroupStep::Join, BodyFields::from_body(&headers, body.to_string().as_bytes())?)
    }

    #[test]
    fn a_client_or_a_user_joins_a_group_of_a_hub() {
        let client = read(&json!({ "hub": "chat", "group": "red", "client": ID })).unwrap();
        assert_eq!((client.hub.as_str(), client.group.as_str(), client.step), ("chat", "red", GroupStep::Join));
        assert!(matches!(client.subject, Addressee::Connection(id) if id == ID));
        let user = read(&json!({ "hub": "chat", "group": "red", "user": "ann", "client": null })).unwrap();
        assert!(matches!(user.subject, Addressee::User(user) if user == "ann"));
    }

    #[tokio::test]
    async fn a_field_that_does_not_fit_is_named_with_what_is_taken() {
        for (body, status, text) in [
            (json!({ "group": "red", "user": "ann" }), 400, "hub is missing"),
            (json!({ "hub": "chat", "user": "ann" }), 400, "group is missing"),
            (json!({ "hub": "chat", "group": "red" }), 400, "client is missing"),
            (json!({ "hub": "chat", "group": "red", "user": "" }), 400, "user must not be empty"),
            (json!({ "hub": "chat", "group": "red", "user": "ann", "client": ID }), 400, "together with client"),
            (json!({ "hub": "chat", "group": "red", "client": "short" }), 404, "no reachable node has a client"),
            (json!({ "hub": "chat", "group": "red", "user": "ann", "x": 1 }), 400, "is not a field here"),
        ] {
            let answer = read(&body).unwrap_err().into_response();
            assert_eq!(answer.status().as_u16(), status, "{body}");
            let told: Value = serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
            assert!(told["error"].as_str().unwrap().contains(text), "{body}: {told}");
        }
    }
}
