//! App server that has joined a hub, until it has its share of clients. Pure: driven by one observation per second.
//!
//! ```text
//!  no link ──► Linking ── all links, for 5 s ──► Short ── share reached, or no progress for 60 s ──► Settled
//!     ▲                                                                                                 │
//!     └────────────────────────────────── its last session has ended ───────────────────────────────────┘
//! ```
//!
//! A briefly disconnected link, with a living session, does not matter.

/// Consecutive observations with all links after which an app server has settled. A new one may fail soon, and is
/// warming up.
const SETTLED_LOOKS: u32 = 5;

/// Rounds without progress after which rebalancing stops: the remaining clients are in the middle of calls, or bound to
/// their app servers.
const IDLE_ROUNDS_MAX: u32 = 60;

/// Links of an app server at a hub, as observed once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkCounts {
    /// Whether any session exists, connected or not.
    pub is_known: bool,
    /// Number of links that may carry clients now.
    pub open: usize,
    /// Required number of links; `None` if the app server chooses it.
    pub wanted: Option<usize>,
    pub is_draining: bool,
}

#[derive(Debug, Default)]
pub(crate) struct NewServer {
    stage: NewServerStage,
    last_open: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum NewServerStage {
    Linking { whole: u32 },
    Short { missing: Option<u64>, idle: u32 },
    Settled,
}

impl Default for NewServerStage {
    fn default() -> Self {
        Self::Linking { whole: 0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NewServerRound {
    /// The new app server starts receiving clients.
    Begun,
    GoesOn,
    /// The share is reached, or can't be reached.
    Over,
}

impl NewServer {
    /// Applies the observation of this second.
    pub(crate) fn update(&mut self, links: LinkCounts) {
        let before = std::mem::replace(&mut self.last_open, links.open);
        if !links.is_known || links.is_draining {
            self.stage = NewServerStage::default();
            return;
        }
        let is_whole = links.open > 0 && links.wanted.map_or(links.open == before, |wanted| links.open >= wanted);
        if let NewServerStage::Linking { whole } = &mut self.stage {
            *whole = if is_whole { *whole + 1 } else { 0 };
            if *whole > SETTLED_LOOKS {
                self.stage = NewServerStage::Short { missing: None, idle: 0 };
            }
        }
    }

    /// Whether the app server may have fewer clients than its share.
    pub(crate) fn is_short(&self) -> bool {
        matches!(self.stage, NewServerStage::Short { .. })
    }

    /// Applies the number of clients missing in this round, and of those already moving. `is_tolerable` if too few are
    /// missing to start.
    pub(crate) fn begin_round(&mut self, missing: u64, on_their_way: u64, is_tolerable: bool) -> NewServerRound {
        let NewServerStage::Short { missing: last, idle } = &mut self.stage else { return NewServerRound::Over };
        let left = missing + on_their_way;
        let Some(before) = last.replace(left) else {
            if !is_tolerable {
                return NewServerRound::Begun;
            }
            self.stage = NewServerStage::Settled;
            return NewServerRound::Over;
        };
        *idle = if left < before { 0 } else { *idle + 1 };
        if left > 0 && *idle < IDLE_ROUNDS_MAX {
            return NewServerRound::GoesOn;
        }
        self.stage = NewServerStage::Settled;
        NewServerRound::Over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(open: usize, wanted: Option<usize>) -> LinkCounts {
        LinkCounts { is_known: true, open, wanted, is_draining: false }
    }

    const GONE: LinkCounts = LinkCounts { is_known: false, open: 0, wanted: Some(2), is_draining: false };

    fn settled() -> NewServer {
        let mut new_server = NewServer::default();
        (0..=SETTLED_LOOKS).for_each(|_| new_server.update(links(2, Some(2))));
        assert!(new_server.is_short());
        new_server
    }

    #[test]
    fn an_app_server_is_new_once_all_its_links_have_been_open_for_some_seconds() {
        let mut new_server = NewServer::default();
        for open in [1, 2, 2, 1, 2, 2, 2, 2, 2] {
            new_server.update(links(open, Some(2)));
            assert!(!new_server.is_short());
        }
        new_server.update(links(2, Some(2)));
        assert!(new_server.is_short());
    }

    #[test]
    fn an_app_server_that_dials_in_is_short_once_no_more_links_open() {
        let mut new_server = NewServer::default();
        for open in [1, 3, 5, 5, 5, 5, 5, 5] {
            new_server.update(links(open, None));
            assert!(!new_server.is_short());
        }
        new_server.update(links(5, None));
        assert!(new_server.is_short());
    }

    #[test]
    fn a_briefly_disconnected_link_restarts_nothing_and_a_lost_one_does() {
        let mut new_server = settled();
        assert_eq!(new_server.begin_round(0, 0, true), NewServerRound::Over);
        new_server.update(links(0, Some(2)));
        new_server.update(links(2, Some(2)));
        assert!(!new_server.is_short());
        new_server.update(GONE);
        (0..=SETTLED_LOOKS).for_each(|_| new_server.update(links(2, Some(2))));
        assert!(new_server.is_short());
    }

    #[test]
    fn a_stopping_app_server_is_not_new() {
        let mut new_server = settled();
        new_server.update(LinkCounts { is_draining: true, ..links(2, Some(2)) });
        assert!(!new_server.is_short());
    }

    #[test]
    fn it_begins_beyond_the_tolerance_and_ends_with_its_share() {
        let mut new_server = settled();
        assert_eq!(new_server.begin_round(10, 0, false), NewServerRound::Begun);
        assert_eq!(new_server.begin_round(5, 5, false), NewServerRound::GoesOn);
        assert_eq!(new_server.begin_round(1, 0, true), NewServerRound::GoesOn, "what has begun is ended");
        assert_eq!(new_server.begin_round(0, 0, true), NewServerRound::Over);
        assert!(!new_server.is_short());
        assert_eq!(settled().begin_round(1, 0, true), NewServerRound::Over);
    }

    #[test]
    fn a_new_app_server_without_progress_settles() {
        let mut new_server = settled();
        new_server.begin_round(10, 0, false);
        for _ in 1..IDLE_ROUNDS_MAX {
            assert_eq!(new_server.begin_round(10, 0, false), NewServerRound::GoesOn);
        }
        assert_eq!(new_server.begin_round(10, 0, false), NewServerRound::Over);
    }
}
