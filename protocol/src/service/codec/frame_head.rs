//! Beginning of an unusable frame: its type, as a name for logs, metrics and errors, and its target connections.

use bytes::Bytes;
use bytestring::ByteString;

use super::super::service_message::name_of;
use crate::message_pack::{ReadError, Reader};

const PING: i64 = 3;

/// Type and connections of a frame that is malformed or only partly available.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrameHead {
    number: i64,
    /// Ids of the connections addressed by the frame; empty for sends to many and unreadable frames.
    pub connections: Vec<ByteString>,
}

impl FrameHead {
    /// Reads as much as possible.
    #[must_use]
    pub fn read(body: &Bytes) -> Self {
        let (mut head, mut reader) = (Self::default(), Reader::new(body));
        // Keeps the fields read before an error.
        head.read_fields(&mut reader).unwrap_or_default();
        head
    }

    fn read_fields(&mut self, reader: &mut Reader<'_>) -> Result<(), ReadError> {
        reader.array_len()?;
        self.number = reader.integer()?;
        match self.number {
            // OpenConnection, CloseConnection, ConnectionData.
            4..=6 => self.connections.push(reader.shared_text()?),
            // MultiConnectionData.
            7 => {
                for _ in 0..reader.array_len()? {
                    self.connections.push(reader.shared_text()?);
                }
            }
            // ClientInvocation: after the invocation id.
            34 => {
                reader.skip()?;
                self.connections.push(reader.shared_text()?);
            }
            _ => {}
        }
        Ok(())
    }

    /// Name of the frame type, for logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        name_of(self.number)
    }

    /// Whether the frame is a ping, which the session doesn't number.
    #[must_use]
    pub fn is_ping(&self) -> bool {
        self.number == PING
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{BroadcastData, ConnectionData, MultiConnectionData, Payloads, Ping, ServiceMessage};
    use super::*;

    fn head_of(message: impl Into<ServiceMessage>, bytes: usize) -> (&'static str, Vec<ByteString>) {
        let head = FrameHead::read(&message.into().to_body().slice(..bytes));
        (head.name(), head.connections)
    }

    #[test]
    fn connections_are_read_as_far_as_the_frame_is_available() {
        let data =
            ServiceMessage::ConnectionData(ConnectionData { connection_id: "c12345".into(), ..Default::default() });
        assert_eq!(head_of(data.clone(), 9), ("ConnectionData", vec!["c12345".into()]));
        assert_eq!(head_of(data, 8), ("ConnectionData", vec![]));
        let ids = vec!["c1".into(), "c2".into()];
        let data = MultiConnectionData { connection_ids: ids.clone(), payloads: Payloads::default() };
        assert_eq!(head_of(ServiceMessage::MultiConnectionData(data), 9), ("MultiConnectionData", ids));
        let all = ServiceMessage::BroadcastData(BroadcastData::default());
        assert_eq!(head_of(all, 5), ("BroadcastData", vec![]));
        assert_eq!(FrameHead::read(&Bytes::from_static(b"\xff")), FrameHead::default());
        assert!(FrameHead::read(&ServiceMessage::Ping(Ping::default()).to_body()).is_ping());
    }
}
