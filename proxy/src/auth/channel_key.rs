//! Keys that open channels of app servers that dial in, holder by holder, and found by the tags of hellos.

use std::collections::HashMap;

use trunkline_channel::HelloTable;
use trunkline_protocol::key::{AccessKeys, FarEnd, KeyTag};

use super::signer::Signer;

/// Keys of one holder, and the hellos that they have opened. So the channels of one app take no place of those of
/// others, and make nobody forget theirs.
#[derive(Debug, Clone)]
pub(crate) struct ChannelKeys {
    signer: Signer,
    pub keys: AccessKeys,
    pub hellos: HelloTable,
}

impl ChannelKeys {
    /// Keys of a holder, with the hellos that it has among these: what was taken once is not taken again because keys
    /// were read anew.
    pub(super) fn new(signer: Signer, keys: AccessKeys, before: &[Self]) -> Self {
        let known = before.iter().find(|known| known.signer == signer);
        Self { keys, hellos: known.map(|known| known.hellos.clone()).unwrap_or_default(), signer }
    }
}

/// Keys of all holders. A tag finds its holder at the same cost whatever the number of keys.
#[derive(Debug, Default)]
pub(crate) struct ChannelKeyTable {
    holders: Vec<ChannelKeys>,
    by_tag: HashMap<KeyTag, usize>,
}

impl ChannelKeyTable {
    pub(super) fn new(holders: Vec<ChannelKeys>) -> Self {
        let tags = |keys: &AccessKeys| keys.channel_secrets(FarEnd::DialIn).map(|secret| secret.tag);
        let by_tag = holders.iter().enumerate().flat_map(|(at, holder)| tags(&holder.keys).map(move |tag| (tag, at)));
        Self { by_tag: by_tag.collect(), holders }
    }

    /// Keys of all holders.
    pub(crate) fn holders(&self) -> &[ChannelKeys] {
        &self.holders
    }

    /// Keys of the holder of the key with this tag.
    pub(crate) fn tagged(&self, tag: KeyTag) -> Option<&ChannelKeys> {
        self.holders.get(*self.by_tag.get(&tag)?)
    }
}
