//! Hand-over of a carrier's messages to its connection.

use trunkline_protocol::hub::HubProtocol;

use crate::ended::Ended;
use crate::wire::messages;

/// A server that reads so little that this much waits has stopped reading.
pub(super) const UNSENT_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Receiver of the messages that a carrier brings.
pub(crate) trait Taker {
    /// Something has come: the server lives.
    fn heard(&self);

    /// The body of a hub message has come. An error ends the connection.
    fn message(&self, body: &[u8]) -> Result<(), Ended>;
}

/// Tells the hub messages of one event or one answer. It has to hold whole ones: official clients take no others.
pub(super) fn tell_whole(protocol: HubProtocol, bytes: &[u8], taker: &impl Taker) -> Result<(), Ended> {
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
