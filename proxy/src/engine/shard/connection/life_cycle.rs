//! Lifecycle of a client connection: all stages and transitions.
//!
//! ```text
//!           app server answers        chosen to leave            between two calls, or late
//!  Opening ────────────────────► Open ───────────────► Leaving ────────────────────────────► Closed
//!  (chosen to leave: recorded)     ▲     socket lost       │
//!                                  └───────────────────────┘
//!  Opening, Open, Leaving ──closed by either side──► Closed
//!
//!  Leaving:  no running call ► Quiet ──a call──► Busy ◄ running call
//!            Quiet, Busy ──half of the time──► BehindAnswer: closed after the reply to its last call
//! ```
//!
//! An open client also has a stay at its primary app server, over one of its links:
//!
//! ```text
//!  Settled ──another link──► Moving ──acknowledged, late, opened──► Settled
//!     │                         └─ a link lost: MovingLost ──acknowledged──► Lost; probe ──► Probing
//!     └─ a link lost, perhaps undetected (dial-in): Lost ──probe──► Probing ──acknowledged──► Settled
//!          └─ opened elsewhere: Settled        no reply: Reopened ◄──┤ ──link lost──► Lost
//! ```
//!
//! A client stays `Reopened` while late replies are possible. If its link is lost in that time, it has to reconnect: a
//! reply may be lost with the link.
//!
//! [`Ownership`](trunkline_protocol::fleet::Ownership) tracks whether this node has the client, an
//! [`Assignment`](super::Assignment) which app server does. An event that is invalid in a stage changes nothing, and
//! returns `false` where callers need it. No I/O.

use std::mem;

use crate::engine::upstream::{AppServerId, HomeLink};
use crate::ground::metrics::MoveCause;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LifeStage {
    /// No hub handshake response yet; only the response may be sent to the client.
    Opening {
        /// Tick at which the client is closed without a response.
        until: u32,
        /// Set if the client was chosen to leave.
        leaving: Option<LeaveStage>,
    },
    Open,
    /// Open, but to be closed for a drain or rebalance.
    Leaving(LeaveStage),
    /// Closed by either side: the outbox is flushed, and no new data is sent.
    Closed,
}

/// Departure stage of a client that was chosen to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaveStage {
    /// No call since the client was chosen.
    Quiet,
    /// Called; to be closed when no call is running.
    Busy,
    /// To be closed directly after the reply to its last call.
    BehindAnswer(MoveCause),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LifeCycle(LifeStage);

impl Default for LifeCycle {
    fn default() -> Self {
        Self(LifeStage::Opening { until: u32::MAX, leaving: None })
    }
}

impl LifeCycle {
    #[must_use]
    pub(crate) fn stage(self) -> LifeStage {
        self.0
    }

    /// Whether broadcasts reach the client.
    #[must_use]
    #[inline]
    pub(crate) fn is_open(self) -> bool {
        matches!(self.0, LifeStage::Open | LifeStage::Leaving(_))
    }

    /// Whether the hub handshake response is pending.
    #[must_use]
    #[inline]
    pub(crate) fn is_opening(self) -> bool {
        matches!(self.0, LifeStage::Opening { .. })
    }

    /// Whether only the socket is left.
    #[must_use]
    #[inline]
    pub(crate) fn is_closed(self) -> bool {
        matches!(self.0, LifeStage::Closed)
    }

    /// Departure stage; `None` for a client that stays.
    #[must_use]
    pub(crate) fn leaving(self) -> Option<LeaveStage> {
        match self.0 {
            LifeStage::Opening { leaving, .. } => leaving,
            LifeStage::Leaving(stage) => Some(stage),
            LifeStage::Open | LifeStage::Closed => None,
        }
    }

    /// An app server has received the hub handshake and must respond by this tick.
    pub(crate) fn handshake_sent(&mut self, deadline: u32) {
        if let LifeStage::Opening { until, .. } = &mut self.0 {
            *until = deadline;
        }
    }

    /// The hub handshake was answered, or does not exist. Returns `false` if answered before.
    pub(crate) fn answered(&mut self) -> bool {
        let LifeStage::Opening { leaving, .. } = self.0 else { return false };
        self.0 = leaving.map_or(LifeStage::Open, LifeStage::Leaving);
        true
    }

    /// Chooses the client to leave. Returns `false` if it was already chosen or is closed.
    pub(crate) fn begin_to_leave(&mut self, is_busy: bool) -> bool {
        if self.leaving().is_some() || self.is_closed() {
            return false;
        }
        self.set_leaving(if is_busy { LeaveStage::Busy } else { LeaveStage::Quiet });
        true
    }

    #[inline]
    pub(crate) fn called(&mut self) {
        if self.leaving() == Some(LeaveStage::Quiet) {
            self.set_leaving(LeaveStage::Busy);
        }
    }

    /// Half of the time for its calls has passed.
    pub(crate) fn hurry(&mut self, cause: MoveCause) {
        if self.leaving().is_some() {
            self.set_leaving(LeaveStage::BehindAnswer(cause));
        }
    }

    /// The socket is lost, which cancels the departure.
    pub(crate) fn socket_lost(&mut self) {
        match &mut self.0 {
            LifeStage::Opening { leaving, .. } => *leaving = None,
            LifeStage::Leaving(_) => self.0 = LifeStage::Open,
            LifeStage::Open | LifeStage::Closed => {}
        }
    }

    /// Closes the connection. Returns `false` if it was closed before.
    pub(crate) fn set_closed(&mut self) -> bool {
        !matches!(mem::replace(&mut self.0, LifeStage::Closed), LifeStage::Closed)
    }

    fn set_leaving(&mut self, stage: LeaveStage) {
        match &mut self.0 {
            LifeStage::Opening { leaving, .. } => *leaving = Some(stage),
            LifeStage::Open | LifeStage::Leaving(_) => self.0 = LifeStage::Leaving(stage),
            LifeStage::Closed => {}
        }
    }
}

#[derive(Debug, Default, Clone)]
enum StayStage {
    #[default]
    Settled,
    /// Moving to another link; not read until the app server has paused the client.
    Moving { to: HomeLink },
    /// Moving to another link, after one link was lost at this tick.
    MovingLost { to: HomeLink, since: u32 },
    /// Link lost at this tick; the app server (dial-in) may still have the connection.
    Lost { since: u32 },
    /// Probe in progress; the connection may be lost since this tick.
    Probing { over: HomeLink, since: u32 },
    /// No reply to the probe, so the connection is being reopened. A reply before this tick means that the app server
    /// had the connection.
    Reopened { until: u32 },
}

#[derive(Debug, Default)]
pub(crate) struct HomeStay {
    stage: StayStage,
    /// Tick from which the app server accepts the client again after a lost link; while probing, the deadline
    /// of its reply.
    held_until: u32,
    /// Previous primary of the client, if dialled in.
    previous: Option<AppServerId>,
    /// Set when the app server missed the deadline of a move, so the client stays on its link.
    is_fixed: bool,
}

impl HomeStay {
    /// Whether the client waits for its app server's reply to continue over another link.
    pub(crate) fn is_moving(&self) -> bool {
        matches!(self.stage, StayStage::Moving { .. } | StayStage::MovingLost { .. } | StayStage::Probing { .. })
    }

    /// Whether a move was given up, so that a late answer to the pause of that move may come.
    pub(crate) fn is_fixed(&self) -> bool {
        self.is_fixed
    }

    pub(crate) fn is_probing(&self) -> bool {
        matches!(self.stage, StayStage::Probing { .. })
    }

    /// Whether the app server may still have the connection over a lost link, and was not probed yet.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self.stage, StayStage::Lost { .. } | StayStage::MovingLost { .. })
    }

    /// Whether it is uncertain if the app server has the connection.
    pub(crate) fn is_uncertain(&self, now: u32) -> bool {
        self.is_lost() || self.is_probing() || self.may_be_duplicated(now)
    }

    /// Whether the reply to a probe, which takes `answer_ticks`, would arrive later than `timeout_ticks` after
    /// the loss.
    pub(crate) fn answers_after(&self, answer_ticks: u32, timeout_ticks: u32) -> bool {
        let StayStage::Lost { since } = self.stage else { return false };
        self.held_until.saturating_add(answer_ticks) > since.saturating_add(timeout_ticks)
    }

    pub(crate) fn is_reopened(&self) -> bool {
        matches!(self.stage, StayStage::Reopened { .. })
    }

    /// Whether the app server may have two connections with this id, and may still reply for the old one.
    pub(crate) fn may_be_duplicated(&self, now: u32) -> bool {
        matches!(self.stage, StayStage::Reopened { until } if now < until)
    }

    /// Whether the app server accepts the client again at this tick.
    pub(crate) fn is_accepted_again(&self, now: u32) -> bool {
        now >= self.held_until
    }

    /// Whether this dialled-in app server was the previous primary.
    pub(crate) fn was_at(&self, app: AppServerId) -> bool {
        self.previous == Some(app)
    }

    /// Starts a move to another link of the app server. Returns `false` if not possible now.
    #[must_use]
    pub(crate) fn begin_move(&mut self, to: &HomeLink, now: u32) -> bool {
        if self.is_fixed || self.is_moving() || self.is_uncertain(now) {
            return false;
        }
        self.stage = StayStage::Moving { to: HomeLink::clone(to) };
        true
    }

    /// The app server has paused the client. Returns the new link of a move.
    pub(crate) fn acknowledged(&mut self) -> Option<HomeLink> {
        match mem::take(&mut self.stage) {
            StayStage::Moving { to } => Some(to),
            StayStage::MovingLost { to, since } => {
                self.stage = StayStage::Lost { since };
                Some(to)
            }
            StayStage::Probing { over, .. } => Some(over),
            other => {
                self.stage = other;
                None
            }
        }
    }

    /// The move took too long, so the client stays on its link permanently. Returns `false` if there is no
    /// move.
    #[must_use]
    pub(crate) fn give_up_move(&mut self) -> bool {
        let is_given_up = !self.is_probing() && self.acknowledged().is_some();
        self.is_fixed |= is_given_up;
        is_given_up
    }

    /// A link is lost, so since `tick` it is uncertain whether the app server has the connection.
    pub(crate) fn mark_lost(&mut self, tick: u32) {
        self.stage = match mem::take(&mut self.stage) {
            StayStage::Moving { to } | StayStage::MovingLost { to, .. } => StayStage::MovingLost { to, since: tick },
            StayStage::Settled | StayStage::Reopened { .. } => StayStage::Lost { since: tick },
            uncertain => uncertain,
        };
    }

    /// The primary link is lost. The app server accepts the client again when it has detected the loss. It may still
    /// have the connection if the loss may be undetected, or if that was uncertain before.
    /// Nothing changes while late replies are possible, because one may be lost with the link.
    pub(crate) fn link_lost(&mut self, now: u32, noticed_within: u32, may_be_unnoticed: bool) {
        if self.may_be_duplicated(now) {
            return;
        }
        let since = match self.stage {
            StayStage::Lost { since } | StayStage::Probing { since, .. } | StayStage::MovingLost { since, .. } => since,
            StayStage::Moving { .. } | StayStage::Settled | StayStage::Reopened { .. } => now,
        };
        let is_unknown = may_be_unnoticed || self.is_uncertain(now);
        self.stage = if is_unknown { StayStage::Lost { since } } else { StayStage::Settled };
        self.held_until = now.saturating_add(noticed_within);
    }

    /// Starts a probe of a lost client over this link, with a reply due by this tick. Returns `false` if the
    /// client is not lost.
    pub(crate) fn probe(&mut self, over: &HomeLink, until: u32) -> bool {
        let since = match self.stage {
            StayStage::Lost { since } | StayStage::MovingLost { since, .. } => since,
            _ => return false,
        };
        (self.stage, self.held_until) = (StayStage::Probing { over: over.clone(), since }, until);
        true
    }

    /// The probe that ends at this tick got no reply. Returns `false` if no such probe is in progress.
    #[must_use]
    pub(crate) fn unanswered(&mut self, until: u32) -> bool {
        let is_unanswered = self.is_probing() && self.held_until == until;
        if is_unanswered {
            self.stage = StayStage::Reopened { until };
        }
        is_unanswered
    }

    /// The app server reopens the connection, and may reply for the old one until this tick.
    pub(crate) fn reopen(&mut self, late: u32) {
        if let StayStage::Reopened { until } = &mut self.stage {
            *until = late;
        }
    }

    /// Another app server was chosen, so the state at this one no longer matters.
    pub(crate) fn leave_app(&mut self) {
        self.stage = match mem::take(&mut self.stage) {
            StayStage::Moving { to } | StayStage::MovingLost { to, .. } => StayStage::Moving { to },
            _ => StayStage::Settled,
        };
    }

    /// An app server has opened the connection; `left` is the previous primary, if dialled in.
    pub(crate) fn opened(&mut self, left: Option<AppServerId>) {
        if !self.is_reopened() {
            self.stage = StayStage::Settled;
        }
        self.is_fixed = false;
        self.previous = left.or(self.previous);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::engine::upstream::{HubIdentity, LinkHandle};

    /// Event in the lifecycle of a client connection.
    #[derive(Debug, Clone, Copy)]
    enum LifeEvent {
        HandshakeSent(u32),
        Answered,
        BeginToLeave { is_busy: bool },
        Called,
        Hurry,
        SocketLost,
        Close,
    }

    fn life_event() -> impl Strategy<Value = LifeEvent> {
        prop_oneof![
            4 => any::<u32>().prop_map(LifeEvent::HandshakeSent),
            4 => Just(LifeEvent::Answered),
            4 => any::<bool>().prop_map(|is_busy| LifeEvent::BeginToLeave { is_busy }),
            4 => Just(LifeEvent::Called),
            4 => Just(LifeEvent::Hurry),
            4 => Just(LifeEvent::SocketLost),
            1 => Just(LifeEvent::Close),
        ]
    }

    /// Applies an event. Returns whether it was accepted, if reported.
    fn live(life: &mut LifeCycle, event: LifeEvent) -> Option<bool> {
        match event {
            LifeEvent::HandshakeSent(until) => life.handshake_sent(until),
            LifeEvent::Answered => return Some(life.answered()),
            LifeEvent::BeginToLeave { is_busy } => return Some(life.begin_to_leave(is_busy)),
            LifeEvent::Called => life.called(),
            LifeEvent::Hurry => life.hurry(MoveCause::Drain),
            LifeEvent::SocketLost => life.socket_lost(),
            LifeEvent::Close => return Some(life.set_closed()),
        }
        None
    }

    /// Rank of a stage: a client opens once and closes once.
    fn rank(life: LifeCycle) -> u8 {
        match life.stage() {
            LifeStage::Opening { .. } => 0,
            LifeStage::Open | LifeStage::Leaving(_) => 1,
            LifeStage::Closed => 2,
        }
    }

    proptest! {
        #[test]
        fn a_life_goes_one_way_and_leaves_only_between_its_ends(
            events in prop::collection::vec(life_event(), 0..40)
        ) {
            let mut life = LifeCycle::default();
            for event in events {
                let before = life;
                let accepted = live(&mut life, event);
                prop_assert!(rank(life) >= rank(before), "{before:?} {event:?} {life:?}");
                let kinds = [life.is_opening(), life.is_open(), life.is_closed()];
                prop_assert_eq!(kinds.iter().filter(|is_so| **is_so).count(), 1);
                if before.is_closed() {
                    prop_assert_eq!(life, before, "a closed client stays closed");
                    prop_assert!(accepted != Some(true), "{:?}", event);
                }
                match event {
                    LifeEvent::Answered => prop_assert_eq!(accepted, Some(before.is_opening())),
                    LifeEvent::Close => prop_assert!(life.is_closed() && life.leaving().is_none()),
                    LifeEvent::SocketLost => prop_assert!(life.leaving().is_none()),
                    LifeEvent::BeginToLeave { .. } => {
                        let may_begin = before.leaving().is_none() && !before.is_closed();
                        prop_assert_eq!(accepted, Some(may_begin));
                    }
                    LifeEvent::Called => prop_assert_eq!(life.leaving().is_some(), before.leaving().is_some()),
                    LifeEvent::Hurry | LifeEvent::HandshakeSent(_) => {}
                }
                // A departure starts and ends only with its own events, independent of the handshake.
                if matches!(event, LifeEvent::Answered | LifeEvent::HandshakeSent(_)) {
                    prop_assert_eq!(life.leaving(), before.leaving());
                }
            }
        }

        #[test]
        fn a_stay_waits_for_one_answer_at_a_time(steps in prop::collection::vec((0_u8..9, 0_u32..6), 0..40)) {
            let link = Arc::new(LinkHandle::nowhere(HubIdentity::detached()));
            let (mut stay, mut is_fixed) = (HomeStay::default(), false);
            for (step, now) in steps {
                let (was_moving, was_lost, was_probing) = (stay.is_moving(), stay.is_lost(), stay.is_probing());
                let was_uncertain = stay.is_uncertain(now);
                match step {
                    0 => {
                        let begins = stay.begin_move(&link, now);
                        prop_assert_eq!(begins, !was_moving && !was_uncertain && !is_fixed);
                        prop_assert_eq!(stay.is_moving(), begins || was_moving);
                    }
                    1 => {
                        prop_assert_eq!(stay.acknowledged().is_some(), was_moving);
                        prop_assert!(!stay.is_moving() && stay.is_lost() == was_lost);
                    }
                    2 => {
                        let gives_up = stay.give_up_move();
                        prop_assert_eq!(gives_up, was_moving && !was_probing, "a probe has its own end");
                        is_fixed |= gives_up;
                    }
                    3 => {
                        let may_be_duplicated = stay.may_be_duplicated(now);
                        stay.link_lost(now, 2, now % 2 == 0);
                        prop_assert_eq!(stay.may_be_duplicated(now), may_be_duplicated);
                        if !may_be_duplicated {
                            prop_assert_eq!(stay.is_lost(), now % 2 == 0 || was_uncertain);
                            prop_assert!(!stay.is_moving() && !stay.is_accepted_again(now));
                        }
                    }
                    4 => {
                        prop_assert_eq!(stay.probe(&link, now), was_lost);
                        prop_assert_eq!(stay.is_probing(), was_lost || was_probing);
                    }
                    5 => {
                        let is_over = stay.unanswered(now);
                        prop_assert!(!is_over || (was_probing && stay.is_reopened()));
                    }
                    6 => stay.reopen(now + 3),
                    7 => {
                        stay.mark_lost(now);
                        prop_assert!(stay.is_uncertain(now) && stay.is_moving() == was_moving);
                    }
                    _ => {
                        stay.opened(None);
                        is_fixed = false;
                        prop_assert!(!stay.is_moving() && !stay.is_lost());
                    }
                }
                let kinds = [stay.is_probing(), stay.is_lost(), stay.is_reopened()];
                prop_assert!(kinds.iter().filter(|is_so| **is_so).count() <= 1);
            }
        }
    }

    #[test]
    fn a_client_that_calls_leaves_behind_its_answer_when_half_of_its_time_is_over() {
        let mut life = LifeCycle::default();
        assert!(life.answered() && life.begin_to_leave(false));
        assert_eq!(life.stage(), LifeStage::Leaving(LeaveStage::Quiet));
        life.called();
        assert_eq!(life.leaving(), Some(LeaveStage::Busy));
        life.hurry(MoveCause::Drain);
        life.called();
        assert_eq!(life.leaving(), Some(LeaveStage::BehindAnswer(MoveCause::Drain)));
        assert!(life.is_open() && life.set_closed() && !life.set_closed());
    }

    #[test]
    fn the_turn_to_leave_outlasts_the_hub_handshake() {
        let mut life = LifeCycle::default();
        assert!(life.begin_to_leave(true) && life.is_opening());
        assert!(life.answered());
        assert_eq!(life.stage(), LifeStage::Leaving(LeaveStage::Busy));
    }

    #[test]
    fn a_client_that_dials_in_is_known_by_the_app_server_before() {
        let mut stay = HomeStay::default();
        stay.opened(Some(AppServerId::from(7)));
        stay.opened(None);
        assert!(stay.was_at(AppServerId::from(7)) && !stay.was_at(AppServerId::from(8)));
    }
}
