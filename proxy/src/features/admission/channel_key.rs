//! Keys of channels from app servers that dial in, grouped by holder and indexed by the tags of hellos.

use std::collections::HashMap;

use trunkline_channel::HelloTable;
use trunkline_protocol::key::{AccessKeys, KeyTag, PeerKind};

use crate::ground::auth::Signer;

/// Keys of one holder, with a separate table of opened hellos: an app can't evict the hellos of others.
#[derive(Debug, Clone)]
pub(crate) struct ChannelKeys {
    pub signer: Signer,
    pub keys: AccessKeys,
    pub hellos: HelloTable,
}

impl ChannelKeys {
    /// Creates the keys of a holder, keeping its opened hellos: they can't be replayed after a reload of the keys.
    pub(super) fn new(signer: Signer, keys: AccessKeys, before: &[Self]) -> Self {
        let known = before.iter().find(|known| known.signer == signer);
        Self { keys, hellos: known.map(|known| known.hellos.clone()).unwrap_or_default(), signer }
    }
}

/// Keys of all holders. Lookup by tag takes constant time for any number of keys.
#[derive(Debug, Default)]
pub(crate) struct ChannelKeyTable {
    holders: Vec<ChannelKeys>,
    by_tag: HashMap<KeyTag, usize>,
}

impl ChannelKeyTable {
    pub(super) fn new(holders: Vec<ChannelKeys>) -> Self {
        let tags = |keys: &AccessKeys| keys.channel_secrets(PeerKind::DialIn).map(|secret| secret.tag);
        let by_tag = holders.iter().enumerate().flat_map(|(at, holder)| tags(&holder.keys).map(move |tag| (tag, at)));
        Self { by_tag: by_tag.collect(), holders }
    }

    pub(super) fn holders(&self) -> &[ChannelKeys] {
        &self.holders
    }

    /// Keys of the holder of the key with this tag.
    pub(crate) fn tagged(&self, tag: KeyTag) -> Option<&ChannelKeys> {
        self.holders.get(*self.by_tag.get(&tag)?)
    }
}
