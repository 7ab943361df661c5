//! Lists and counts of a hub's connections, users and groups, over all nodes of the fleet.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use futures_util::future::join;
use http::StatusCode;
use serde_json::{Value, json};
use trunkline_protocol::service::{AckStatus, GroupMemberQuery};

use super::listed_part::{
    ConnectionSet, DistinctNames, ListPosition, ListQuestion, ListedPart, NamePart, PartQuestion,
};
use super::query::RestQuery;
use super::rest_error::{RestError, with_missing};
use crate::engine::shard::Shared;
use crate::features::inspection::ListedNames;
use crate::fleet::{FleetEntry, FleetMember, NamedHub, parts_of};

pub(super) struct Lister<'a> {
    pub(super) shared: &'a Shared,
    pub(super) fleet: &'a FleetEntry,
    pub(super) hub: &'a NamedHub,
    pub(super) query: &'a RestQuery,
    /// URL of the request without its query, for the next page.
    pub(super) url: String,
}

/// Prefix of a token for a page of names, so that the token of no other list passes for one.
const NAME_TOKEN: &str = "after.";

impl Lister<'_> {
    pub(super) async fn names(&self, names: ListedNames) -> Result<Response, RestError> {
        let (most, top) = self.room()?;
        let refused = || RestError::bad_value("continuationToken", "is not one of this list");
        let after = self.query.continuation_token().map(|token| token.strip_prefix(NAME_TOKEN).ok_or_else(refused));
        let after = after.transpose()?.map(str::to_owned);
        let key = match names {
            ListedNames::Users => "userId",
            ListedNames::Groups | ListedNames::GroupsOf(_) => "group",
        };
        let (parts, missing) = self.ask_all(ListQuestion::Names { names, after, most }).await?;
        let NamePart { names, is_cut } = NamePart::merged(parts.into_iter().map(|part| part.names), most);
        let token = names.last_key_value().filter(|_| is_cut).map(|(last, _)| format!("{NAME_TOKEN}{last}"));
        let rows = names.iter().map(|(name, connections)| json!({ key: name, "connections": connections })).collect();
        Ok(self.page(rows, token, top, &missing))
    }

    /// Lists connections node by node, in the order of their boot ids.
    pub(super) async fn connections(&self, set: ConnectionSet) -> Result<Response, RestError> {
        let (most, top) = self.room()?;
        let is_partial = self.query.is_partial()?;
        let mut nodes: Vec<_> = self.fleet.others_with(self.hub).into_iter().map(Some).chain([None]).collect();
        let boot = |node: &Option<Arc<FleetMember>>| match node {
            Some(member) => member.boot().to_owned(),
            None => self.shared.boot.to_string(),
        };
        nodes.sort_by_key(boot);
        let (begun, mut from) = self.begun()?.unzip();
        let (mut rows, mut missing) = (Vec::new(), Vec::new());
        // A node that has left since the last page had its connections with it.
        for node in nodes.into_iter().filter(|node| begun.as_ref().is_none_or(|begun| boot(node) >= *begun)) {
            let is_begun = begun.as_ref().is_some_and(|begun| boot(&node) == *begun);
            let mut next = Some(from.take().filter(|_| is_begun).unwrap_or_default());
            while let Some(from) = next {
                if rows.len() >= most {
                    let (shard, slot) = from;
                    let token = format!("{}.{shard}.{slot}", boot(&node));
                    return Ok(self.page(rows, Some(token), top, &missing));
                }
                let room = most - rows.len();
                let question = self.part(ListQuestion::Connections { set: set.clone(), from, most: room });
                let part = match &node {
                    None => Some(question.answer_part(self.shared).await.ok_or_else(RestError::stopping)?),
                    Some(member) => {
                        let answers = self.fleet.request(vec![member.clone()], &question.request()).await;
                        answers.into_iter().find_map(|(_, answer)| answer.ok()?.read_body::<ListedPart>().ok())
                    }
                };
                let Some(part) = part else {
                    missing.extend(node.iter().map(|member| member.name().to_owned()));
                    break;
                };
                let row = |(id, user): (String, Option<String>)| json!({ "connectionId": id, "userId": user });
                rows.extend(part.connections.into_iter().map(row));
                next = part.next;
            }
            if !missing.is_empty() && !is_partial {
                return Err(RestError::incomplete_list(&missing));
            }
        }
        Ok(self.page(rows, None, top, &missing))
    }

    pub(super) async fn count_connections(&self, set: ConnectionSet) -> Result<Response, RestError> {
        let (parts, missing) = self.ask_all(ListQuestion::CountConnections(set)).await?;
        let count: u64 = parts.iter().map(|part| part.count).sum();
        Ok(with_missing(Json(json!({ "count": count, "isEstimate": false })).into_response(), &missing))
    }

    pub(super) async fn count_names(&self, names: ListedNames) -> Result<Response, RestError> {
        let (parts, missing) = self.ask_all(ListQuestion::CountNames(names)).await?;
        let mut counted = DistinctNames::default();
        parts.into_iter().for_each(|part| counted.merge(part.counted));
        let (count, is_estimate) = counted.count();
        Ok(with_missing(Json(json!({ "count": count, "isEstimate": is_estimate })).into_response(), &missing))
    }

    /// Responds with a page of a group's members and the URL of the next page, based on the request's URL.
    pub(super) async fn members(&self, group: &str) -> Result<Response, RestError> {
        let (page_size, top) = (self.query.page_size()?.unwrap_or(PAGE_SIZE), self.query.top()?);
        let asked = GroupMemberQuery {
            group: group.into(),
            page_size: Some(page_size),
            top: top.and_then(|top| top.try_into().ok()),
            continuation_token: self.query.continuation_token().map(Into::into),
            ..GroupMemberQuery::default()
        };
        let mut missing = Vec::new();
        let list = self.query.is_partial()?.then_some(&mut missing);
        let page = self.fleet.list_group(self.hub, asked, list).await.map_err(|(status, problem)| match status {
            AckStatus::Timeout => RestError::new(StatusCode::SERVICE_UNAVAILABLE, "Error.Fleet.Incomplete", problem),
            _ => RestError::bad_value("continuationToken", format!("is refused: {problem}")),
        })?;
        let row = |id: &str, user: Option<&str>| json!({ "connectionId": id, "userId": user });
        let rows = page.members.iter().map(|member| row(&member.connection_id, member.user_id.as_deref())).collect();
        Ok(self.page(rows, page.continuation_token.map(Into::into), top, &missing))
    }

    /// Asks this node and all others with clients of the hub. Returns the answers, and the nodes without one.
    async fn ask_all(&self, question: ListQuestion) -> Result<(Vec<ListedPart>, Vec<String>), RestError> {
        let is_partial = self.query.is_partial()?;
        let question = self.part(question);
        let request = question.request();
        let others = self.fleet.request(self.fleet.others_with(self.hub), &request);
        let (own, others) = join(question.answer_part(self.shared), others).await;
        let (mut parts, missing) = parts_of(others);
        parts.push(own.ok_or_else(RestError::stopping)?);
        if missing.is_empty() || is_partial { Ok((parts, missing)) } else { Err(RestError::incomplete_list(&missing)) }
    }

    fn part(&self, question: ListQuestion) -> PartQuestion {
        PartQuestion { hub: self.hub.key().to_owned(), question }
    }

    /// Maximum number of rows of this page, and of all remaining pages.
    fn room(&self) -> Result<(usize, Option<u64>), RestError> {
        let (page, top) = (self.query.page_size()?.unwrap_or(PAGE_SIZE), self.query.top()?);
        let most = usize::try_from(page).unwrap_or(usize::MAX);
        Ok((top.and_then(|top| usize::try_from(top).ok()).map_or(most, |top| top.min(most)), top))
    }

    /// Node and position at which the requested page begins.
    fn begun(&self) -> Result<Option<(String, ListPosition)>, RestError> {
        let Some(token) = self.query.continuation_token() else { return Ok(None) };
        let read = || {
            let mut parts = token.rsplitn(3, '.');
            let (slot, shard) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            Some((parts.next()?.to_owned(), (shard, slot)))
        };
        read().map(Some).ok_or_else(|| RestError::bad_value("continuationToken", "is not one of this list"))
    }

    fn page(&self, rows: Vec<Value>, token: Option<String>, top: Option<u64>, missing: &[String]) -> Response {
        let rest = top.map(|top| top.saturating_sub(rows.len() as u64));
        let token = token.filter(|_| rest != Some(0));
        let next = token.map(|token| format!("{}?{}", self.url, self.query.of_next_page(&token, rest)));
        with_missing(Json(json!({ "value": rows, "nextLink": next })).into_response(), missing)
    }
}

/// Default page size, as in Azure's service.
pub(super) const PAGE_SIZE: i64 = 100;
