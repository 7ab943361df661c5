//! Live traces of a shard: what its steps show to the [tracer](super::tracer), and what the observer asks of it.

use tokio::time::Instant;
use trunkline_protocol::service::TraceReport;

use super::connection::{Connections, SetName};
use super::slot::{Serial, Slot};
use super::state::ShardState;
use super::tracer::{ConnectionChange, TraceBatch, TraceFilter, TraceRefused, UpwardEnd, UpwardTrace, Wait};

impl ShardState {
    /// Begins a trace of the clients that open from now on, or of a method; its times count from `started`. The number names
    /// it.
    ///
    /// # Errors
    /// When too many run.
    pub(crate) fn trace(&mut self, filter: TraceFilter, started: Instant) -> Result<u64, TraceRefused> {
        let begun = self.delivery.taps.change_traces(|tracer| tracer.begin(filter, started));
        self.tell_whether_traced();
        begun
    }

    /// Follows clients that were open before a trace, where they match.
    pub(super) fn trace_found(&mut self, number: u64, slots: &[Slot]) {
        for &slot in slots {
            self.trace_client(Some(number), slot, &ConnectionChange::Present);
        }
    }

    /// Follows a client that has come, where it matches.
    pub(super) fn trace_arrival(&mut self, slot: Slot, change: &ConnectionChange) {
        if self.delivery.taps.tracer.is_running() {
            self.trace_client(None, slot, change);
        }
    }

    fn trace_client(&mut self, number: Option<u64>, slot: Slot, change: &ConnectionChange) {
        let connections = &self.connections;
        let Some(client) = connections.get(slot) else { return };
        let user = connections.user_of(client);
        let is_member = |group: &str| connections.is_member(client, client.home.hub(), SetName::Group(group));
        self.delivery.taps.tracer.found(number, slot, (client, user), is_member, change.clone());
    }

    /// Shows a change of the groups of a client to the traces of groups.
    pub(super) fn trace_regrouped(&mut self, slot: Slot) {
        if !self.delivery.taps.tracer.is_running() {
            return;
        }
        let connections = &self.connections;
        let Some(client) = connections.live(slot) else { return };
        let user = connections.user_of(client);
        let is_member = |group: &str| connections.is_member(client, client.home.hub(), SetName::Group(group));
        self.delivery.taps.tracer.regrouped(slot, (client, user), is_member);
    }

    /// Pieces of a trace since it was read last; `None` when it has ended.
    #[must_use]
    pub(crate) fn read_trace(&mut self, number: u64) -> Option<TraceBatch> {
        self.note_written();
        let mut batch = self.delivery.taps.change_traces(|tracer| tracer.read(number))?;
        let counters = &self.context.counters;
        counters.traced_messages.add(batch.messages);
        counters.untraced_messages.add(batch.dropped_messages);
        batch.pieces.iter_mut().for_each(|piece| piece.name_user(|slot, id| user_at(&self.connections, slot, id)));
        Some(batch)
    }

    pub(crate) fn end_trace(&mut self, number: u64) {
        self.delivery.taps.change_traces(|tracer| tracer.end(number));
        self.tell_whether_traced();
    }

    /// Tells other threads whether the times of their batches matter here.
    pub(super) fn tell_whether_traced(&self) {
        if let Some(own) = self.context.shared.shards().get(usize::from(self.context.index)) {
            own.set_traced(self.delivery.taps.tracer.is_running());
        }
    }

    /// Time of now, if a trace wants to know.
    #[inline]
    pub(crate) fn time_for_traces(&self) -> Option<Instant> {
        self.delivery.taps.tracer.is_running().then(Instant::now)
    }

    /// Shows messages of a client to the traces before they go up; read at this time.
    #[cold]
    pub(super) fn trace_up(&mut self, slot: Slot, messages: &[u8], read_at: Instant) -> Option<Box<UpwardTrace>> {
        if !self.delivery.taps.tracer.is_running() {
            return None;
        }
        let client = self.connections.get(slot)?;
        let user = self.connections.user_of(client);
        self.delivery.taps.tracer.upward(slot, (client, user), messages, read_at)
    }

    /// Tells traces what became of messages that were about to go up.
    #[cold]
    pub(crate) fn traced_up(&mut self, upward: UpwardTrace, end: UpwardEnd) {
        self.delivery.taps.tracer.went_up(upward, end);
    }

    /// Takes the report of an app server on a message of a client.
    pub(super) fn take_trace_report(&mut self, slot: Slot, report: &TraceReport) {
        self.delivery.taps.tracer.reported(slot, report);
    }

    /// Tells traces which frames were written since the last time.
    #[inline]
    pub(super) fn note_written(&mut self) {
        if self.delivery.taps.tracer.has_unwritten() {
            let connections = &self.connections;
            self.delivery.taps.tracer.note_written(|slot, serial| wait_of(connections, slot, serial));
        }
    }
}

/// Bytes that wait for a client.
fn wait_of(connections: &Connections, slot: Slot, serial: Serial) -> Wait {
    let Some(client) = connections.get(slot).filter(|client| client.serial == serial) else { return Wait::Gone };
    let held = client.cold.resumption.as_ref().map_or(0, |resumption| resumption.ownership.waiting_bytes());
    if client.is_away() { Wait::Away } else { Wait::Bytes(client.outbox.bytes() + held) }
}

/// User of the connection of this id, if it is still there.
fn user_at(connections: &Connections, slot: Slot, id: &str) -> Option<String> {
    let client = connections.get(slot).filter(|client| client.id.starts_with(id))?;
    connections.user_of(client).map(Into::into)
}
