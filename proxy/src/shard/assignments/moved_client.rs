//! Clients that have moved to another link of their app server.

use crate::shard::slot::{Serial, Slot};
use crate::upstream::LinkId;

/// Client connection that has moved from this link to another one. Its app server may not have noticed until this tick.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MovedClient {
    pub slot: Slot,
    pub serial: Serial,
    pub from: LinkId,
    pub until: u32,
}
