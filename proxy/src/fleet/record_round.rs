//! A round of changes of records at their recorder: what waits in the lane of a hub is carried out together.
//!
//! ```text
//!  read records from the store ─► change them here ─► write their new parts ─► deliver, in the order of the changes
//! ```
//!
//! Without a store only the second and the last step are left. If a part can't be written, its record is removed here,
//! and read again before its next change.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use trunkline_protocol::service::{
    Position, RecordAct, RecordEnd, RecordReply, RecordRequest, RecordStart, Recorded, RecordedMessage, RecordedSet,
    ServiceMessage,
};

use super::entry::{FleetDelivery, FleetEntry, NamedHub};
use super::fleet_core::Fleet;
use super::fleet_member::MemberState;
use super::fleet_recorder::{record_key, refusal};
use super::record_lane::{RecordChange, UNTRUSTED_VIEW, UnsureMessages};
use crate::features::message_log::{ID_KEPT_MS, RecordKey, RecordRefused};
use crate::features::store::{Store, StoreAway, StoredParts, StoredRecord};
use crate::ground::clock::unix_ms;

/// Time for which the store keeps a part beyond the age of its messages.
const PART_MARGIN: Duration = Duration::from_secs(20);

/// Records of a round in the store, or why they can't be used. Empty without a store.
type RoundParts = HashMap<RecordKey, Result<StoredParts, RecordRefused>>;

/// A carried out change: the position, and the message for members and followers, unless the send was repeated.
type Changed = (Position, Option<Recorded>);

impl Fleet {
    pub(super) async fn run_round(&self, hub: &Arc<str>, round: Vec<RecordChange>) {
        // While nodes may see others as recorders than this one does, each round reads its records from the store.
        let views = if self.are_recorders_new() { UNTRUSTED_VIEW } else { self.records().views() };
        let mut parts = self.read_parts(hub, &round).await;
        self.deliver_unsure(&parts).await;
        let (mut outcomes, mut changed) = (Vec::with_capacity(round.len()), HashSet::new());
        for RecordChange { request, .. } in &round {
            if request.act == RecordAct::Read {
                outcomes.push(None);
                continue;
            }
            let outcome = self.change_record(hub, request, &mut parts).await;
            match (&outcome, request.act) {
                (Err(_), _) => {}
                (Ok(_), RecordAct::Delete) => drop(changed.remove(&request.set)),
                (Ok(_), _) => drop(changed.insert(request.set.clone())),
            }
            outcomes.push(Some(outcome));
        }
        self.write_parts(hub, &mut parts, &changed).await;
        self.note_unsure(hub, &parts, round.iter().zip(&outcomes));
        for (RecordChange { request, reply }, outcome) in round.into_iter().zip(outcomes) {
            let unwritten = parts.get(&record_key(hub, &request)).and_then(|parts| parts.as_ref().err().cloned());
            match unwritten.map_or(outcome, |refused| Some(Err(refused))) {
                None if self.is_without_room(&parts, &record_key(hub, &request)) => drop(reply.send(refusal(&moved()))),
                None => drop(reply.send(self.read_record(hub, &request))),
                Some(Ok((position, Some(recorded)))) => {
                    let named = NamedHub::of_key(self.shared(), hub);
                    self.records().counters.appended.add(u64::from(recorded.end.is_none()));
                    let message = ServiceMessage::Recorded(recorded);
                    let delivery = FleetEntry::from_fleet(self).begin_delivery(&named, message).await;
                    tokio::spawn(async move { reply.send(receipt(position, delivery.await)) });
                }
                Some(Ok((position, None))) => drop(reply.send(receipt(position, FleetDelivery::default()))),
                Some(Err(refused)) => {
                    self.records().counters.refused.increment();
                    drop(reply.send(refusal(&refused)));
                }
            }
        }
        for (key, parts) in parts {
            match parts {
                Ok(parts) => self.records().put_stored(key, parts, views),
                Err(_) => self.records().forget(&key),
            }
        }
    }

    /// Whether a record is in the store, but had to give its room in memory to others.
    fn is_without_room(&self, parts: &RoundParts, key: &RecordKey) -> bool {
        let is_stored = parts.get(key).is_some_and(|parts| parts.as_ref().is_ok_and(|known| !known.is_empty()));
        is_stored && !self.records().log().contains(key)
    }

    /// Notes the messages of each write without an answer: they may be in the store, but are not delivered.
    fn note_unsure<'r>(
        &self,
        hub: &Arc<str>,
        parts: &RoundParts,
        changes: impl Iterator<Item = (&'r RecordChange, &'r Option<Result<Changed, RecordRefused>>)>,
    ) {
        for (change, outcome) in changes {
            let key = record_key(hub, &change.request);
            if let Some(Ok((position, Some(Recorded { end: None, .. })))) = outcome
                && let Some(Err(RecordRefused::Unreachable(_))) = parts.get(&key)
            {
                self.records().note_unsure(key, *position);
            }
        }
    }

    /// Delivers messages of earlier rounds that are in the store although their write had no answer.
    async fn deliver_unsure(&self, parts: &RoundParts) {
        for key in parts.iter().filter(|(_, parts)| parts.is_ok()).map(|(key, _)| key) {
            let Some(UnsureMessages { epoch, first, last }) = self.records().take_unsure(key) else { continue };
            let page = self.records().log().read(key, RecordStart::After(epoch, first.saturating_sub(1)), unix_ms());
            // Behind messages that another recorder has delivered, they would be out of order.
            if page.reset.is_some() || page.newest > last {
                continue;
            }
            let named = NamedHub::of_key(self.shared(), &key.0);
            for RecordedMessage { number, body, .. } in page.messages {
                let recorded = Recorded { set: key.1.clone(), epoch: page.epoch, number, end: None, body };
                let message = ServiceMessage::Recorded(recorded);
                drop(FleetEntry::from_fleet(self).begin_delivery(&named, message).await);
            }
        }
    }

    /// Gets the records of a round from the store or from other nodes, as far as this node does not have them.
    async fn read_parts(&self, hub: &Arc<str>, round: &[RecordChange]) -> RoundParts {
        let mut keys: Vec<_> = round.iter().map(|change| record_key(hub, &change.request)).collect();
        keys.sort_unstable_by(|(_, one), (_, other)| (one.is_user, &one.name).cmp(&(other.is_user, &other.name)));
        keys.dedup();
        let Some(store) = self.store() else {
            for key in keys.iter().filter(|key| !self.is_current(key)) {
                self.fetch_record(key).await;
            }
            return RoundParts::new();
        };
        let terms = round.iter().map(|change| (&change.request.set, &change.request)).collect::<HashMap<_, _>>();
        let read = keys.iter().filter_map(|key| {
            let request = *terms.get(&key.1)?;
            Some(async {
                (key.clone(), self.read_stored(store, key, request).await.map_err(|away| unreachable(&away)))
            })
        });
        join_all(read).await.into_iter().collect()
    }

    async fn read_stored(
        &self,
        store: &Store,
        key: &RecordKey,
        request: &RecordRequest,
    ) -> Result<StoredParts, StoreAway> {
        let (known, is_as_stored) = self.records().take_stored(key);
        let is_known = known.is_some();
        let known = known.unwrap_or_default();
        if is_as_stored {
            return Ok(known);
        }
        let has_record = self.records().log().contains(key);
        let read = store.read_record(key, has_record.then_some(&known)).await;
        match read.inspect_err(|_| self.records().forget(key))? {
            StoredRecord::Same => Ok(known),
            StoredRecord::Nothing => {
                // A record from another node, or with expired messages only, stays.
                if is_known && self.records().log().oldest(key).is_some() {
                    self.records().forget(key);
                }
                Ok(StoredParts::default())
            }
            StoredRecord::Found(page, parts) => {
                self.records().forget(key);
                let (app, terms) = (self.fleet_relay().owner_of(&key.0), self.terms_of(&key.0, request));
                self.records().log().import(key, (&app, terms), page, unix_ms());
                Ok(parts)
            }
        }
    }

    async fn change_record(
        &self,
        hub: &str,
        request: &RecordRequest,
        parts: &mut RoundParts,
    ) -> Result<Changed, RecordRefused> {
        let key = record_key(hub, request);
        let mut in_store = parts.get_mut(&key);
        if let Some(Err(refused)) = &in_store {
            return Err(refused.clone());
        }
        let recorded = |position: Position, end| Recorded {
            set: request.set.clone(),
            epoch: position.epoch,
            number: position.number,
            end,
            body: request.body.clone(),
        };
        let is_stored = matches!(&in_store, Some(Ok(known)) if !known.is_empty());
        if request.act != RecordAct::Delete && is_stored && !self.records().log().contains(&key) {
            return Err(moved());
        }
        match request.act {
            RecordAct::Append => {
                if let Some(max) = self.store().and_then(|store| store.message_max())
                    && request.body.len() > max
                {
                    let (bytes, limit) = (request.body.len(), "max_payload of the NATS server");
                    return Err(RecordRefused::TooLarge { bytes, max, limit });
                }
                self.records().log().take_back(&key, |boot| self.is_gone(boot));
                if self.shared().hubs.history_of(hub, &request.set).is_none() {
                    self.report_unknown(hub);
                }
                let app = self.fleet_relay().owner_of(hub);
                let (terms, send) = (self.terms_of(hub, request), (request.id.as_ref(), request.body.clone()));
                let appended = self.records().log().append(&key, (&app, terms), send, unix_ms())?;
                let position = appended.position;
                Ok((position, (!appended.is_repeated).then(|| recorded(position, None))))
            }
            RecordAct::Finish => {
                let position = self.records().log().finish(&key)?;
                Ok((position, Some(recorded(position, Some(RecordEnd::Finished)))))
            }
            RecordAct::Delete => {
                if let (Some(store), Some(Ok(known)), true) = (self.store(), &mut in_store, is_stored) {
                    store.delete_record(&key, known).await.map_err(|away| unreachable(&away))?;
                    *known = StoredParts::default();
                }
                // Without room in memory it was in the store only.
                let deleted = self.records().log().delete(&key);
                let position = if is_stored { deleted.unwrap_or_default() } else { deleted? };
                Ok((position, Some(recorded(position, Some(RecordEnd::Deleted)))))
            }
            // Carried out elsewhere.
            RecordAct::Read | RecordAct::Give | RecordAct::Yield => Err(RecordRefused::Missing),
        }
    }

    /// Whether a start of a node has crashed or left.
    fn is_gone(&self, boot: &str) -> bool {
        let (now_ms, members) = (self.members().now_ms(), self.members().all());
        let member = members.iter().find(|member| member.boot() == boot);
        member.is_none_or(|member| member.state(now_ms) == MemberState::Unreachable)
    }

    /// Writes the new messages of a round's records. Changes of a record that can't be written are refused.
    async fn write_parts(&self, hub: &str, parts: &mut RoundParts, changed: &HashSet<RecordedSet>) {
        let Some(store) = self.store() else { return };
        let changed = parts.iter_mut().filter(|(key, _)| changed.contains(&key.1));
        let writes = changed.map(|(key, stored)| async move {
            if let Ok(known) = stored
                && let Err(refused) = self.write_new(store, hub, key, known).await
            {
                *stored = Err(refused);
            }
        });
        join_all(writes).await;
    }

    async fn write_new(
        &self,
        store: &Store,
        hub: &str,
        key: &RecordKey,
        stored: &mut StoredParts,
    ) -> Result<(), RecordRefused> {
        let request = RecordRequest { set: key.1.clone(), ..RecordRequest::default() };
        let kept = self.terms_of(hub, &request).age.max(Duration::from_millis(ID_KEPT_MS)) + PART_MARGIN;
        let mut is_written = false;
        loop {
            let most = store.message_max().unwrap_or(usize::MAX);
            let part = self.records().log().export(key, (stored.number, true), (most, unix_ms()));
            let Some(mut part) = part else { return Err(moved()) };
            let last = part.messages.last().map_or(part.after, |message| message.number);
            let newest = std::mem::replace(&mut part.newest, last);
            let is_part = !part.messages.is_empty() || part.is_finished != stored.is_finished;
            if !is_part {
                break;
            }
            match store.append_part(key, stored, (part, kept)).await {
                Ok(true) => is_written = true,
                Ok(false) if is_written => return Err(RecordRefused::Unreachable("another node records".into())),
                Ok(false) => return Err(moved()),
                Err(away) => return Err(unreachable(&away)),
            }
            if last >= newest {
                break;
            }
        }
        let oldest = self.records().log().oldest(key);
        if let Some(oldest) = oldest {
            store.trim_record(key, stored, oldest).await;
        }
        Ok(())
    }
}

/// Another node has become the recorder.
fn moved() -> RecordRefused {
    RecordRefused::Moving("another node".into())
}

fn unreachable(away: &StoreAway) -> RecordRefused {
    RecordRefused::Unreachable(away.cause())
}

fn receipt(position: Position, FleetDelivery { nodes, missing, clients, .. }: FleetDelivery) -> RecordReply {
    let (position, missing) = (position.to_string().into(), missing.into_iter().map(Into::into).collect());
    RecordReply { position, nodes, clients, missing, ..RecordReply::default() }
}
