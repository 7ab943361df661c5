//! Paged lists of a group's members.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;
use trunkline_protocol::service::{AckStatus, GroupMemberQuery};

use super::query::RestQuery;
use super::rest_error::{RestError, with_missing};
use crate::fleet::{FleetEntry, NamedHub};

/// Default page size, as in Azure's service.
pub(super) const PAGE_SIZE: i64 = 100;

/// Responds with a page of a group's members and the URL of the next page, based on the request's URL.
pub(super) async fn answer(
    fleet: &FleetEntry,
    (query, url): (&RestQuery, &str),
    (hub, group): (&NamedHub, &str),
) -> Result<Response, RestError> {
    let (page_size, top) = (query.page_size()?.unwrap_or(PAGE_SIZE), query.top()?);
    let asked = GroupMemberQuery {
        group: group.into(),
        page_size: Some(page_size),
        top: top.and_then(|top| top.try_into().ok()),
        continuation_token: query.continuation_token().map(Into::into),
        ..GroupMemberQuery::default()
    };
    let mut missing = Vec::new();
    let list = query.is_partial()?.then_some(&mut missing);
    let page = fleet.list_group(hub, asked, list).await.map_err(|(status, problem)| match status {
        AckStatus::Timeout => RestError::new(StatusCode::SERVICE_UNAVAILABLE, "Error.Fleet.Incomplete", problem),
        _ => RestError::bad_value("continuationToken", &format!("is refused: {problem}")),
    })?;
    let members = page
        .members
        .iter()
        .map(|member| json!({ "connectionId": &*member.connection_id, "userId": member.user_id.as_deref() }));
    let members: Vec<_> = members.collect();
    let rest = top.map(|top| top.saturating_sub(members.len() as u64));
    let next = page
        .continuation_token
        .filter(|_| rest != Some(0))
        .map(|token| format!("{url}?{}", query.of_next_page(&token, rest)));
    let answer = Json(json!({ "value": members, "nextLink": next })).into_response();
    Ok(with_missing(answer, &missing))
}
