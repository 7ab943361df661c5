//! Limits of what waits to be written to clients.

/// Bytes that may wait for one client: some seconds of a busy hub, and little enough for thousands of slow ones.
const CLIENT_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Bytes that may wait for all clients: a few hundred that have stopped reading. A frame counts once for each client
/// that waits for it, so the memory is less wherever they share it.
const TOTAL_MAX_BYTES: usize = 1024 * 1024 * 1024;

/// Limits of what waits to be written to clients, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Limit for one client.
    pub client_bytes: usize,
    /// Limit for all clients; `usize::MAX` for none.
    pub total_bytes: usize,
    /// Whether what many clients get leaves by one system call, where the system has one.
    pub has_vectored_sends: bool,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        Self { client_bytes: CLIENT_MAX_BYTES, total_bytes: TOTAL_MAX_BYTES, has_vectored_sends: true }
    }
}
