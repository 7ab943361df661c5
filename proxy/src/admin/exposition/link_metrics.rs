//! Metrics of links to app servers: states, traffic, replay rings, round trips.

use super::Exposition;
use crate::metrics::{Direction, FrameKind, SessionCloseReason};

impl Exposition<'_> {
    pub(super) fn links(&mut self) -> prometheus::Result<()> {
        self.pools()?;
        self.total("trunkline_links_lost_total", "Links that lost their sockets.", |counters| {
            &counters.sessions.interrupted
        })?;
        self.total("trunkline_links_resumed_total", "Lost links that went on where they were.", |counters| {
            &counters.sessions.resumed
        })?;
        self.total("trunkline_frames_replayed_total", "Frames sent again over resumed links.", |counters| {
            &counters.sessions.replayed
        })?;
        self.total(
            "trunkline_frames_lost_total",
            "Upward frames that ended with the session of their link, not acknowledged or not sent.",
            |counters| &counters.sessions.frames_lost,
        )?;
        let ended = self.counter("trunkline_link_sessions_ended_total", "Sessions of links, by end.", &["cause"])?;
        for (reason, label) in SessionCloseReason::ALL {
            ended.with_label_values(&[label]).inc_by(self.sum(|counters| counters.sessions.ended(reason)));
        }
        let round_trips = self.distribution(|counters| &counters.round_trips);
        let help = "How long a ping of a link took to the app server and back, behind what was queued.";
        self.histogram("trunkline_link_round_trip_seconds", help, vec![(None, round_trips)]);
        self.dial_in()?;
        let dials = self.distribution(|counters| &counters.dials);
        let help = "How long it took to open a link, or to open it again.";
        self.histogram("trunkline_link_dial_duration_seconds", help, vec![(None, dials)]);
        Ok(())
    }

    fn dial_in(&self) -> prometheus::Result<()> {
        self.total(
            "trunkline_door_handshakes_refused_total",
            "Links that app servers dialled and that were not opened, because their handshake was wrong or did not come.",
            |counters| &counters.dial_in.handshakes_refused,
        )?;
        self.total(
            "trunkline_door_frames_skipped_total",
            "Frames of app servers that dial in which were skipped because they make no sense.",
            |counters| &counters.dial_in.malformed,
        )?;
        self.total(
            "trunkline_door_clients_moved_total",
            "Clients that changed the link of an app server that dials in, without a loss.",
            |counters| &counters.dial_in.moved,
        )
    }

    fn pools(&self) -> prometheus::Result<()> {
        let links = self.gauge("trunkline_links", "Links to app servers, by state.", &["hub", "app", "state"])?;
        let ring = self.gauge(
            "trunkline_link_ring_bytes",
            "Bytes kept for the links of a pool until the app server has them.",
            &["hub", "app"],
        )?;
        let ring_max =
            self.gauge("trunkline_link_ring_max_bytes", "How many that may be, of all its links.", &["hub", "app"])?;
        let served = self.gauge("trunkline_hub_served", "1 while an app server takes clients of the hub.", &["hub"])?;
        let most = self.shared.settings.links.ring_max_bytes;
        for hub in self.shared.hubs.living().iter() {
            let served = served.with_label_values(&[hub.name()]);
            // Of two hubs of one name, one is of dial-in.
            served.set(served.get().max(i64::from(hub.is_served())));
            for pool in hub.pools().iter() {
                let (open, resuming) = (pool.open(), pool.resuming());
                let down = pool.down();
                let app = pool.app().name.as_str();
                let labels = [hub.name(), app];
                for (state, count) in [("open", open), ("resuming", resuming), ("down", down)] {
                    links.with_label_values(&[hub.name(), app, state]).add(signed(count));
                }
                ring.with_label_values(&labels).add(signed(pool.ring_bytes()));
                ring_max.with_label_values(&labels).add(signed(most.saturating_mul(pool.size())));
            }
        }
        Ok(())
    }

    pub(super) fn traffic(&self) -> prometheus::Result<()> {
        let labels = ["direction", "kind"];
        let frames = self.counter("trunkline_link_frames_total", "Frames on links.", &labels)?;
        let bytes = self.counter("trunkline_link_bytes_total", "Bytes of frames on links.", &labels)?;
        for (direction, up_or_down) in [(Direction::Up, "up"), (Direction::Down, "down")] {
            for (kind, name) in [(FrameKind::Ping, "ping"), (FrameKind::Message, "message")] {
                let values = [up_or_down, name];
                frames
                    .with_label_values(&values)
                    .inc_by(self.sum(|counters| &counters.traffic(direction, kind).frames));
                bytes.with_label_values(&values).inc_by(self.sum(|counters| &counters.traffic(direction, kind).bytes));
            }
        }
        Ok(())
    }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
