//! Timers of a session: pings, dead sockets and session ends.

use super::{Class, Link, Role, Session, SessionEndReason, SessionEvent};

impl Session {
    /// Time to call [`handle_timeout`](Self::handle_timeout) and [`poll_transmit`](Self::poll_transmit) again.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        match (self.link, self.role) {
            (Link::New, _) => None,
            (Link::Detached { since_ms }, Role::Proxy) => Some(since_ms.saturating_add(self.settings.window_ms)),
            (Link::Detached { .. }, Role::AppServer) => Some(self.silence.poll_timeout()),
            (Link::Attached, _) => self.poll_ping_timeout().map(|ping_ms| ping_ms.min(self.silence.poll_timeout())),
        }
    }

    /// Time at which [`poll_transmit`](Self::poll_transmit) will return a ping; `None` without a socket. For a writer
    /// that does not call [`handle_timeout`](Self::handle_timeout).
    #[must_use]
    pub fn poll_ping_timeout(&self) -> Option<u64> {
        let ping_ms = self.last_sent_ms.saturating_add(self.settings.ping_interval_ms);
        let due_ms = self.counters.poll_timeout().unwrap_or(ping_ms).min(ping_ms);
        self.is_attached().then_some(due_ms)
    }

    /// Interval at which [`handle_timeout`](Self::handle_timeout) has work.
    #[must_use]
    pub fn tick_ms(&self) -> u64 {
        self.settings.tick_ms()
    }

    /// Minimum duration of the peer's silence.
    #[must_use]
    pub fn silent_ms(&self) -> u64 {
        self.silence.lasted_ms()
    }

    /// Advances the clock and returns the driver's next action.
    pub fn handle_timeout(&mut self, now_ms: u64) -> Option<SessionEvent> {
        self.silence.handle_timeout(now_ms);
        let (silent_ms, window_ms) = (self.silence.lasted_ms(), self.settings.window_ms);
        let cause = match (self.link, self.role) {
            (Link::Detached { since_ms }, Role::Proxy) if now_ms.saturating_sub(since_ms) >= window_ms => {
                Some(SessionEndReason::WindowPassed)
            }
            (Link::Attached | Link::Detached { .. }, Role::AppServer) => self.surrender(silent_ms, window_ms),
            _ => None,
        };
        let is_dead = self.is_attached() && silent_ms >= self.settings.dead_after_ms;
        cause.map(SessionEvent::End).or(is_dead.then_some(SessionEvent::PeerSilent))
    }

    fn surrender(&self, silent_ms: u64, window_ms: u64) -> Option<SessionEndReason> {
        if silent_ms >= window_ms.saturating_mul(2) {
            Some(SessionEndReason::Forgotten)
        } else if silent_ms >= window_ms && !self.has_place(Class::Ordinary) {
            Some(SessionEndReason::GivenUp)
        } else {
            None
        }
    }
}
