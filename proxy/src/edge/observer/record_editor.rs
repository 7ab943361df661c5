//! Records of groups and users for operators: a list over all nodes, and the end or deletion of a record.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use axum::http::StatusCode;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tracing::info;
use trunkline_protocol::service::{RecordAct, RecordRefusal, RecordReply, RecordRequest, RecordedSet};

use super::act::{ActLimit, hub_of_order};
use super::api_error::ApiError;
use super::list_page::ListPage;
use crate::engine::upstream::HubIndex;
use crate::features::message_log::RecordSummary;
use crate::fleet::{ANSWER_TIMEOUT, Fleet, FleetEntry, PeerRequest, parts_of};

/// Maximum number of rows: the largest records, and as many followed ones of each shard.
const RECORDS_MAX: usize = 200;

/// A record at its recorder, or only its followers at another node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RecordRow {
    /// Name of the group or id of the user.
    pub name: String,
    /// Whether the record is of a user.
    pub is_user: bool,
    /// Number of kept messages.
    pub messages: u64,
    /// Bytes of the record in memory.
    pub bytes: u64,
    /// Position of the newest message.
    pub position: Option<String>,
    /// Time of the newest message, in milliseconds since 1970.
    pub used_ms: u64,
    /// Whether a back end has finished the record.
    pub is_finished: bool,
    /// Number of followers at all nodes.
    pub followers: u64,
    /// Name of the node that records.
    pub node: Option<String>,
}

impl RecordRow {
    fn new(record: RecordSummary, node: &str) -> Self {
        Self {
            name: record.set.name.to_string(),
            is_user: record.set.is_user,
            messages: record.messages,
            bytes: record.bytes,
            position: Some(record.newest.to_string()),
            used_ms: record.used_ms,
            is_finished: record.is_finished,
            followers: 0,
            node: Some(node.to_owned()),
        }
    }
}

#[derive(Debug)]
pub(crate) struct RecordOrder {
    pub(crate) hub: String,
    pub(crate) set: RecordedSet,
    pub(crate) act: RecordAct,
}

/// Result of an order.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordReport {
    /// Position of the last message of the record.
    pub position: String,
    /// Names of nodes without an answer.
    pub missing: Vec<String>,
}

/// Lists and changes records for operators; clones share the fleet.
#[derive(Debug, Clone)]
pub(crate) struct RecordEditor {
    fleet: Fleet,
    acts: ActLimit,
}

impl RecordEditor {
    pub(super) fn new(fleet: &Fleet) -> Self {
        Self { fleet: fleet.clone(), acts: ActLimit::new("changes of records") }
    }

    /// Lists the largest records of a hub at all nodes.
    pub(crate) async fn list(&self, hub: &str) -> ListPage<RecordRow> {
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("hub", hub).finish();
        let request = PeerRequest::get(format!("/api/records?scope=node&{query}"));
        let others = self.fleet.request_all(&request, ANSWER_TIMEOUT);
        let (own, others) = tokio::join!(self.list_here(hub), others);
        let (others, _) = parts_of::<ListPage<RecordRow>>(others);
        merge(std::iter::once(own).chain(others))
    }

    /// Lists the largest records of this node, and the records that clients of this node follow.
    pub(crate) async fn list_here(&self, hub: &str) -> ListPage<RecordRow> {
        let (hub, shared) = (FleetEntry::from_fleet(&self.fleet).hub_named(hub), self.fleet.shared());
        let (total, records) = self.fleet.records().list(hub.key(), RECORDS_MAX);
        let mut items: Vec<_> =
            records.into_iter().map(|record| RecordRow::new(record, &shared.settings.node)).collect();
        if let Some(index) = hub.here().map(|hub| hub.index()) {
            items.extend(self.followed(index).await);
        }
        ListPage { items, next: None, total: Some(total) }
    }

    async fn followed(&self, hub: HubIndex) -> Vec<RecordRow> {
        let shards = self.fleet.shared().shards().iter();
        let counts =
            shards.map(|shard| shard.inspect(move |state| state.core.followers.count_followers(hub, RECORDS_MAX)));
        let counts = join_all(counts).await.into_iter().flatten().flatten();
        let row = |(RecordedSet { is_user, name }, followers)| RecordRow {
            name: name.to_string(),
            is_user,
            followers,
            ..RecordRow::default()
        };
        counts.map(row).collect()
    }

    /// Ends or deletes a record, with or without a rule for it. Fails without a record, or if its node refuses.
    pub(crate) async fn change(&self, order: RecordOrder) -> Result<RecordReport, ApiError> {
        let (_permit, fleet) = (self.acts.take()?, FleetEntry::from_fleet(&self.fleet));
        let hub = hub_of_order(&fleet, &order.hub)?;
        let request = RecordRequest { set: order.set, act: order.act, ..RecordRequest::default() };
        let RecordReply { refused, problem, position, missing, .. } = fleet.request_record(&hub, request).await;
        match refused {
            None => {}
            Some(RecordRefusal::Missing) => {
                return Err(ApiError::new(StatusCode::NOT_FOUND, "there is no such record"));
            }
            Some(_) => {
                return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, format!("refused: {problem}")));
            }
        }
        info!(hub = order.hub, act = ?order.act, "record changed by an operator");
        Ok(RecordReport { position: position.to_string(), missing: missing.iter().map(ToString::to_string).collect() })
    }
}

/// Sums the followers of each record, and sorts the records by size.
fn merge(parts: impl Iterator<Item = ListPage<RecordRow>>) -> ListPage<RecordRow> {
    let (mut rows, mut total) = (BTreeMap::<(bool, String), RecordRow>::new(), 0);
    for part in parts {
        total += part.total.unwrap_or_default();
        for row in part.items {
            let known = rows.entry((row.is_user, row.name.clone())).or_default();
            let followers = known.followers + row.followers;
            if row.node.is_some() || known.name.is_empty() {
                *known = row;
            }
            known.followers = followers;
        }
    }
    let mut items: Vec<_> = rows.into_values().collect();
    items.sort_by_key(|row| Reverse((row.bytes, row.followers)));
    items.truncate(RECORDS_MAX);
    ListPage { items, next: None, total: Some(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn followers_of_all_nodes_are_summed_and_the_largest_record_is_first() {
        let row = |name: &str, bytes, followers, node: Option<&str>| RecordRow {
            name: name.into(),
            bytes,
            followers,
            node: node.map(Into::into),
            ..RecordRow::default()
        };
        let page = |items, total| ListPage { items, next: None, total: Some(total) };
        let one = page(vec![row("a", 10, 0, Some("n1")), row("b", 0, 2, None), row("c", 0, 1, None)], 1);
        let other = page(vec![row("b", 20, 0, Some("n2")), row("b", 0, 3, None), row("a", 0, 4, None)], 1);
        let merged = merge([one, other].into_iter());
        let expected = [row("b", 20, 5, Some("n2")), row("a", 10, 4, Some("n1")), row("c", 0, 1, None)];
        assert_eq!((merged.items, merged.total), (expected.into(), Some(2)));
    }
}
