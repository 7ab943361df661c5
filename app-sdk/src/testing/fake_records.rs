//! Records of a hub in tests: positions, ids and ends, without messages, as no client follows.

use std::collections::HashMap;

use bytes::Bytes;
use bytestring::ByteString;
use trunkline_protocol::service::{
    Ack, Position, RecordAct, RecordRefusal, RecordReply, RecordRequest, RecordedSet, ServiceMessage,
};

#[derive(Debug, Default)]
pub(super) struct FakeRecords {
    begun: u64,
    records: HashMap<RecordedSet, FakeRecord>,
}

#[derive(Debug, Default)]
struct FakeRecord {
    last: Position,
    is_finished: bool,
    sent: HashMap<ByteString, (Bytes, Position)>,
}

impl FakeRecords {
    /// Carries out a request. Returns the message to deliver, and the answer.
    pub(super) fn handle(&mut self, request: RecordRequest) -> (Option<ServiceMessage>, ServiceMessage) {
        let ack_id = request.ack_id;
        let (message, reply) = match self.change(request) {
            Ok((position, body)) => {
                let message = ServiceMessage::decode(&body).ok().flatten();
                (message, RecordReply { position: position.to_string().into(), nodes: 1, ..RecordReply::default() })
            }
            Err(refused) => {
                let problem = format!("{refused:?}").into();
                (None, RecordReply { refused: Some(refused), problem, ..RecordReply::default() })
            }
        };
        (message, ServiceMessage::Ack(Ack { ack_id, payload: Some(reply.encode()), ..Ack::default() }))
    }

    /// Position and, unless the send was repeated, its body.
    fn change(
        &mut self,
        RecordRequest { set, act, id, body, .. }: RecordRequest,
    ) -> Result<(Position, Bytes), RecordRefusal> {
        if act == RecordAct::Append && !self.records.contains_key(&set) {
            self.begun += 1;
            let last = Position { epoch: self.begun, number: 0 };
            self.records.insert(set.clone(), FakeRecord { last, ..FakeRecord::default() });
        }
        let record = self.records.get_mut(&set).ok_or(RecordRefusal::Missing)?;
        let last = record.last;
        match act {
            RecordAct::Delete => {
                self.records.remove(&set);
                return Ok((last, Bytes::new()));
            }
            RecordAct::Finish => {
                record.is_finished = true;
                return Ok((last, Bytes::new()));
            }
            _ => {}
        }
        match id.as_ref().and_then(|id| record.sent.get(id)) {
            Some((known, position)) if *known == body => return Ok((*position, Bytes::new())),
            Some(_) => return Err(RecordRefusal::OtherMessage),
            None if record.is_finished => return Err(RecordRefusal::Finished),
            None => record.last = last.next(),
        }
        let position = record.last;
        record.sent.extend(id.map(|id| (id, (body.clone(), position))));
        Ok((position, body))
    }
}
