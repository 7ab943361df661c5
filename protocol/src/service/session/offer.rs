//! Negotiation of a session in a link's upgrade, and the app server's decision.
//!
//! ```text
//!  proxy dials                                            app server judges
//!  ───────────                                            ─────────────────
//!  session 7                  a new one, or one that      not known, newer than all ──► Begin
//!                             was never attached          known, nothing carried yet ─► Resume from 0
//!  session 7, received 120    a lost one                  known ──────────────────────► Resume behind 120
//!                                                         not known ──────────────────► refused: Unknown
//!  any of these, from an attempt that was given up        contradicts what is known ──► refused: Stale
//! ```
//!
//! A session that is asked for by its received frames is never begun: its peer would replay into it what an older one
//! of the same id may have taken. The number of received frames is of those that were *taken*, so it acknowledges, too.
//! Everything travels as text in the headers that [`wire`](crate::wire) names, and not in frames.

use std::fmt;
use std::str::FromStr;

use super::counters::number;

/// Capability to resume; its value is the ring of the end that names it.
const RESUME: &str = "resume";

/// Window of the proxy, beside the capability to resume.
const WINDOW: &str = "window";

/// Capability to read the cause of a close.
const CAUSES: &str = "causes";

/// Capability to answer queries for the members of a group.
const MEMBERS: &str = "members";
/// Capability to read a client on during its reassignment, and to take the end of a connection that another app server
/// had.
const HANDOVERS: &str = "handovers";

/// Capability to have client connections move to other nodes.
const MOVES: &str = "moves";

/// Capability to tell app servers of users and members of groups that come and go, and to list the connections of a
/// user.
const PRESENCE: &str = "presence";

/// Capability to report on messages that a live trace follows.
const TRACES: &str = "traces";

/// Capability to give a connection away only if nothing of it runs.
const IDLE_HANDOVERS: &str = "idle-handovers";

/// Capability to have messages to one client wait for that client; its value is the largest message to one client.
const CLIENT_FLOW: &str = "client-flow";

/// Number of a session in its slot: from 1 on, ever higher, for as long as the node runs. So the boot id, the hub, the
/// slot and this are one session, and of two it is plain which one is newer, whatever order the upgrades arrive in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u64);

/// Capabilities of one end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Bytes that it keeps to resume sessions; `None` if it can't resume.
    pub resume_ring_bytes: Option<usize>,
    /// Milliseconds that a session outlives its socket; the proxy decides it.
    pub window_ms: Option<u64>,
    /// Whether it reads the causes of closes.
    pub knows_causes: bool,
    /// Whether it answers queries for the members of a group: a proxy does. An older one drops a link that carries one.
    pub lists_members: bool,
    /// Whether it knows what reassignments have learnt: a proxy reads a client on during one, while it is asked to; an
    /// app server takes the end of a connection that another one had.
    pub knows_handovers: bool,
    /// Whether it tells who comes and goes, and lists the connections of a user: a proxy does.
    pub tells_presence: bool,
    /// Whether it lets client connections move to other nodes: an app server answers when one is to, and stamps its
    /// sends.
    pub knows_moves: bool,
    /// Whether it knows live traces: an app server reports how long a marked message took there.
    pub knows_traces: bool,
    /// Whether it gives a connection away only if nothing of it runs, where it is asked so: an app server has the
    /// client read on otherwise.
    pub knows_idle_handovers: bool,
    /// Largest message to one client that it takes, or that an app server sends, if it has such messages wait for their
    /// client: an app server sends a [`DownMark`](crate::service::DownMark) in line with them, and a proxy reports it.
    pub client_message_max_bytes: Option<usize>,
}

/// Session headers of a proxy's upgrade request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The session that the link carries.
    pub session: SessionId,
    /// The last frame taken in it; `None` while it was never attached.
    pub received: Option<u64>,
    /// Capabilities of the proxy.
    pub capabilities: Capabilities,
}

/// Session headers of an app server's 101 response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The last frame taken in the session.
    pub received: u64,
    /// Capabilities of the app server.
    pub capabilities: Capabilities,
}

/// Header whose value can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not what this header holds")]
pub struct HeaderError(String);

impl Capabilities {
    /// Capabilities of this version, but for those that have a value.
    #[must_use]
    pub fn plain() -> Self {
        Self {
            resume_ring_bytes: None,
            window_ms: None,
            knows_causes: true,
            lists_members: true,
            knows_handovers: true,
            knows_moves: true,
            tells_presence: true,
            knows_traces: true,
            knows_idle_handovers: true,
            client_message_max_bytes: None,
        }
    }

    /// Takes away what concerns resuming.
    #[must_use]
    pub fn without_resuming(self) -> Self {
        Self { resume_ring_bytes: None, window_ms: None, ..self }
    }
}

impl SessionId {
    /// First session of a slot.
    pub const FIRST: Self = Self(1);

    /// Returns the session after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SessionId {
    type Err = HeaderError;

    fn from_str(text: &str) -> Result<Self, HeaderError> {
        number(text).ok().filter(|&id| id > 0).map(Self).ok_or_else(|| HeaderError(text.into()))
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resume = self.resume_ring_bytes.map(|bytes| format!("{RESUME}={bytes}"));
        let window = resume.as_ref().and(self.window_ms).map(|window_ms| format!("{WINDOW}={window_ms}"));
        let causes = self.knows_causes.then(|| CAUSES.to_owned());
        let members = self.lists_members.then(|| MEMBERS.to_owned());
        let handovers = self.knows_handovers.then(|| HANDOVERS.to_owned());
        let moves = self.knows_moves.then(|| MOVES.to_owned());
        let presence = self.tells_presence.then(|| PRESENCE.to_owned());
        let traces = self.knows_traces.then(|| TRACES.to_owned());
        let idle_handovers = self.knows_idle_handovers.then(|| IDLE_HANDOVERS.to_owned());
        let client_flow = self.client_message_max_bytes.map(|bytes| format!("{CLIENT_FLOW}={bytes}"));
        let all = [resume, window, causes, members, handovers, moves, presence, traces, idle_handovers, client_flow];
        f.write_str(&all.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

impl FromStr for Capabilities {
    type Err = HeaderError;

    /// Capabilities that we don't know are passed over.
    fn from_str(text: &str) -> Result<Self, HeaderError> {
        let mut capabilities = Self::default();
        for item in text.split(',').map(str::trim) {
            capabilities.knows_causes |= item == CAUSES;
            capabilities.lists_members |= item == MEMBERS;
            capabilities.knows_handovers |= item == HANDOVERS;
            capabilities.knows_moves |= item == MOVES;
            capabilities.tells_presence |= item == PRESENCE;
            capabilities.knows_traces |= item == TRACES;
            capabilities.knows_idle_handovers |= item == IDLE_HANDOVERS;
            let Some((name @ (RESUME | WINDOW | CLIENT_FLOW), value)) = item.split_once('=') else { continue };
            let value = number(value).map_err(|_| HeaderError(item.into()))?;
            let bytes = || usize::try_from(value).map_err(|_| HeaderError(item.into()));
            match name {
                RESUME => capabilities.resume_ring_bytes = Some(bytes()?),
                WINDOW => capabilities.window_ms = Some(value),
                _ => capabilities.client_message_max_bytes = Some(bytes()?),
            }
        }
        Ok(capabilities)
    }
}

/// Parses the header with the number of the last frame taken.
///
/// # Errors
/// When it is no number.
pub fn parse_received(text: &str) -> Result<u64, HeaderError> {
    number(text).map_err(|_| HeaderError(text.into()))
}
