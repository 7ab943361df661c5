//! Orders of operators, read from the body of a request.

use serde_json::Value;
use trunkline_protocol::service::RecordAct;

use super::client_api::check_id;
use crate::edge::admin::parameter::{BodyFields, NAME_MAX_CHARS};
use crate::edge::observer::{
    Announcement, ApiError, GroupOrder, GroupStep, RebalanceGoal, RebalanceRequest, RecordOrder, RevocationOrder,
    RevokedTokens, SHED_PER_SECOND_MAX,
};
use crate::edge::rest::{Addressee, set_of};
use crate::features::admission::REVOCATION_KEPT_MAX_S;
use crate::ground::clock::unix_seconds;

/// Maximum body of an announcement: the arguments in JSON. Each client of the fleet gets this much.
pub(super) const ANNOUNCEMENT_MAX_BYTES: usize = 64 * 1024;

/// Maximum body of a revocation: three names, possibly fully escaped.
pub(super) const REVOCATION_MAX_BYTES: usize = 20 * 1024;

/// Maximum length of the invoked method's name.
const TARGET_MAX_CHARS: usize = 200;

/// Maximum number of arguments.
const ARGUMENTS_MAX: usize = 32;

/// Maximum nesting of arguments. Parsers of clients stop at 64, including the message itself.
const DEPTH_MAX: usize = 32;

/// Default maximum number of clients shed per second by all nodes together.
const PER_SECOND_DEFAULT: u64 = 100;

/// Minimum retention of a revocation, in seconds.
const KEEP_MIN_S: u64 = 60;

/// Default retention of a revocation, in seconds: thirty days.
const KEEP_DEFAULT_S: u64 = 30 * 24 * 3600;

/// Tolerated clock skew of issuers, in seconds. A later time is in milliseconds or a mistake.
const AHEAD_MAX_S: u64 = 3600;

pub(super) fn announcement(body: &mut BodyFields) -> Result<Announcement, ApiError> {
    let hub = body.required_text("hub", NAME_MAX_CHARS)?;
    let target = body.required_text("target", TARGET_MAX_CHARS)?;
    let arguments = body.list("arguments", ARGUMENTS_MAX)?.unwrap_or_default();
    if arguments.iter().any(|argument| !is_within(argument.value(), DEPTH_MAX)) {
        let problem = format!("are nested too deep: at most {DEPTH_MAX} levels are allowed");
        return Err(ApiError::field("arguments", problem));
    }
    let to = addressee(body, &["group", "user", "client"])?.unwrap_or(Addressee::Everyone);
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

pub(super) fn group_order(step: GroupStep) -> impl Fn(&mut BodyFields) -> Result<GroupOrder, ApiError> + Copy {
    move |body| {
        let hub = body.required_text("hub", NAME_MAX_CHARS)?;
        let group = body.required_text("group", NAME_MAX_CHARS)?;
        let subject = addressee(body, &["client", "user"])?;
        let subject = subject.ok_or_else(|| ApiError::field("client", "is missing: a client or a user is needed"))?;
        Ok(GroupOrder { hub, group, subject, step })
    }
}

pub(super) fn record_order(act: RecordAct) -> impl Fn(&mut BodyFields) -> Result<RecordOrder, ApiError> + Copy {
    move |body| {
        let hub = body.required_text("hub", NAME_MAX_CHARS)?;
        let set = addressee(body, &["group", "user"])?.as_ref().and_then(set_of);
        let set = set.ok_or_else(|| ApiError::field("group", "is missing: a group or a user is needed"))?;
        Ok(RecordOrder { hub, set, act })
    }
}

/// Takes at most one of these fields, which name clients.
fn addressee(body: &mut BodyFields, fields: &[&'static str]) -> Result<Option<Addressee>, ApiError> {
    let mut given = None;
    for &field in fields {
        let Some(name) = body.name(field, NAME_MAX_CHARS)? else { continue };
        if let Some((other, _)) = given {
            return Err(ApiError::field(field, format!("can't be given together with {other}")));
        }
        given = Some((field, name));
    }
    Ok(match given {
        None => None,
        Some(("group", name)) => Some(Addressee::Group(name)),
        Some(("user", name)) => Some(Addressee::User(name)),
        Some((_, id)) => check_id(&id).map(|()| Some(Addressee::Connection(id)))?,
    })
}

pub(super) fn rebalance(body: &mut BodyFields) -> Result<RebalanceRequest, ApiError> {
    let unknown = || ApiError::field("to", "must be mean, percent or node");
    let to = body.required_text("to", NAME_MAX_CHARS).map_err(|_| unknown())?;
    let percent = body.number("percent", 1, 100)?;
    let node = body.name("node", NAME_MAX_CHARS)?;
    let per_second = body.number("per_second", 1, SHED_PER_SECOND_MAX)?.unwrap_or(PER_SECOND_DEFAULT);
    let is_dry_run = body.flag("dry_run")?;
    let goal = match (to.as_str(), percent, node) {
        ("mean", None, None) => Ok(RebalanceGoal::Mean),
        ("percent", Some(percent), None) => Ok(RebalanceGoal::Percent(percent)),
        ("node", None, Some(name)) => Ok(RebalanceGoal::Node(name)),
        ("percent", None, None) => {
            Err(("percent", "is missing: with \"to\": \"percent\" it must be a number from 1 to 100"))
        }
        ("node", None, None) => Err(("node", "is missing: with \"to\": \"node\" it must be the name of a node")),
        ("mean" | "node", Some(_), _) => Err(("percent", "can only be given with \"to\": \"percent\"")),
        ("mean" | "percent", _, Some(_)) => Err(("node", "can only be given with \"to\": \"node\"")),
        _ => return Err(unknown()),
    };
    let goal = goal.map_err(|(field, problem)| ApiError::field(field, problem))?;
    Ok(RebalanceRequest { goal, per_second, is_dry_run })
}

pub(super) fn revocation(body: &mut BodyFields) -> Result<RevocationOrder, ApiError> {
    revocation_at(body, unix_seconds())
}

fn revocation_at(body: &mut BodyFields, now_s: u64) -> Result<RevocationOrder, ApiError> {
    let [user, audience, app] = ["user", "audience", "app"].map(|field| body.name(field, NAME_MAX_CHARS));
    let (user, audience, app) = (user?, audience?, app?);
    let all = body.flag("all")?;
    let issued_before = body.number("issued_before", 1, u64::MAX)?.unwrap_or(now_s);
    let keep_s = body.number("keep_s", KEEP_MIN_S, REVOCATION_KEPT_MAX_S)?.unwrap_or(KEEP_DEFAULT_S);
    let close = body.flag("close")?;
    if all == (user.is_some() || audience.is_some() || app.is_some()) {
        let problem = "must be true to revoke all tokens, and can't be combined with user, audience or app";
        return Err(ApiError::field("all", problem));
    }
    if close && (user.is_none() || audience.is_some() || app.is_some()) {
        let problem = "can only be given with a user alone: it closes all connections of the user";
        return Err(ApiError::field("close", problem));
    }
    if issued_before > now_s.saturating_add(AHEAD_MAX_S) {
        let problem = "is in the future: seconds since 1970 are expected, at most an hour ahead of now";
        return Err(ApiError::field("issued_before", problem));
    }
    let tokens = RevokedTokens { user, audience, app, issued_before, kept_until: now_s.saturating_add(keep_s) };
    Ok(RevocationOrder { tokens, close, closed_ms: 0 })
}

#[cfg(test)]
mod tests {
    use axum::http::header::CONTENT_TYPE;
    use axum::http::{HeaderMap, HeaderValue};
    use axum::response::IntoResponse;
    use http_body_util::BodyExt;
    use serde_json::json;
    use trunkline_protocol::json_text::JsonText;

    use super::*;

    const ID: &str = "abcdefghijklmnopqrstuv";

    /// Reads a body as a route does.
    fn read<O>(order: impl Fn(&mut BodyFields) -> Result<O, ApiError>, body: &str) -> Result<O, ApiError> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let mut fields = BodyFields::from_body(&headers, body.as_bytes())?;
        let order = order(&mut fields)?;
        fields.refuse_rest().map(|()| order)
    }

    /// Checks the refusals of bodies: status, field and a part of the text.
    async fn refused<O: std::fmt::Debug>(
        order: impl Fn(&mut BodyFields) -> Result<O, ApiError>,
        wrong: &[(Value, u16, &str, &str)],
    ) {
        for (body, status, field, text) in wrong {
            let answer = read(&order, &body.to_string()).unwrap_err().into_response();
            assert_eq!(answer.status().as_u16(), *status, "{body}");
            let told: Value = serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
            assert_eq!(told["field"], if *status == 400 { json!(field) } else { Value::Null }, "{body}: {told}");
            assert!(told["error"].as_str().unwrap().contains(text), "{body}: {told}");
        }
    }

    fn nested(depth: usize) -> Value {
        (1..depth).fold(json!(1), |inner, _| json!([inner]))
    }

    #[test]
    fn an_announcement_is_for_all_of_a_hub_a_group_a_user_or_a_client() {
        let read = |more: Value| {
            let mut body = json!({ "hub": "chat", "target": "Notice", "arguments": [1, { "two": null }] });
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            read(announcement, &body.to_string()).unwrap()
        };
        let all = read(json!({}));
        assert_eq!((all.hub.as_str(), all.target.as_str()), ("chat", "Notice"));
        let arguments: Vec<_> = all.arguments.iter().map(JsonText::get).collect();
        assert_eq!(arguments, ["1", "{\"two\":null}"]);
        assert!(matches!(all.to, Addressee::Everyone));
        assert!(matches!(read(json!({ "group": "g", "user": null })).to, Addressee::Group(group) if group == "g"));
        assert!(matches!(read(json!({ "user": "u" })).to, Addressee::User(user) if user == "u"));
        assert!(matches!(read(json!({ "client": ID })).to, Addressee::Connection(client) if client == ID));
        assert!(read(json!({ "arguments": [nested(DEPTH_MAX)] })).arguments.len() == 1);
    }

    #[test]
    fn arguments_have_every_digit_as_typed() {
        let (long, body) = ("12345678901234567890123456789", r#"{"hub":"chat","target":"Notice","arguments":"#);
        let read = read(announcement, &format!("{body}[9007199254740993, {long},1.10]}}")).unwrap();
        let arguments: Vec<_> = read.arguments.iter().map(JsonText::get).collect();
        assert_eq!(arguments, ["9007199254740993", long, "1.10"]);
    }

    #[tokio::test]
    async fn a_field_of_an_announcement_that_does_not_fit_is_named_with_what_is_taken() {
        let long = "x".repeat(NAME_MAX_CHARS + 1);
        let changes = [
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
            (json!({ "group": "g", "client": "c" }), "client", "together with group"),
            (json!({ "user": "u", "client": "c" }), "client", "together with user"),
            (json!({ "colour": "red" }), "colour", "is not a field here"),
        ];
        let wrong = changes.map(|(change, field, text)| {
            let mut body = json!({ "hub": "chat", "target": "Notice", "arguments": ["text"] });
            body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            (body, 400, field, text)
        });
        refused(announcement, &wrong).await;
        assert!(format!("{:?}", read(announcement, "").unwrap_err()).contains("hub is missing"));
    }

    #[test]
    fn a_client_or_a_user_joins_a_group_of_a_hub() {
        let read = |body: Value| read(group_order(GroupStep::Join), &body.to_string()).unwrap();
        let client = read(json!({ "hub": "chat", "group": "red", "client": ID }));
        assert_eq!((client.hub.as_str(), client.group.as_str(), client.step), ("chat", "red", GroupStep::Join));
        assert!(matches!(client.subject, Addressee::Connection(id) if id == ID));
        let user = read(json!({ "hub": "chat", "group": "red", "user": "ann", "client": null }));
        assert!(matches!(user.subject, Addressee::User(user) if user == "ann"));
    }

    #[tokio::test]
    async fn orders_about_groups_and_records_name_one_hub_and_one_subject() {
        let unknown =
            (json!({ "hub": "chat", "group": "red", "user": "ann", "x": 1 }), 400, "x", "is not a field here");
        let groups = [
            (json!({ "group": "red", "user": "ann" }), 400, "hub", "hub is missing"),
            (json!({ "hub": "chat", "user": "ann" }), 400, "group", "group is missing"),
            (json!({ "hub": "chat", "group": "red" }), 400, "client", "client is missing"),
            (json!({ "hub": "chat", "group": "red", "user": "" }), 400, "user", "user must not be empty"),
            (json!({ "hub": "chat", "group": "red", "user": "a", "client": ID }), 400, "user", "together with client"),
            (json!({ "hub": "chat", "group": "red", "client": "short" }), 404, "", "no reachable node has a client"),
            unknown,
        ];
        refused(group_order(GroupStep::Leave), &groups).await;
        let records = [
            (json!({ "group": "red" }), 400, "hub", "hub is missing"),
            (json!({ "hub": "chat" }), 400, "group", "a group or a user is needed"),
            (json!({ "hub": "chat", "group": "red", "user": "ann" }), 400, "user", "together with group"),
            (json!({ "hub": "chat", "group": "red", "client": ID }), 400, "client", "is not a field here"),
        ];
        refused(record_order(RecordAct::Finish), &records).await;
    }

    #[test]
    fn a_rebalance_has_one_goal_a_rate_and_may_be_only_planned() {
        let request = |goal, per_second, is_dry_run| RebalanceRequest { goal, per_second, is_dry_run };
        let read = |body: Value| read(rebalance, &body.to_string()).unwrap();
        assert_eq!(read(json!({ "to": "mean" })), request(RebalanceGoal::Mean, 100, false));
        let some = json!({ "to": "percent", "percent": 20, "node": null, "per_second": 10_000, "dry_run": true });
        assert_eq!(read(some), request(RebalanceGoal::Percent(20), 10_000, true));
        let one = json!({ "to": "node", "node": "proxy-a", "per_second": 1 });
        assert_eq!(read(one), request(RebalanceGoal::Node("proxy-a".into()), 1, false));
    }

    #[tokio::test]
    async fn a_field_of_a_rebalance_that_does_not_fit_is_named_with_what_is_taken() {
        let wrong = [
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
        ];
        refused(rebalance, &wrong.map(|(body, field, text)| (body, 400, field, text))).await;
    }

    const NOW_S: u64 = 1_000_000;

    #[test]
    fn a_revocation_names_a_user_audience_app_or_all_and_applies_up_to_now_by_default() {
        let now = RevokedTokens { issued_before: NOW_S, kept_until: NOW_S + KEEP_DEFAULT_S, ..Default::default() };
        let order = |tokens, close| RevocationOrder { tokens, close, closed_ms: 0 };
        let read = |body: Value| read(|body| revocation_at(body, NOW_S), &body.to_string()).unwrap();
        let of_user = RevokedTokens { user: Some("ann".into()), ..now.clone() };
        assert_eq!(read(json!({ "user": "ann", "close": true })), order(of_user.clone(), true));
        assert_eq!(read(json!({ "all": true, "user": null })), order(now, false));
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
        assert_eq!(read(body), order(exact.clone(), false));
        let between_nodes = json!(order(exact.clone(), true)).to_string();
        assert_eq!(serde_json::from_str::<RevocationOrder>(&between_nodes).unwrap(), order(exact, true));
    }

    #[tokio::test]
    async fn a_field_of_a_revocation_that_does_not_fit_is_named_with_what_is_taken() {
        let long = "x".repeat(NAME_MAX_CHARS + 1);
        let wrong = [
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
        ];
        let wrong = wrong.map(|(body, field, text)| (body, 400, field, text));
        refused(|body| revocation_at(body, NOW_S), &wrong).await;
    }
}
