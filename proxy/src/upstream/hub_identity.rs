//! Identity of a hub, and what its pools report to it: links that open, and app servers that come or go.

use tokio::time::Instant;

use super::app_server::AppServer;
use super::capability::HubCapabilities;
use super::hub_naming::HubNaming;
use super::link_waiter::LinkWaiters;
use super::number::HubIndex;

/// Names of a hub, and who waits for its app servers.
#[derive(Debug)]
pub(crate) struct HubIdentity {
    index: HubIndex,
    name: String,
    origin: HubOrigin,
    /// Name in the fleet: hubs of one name and different origins are two.
    key: String,
    naming: HubNaming,
    waiters: LinkWaiters,
}

/// How a hub comes to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HubOrigin {
    /// App servers that we dial name it, with its settings and its path.
    Manifest,
    /// App servers that dial in name it; its clients come by the path of dial-in.
    DialIn,
    /// The operator names it, with a webhook in place of app servers. Else it is a hub of dial-in, whose clients may
    /// come by a path of its own, too.
    Webhook,
    /// A client names it, and a webhook of the operator serves all hubs of such names.
    WebhookPattern,
}

impl HubIdentity {
    pub(super) fn new(index: HubIndex, origin: HubOrigin, name: &str) -> Self {
        let (key, name) = (origin.key(name), name.to_owned());
        Self { index, name, origin, key, naming: HubNaming::new(), waiters: LinkWaiters::default() }
    }

    #[must_use]
    pub(crate) fn index(&self) -> HubIndex {
        self.index
    }

    /// Its name, as links, logs and metrics have it.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its name among all hubs of the fleet, whatever their origin.
    #[must_use]
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Capabilities of its app servers and clients.
    #[must_use]
    pub(crate) fn capabilities(&self) -> &'static HubCapabilities {
        match self.origin {
            HubOrigin::Manifest => &HubCapabilities::MANIFEST,
            HubOrigin::DialIn => &HubCapabilities::DIAL_IN,
            HubOrigin::Webhook | HubOrigin::WebhookPattern => &HubCapabilities::WEBHOOK,
        }
    }

    /// Way on which it has come to this node.
    #[must_use]
    pub(super) fn origin(&self) -> HubOrigin {
        self.origin
    }

    /// Naming of it by app servers.
    pub(super) fn naming(&self) -> &HubNaming {
        &self.naming
    }

    /// Notes that a link is open: it is served, or named again by an app server that was away for long.
    pub(super) fn note_link(&self, app: &AppServer) {
        self.naming.note_link();
        if app.group.is_default() && self.origin == HubOrigin::Manifest {
            self.naming.name_by_default();
        }
        self.wake_waiters();
    }

    /// Waits until it is woken, and need not wait any more by `until`.
    pub(super) async fn wait(&self, until: impl Fn() -> Option<Instant>) {
        self.waiters.wait(until).await;
    }

    /// Wakes those that wait until the hub is served, to look again.
    pub(super) fn wake_waiters(&self) {
        self.waiters.wake();
    }
}

/// Beginning of the key of a hub that is known by its name alone.
const BY_NAME: &str = "?hub=";

impl HubOrigin {
    /// Name of a hub in the fleet. Names of manifests hold no question mark.
    #[must_use]
    pub(crate) fn key(self, name: &str) -> String {
        match self {
            Self::Manifest => name.to_owned(),
            Self::DialIn | Self::Webhook | Self::WebhookPattern => format!("{BY_NAME}{name}"),
        }
    }

    /// Name of the hub with this key.
    #[must_use]
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
