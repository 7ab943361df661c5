//! Keep-alives and time-outs of client connections: a coarse wheel of one-second buckets.
//!
//! Nothing is re-armed when something is sent: a client is looked at when it was last due, and put where it is
//! due next. So an idle client costs one look per keep-alive interval, and a busy one no more.

use std::rc::Rc;

use super::{Ending, Shard};
use crate::shard::delivery::frame_for;
use crate::shard::directory::{Client, Content, Hold, Serial, Slot, Status};
use crate::transport::websocket;
use trunkline_protocol::hub::HubMessage;
use trunkline_protocol::manifest::HubManifest;

/// Buckets of the wheel; who is due later than this is looked at in between, and put back.
const BUCKETS: u32 = 64;

/// Who is to be looked at, by the tick at which that is.
#[derive(Debug)]
pub(super) struct Wheel(Vec<Vec<(Slot, Serial)>>);

impl Default for Wheel {
    fn default() -> Self {
        Self(vec![Vec::new(); BUCKETS as usize])
    }
}

impl Wheel {
    /// Has a client looked at, at tick `due` or before.
    pub(super) fn watch(&mut self, slot: Slot, serial: Serial, now: u32, due: u32) {
        let at = due.clamp(now + 1, now + BUCKETS - 1) % BUCKETS;
        if let Some(bucket) = self.0.get_mut(at as usize) {
            bucket.push((slot, serial));
        }
    }

    fn take(&mut self, now: u32) -> Vec<(Slot, Serial)> {
        self.0.get_mut((now % BUCKETS) as usize).map(std::mem::take).unwrap_or_default()
    }
}

/// What is to be done with a client that is looked at.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    /// Nothing before this tick.
    Wait(u32),
    /// It was sent nothing for the interval.
    KeepAlive,
    /// It was silent for too long.
    TimedOut,
    /// The app server never answered its hub handshake.
    NotOpened,
    /// It does not end by itself.
    Cut,
}

impl Shard {
    /// One second has passed.
    pub(crate) fn advance(self: &Rc<Self>) {
        let now = self.tick() + 1;
        self.tick.set(now);
        self.counters.ticks.increment();
        let due = self.wheel.borrow_mut().take(now);
        for (slot, serial) in due {
            self.look_at(slot, serial, now);
        }
        self.look_after_homeless();
        self.forget_absent();
        self.close_expired();
        self.forget_ended(now);
        self.watches.tick();
        self.finish_turn();
        let (groups, users) = self.directory.borrow().group_and_user_counts();
        self.counters.groups.set(groups);
        self.counters.users.set(users);
        self.counters.homeless.set(self.homeless.borrow().len());
    }

    fn look_at(self: &Rc<Self>, slot: Slot, serial: Serial, now: u32) {
        let hubs = self.shared.hubs.all();
        let looked = self.with_client(slot, serial, |client| {
            let settings = hubs.get(client.home.hub().get())?.settings();
            Some((due(client, &settings, now), client.content))
        });
        let Some(Some((due, content))) = looked else { return };
        let next = match due {
            Due::Wait(next) => next,
            Due::KeepAlive => {
                self.send_keep_alive(slot, content);
                now + 1
            }
            Due::TimedOut => {
                self.end(slot, &Ending::timed_out());
                now + 1
            }
            Due::NotOpened => {
                self.end(slot, &Ending::not_opened());
                now + 1
            }
            Due::Cut => {
                self.with_client(slot, serial, |client| client.socket.cut());
                now + BUCKETS
            }
        };
        self.wheel.borrow_mut().watch(slot, serial, now, next);
    }

    fn send_keep_alive(self: &Rc<Self>, slot: Slot, content: Content) {
        let frame = match content {
            Content::Hub(protocol) => {
                let mut message = bytes::BytesMut::new();
                protocol.encode(&HubMessage::Ping, &mut message);
                frame_for(protocol, &message)
            }
            Content::Raw => websocket::ping(),
        };
        self.counters.keep_alives.increment();
        self.send_frame(slot, &frame);
    }
}

fn due(client: &Client, settings: &HubManifest, now: u32) -> Due {
    let passed = |since: u32, after: u32| now.saturating_sub(since) >= after;
    let (keep_alive, timeout) = (seconds(settings.keep_alive_interval_ms), seconds(settings.client_timeout_ms));
    match client.status {
        Status::Closing { until } if now >= until => Due::Cut,
        Status::Closing { until } => Due::Wait(until),
        // Nobody is there who could answer it.
        Status::Opening { .. } if client.holds().contains(Hold::Homeless) => Due::Wait(now.saturating_add(keep_alive)),
        Status::Opening { until } if now >= until => Due::NotOpened,
        Status::Opening { until } => Due::Wait(until),
        // Its polls show that it lives; when they stop, its pipe ends.
        Status::Open if client.has_inherent_keep_alive => Due::Wait(u32::MAX),
        Status::Open if client.content == Content::Raw => due_raw(client, keep_alive, timeout, now),
        // While we don't read it, its silence is ours.
        Status::Open if client.has_pinged && client.holds().are_none() && passed(client.last_heard, timeout) => {
            Due::TimedOut
        }
        Status::Open if passed(client.last_sent, keep_alive) => Due::KeepAlive,
        Status::Open => {
            let silent_at = if client.has_pinged { client.last_heard.saturating_add(timeout) } else { u32::MAX };
            Due::Wait(client.last_sent.saturating_add(keep_alive).min(silent_at))
        }
    }
}

/// Nobody but the transport pings a raw connection. It is asked as soon as it is silent, whatever is sent to it, because
/// a client may have nothing to say; every WebSocket answers. So a silent one is gone.
fn due_raw(client: &Client, keep_alive: u32, timeout: u32, now: u32) -> Due {
    let silent_for = now.saturating_sub(client.last_heard);
    match silent_for {
        _ if !client.holds().are_none() => Due::Wait(now.saturating_add(keep_alive)),
        // Whoever is asked late still gets the time of an interval for its answer.
        _ if silent_for >= timeout.max(keep_alive.saturating_mul(2)) => Due::TimedOut,
        _ if silent_for >= keep_alive => Due::KeepAlive,
        _ => Due::Wait(client.last_heard.saturating_add(keep_alive)),
    }
}

/// Whole ticks, at least one.
fn seconds(ms: u64) -> u32 {
    u32::try_from(ms.div_ceil(1000)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use trunkline_protocol::hub::HubProtocol;

    use super::*;
    use crate::net::socket::Socket;
    use crate::upstream::{AppServerId, HubIndex, LinkHandle};

    fn client(change: impl FnOnce(&mut Client)) -> Client {
        let home = Arc::new(LinkHandle::opened(HubIndex::from(0), AppServerId::from(0)));
        let socket = Socket::boxed(tokio::io::empty());
        let mut client = Client::new("id".into(), 0, home, Content::Hub(HubProtocol::Json), socket);
        client.status = Status::Open;
        change(&mut client);
        client
    }

    fn settings() -> HubManifest {
        HubManifest::new("chat", "/chat")
    }

    #[test]
    fn a_client_that_was_sent_nothing_for_the_interval_is_pinged() {
        let client = client(|client| client.last_sent = 100);
        assert_eq!(due(&client, &settings(), 114), Due::Wait(115));
        assert_eq!(due(&client, &settings(), 115), Due::KeepAlive);
    }

    #[test]
    fn the_time_out_counts_only_from_the_first_ping_on() {
        let silent = client(|client| (client.last_heard, client.last_sent) = (100, 130));
        assert_eq!(due(&silent, &settings(), 131), Due::Wait(145));
        let pinged = client(|client| (client.has_pinged, client.last_heard, client.last_sent) = (true, 100, 130));
        assert_eq!(due(&pinged, &settings(), 129), Due::Wait(130));
        assert_eq!(due(&pinged, &settings(), 130), Due::TimedOut);
    }

    #[test]
    fn a_paused_client_may_be_silent() {
        let client = client(|client| {
            (client.has_pinged, client.last_heard, client.last_sent) = (true, 1, 199);
            client.hold(Hold::App);
        });
        assert_eq!(due(&client, &settings(), 200), Due::Wait(31));
    }

    #[test]
    fn long_polling_needs_no_pings_and_knows_no_silence() {
        let client = client(|client| {
            (client.has_pinged, client.last_heard, client.last_sent) = (true, 1, 1);
            client.has_inherent_keep_alive = true;
        });
        assert_eq!(due(&client, &settings(), 200), Due::Wait(u32::MAX));
    }

    #[test]
    fn a_raw_connection_is_asked_when_it_is_silent_and_given_up_when_it_stays_so() {
        let mut client =
            client(|client| (client.content, client.last_heard, client.last_sent) = (Content::Raw, 100, 129));
        assert_eq!(due(&client, &settings(), 114), Due::Wait(115));
        assert_eq!(due(&client, &settings(), 115), Due::KeepAlive);
        assert_eq!(due(&client, &settings(), 129), Due::KeepAlive);
        assert_eq!(due(&client, &settings(), 130), Due::TimedOut);
        client.hold(Hold::App);
        assert_eq!(due(&client, &settings(), 200), Due::Wait(215));
    }

    #[test]
    fn who_is_closing_is_cut_in_the_end() {
        let client = client(|client| client.status = Status::Closing { until: 9 });
        assert_eq!(due(&client, &settings(), 8), Due::Wait(9));
        assert_eq!(due(&client, &settings(), 9), Due::Cut);
    }

    #[test]
    fn the_wheel_gives_back_who_is_due_and_clamps_the_far_future() {
        let mut wheel = Wheel::default();
        wheel.watch(1, 10, 100, 103);
        wheel.watch(2, 20, 100, 100_000);
        wheel.watch(3, 30, 100, 7);
        assert_eq!(wheel.take(101), [(3, 30)]);
        assert_eq!(wheel.take(102), []);
        assert_eq!(wheel.take(103), [(1, 10)]);
        assert_eq!(wheel.take(163), [(2, 20)]);
    }
}
