//! Number of messages in a frame, as counted by stateful reconnect.

use bytes::Bytes;
use trunkline_protocol::hub::{HubProtocol, MessageKind, whole_messages};

use crate::engine::shard::content::Content;
use crate::engine::transport::websocket::{Unframed, unframe_whole};

/// Message counter. A frame for many clients is counted once.
#[derive(Debug, Default)]
pub(crate) struct MessageCounter {
    /// Last counted frame, kept alive so that its address is not reused.
    last: Option<(Bytes, u32)>,
}

impl MessageCounter {
    /// Number of counted messages in a transport frame.
    pub(crate) fn count(&mut self, content: Content, frame: &Bytes) -> u32 {
        let Content::Hub(protocol) = content else { return 0 };
        if let Some((last, count)) = &self.last
            && last.as_ptr() == frame.as_ptr()
            && last.len() == frame.len()
        {
            return *count;
        }
        let count = count(protocol, frame);
        self.last = Some((frame.clone(), count));
        count
    }

    pub(crate) fn has_frame(&self) -> bool {
        self.last.is_some()
    }

    pub(crate) fn forget(&mut self) {
        self.last = None;
    }
}

/// Whether a frame holds a close message.
pub(super) fn is_close(content: Content, frame: &Bytes) -> bool {
    let (Content::Hub(protocol), Some(Unframed::Payload(payload))) = (content, unframe_whole(frame)) else {
        return false;
    };
    let mut messages = whole_messages(protocol, &payload);
    messages.any(|message| protocol.scan(message.body).is_ok_and(|scan| scan.kind == MessageKind::Close))
}

fn count(protocol: HubProtocol, frame: &Bytes) -> u32 {
    let Some(Unframed::Payload(payload)) = unframe_whole(frame) else { return 0 };
    let is_sequenced = |body| protocol.scan(body).is_ok_and(|scan| scan.kind.is_sequenced());
    whole_messages(protocol, &payload).map(|message| u32::from(is_sequenced(message.body))).sum()
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::hub::HubMessage;

    use super::*;
    use crate::engine::shard::delivery::framed::{frame_for, message_frame};
    use crate::engine::transport::websocket;

    #[test]
    fn calls_and_what_belongs_to_them_count_and_nothing_else_does() {
        let mut counter = MessageCounter::default();
        let json = Content::Hub(HubProtocol::Json);
        let two = frame_for(
            HubProtocol::Json,
            b"{\"type\":1,\"target\":\"a\"}\x1e{\"type\":6}\x1e{\"type\":3,\"invocationId\":\"1\"}\x1e",
        );
        assert_eq!([counter.count(json, &two), counter.count(json, &two.clone())], [2, 2]);
        for message in [HubMessage::Ping, HubMessage::Ack { sequence_id: 7 }, HubMessage::Sequence { sequence_id: 7 }] {
            for protocol in [HubProtocol::Json, HubProtocol::MessagePack] {
                assert_eq!(counter.count(Content::Hub(protocol), &message_frame(protocol, &message)), 0);
            }
        }
        assert_eq!(counter.count(json, &websocket::ping()), 0);
        assert_eq!(counter.count(json, &frame_for(HubProtocol::Json, b"{}\x1e")), 0, "the answer to a handshake");
        assert_eq!(counter.count(Content::Raw, &two), 0);
    }
}
