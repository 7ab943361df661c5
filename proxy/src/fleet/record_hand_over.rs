//! Handover of records between nodes: when a node begins to drain, and when another one joins.
//!
//! ```text
//!  old recorder                          new recorder
//!     ── Give: a part of the record ──────►  collects the parts        each second, for all records that are not its own
//!     ── Give: the last part ─────────────►  has the record
//!     ◄──────────────────────── Yield ─────  needs the record now: asked once, while the members have just changed
//! ```
//!
//! A node that has yielded a record takes no message for it for a while: its view may be old. With a store nothing is
//! handed over.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{info, warn};
use trunkline_protocol::service::{Ack, RecordAct, RecordReply, RecordRequest, ServiceMessage};

use super::fleet_core::Fleet;
use super::fleet_member::{FleetMember, MemberState};
use crate::features::message_log::RecordKey;
use crate::ground::clock::unix_ms;

/// Interval between searches for records of other nodes.
const SEARCH_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum number of records that are given away at a time.
const GIFTS_MAX: usize = 32;

/// Interval between removals of old messages.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Maximum wait of a send or read for the other nodes to yield a record.
const YIELD_TIMEOUT: Duration = Duration::from_secs(2);

/// Numbers of records of other nodes: given to them, and left here.
#[derive(Debug, Clone, Copy, Default)]
struct GivenRecords {
    given: usize,
    left: usize,
}

impl Fleet {
    /// Removes old messages, and gives records to the nodes that have become their recorders.
    pub(super) async fn keep_records(&self) {
        let mut searches = interval(SEARCH_INTERVAL);
        searches.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut is_settled, mut swept_at) = (false, Instant::now());
        loop {
            searches.tick().await;
            if swept_at.elapsed() >= SWEEP_INTERVAL {
                self.records().sweep(unix_ms());
                swept_at = Instant::now();
            }
            let is_unsettled = self.are_recorders_new();
            if self.store().is_some() {
                // Their new recorders read them from the store.
                self.forget_records();
            } else if is_unsettled || !is_settled {
                is_settled = self.give_records().await.left == 0 && !is_unsettled;
            }
        }
    }

    /// Gives all records away before the node stops, as far as there is time.
    pub(crate) async fn leave_records(&self, within: Duration) {
        if self.store().is_some() {
            return;
        }
        let begun = Instant::now();
        let given = timeout(within, self.give_records()).await.unwrap_or_default();
        let left = self.records().size().1;
        match left {
            0 if given.given > 0 => info!(records = given.given, took = ?begun.elapsed(), "records handed over"),
            0 => {}
            left => warn!(records = left, "records are lost with this node: their followers get a reset"),
        }
    }

    fn forget_records(&self) {
        let keys = self.records().log().keys();
        let of_others = keys.iter().filter(|key| self.recorder_of(&key.0, &key.1).is_some());
        of_others.for_each(|key| self.records().forget(key));
    }

    /// Gives each record of another node to that node.
    async fn give_records(&self) -> GivenRecords {
        let keys = self.records().log().keys();
        let gifts = keys.into_iter().filter_map(|key| {
            let member = self.recorder_of(&key.0, &key.1)?;
            Some(async move { self.give_record(&key, &member).await })
        });
        let count = |given: GivenRecords, is_given| match is_given {
            true => GivenRecords { given: given.given + 1, ..given },
            false => GivenRecords { left: given.left + 1, ..given },
        };
        stream::iter(gifts)
            .buffer_unordered(GIFTS_MAX)
            .fold(GivenRecords::default(), async |given, is| count(given, is))
            .await
    }

    /// Gives a record to a node, part by part. Returns whether the node has it.
    pub(super) async fn give_record(&self, key: &RecordKey, member: &Arc<FleetMember>) -> bool {
        let mut after = 0;
        loop {
            let Some(part) = self.records().log().export(key, (after, false), (usize::MAX, unix_ms())) else {
                return false;
            };
            let last = part.messages.last().map_or(part.after, |message| message.number);
            let is_last = last == part.newest;
            let body = RecordReply { page: Some(part), ..RecordReply::default() }.encode();
            let request = RecordRequest { set: key.1.clone(), act: RecordAct::Give, body, ..RecordRequest::default() };
            let body = ServiceMessage::RecordRequest(request).to_body();
            let answers = self.ask(vec![member.clone()], &key.0, &body).await;
            if !answers.iter().any(|(_, answer)| is_accepted(answer.as_ref().ok().and_then(Option::as_ref))) {
                return false;
            }
            after = last;
            if is_last {
                break;
            }
        }
        self.records().log().hand_over(key, after, (member.boot(), unix_ms()))
    }

    /// Asks the other nodes for a record that this node does not have, while they may have it.
    pub(super) async fn fetch_record(&self, key: &RecordKey) {
        let now_ms = self.members().now_ms();
        let members = self.members().all();
        let alive = members.iter().filter(|member| member.state(now_ms) < MemberState::Late).cloned();
        let request = RecordRequest {
            set: key.1.clone(),
            act: RecordAct::Yield,
            id: Some(self.shared().boot.as_str().into()),
            ..RecordRequest::default()
        };
        let body = ServiceMessage::RecordRequest(request).to_body();
        let asked = alive.map(|member| self.ask_within(vec![member], &key.0, (&body, YIELD_TIMEOUT)));
        join_all(asked).await;
    }
}

fn is_accepted(answer: Option<&ServiceMessage>) -> bool {
    let Some(ServiceMessage::Ack(Ack { payload: Some(payload), .. })) = answer else { return false };
    RecordReply::decode(payload).is_ok_and(|reply| reply.refused.is_none())
}
