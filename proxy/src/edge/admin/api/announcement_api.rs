//! Announcements in the API: `POST /api/announce` sends a message to clients of the whole fleet.

use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::Value;

use super::client_api::check_id;
use crate::edge::admin::api_error::ApiError;
use crate::edge::admin::guard::AdminContext;
use crate::edge::admin::parameter::{BodyFields, NAME_MAX_CHARS, OrderFields};
use crate::edge::observer::{Announcement, AnnouncementError, AnnouncementReport};
use crate::edge::rest::Addressee;

/// Maximum body: the arguments in JSON. Each client of the fleet gets this much.
const BODY_MAX_BYTES: usize = 64 * 1024;

/// Maximum length of the invoked method's name.
const TARGET_MAX_CHARS: usize = 200;

/// Maximum number of arguments.
const ARGUMENTS_MAX: usize = 32;

/// Maximum nesting of arguments. Parsers of clients stop at 64, including the message itself.
const DEPTH_MAX: usize = 32;

/// Suggested wait before the next announcement, in seconds.
const RETRY_S: u16 = 1;

pub(super) fn routes() -> Router<AdminContext> {
    Router::new().route("/api/announce", post(announce)).layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
}

async fn announce(
    State(context): State<AdminContext>,
    OrderFields(fields): OrderFields<BODY_MAX_BYTES>,
) -> Result<Json<AnnouncementReport>, ApiError> {
    let announcement = announcement(fields)?;
    let hub = announcement.hub.clone();
    let report = context.observer.announcer.announce(announcement).await;
    report.map(Json).map_err(|error| refusal(&hub, &error))
}

fn announcement(mut fields: BodyFields) -> Result<Announcement, ApiError> {
    if fields.is_absent {
        return Err(ApiError::field("body", "is missing: it needs hub, target and arguments"));
    }
    let hub = fields.required_text("hub", NAME_MAX_CHARS)?;
    let target = fields.required_text("target", TARGET_MAX_CHARS)?;
    let arguments = fields.list("arguments", ARGUMENTS_MAX)?.unwrap_or_default();
    if arguments.iter().any(|argument| !is_within(argument.value(), DEPTH_MAX)) {
        return Err(ApiError::field(
            "arguments",
            format!("are nested too deep: at most {DEPTH_MAX} levels are allowed"),
        ));
    }
    let mut name = |field| fields.name(field, NAME_MAX_CHARS);
    let to = match (name("group")?, name("user")?, name("client")?) {
        (None, None, None) => Addressee::Everyone,
        (Some(group), None, None) => Addressee::Group(group),
        (None, Some(user), None) => Addressee::User(user),
        (None, None, Some(id)) => Addressee::Connection(id),
        (Some(_), Some(_), None) => return Err(ApiError::field("user", "can't be given together with group")),
        (_, _, Some(_)) => return Err(ApiError::field("client", "can't be given together with group or user")),
    };
    fields.refuse_rest()?;
    if let Addressee::Connection(id) = &to {
        check_id(id)?;
    }
    Ok(Announcement { hub, to, target, arguments })
}

fn is_within(value: &Value, depth: usize) -> bool {
    let Some(inner) = depth.checked_sub(1) else { return false };
    match value {
        Value::Array(items) => items.iter().all(|item| is_within(item, inner)),
        Value::Object(fields) => fields.values().all(|field| is_within(field, inner)),
        _ => true,
    }
}

fn refusal(hub: &str, error: &AnnouncementError) -> ApiError {
    match error {
        AnnouncementError::UnknownHub => ApiError::unknown_hub(Some(hub)),
        AnnouncementError::UnknownClient(id) => ApiError::unknown_client(id),
        AnnouncementError::RawEndpoint => ApiError::field("hub", error),
        AnnouncementError::Arguments(_) => ApiError::field("arguments", error),
        AnnouncementError::TooMany => ApiError::new(StatusCode::TOO_MANY_REQUESTS, error.to_string())
            .with_header(RETRY_AFTER, HeaderValue::from(RETRY_S)),
        AnnouncementError::Record(_) => ApiError::new(StatusCode::CONFLICT, error.to_string()),
        AnnouncementError::Stopping => ApiError::stopping(),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;
    use axum::http::header::CONTENT_TYPE;
    use axum::response::IntoResponse;
    use http_body_util::BodyExt;
    use serde_json::json;
    use trunkline_protocol::json_text::JsonText;

    use super::*;

    fn read(body: &Value) -> Result<Announcement, ApiError> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        announcement(BodyFields::from_body(&headers, body.to_string().as_bytes())?)
    }

    async fn problem(change: Value) -> Value {
        let mut body = json!({ "hub": "chat", "target": "Notice", "arguments": ["text"] });
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        let answer = read(&body).unwrap_err().into_response();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{change}");
        serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    fn nested(depth: usize) -> Value {
        (1..depth).fold(json!(1), |inner, _| json!([inner]))
    }

    #[test]
    fn an_announcement_is_for_all_of_a_hub_a_group_a_user_or_a_client() {
        let read = |more: Value| {
            let mut body = json!({ "hub": "chat", "target": "Notice", "arguments": [1, { "two": null }] });
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            read(&body).unwrap()
        };
        let all = read(json!({}));
        assert_eq!((all.hub.as_str(), all.target.as_str()), ("chat", "Notice"));
        let arguments: Vec<_> = all.arguments.iter().map(JsonText::get).collect();
        assert_eq!(arguments, ["1", "{\"two\":null}"]);
        assert!(matches!(all.to, Addressee::Everyone));
        assert!(matches!(read(json!({ "group": "g", "user": null })).to, Addressee::Group(group) if group == "g"));
        assert!(matches!(read(json!({ "user": "u" })).to, Addressee::User(user) if user == "u"));
        let id = "abcdefghijklmnopqrstuv";
        assert!(matches!(read(json!({ "client": id })).to, Addressee::Connection(client) if client == id));
        assert!(read(json!({ "arguments": [nested(DEPTH_MAX)] })).arguments.len() == 1);
    }

    #[test]
    fn arguments_have_every_digit_as_typed() {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let (long, body) = ("12345678901234567890123456789", r#"{"hub":"chat","target":"Notice","arguments":"#);
        let body = format!("{body}[9007199254740993, {long},1.10]}}");
        let read = announcement(BodyFields::from_body(&headers, body.as_bytes()).unwrap()).unwrap();
        let arguments: Vec<_> = read.arguments.iter().map(JsonText::get).collect();
        assert_eq!(arguments, ["9007199254740993", long, "1.10"]);
    }

    #[tokio::test]
    async fn a_field_that_does_not_fit_is_named_with_what_is_taken() {
        let long = "x".repeat(NAME_MAX_CHARS + 1);
        for (change, field, text) in [
            (json!({ "hub": null }), "hub", "hub is missing"),
            (json!({ "hub": "" }), "hub", "hub is missing"),
            (json!({ "hub": long }), "hub", "1000"),
            (json!({ "target": 7 }), "target", "target must be a text"),
            (json!({ "target": long }), "target", "at most 200"),
            (json!({ "arguments": null }), "arguments", "must be a list"),
            (json!({ "arguments": vec![0; 33] }), "arguments", "at most 32"),
            (json!({ "arguments": [nested(DEPTH_MAX + 1)] }), "arguments", "at most 32 levels"),
            (json!({ "group": "" }), "group", "must not be empty"),
            (json!({ "user": long }), "user", "1000"),
            (json!({ "group": "g", "user": "u" }), "user", "together with group"),
            (json!({ "group": "g", "client": "c" }), "client", "together with group or user"),
            (json!({ "colour": "red" }), "colour", "is not a field here"),
        ] {
            let told = problem(change.clone()).await;
            assert_eq!(told["field"], field, "{change}: {told}");
            assert!(told["error"].as_str().unwrap().contains(text), "{change}: {told}");
        }
    }
}
