//! Keep-alives and timeouts of client connections: a coarse wheel of one-second buckets.
//!
//! Sending does not rearm timers: a client is checked when last due, then rescheduled, so it costs one check per
//! keep-alive interval, whether idle or busy.

use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::fleet::Absence;
use trunkline_protocol::hub::HubMessage;
use trunkline_protocol::manifest::HubManifest;

use crate::engine::shard::connection::{Client, Connections, LifeStage};
use crate::engine::shard::content::Content;
use crate::engine::shard::delivery::framed::message_frame;
use crate::engine::shard::slot::{Serial, Slot};
use crate::engine::transport::websocket;
use crate::engine::upstream::Hub;

/// Buckets of the wheel. Clients due later are checked in between and rescheduled.
const BUCKETS: u32 = 64;

/// Wheel of the clients to check, by tick.
#[derive(Debug)]
pub(crate) struct KeepAlive(Vec<Vec<(Slot, Serial)>>);

/// Action required for a silent client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// Nothing sent during the interval: send a keep-alive.
    KeepAlive,
    /// Silent for too long: close.
    TimedOut,
    /// Hub handshake not answered by the app server: close.
    NotOpened,
    /// Socket lost for this cause and not resumed: close.
    Lost(Cause),
}

#[derive(Debug, PartialEq, Eq)]
enum Due {
    /// Nothing due before this tick.
    Wait(u32),
    Now(Overdue),
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self(vec![Vec::new(); BUCKETS as usize])
    }
}

impl KeepAlive {
    /// Schedules a check of a client at tick `due` or earlier.
    pub(crate) fn schedule(&mut self, slot: Slot, serial: Serial, now: u32, due: u32) {
        let at = due.clamp(now + 1, now + BUCKETS - 1) % BUCKETS;
        if let Some(bucket) = self.0.get_mut(at as usize) {
            bucket.push((slot, serial));
        }
    }

    /// Checks the clients due at this tick, reschedules them, and returns the required actions.
    pub(crate) fn check(&mut self, connections: &mut Connections, hubs: &[Arc<Hub>], now: u32) -> Vec<(Slot, Overdue)> {
        let mut overdue = Vec::new();
        for (slot, serial) in self.take_due(now) {
            let Some(client) = connections.get_current(slot, serial) else { continue };
            let Some(hub) = hubs.get(client.home().hub().get()) else { continue };
            let next = match due(client, &hub.settings(), now) {
                Due::Wait(next) => next,
                Due::Now(action) => {
                    overdue.push((slot, action));
                    now + 1
                }
            };
            self.schedule(slot, serial, now, next);
        }
        overdue
    }

    fn take_due(&mut self, now: u32) -> Vec<(Slot, Serial)> {
        self.0.get_mut((now % BUCKETS) as usize).map(mem::take).unwrap_or_default()
    }
}

/// Frame that keeps a silent client connected; for a raw client, a WebSocket ping that requests a reply.
pub(crate) fn keep_alive_frame(content: Content) -> Bytes {
    match content {
        Content::Hub(protocol) => message_frame(protocol, &HubMessage::Ping),
        Content::Raw => websocket::ping(),
    }
}

/// Next action for a client, based on its stage and silence.
fn due(client: &Client, settings: &HubManifest, now: u32) -> Due {
    let (keep_alive, timeout) = (ticks(settings.keep_alive_interval_ms), ticks(settings.client_timeout_ms));
    match client.life().stage() {
        // Closed clients have their own deadline and no keep-alives.
        LifeStage::Closed => Due::Wait(u32::MAX),
        // No app server that could answer the handshake.
        LifeStage::Opening { .. } if client.is_unassigned() => Due::Wait(now.saturating_add(keep_alive)),
        LifeStage::Opening { until, .. } if now >= until => Due::Now(Overdue::NotOpened),
        LifeStage::Opening { until, .. } => Due::Wait(until),
        LifeStage::Open | LifeStage::Leaving(_) => {
            match client.cold().resumption().and_then(|it| it.ownership().absence()) {
                Some(Absence { until, cause }) if now >= until => Due::Now(Overdue::Lost(cause)),
                Some(Absence { until, .. }) => Due::Wait(until),
                None if client.content() == Content::Raw && !client.liveness().is_inherent => {
                    due_raw(client, keep_alive, timeout, now)
                }
                None => due_open(client, keep_alive, timeout, now),
            }
        }
    }
}

/// Next action for an open client with a socket.
fn due_open(client: &Client, keep_alive: u32, timeout: u32, now: u32) -> Due {
    // Events may be from the end of a tick, so one more must pass. A client with slow timers answers a ping only after
    // its own interval, and no client is closed early.
    let (live, passed) = (client.liveness(), |since: u32, after: u32| now.saturating_sub(since) > after);
    // Polls show that the client is alive. When they stop, its pipe ends; for a paused client only a write detects
    // this.
    if live.is_inherent {
        let is_due = passed(live.last_sent(), keep_alive) && !client.pauses().is_empty();
        return if is_due { Due::Now(Overdue::KeepAlive) } else { Due::Wait(now.saturating_add(keep_alive)) };
    }
    // Silence does not count while the client is paused.
    if live.has_pinged() && client.pauses().is_empty() && passed(live.last_received(), timeout) {
        return Due::Now(Overdue::TimedOut);
    }
    if passed(live.last_sent(), keep_alive) {
        return Due::Now(Overdue::KeepAlive);
    }
    let silent_at = if live.has_pinged() { live.last_received().saturating_add(timeout) } else { u32::MAX - 1 };
    Due::Wait(live.last_sent().saturating_add(keep_alive).min(silent_at).saturating_add(1))
}

/// Next action for a raw connection, based on transport pings. A silent client is pinged regardless of sent data,
/// because clients may have nothing to send. All WebSockets answer pings, so silence after a ping means that the client
/// is gone.
fn due_raw(client: &Client, keep_alive: u32, timeout: u32, now: u32) -> Due {
    let silent_for = now.saturating_sub(client.liveness().last_received());
    match silent_for {
        // Replies of a paused client are not read, but a write detects a closed socket.
        1.. if !client.pauses().is_empty() && silent_for.is_multiple_of(keep_alive) => Due::Now(Overdue::KeepAlive),
        _ if !client.pauses().is_empty() => Due::Wait(now.saturating_add(keep_alive - silent_for % keep_alive)),
        // A client pinged late still gets an interval for its reply.
        _ if silent_for > timeout.max(keep_alive.saturating_mul(2)) => Due::Now(Overdue::TimedOut),
        _ if silent_for > keep_alive => Due::Now(Overdue::KeepAlive),
        _ => Due::Wait(client.liveness().last_received().saturating_add(keep_alive).saturating_add(1)),
    }
}

/// Whole ticks, at least one.
fn ticks(ms: u64) -> u32 {
    u32::try_from(ms.div_ceil(1000)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use trunkline_protocol::hub::HubProtocol;

    use super::*;
    use crate::engine::shard::connection::{ClientTraits, Liveness, PauseReason};
    use crate::engine::upstream::{AppServerId, HubIdentity, HubRegistry, LinkHandle, ServerGroup};
    use crate::ground::net::socket::Socket;

    fn client_of(serial: Serial, content: Content) -> Client {
        let home = Arc::new(LinkHandle::opened(&HubIdentity::detached(), AppServerId::from(0)));
        let mut client = Client::new("id".into(), serial, home, content, Socket::boxed(tokio::io::empty()));
        client.life_mut().answered();
        client
    }

    fn client(change: impl FnOnce(&mut Client)) -> Client {
        let mut client = client_of(0, Content::Hub(HubProtocol::Json));
        change(&mut client);
        client
    }

    fn live(client: &mut Client, heard: u32, sent: u32) {
        client.liveness_mut().note_received(heard);
        client.liveness_mut().sent(sent);
    }

    fn pinging(client: &mut Client, heard: u32, sent: u32) {
        live(client, heard, sent);
        client.liveness_mut().pinged();
    }

    fn settings() -> HubManifest {
        HubManifest::new("chat", "/chat")
    }

    #[test]
    fn a_client_that_was_sent_nothing_for_the_interval_is_pinged() {
        let client = client(|client| client.liveness_mut().sent(100));
        assert_eq!(due(&client, &settings(), 115), Due::Wait(116));
        assert_eq!(due(&client, &settings(), 116), Due::Now(Overdue::KeepAlive));
    }

    #[test]
    fn the_time_out_counts_only_from_the_first_ping_on() {
        let silent = client(|client| live(client, 100, 130));
        assert_eq!(due(&silent, &settings(), 131), Due::Wait(146));
        let pinged = client(|client| pinging(client, 100, 130));
        assert_eq!(due(&pinged, &settings(), 130), Due::Wait(131));
        assert_eq!(due(&pinged, &settings(), 131), Due::Now(Overdue::TimedOut));
    }

    #[test]
    fn a_paused_client_may_be_silent() {
        let client = client(|client| {
            pinging(client, 1, 199);
            client.pauses_mut().add_reason(PauseReason::AppServer);
        });
        assert_eq!(due(&client, &settings(), 200), Due::Wait(32));
    }

    #[test]
    fn long_polling_gets_pings_while_it_is_paused_alone_and_no_time_out() {
        let mut client = client(|client| {
            client.set_traits(ClientTraits::default(), Liveness::new(1, true));
            client.liveness_mut().pinged();
        });
        assert_eq!(due(&client, &settings(), 200), Due::Wait(215));
        client.pauses_mut().add_reason(PauseReason::AppServer);
        assert_eq!(due(&client, &settings(), 200), Due::Now(Overdue::KeepAlive), "its end shows");
    }

    #[test]
    fn a_silent_raw_connection_is_pinged_and_then_times_out() {
        let mut client = client_of(0, Content::Raw);
        live(&mut client, 100, 129);
        assert_eq!(due(&client, &settings(), 115), Due::Wait(116));
        assert_eq!(due(&client, &settings(), 116), Due::Now(Overdue::KeepAlive));
        assert_eq!(due(&client, &settings(), 130), Due::Now(Overdue::KeepAlive));
        assert_eq!(due(&client, &settings(), 131), Due::Now(Overdue::TimedOut));
        client.pauses_mut().add_reason(PauseReason::AppServer);
        assert_eq!(due(&client, &settings(), 200), Due::Wait(205));
        assert_eq!(due(&client, &settings(), 205), Due::Now(Overdue::KeepAlive), "its end shows");
        assert_eq!(due(&client, &settings(), 206), Due::Wait(220));
    }

    #[test]
    fn the_wheel_returns_due_clients_and_clamps_the_far_future() {
        let mut wheel = KeepAlive::default();
        wheel.schedule(1, 10, 100, 103);
        wheel.schedule(2, 20, 100, 100_000);
        wheel.schedule(3, 30, 100, 7);
        assert_eq!(wheel.take_due(101), [(3, 30)]);
        assert_eq!(wheel.take_due(102), []);
        assert_eq!(wheel.take_due(103), [(1, 10)]);
        assert_eq!(wheel.take_due(163), [(2, 20)]);
    }

    #[test]
    fn a_check_returns_what_is_overdue_and_checks_again_a_tick_later() {
        let hubs = HubRegistry::default();
        hubs.register(settings(), &ServerGroup::default());
        let (mut connections, mut wheel) = (Connections::default(), KeepAlive::default());
        let silent = connections.insert(client(|client| client.liveness_mut().sent(100)), None);
        let mut fresh = client_of(1, Content::Hub(HubProtocol::Json));
        fresh.liveness_mut().sent(114);
        let fresh = connections.insert(fresh, None);
        wheel.schedule(silent, 0, 115, 116);
        wheel.schedule(fresh, 1, 115, 116);
        wheel.schedule(fresh, 99, 115, 116);
        assert_eq!(wheel.check(&mut connections, &hubs.all(), 116), [(silent, Overdue::KeepAlive)]);
        assert_eq!(wheel.check(&mut connections, &hubs.all(), 117), [(silent, Overdue::KeepAlive)]);
        connections.close_client(silent);
        assert_eq!(wheel.check(&mut connections, &hubs.all(), 118), []);
        assert_eq!(wheel.check(&mut connections, &hubs.all(), 130), [(fresh, Overdue::KeepAlive)]);
    }
}
