//! Requests of app servers for records of their hub. An app server sends other messages to all nodes, and a message
//! for a record to one node.

use std::sync::Arc;

use trunkline_protocol::limits::SEND_ID_MAX_BYTES;
use trunkline_protocol::service::{
    Ack, RecordAct, RecordRefusal, RecordReply, RecordRequest, RecordedSet, ServiceMessage,
};

use crate::engine::shard::{RequestOrigin, Shared};
use crate::engine::upstream::{Pool, ReplyTo};

/// Refusal of further requests of an app server.
const TOO_MANY: &str = "too many requests for records wait at this node: try again";

/// Carries out a request of an app server, and answers it then. Fails if app servers must not send such a request.
pub(super) fn request_record(
    shared: &Shared,
    pool: &Pool,
    reply_to: &Arc<dyn ReplyTo>,
    mut request: RecordRequest,
) -> Result<(), String> {
    check(&request)?;
    let (ack_id, reply_to) = (std::mem::take(&mut request.ack_id), reply_to.clone());
    // Queued now, because requests of a hub are carried out in their order.
    match (pool.record_requests.clone().try_acquire_owned(), shared.recorder()) {
        (Ok(permit), Some(recorder)) => {
            let reply = recorder.request_record(pool.hub.key(), request, RequestOrigin::Here);
            tokio::spawn(async move {
                answer(&reply_to, ack_id, &reply.await);
                drop(permit);
            });
        }
        _ => {
            let refused = Some(RecordRefusal::Unreachable);
            answer(&reply_to, ack_id, &RecordReply { refused, problem: TOO_MANY.into(), ..RecordReply::default() });
        }
    }
    Ok(())
}

/// Answers a request of a mirror as if it was carried out.
pub(super) fn pretend(reply_to: &Arc<dyn ReplyTo>, request: &RecordRequest) -> Result<(), String> {
    answer(reply_to, request.ack_id, &RecordReply::default());
    Ok(())
}

fn answer(reply_to: &Arc<dyn ReplyTo>, ack_id: i64, reply: &RecordReply) {
    reply_to.answer(&ServiceMessage::Ack(Ack { ack_id, payload: Some(reply.encode()), ..Ack::default() }));
}

fn check(request: &RecordRequest) -> Result<(), String> {
    if request.id.as_ref().is_some_and(|id| id.is_empty() || id.len() > SEND_ID_MAX_BYTES) {
        return Err(format!("the app server sent a record with an id of none or more than {SEND_ID_MAX_BYTES} bytes"));
    }
    match request.act {
        RecordAct::Finish | RecordAct::Delete => Ok(()),
        RecordAct::Append => match ServiceMessage::decode(&request.body) {
            Ok(Some(ServiceMessage::GroupBroadcastData(it))) if request.set == RecordedSet::group(it.group.clone()) => {
                Ok(())
            }
            Ok(Some(ServiceMessage::UserData(it))) if request.set == RecordedSet::user(it.user_id.clone()) => Ok(()),
            Ok(_) => Err("the app server sent a record of another kind than a send to its group or user".into()),
            Err(error) => Err(error.to_string()),
        },
        RecordAct::Read | RecordAct::Give | RecordAct::Yield => {
            Err("the app server sent a request for a record that only nodes may send".into())
        }
    }
}
