//! Keys that open channels of app servers that dial in, holder by holder.

use trunkline_channel::HelloTable;
use trunkline_protocol::key::AccessKeys;

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
