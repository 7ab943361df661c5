//! Negotiation of a session in a link's upgrade, and the app server's decision.
//!
//! ```text
//!  proxy dials                                            app server decides
//!  ───────────                                            ──────────────────
//!  session 7                  a new session, or one that  unknown, newer than all ─► Begin
//!                             was never attached          known, still unused ─────► Resume from 0
//!  session 7, received 120    a lost session              known ───────────────────► Resume after 120
//!                                                         unknown ─────────────────► refused: Unknown
//!  any of these, from an attempt that was given up        contradicts known state ─► refused: Stale
//! ```
//!
//! A session requested with received frames is never newly started: its peer would replay frames that an older session
//! of equal id may have taken. Only *taken* frames count as received, so the number also acknowledges them. All values
//! are texts in the headers of [`wire`](crate::wire), not in frames.

use std::fmt;
use std::str::FromStr;

use super::counters::number;

/// Capability to resume. The value is the ring size of the announcing end.
const RESUME: &str = "resume";

/// Resume window of the proxy, sent with the capability to resume.
const WINDOW: &str = "window";

const CAUSES: &str = "causes";
const MEMBERS: &str = "members";
/// Keeps reading from a client during its reassignment, and accepts the end of another app server's connection.
const HANDOVERS: &str = "handovers";

const MOVES: &str = "moves";

/// Capability to report presence of users and group members, and to list a user's connections.
const PRESENCE: &str = "presence";

const TRACES: &str = "traces";

/// Capability to append to records.
const RECORDS: &str = "records";

/// Capability of flow control for messages to single clients. The value is the maximum size of such a message.
const CLIENT_FLOW: &str = "client-flow";

/// Number of a session in its slot, increasing while the node runs. Boot id, hub, slot and this number identify a
/// session, and of two sessions the newer one is evident, in whatever order upgrades arrive.
///
/// The upper half is the number of the pool: a node that has given up an app server and finds it again opens a new
/// pool, and the app server ends all sessions of the former one with the first upgrade of the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u64);

/// Capabilities of one end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Bytes kept to resume sessions; `None` if it can't resume.
    pub resume_ring_bytes: Option<usize>,
    /// Milliseconds that a session outlives its socket. The proxy decides.
    pub window_ms: Option<u64>,
    /// Whether it reads causes of closes.
    pub supports_causes: bool,
    /// Whether it answers group member queries, as proxies do.
    pub lists_members: bool,
    /// Whether it supports extended reassignments: a proxy keeps reading from a client on request, and an app server
    /// accepts the end of another app server's connection, and hands over a connection only if it is idle on request.
    pub supports_handovers: bool,
    /// Whether it reports presence and lists a user's connections, as proxies do.
    pub tells_presence: bool,
    /// Whether it supports moving client connections to other nodes: an app server answers move requests and stamps its
    /// sends.
    pub supports_moves: bool,
    /// Whether it supports live traces: an app server reports durations of marked messages.
    pub supports_traces: bool,
    /// Whether it appends messages to records, as proxies do.
    pub records: bool,
    /// Maximum size of a message to a single client that it accepts, or that an app server sends, if it supports flow
    /// control for such messages: an app server sends a [`DownMark`](crate::service::DownMark) in order with them, and
    /// a proxy reports it.
    pub client_message_max_bytes: Option<usize>,
}

/// Session headers of a proxy's upgrade request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Session that the link carries.
    pub session: SessionId,
    /// Last frame taken in the session; `None` if it was never attached.
    pub received: Option<u64>,
    /// Capabilities of the proxy.
    pub capabilities: Capabilities,
}

/// Session headers of an app server's 101 response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Last frame taken in the session.
    pub received: u64,
    /// Capabilities of the app server.
    pub capabilities: Capabilities,
}

/// Error parsing a header value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid value of this header: {0:?}")]
pub struct HeaderError(String);

impl Capabilities {
    /// Capabilities of this version, except those with a value.
    #[must_use]
    pub fn plain() -> Self {
        Self {
            resume_ring_bytes: None,
            window_ms: None,
            supports_causes: true,
            lists_members: true,
            supports_handovers: true,
            supports_moves: true,
            tells_presence: true,
            supports_traces: true,
            records: true,
            client_message_max_bytes: None,
        }
    }

    /// Removes the capabilities for resuming.
    #[must_use]
    pub fn without_resuming(self) -> Self {
        Self { resume_ring_bytes: None, window_ms: None, ..self }
    }
}

impl SessionId {
    /// First session of a slot in the first pool.
    pub const FIRST: Self = Self(1);

    /// First session of a slot in a pool. Pools are numbered from 0.
    #[must_use]
    pub fn first_of(pool: u32) -> Self {
        Self(u64::from(pool) << 32 | Self::FIRST.0)
    }

    /// Id before all sessions of this one's pool. Once a node has used a pool, everything up to here is outdated.
    #[must_use]
    pub fn before_pool(self) -> Self {
        Self(self.0 >> 32 << 32)
    }

    /// Whether the session belongs to an earlier pool than another one of the same node.
    #[must_use]
    pub fn is_of_earlier_pool(self, other: Self) -> bool {
        self.before_pool() < other.before_pool()
    }

    /// Returns the session id after this one.
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
        let causes = self.supports_causes.then(|| CAUSES.to_owned());
        let members = self.lists_members.then(|| MEMBERS.to_owned());
        let handovers = self.supports_handovers.then(|| HANDOVERS.to_owned());
        let moves = self.supports_moves.then(|| MOVES.to_owned());
        let presence = self.tells_presence.then(|| PRESENCE.to_owned());
        let traces = self.supports_traces.then(|| TRACES.to_owned());
        let records = self.records.then(|| RECORDS.to_owned());
        let client_flow = self.client_message_max_bytes.map(|bytes| format!("{CLIENT_FLOW}={bytes}"));
        let all = [resume, window, causes, members, handovers, moves, presence, traces, records, client_flow];
        f.write_str(&all.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

impl FromStr for Capabilities {
    type Err = HeaderError;

    /// Parses the capabilities, ignoring unknown ones.
    fn from_str(text: &str) -> Result<Self, HeaderError> {
        let mut capabilities = Self::default();
        for item in text.split(',').map(str::trim) {
            capabilities.supports_causes |= item == CAUSES;
            capabilities.lists_members |= item == MEMBERS;
            capabilities.supports_handovers |= item == HANDOVERS;
            capabilities.supports_moves |= item == MOVES;
            capabilities.tells_presence |= item == PRESENCE;
            capabilities.supports_traces |= item == TRACES;
            capabilities.records |= item == RECORDS;
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

/// Parses the header with the number of the last frame taken. Fails if it is not a number.
pub fn parse_received(text: &str) -> Result<u64, HeaderError> {
    number(text).map_err(|_| HeaderError(text.into()))
}
