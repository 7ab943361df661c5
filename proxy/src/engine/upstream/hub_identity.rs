//! Identity of a hub, shared with its pools: index, names, naming, and the clients that wait for its links.

use tokio::time::Instant;

use super::app_server::AppServer;
use super::capability::HubCapabilities;
use super::hub_naming::HubNaming;
use super::link_waiter::LinkWaiters;
use super::number::HubIndex;

#[derive(Debug)]
pub(crate) struct HubIdentity {
    index: HubIndex,
    name: String,
    origin: HubOrigin,
    /// Unique name in the fleet: hubs of different origins may share a name.
    key: String,
    naming: HubNaming,
    waiters: LinkWaiters,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HubOrigin {
    /// Named by the manifests of app servers that this node dials, with settings and path.
    Manifest,
    /// Named by app servers that dial in. Clients use the path of dial-in.
    DialIn,
    /// Named by the operator, with a webhook in place of app servers. Clients use the path of dial-in or of the hub.
    Webhook,
    /// Named by a client, and served by a webhook for all matching names.
    WebhookPattern,
}

impl HubIdentity {
    pub(super) fn new(index: HubIndex, origin: HubOrigin, name: &str) -> Self {
        let (key, name) = (origin.key(name), name.to_owned());
        Self { index, name, origin, key, naming: HubNaming::new(), waiters: LinkWaiters::default() }
    }

    pub(crate) fn index(&self) -> HubIndex {
        self.index
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn capabilities(&self) -> &'static HubCapabilities {
        match self.origin {
            HubOrigin::Manifest => &HubCapabilities::MANIFEST,
            HubOrigin::DialIn => &HubCapabilities::DIAL_IN,
            HubOrigin::Webhook | HubOrigin::WebhookPattern => &HubCapabilities::WEBHOOK,
        }
    }

    pub(super) fn origin(&self) -> HubOrigin {
        self.origin
    }

    pub(super) fn naming(&self) -> &HubNaming {
        &self.naming
    }

    /// Notes that a link is open. An open link names a removed hub again.
    pub(super) fn note_link(&self, app: &AppServer) {
        self.naming.note_link();
        if app.group.is_default() && self.origin == HubOrigin::Manifest {
            self.naming.name_by_default();
        }
        self.wake_waiters();
    }

    /// Waits until `until` returns `None` or its time has come.
    pub(super) async fn wait(&self, until: impl Fn() -> Option<Instant>) {
        self.waiters.wait(until).await;
    }

    /// Wakes all waiters, which check their conditions again.
    pub(crate) fn wake_waiters(&self) {
        self.waiters.wake();
    }
}

/// Prefix of the keys of hubs that have only a name.
const BY_NAME: &str = "?hub=";

impl HubOrigin {
    /// Key of a hub with this name. Names in manifests contain no question mark.
    #[must_use]
    pub(crate) fn key(self, name: &str) -> String {
        match self {
            Self::Manifest => name.to_owned(),
            Self::DialIn | Self::Webhook | Self::WebhookPattern => format!("{BY_NAME}{name}"),
        }
    }

    pub(crate) fn name_in(key: &str) -> &str {
        key.strip_prefix(BY_NAME).unwrap_or(key)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    impl HubIdentity {
        /// Identity of the first hub, without the hub.
        pub(crate) fn detached() -> Arc<Self> {
            Arc::new(Self::new(HubIndex::from(0), HubOrigin::Manifest, "chat"))
        }
    }
}
