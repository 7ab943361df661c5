//! Slots of client connections in their shard.

/// Index of a client connection in its shard. Slots are used again: a [`Serial`] tells whose it is.
pub(crate) type Slot = u32;

/// Number of a client connection, unique in its shard: tells two users of the same slot apart.
pub(crate) type Serial = u32;
