//! Id of a link's session, which is the home of connections.

/// Id of a link's session, unique in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkId(pub(crate) u64);
