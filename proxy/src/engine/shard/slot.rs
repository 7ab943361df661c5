//! Slots of client connections in their shard.

/// Index of a client connection in its shard. Slots are reused; a [`Serial`] identifies the connection.
pub(crate) type Slot = u32;

/// Number of a client connection, unique in its shard. Distinguishes connections that use one slot in turn.
pub(crate) type Serial = u32;
