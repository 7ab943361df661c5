//! Presence: the app servers dialled in at a node, as known to the other nodes.
//!
//! A node sends complete lists, one per hub: they are short and change only when an app server starts or stops.

use std::collections::HashMap;

use bytestring::ByteString;

use crate::fields::{Field, FieldError, FieldResult, Fields, Form, record};
use crate::limits::{INTEREST_HUBS_MAX, PRESENCE_SERVERS_MAX, PRESENCE_TEXT_MAX_BYTES};

/// App server dialled in at a node under one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PresentAppServer {
    /// Random instance id of the app server.
    pub instance: ByteString,
    /// Host that the app server dialled.
    pub endpoint: ByteString,
    /// Number of its links that may carry clients. Further links may be send-only.
    pub links: u32,
    /// Number of these links forwarded by another node, because the dialled address is not this node's.
    pub carried: u32,
}

record!(PresentAppServer [instance as ShortText, endpoint as ShortText, links, carried]);

enum ShortText {}

impl Form<ByteString> for ShortText {
    fn read(fields: &mut Fields, name: &'static str) -> FieldResult<ByteString> {
        let text = ByteString::read(fields, name)?;
        match text.len() {
            0..=PRESENCE_TEXT_MAX_BYTES => Ok(text),
            bytes => Err(FieldError::value(name, format!("{bytes} bytes are too long"))),
        }
    }
}

pub(super) enum AppServerList {}

impl Form<Vec<PresentAppServer>> for AppServerList {
    fn read(fields: &mut Fields, name: &'static str) -> FieldResult<Vec<PresentAppServer>> {
        fields.items(name, PRESENCE_SERVERS_MAX)
    }
}

/// Presence update from a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresenceUpdate {
    /// All app servers of one hub, replacing the previous list.
    Whole {
        /// Hub of the app servers.
        hub: ByteString,
        /// Its app servers, one per endpoint of each; empty if the hub was only requested.
        servers: Vec<PresentAppServer>,
    },
    /// Everything known when the link began has been sent. Never sent by nodes without dial-in.
    Complete,
}

/// Presence of another node, as far as reported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerPresence {
    hubs: HashMap<ByteString, Vec<PresentAppServer>>,
    is_complete: bool,
}

impl PeerPresence {
    /// Applies an update. Hubs beyond the limit are dropped.
    pub fn apply(&mut self, update: PresenceUpdate) {
        match update {
            PresenceUpdate::Complete => self.is_complete = true,
            PresenceUpdate::Whole { hub, servers } => {
                if self.hubs.len() < INTEREST_HUBS_MAX || self.hubs.contains_key(&hub) {
                    self.hubs.insert(hub, servers);
                }
            }
        }
    }

    /// Whether the node has reported everything it knew when the link began.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Whether the hub is known: clients or app servers have requested it there.
    #[must_use]
    pub fn knows(&self, hub: &str) -> bool {
        self.hubs.contains_key(hub)
    }

    /// App servers of a hub, one per endpoint of each.
    #[must_use]
    pub fn servers(&self, hub: &str) -> &[PresentAppServer] {
        self.hubs.get(hub).map_or(&[], Vec::as_slice)
    }

    /// All hubs with their app servers.
    pub fn hubs(&self) -> impl Iterator<Item = (&ByteString, &[PresentAppServer])> {
        self.hubs.iter().map(|(hub, servers)| (hub, servers.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(instance: &'static str, links: u32) -> PresentAppServer {
        PresentAppServer { instance: instance.into(), endpoint: "shop.example".into(), links, carried: 0 }
    }

    fn whole(hub: impl Into<ByteString>, servers: &[PresentAppServer]) -> PresenceUpdate {
        PresenceUpdate::Whole { hub: hub.into(), servers: servers.to_vec() }
    }

    #[test]
    fn a_list_replaces_the_previous_one() {
        let mut peer = PeerPresence::default();
        peer.apply(whole("?hub=a", &[server("one", 5), server("two", 5)]));
        peer.apply(whole("?hub=b", &[server("one", 1)]));
        assert!(!peer.is_complete());
        peer.apply(PresenceUpdate::Complete);
        peer.apply(whole("?hub=a", &[server("two", 4)]));
        assert_eq!((peer.servers("?hub=a"), peer.is_complete()), (&[server("two", 4)][..], true));
        assert_eq!(peer.hubs().count(), 2);
        peer.apply(whole("?hub=a", &[]));
        assert_eq!((peer.servers("?hub=a").len(), peer.servers("?hub=b").len()), (0, 1));
        assert!(peer.knows("?hub=a") && !peer.knows("?hub=c"));
    }

    #[test]
    fn a_node_stores_a_bounded_number_of_hubs_of_another_node() {
        let mut peer = PeerPresence::default();
        for hub in 0..INTEREST_HUBS_MAX + 5 {
            peer.apply(whole(hub.to_string(), &[server("one", 1)]));
        }
        assert_eq!(peer.hubs().count(), INTEREST_HUBS_MAX);
        peer.apply(whole("0", &[server("two", 1)]));
        assert_eq!(peer.servers("0"), [server("two", 1)]);
    }
}
