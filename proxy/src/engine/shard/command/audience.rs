//! Audience of a message: the receiving connections of a hub, group changes, and the origin of sends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytestring::ByteString;
use trunkline_protocol::fleet;
use trunkline_protocol::service::ClientFilter;

use crate::engine::shard::slot::{Serial, Slot};
use crate::engine::upstream::AppServerId;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receivers {
    pub who: Audience,
    /// Excluded connections of the hub.
    pub excluded: Vec<ByteString>,
    /// Users with excluded connections.
    pub excluded_users: Vec<ByteString>,
    /// Filter that receivers must also match.
    pub filter: Option<Arc<SteppedFilter>>,
}

/// Filter of a frame, with its results for the clients that were evaluated in steps.
#[derive(Debug)]
pub(crate) struct SteppedFilter {
    pub filter: ClientFilter,
    results: Mutex<FilterResults>,
}

/// Whether clients match, by shard and slot.
pub(crate) type FilterResults = HashMap<(u16, Slot), (Serial, bool)>;

impl SteppedFilter {
    pub(crate) fn new(filter: ClientFilter) -> Arc<Self> {
        Arc::new(Self { filter, results: Mutex::default() })
    }

    pub(crate) fn results(&self) -> MutexGuard<'_, FilterResults> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartialEq for SteppedFilter {
    fn eq(&self, other: &Self) -> bool {
        self.filter == other.filter
    }
}

impl Eq for SteppedFilter {}

/// Receivers of a message before exclusions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Audience {
    Everyone,
    Connections(Vec<ByteString>),
    /// Members of groups, once per group.
    Groups(Vec<ByteString>),
    Users(Vec<ByteString>),
}

impl Audience {
    /// Names of the sets or connections; none for everyone.
    pub(crate) fn names(&self) -> &[ByteString] {
        match self {
            Self::Everyone => &[],
            Self::Connections(names) | Self::Groups(names) | Self::Users(names) => names,
        }
    }

    pub(crate) fn with_names(&self, names: &[ByteString]) -> Self {
        match self {
            Self::Everyone => Self::Everyone,
            Self::Connections(_) => Self::Connections(names.to_vec()),
            Self::Groups(_) => Self::Groups(names.to_vec()),
            Self::Users(_) => Self::Users(names.to_vec()),
        }
    }

    /// Whether the audience is a single set, so that no client occurs twice.
    pub(crate) fn is_one_set(&self) -> bool {
        match self {
            Self::Everyone => true,
            Self::Groups(names) | Self::Users(names) => names.len() == 1,
            Self::Connections(_) => false,
        }
    }
}

impl From<Audience> for Receivers {
    fn from(who: Audience) -> Self {
        Self { who, excluded: Vec::new(), excluded_users: Vec::new(), filter: None }
    }
}

#[derive(Debug, Clone)]
pub(crate) enum MembershipChange {
    Join(ByteString),
    Leave(ByteString),
    LeaveAll,
}

/// Origin of a send to several clients. For dial-in, the sender is the node where the send entered the fleet,
/// as the number of its boot id.
pub(crate) type SendOrigin = fleet::SendOrigin<AppServerId>;
