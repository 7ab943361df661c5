//! Clients that have moved to another link of their app server.

use crate::shard::slot::{Serial, Slot};
use crate::upstream::LinkId;

#[derive(Debug, Clone, Copy)]
pub(crate) struct MovedClient {
    pub slot: Slot,
    pub serial: Serial,
    pub from: LinkId,
}
