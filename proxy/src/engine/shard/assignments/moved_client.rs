//! Clients that have moved to another link of their app server.

use std::rc::Rc;

use crate::engine::shard::slot::Slot;
use crate::engine::upstream::LinkId;

#[derive(Debug)]
pub(crate) struct MovedClient {
    pub slot: Slot,
    pub id: Rc<str>,
    pub from: LinkId,
}
