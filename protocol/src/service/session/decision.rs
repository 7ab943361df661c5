//! Upgrade decisions of app servers.

use super::{Offer, Session, SessionId};

/// Decision of the app server about an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradeDecision {
    /// The slot still has a socket, of this session or an older one: end and detach it, then decide again.
    EndSocketFirst,
    /// Starts this session and ends the slot's previous session.
    Begin,
    /// Resumes the session of the slot.
    Resume,
    /// Refuses the upgrade for this reason.
    Refuse(UpgradeRefusal),
}

/// Reason for refusing an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeRefusal {
    /// The session has ended or never started: the proxy also ends it and dials with the next one.
    #[error("the session is not known here")]
    Unknown,
    /// The upgrade is outdated: the proxy has given it up long ago.
    #[error("the upgrade comes too late")]
    Stale,
}

/// Decides about an upgrade, given the slot's live session and the newest id it ever had.
#[must_use]
pub fn decide_upgrade(offer: &Offer, live: Option<&Session>, newest: Option<SessionId>) -> UpgradeDecision {
    let known = live.filter(|session| session.id() == offer.session);
    let refusal = match known {
        Some(session) if session.can_resume_behind(offer.received) => None,
        Some(_) => Some(UpgradeRefusal::Stale),
        None if newest.is_some_and(|newest| newest >= offer.session) || offer.received.is_some() => {
            Some(UpgradeRefusal::Unknown)
        }
        None => None,
    };
    match refusal {
        Some(refusal) => UpgradeDecision::Refuse(refusal),
        None if live.is_some_and(Session::is_attached) => UpgradeDecision::EndSocketFirst,
        None if known.is_some() => UpgradeDecision::Resume,
        None => UpgradeDecision::Begin,
    }
}
