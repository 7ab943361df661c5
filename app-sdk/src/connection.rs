//! One client connection, as the app server remembers it: who it is, where it is, what waits for its handlers.
//!
//! There are many of these and most of them idle, so each is small: the opening frame stays encoded, the inbox
//! owns no memory while it is empty, and there is no task.

mod calls;
mod flow;
mod inbox;
mod limits;
mod opening;
mod scope;
mod uploads;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use bytestring::ByteString;
use http::Extensions;
use tokio_util::sync::CancellationToken;
use trunkline_protocol::hub::HubProtocol;

use crate::node::Node;
use crate::sync::lock;

pub(crate) use calls::{Admission, Incoming, Wanted};
pub(crate) use flow::Flow;
pub(crate) use inbox::{End, Inbox, Next};
pub(crate) use limits::Limits;
pub(crate) use opening::Opening;
pub(crate) use scope::{Errand, Scope, Takes};
use uploads::Uploads;
pub(crate) use uploads::{UploadEnd, UploadNews};

/// A link of this process; no two are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkId(pub(crate) u64);

/// A client connection.
#[derive(Debug)]
pub(crate) struct Connection {
    opening: Opening,
    protocol: HubProtocol,
    home: LinkId,
    node: Arc<Node>,
    inbox: Mutex<Inbox>,
    /// What the app remembers of it; owns no memory while it is empty.
    items: Mutex<Extensions>,
    /// Made when somebody asks for it: most connections never need one.
    cancellation: OnceLock<CancellationToken>,
}

impl Connection {
    pub(crate) fn new(opening: Opening, protocol: HubProtocol, home: LinkId, node: Arc<Node>) -> Self {
        let (inbox, items) = (Mutex::default(), Mutex::default());
        Self { opening, protocol, home, node, inbox, items, cancellation: OnceLock::new() }
    }

    /// Fires the cancellation; for whoever took the connection out of the roster.
    pub(crate) fn cancel(&self) {
        self.cancellation().cancel();
    }

    /// Fires when the connection ends.
    pub(crate) fn cancellation(&self) -> &CancellationToken {
        self.cancellation.get_or_init(CancellationToken::new)
    }

    pub(crate) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        lock(&self.inbox)
    }

    pub(crate) fn items(&self) -> MutexGuard<'_, Extensions> {
        lock(&self.items)
    }

    pub(crate) fn id(&self) -> &str {
        self.opening.id()
    }

    pub(crate) fn shared_id(&self) -> ByteString {
        self.opening.shared_id()
    }

    pub(crate) fn opening(&self) -> &Opening {
        &self.opening
    }

    pub(crate) fn protocol(&self) -> HubProtocol {
        self.protocol
    }

    pub(crate) fn home(&self) -> LinkId {
        self.home
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }
}

/// As much of an id as a log line needs: in negotiate version 0 the whole of it is a secret.
pub(crate) fn short(id: &str) -> &str {
    id.get(..trunkline_protocol::id::ID_CHARS).unwrap_or(id)
}
