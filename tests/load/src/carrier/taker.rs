//! Delivery of a transport's messages to its connection.

use trunkline_protocol::hub::HubProtocol;

use crate::ended::Ended;
use crate::wire::messages;

/// Unsent bytes after which a server is considered to have stopped reading.
pub(super) const UNSENT_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Receiver of a transport's messages.
pub(crate) trait Taker {
    /// Records received bytes: the server is alive.
    fn note_received(&self);

    /// Handles the body of a hub message. An error ends the connection.
    fn message(&self, body: &[u8]) -> Result<(), Ended>;
}

/// Delivers the hub messages of one event or response. Messages must be complete, as for official clients.
pub(super) fn deliver_whole(protocol: HubProtocol, bytes: &[u8], taker: &impl Taker) -> Result<(), Ended> {
    let mut outcome = Ok(());
    let rest = messages::split(protocol, bytes, |body| {
        if outcome.is_ok() {
            outcome = taker.message(body);
        }
    });
    let rest = rest.map_err(|error| Ended::Protocol(error.to_string()))?;
    outcome?;
    if rest.is_empty() { Ok(()) } else { Err(Ended::Protocol("a hub message that is not whole".into())) }
}
