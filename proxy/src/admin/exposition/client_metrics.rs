//! Metrics of client connections: their number by transport and protocol, causes of their close, messages.

use trunkline_protocol::cause::Cause;
use trunkline_protocol::manifest::{EndpointKind, Transport};

use super::Exposition;
use crate::metrics::{
    ClientProtocol, Counter, Counters, HubCounters, MoveCause, MoveCounters, RestoreOutcome, SendKind,
};
use crate::upstream::Hub;

impl Exposition<'_> {
    pub(super) fn clients(&mut self) -> prometheus::Result<()> {
        self.open_connections()?;
        self.closed_connections()?;
        let lifetimes = self.distribution(|counters| &counters.lifetimes);
        let name = "trunkline_client_connection_duration_seconds";
        self.histogram(name, "How long client connections lasted that have ended.", vec![(None, lifetimes)]);
        self.level(
            "trunkline_client_connections_homeless",
            "Client connections that wait for an app server.",
            |counters| &counters.homeless,
        )?;
        self.total(
            "trunkline_client_connections_rehomed_total",
            "Client connections given another home.",
            |counters| &counters.rehomed,
        )?;
        self.total(
            "trunkline_client_connections_app_rebalanced_total",
            "Client connections given to an app server that had come, and had fewer than its share.",
            |counters| &counters.app_rebalanced,
        )?;
        self.total(
            "trunkline_client_ends_passed_on_total",
            "Ends of client connections told to another app server, because theirs was gone.",
            |counters| &counters.ends_passed_on,
        )?;
        self.total(
            "trunkline_presence_resyncs_total",
            "Presence told anew to an app server that could not follow the changes, by each shard.",
            |counters| &counters.presence_resyncs,
        )?;
        self.total(
            "trunkline_client_ends_lost_total",
            "Ends of client connections that no app server could be told of.",
            |counters| &counters.ends_lost,
        )?;
        self.total(
            "trunkline_calls_failed_total",
            "Calls answered with an error because their app server was gone.",
            |counters| &counters.calls_failed,
        )?;
        let stages = vec![
            (Some(("stage", "client")), self.distribution(|counters| &counters.handshakes_of_clients)),
            (Some(("stage", "app")), self.distribution(|counters| &counters.handshakes_of_apps)),
        ];
        let help = "How long hub handshakes took: until the client's was read, and until the app server answered it.";
        self.histogram("trunkline_handshake_duration_seconds", help, stages);
        // Each shard counts its own: a group or user with connections at several is counted at each.
        self.level("trunkline_groups", "Groups with members, by shard and summed.", |counters| &counters.groups)?;
        self.level("trunkline_users", "Users with connections, by shard and summed.", |counters| &counters.users)?;
        self.total("trunkline_keep_alives_total", "Keep-alives sent to clients.", |counters| &counters.keep_alives)?;
        self.total("trunkline_traced_messages_total", "Messages told by live traces.", |counters| {
            &counters.traced_messages
        })?;
        self.total("trunkline_traced_messages_dropped_total", "Messages that live traces have left out.", |counters| {
            &counters.untraced_messages
        })
    }

    fn open_connections(&self) -> prometheus::Result<()> {
        let labels = ["hub", "transport", "protocol"];
        let open = self.gauge("trunkline_client_connections", "Client connections that are open.", &labels)?;
        let opened =
            self.counter("trunkline_client_connections_opened_total", "Client connections opened.", &labels)?;
        for hub in self.shared.hubs.living().iter() {
            for (transport, protocol) in combinations(hub) {
                let values = [hub.name(), transport.name(), protocol.label()];
                let now: u64 = self.of_hub(hub, |counters| counters.connections(transport, protocol).open.get());
                open.with_label_values(&values).add(i64::try_from(now).unwrap_or(i64::MAX));
                let so_far = self.of_hub(hub, |counters| counters.connections(transport, protocol).opened.get());
                opened.with_label_values(&values).inc_by(so_far);
            }
        }
        Ok(())
    }

    fn closed_connections(&self) -> prometheus::Result<()> {
        let labels = ["hub", "cause"];
        let closed = self.counter(
            "trunkline_client_connections_closed_total",
            "Client connections that were open and ended, by cause.",
            &labels,
        )?;
        let refused = self.counter(
            "trunkline_client_connections_refused_total",
            "Client connections that got no further than their hub handshake, by cause.",
            &labels,
        )?;
        for hub in self.shared.hubs.living().iter() {
            for cause in Cause::all() {
                let values = [hub.name(), cause.label()];
                if cause.closes() {
                    closed.with_label_values(&values).inc_by(self.of_hub(hub, |counters| counters.closed.of(cause)));
                }
                let so_far = self.of_hub(hub, |counters| counters.refused.of(cause));
                if so_far > 0 {
                    refused.with_label_values(&values).inc_by(so_far);
                }
            }
        }
        Ok(())
    }

    pub(super) fn messages(&mut self) -> prometheus::Result<()> {
        self.by_hub("trunkline_client_messages_total", "Messages that clients sent up.", |hub| &hub.messages_up)?;
        self.by_hub("trunkline_deliveries_total", "Messages of app servers given to clients.", |hub| &hub.deliveries)?;
        let bytes = self.counter(
            "trunkline_client_bytes_total",
            "Bytes of messages from and to clients, without the framing of transports.",
            &["hub", "direction"],
        )?;
        for hub in self.shared.hubs.living().iter() {
            let up = self.of_hub(hub, |counters| counters.bytes_up.get());
            bytes.with_label_values(&[hub.name(), "up"]).inc_by(up);
            let down = self.of_hub(hub, |counters| counters.bytes_down.get());
            bytes.with_label_values(&[hub.name(), "down"]).inc_by(down);
        }
        let sends =
            self.counter("trunkline_sends_total", "Frames of app servers that carry a message to clients.", &["kind"])?;
        for (kind, label) in SendKind::ALL {
            sends.with_label_values(&[label]).inc_by(self.sum(|counters| counters.sends.of(kind)));
        }
        let receivers = self.distribution(|counters| &counters.sends.receivers);
        let help = "Receivers of a send to many, at each shard.";
        self.histogram("trunkline_send_receivers", help, vec![(None, receivers)]);
        self.level("trunkline_outbox_bytes", "Bytes that wait because their clients read no faster.", |counters| {
            &counters.outbox_bytes
        })?;
        let help = "Bytes kept for clients that may come back, until they acknowledge them.";
        self.level("trunkline_replay_bytes", help, |counters| &counters.replay_bytes)?;
        let help = "Client connections that went on over another socket.";
        self.total("trunkline_connections_resumed_total", help, |counters| &counters.resumed)?;
        let moved = self.counter(
            "trunkline_connections_moved_total",
            "Client connections that went to another node, or came from one, with all that belongs to them.",
            &["direction", "cause"],
        )?;
        for cause in MoveCause::ALL {
            let total = |of: fn(&Counters) -> &MoveCounters| {
                self.shared.counters().iter().map(|counters| of(counters).of(cause).get()).sum()
            };
            moved.with_label_values(&["in", cause.label()]).inc_by(total(|counters| &counters.moved_in));
            moved.with_label_values(&["out", cause.label()]).inc_by(total(|counters| &counters.moved_out));
        }
        let restores = self.counter(
            "trunkline_restores_total",
            "Clients that began anew and asked for what their lost connection had, by outcome.",
            &["outcome"],
        )?;
        for (outcome, label) in RestoreOutcome::ALL {
            restores.with_label_values(&[label]).inc_by(self.sum(|counters| counters.restores.of(outcome)));
        }
        let dropped = self.counter("trunkline_frames_dropped_total", "Frames not given to clients.", &["reason"])?;
        dropped.with_label_values(&["slow_client"]).inc_by(self.sum(|counters| &counters.dropped));
        self.total(
            "trunkline_unknown_receivers_total",
            "Downward frames for a connection that is not here.",
            |counters| &counters.unknown_receivers,
        )
    }

    fn by_hub(&self, name: &str, help: &str, of: impl Fn(&HubCounters) -> &Counter) -> prometheus::Result<()> {
        let metric = self.counter(name, help, &["hub"])?;
        for hub in self.shared.hubs.living().iter() {
            metric.with_label_values(&[hub.name()]).inc_by(self.of_hub(hub, |counters| of(counters).get()));
        }
        Ok(())
    }

    fn of_hub(&self, hub: &Hub, of: impl Fn(&HubCounters) -> u64) -> u64 {
        self.shared.counters().iter().map(|counters| of(counters.hub(hub.index().get()))).sum()
    }
}

/// Combinations of transport and protocol that clients of a hub can have.
fn combinations(hub: &Hub) -> impl Iterator<Item = (Transport, ClientProtocol)> {
    let (is_raw, has_dialled_in) = (hub.settings().kind == EndpointKind::Raw, hub.has_dialled_in());
    let protocols = ClientProtocol::ALL.into_iter().map(|(protocol, _)| protocol);
    let protocols = protocols.filter(move |protocol| (*protocol == ClientProtocol::Raw) == is_raw);
    let all = protocols.flat_map(|protocol| Transport::ALL.map(|transport| (transport, protocol)));
    // Server-sent events are text, and only dial-in leads to circuits of Blazor.
    all.filter(move |(transport, protocol)| match protocol {
        ClientProtocol::BlazorPack => has_dialled_in && *transport != Transport::ServerSentEvents,
        ClientProtocol::MessagePack => *transport != Transport::ServerSentEvents,
        ClientProtocol::Json | ClientProtocol::Raw => true,
    })
}
