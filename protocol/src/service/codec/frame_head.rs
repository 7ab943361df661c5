//! The beginning of a frame that can't be used: its type, and the connections that it is for.

use bytes::Bytes;
use bytestring::ByteString;

use super::name_of;
use crate::message_pack::{ReadError, Reader};

const PING: i64 = 3;

/// Type and connections of a frame that is malformed, or of which only the beginning is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrameHead {
    number: i64,
    /// Ids of the connections that wait for the frame; empty for a frame to many, and for one that can't be read.
    pub connections: Vec<ByteString>,
}

impl FrameHead {
    /// Reads as much as makes sense.
    #[must_use]
    pub fn read(body: &Bytes) -> Self {
        let (mut head, mut reader) = (Self::default(), Reader::new(body));
        // Fields that were read before an error are kept.
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
            // ClientInvocation: behind the id of the invocation.
            34 => {
                reader.skip()?;
                self.connections.push(reader.shared_text()?);
            }
            _ => {}
        }
        Ok(())
    }

    /// Name of the frame's type, for logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        name_of(self.number)
    }

    /// Whether the frame is a ping, which has no number in its session.
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
    fn connections_are_read_as_far_as_the_frame_is_known() {
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
