//! Sends to recorded groups and users, and requests about their records.

use std::pin::Pin;

use axum::Json;
use axum::response::{IntoResponse, Response};
use bytestring::ByteString;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;
use trunkline_protocol::limits::SEND_ID_MAX_BYTES;
use trunkline_protocol::service::{
    Position, RecordAct, RecordPage, RecordRefusal, RecordReply, RecordRequest, RecordedSet, ServiceMessage,
};

use super::addressee::Addressee;
use super::rest_error::RestError;
use crate::engine::shard::recorded_json;
use crate::fleet::{FleetDelivery, FleetEntry, NamedHub};

/// Header with the id of a send, which is recorded once.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Group or user that a send is for.
pub(crate) fn set_of(to: &Addressee) -> Option<RecordedSet> {
    match to {
        Addressee::Group(name) => Some(RecordedSet::group(name.as_str())),
        Addressee::User(id) => Some(RecordedSet::user(id.as_str())),
        Addressee::Everyone | Addressee::Connection(_) | Addressee::Matching(_) => None,
    }
}

/// Id of a send. Fails if it is empty or too long.
pub(super) fn send_id(headers: &HeaderMap) -> Result<Option<ByteString>, RestError> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let id = value.to_str().ok().filter(|id| (1..=SEND_ID_MAX_BYTES).contains(&id.len()));
    let problem = || format!("must have 1 to {SEND_ID_MAX_BYTES} ASCII characters");
    id.map(|id| Some(id.into())).ok_or_else(|| RestError::bad_value("Idempotency-Key", problem()))
}

/// Delivery of a send, which ends when all nodes have answered.
pub(crate) type SendDelivery = Pin<Box<dyn Future<Output = Result<FleetDelivery, RestError>> + Send>>;

/// Begins a send, in the order of the calls: to the record of its group or user, if that is recorded.
pub(crate) async fn begin_send(
    fleet: &FleetEntry,
    hub: &NamedHub,
    to: &Addressee,
    id: Option<&ByteString>,
    send: ServiceMessage,
) -> SendDelivery {
    let Some(set) = record_of(fleet, hub, to) else {
        let delivery = fleet.begin_delivery(hub, send).await;
        return Box::pin(async move { Ok(delivery.await) });
    };
    let (act, id, body) = (RecordAct::Append, id.cloned(), send.to_body());
    let request = RecordRequest { set: set.clone(), act, id, body, ..RecordRequest::default() };
    let reply = fleet.request_record(hub, request);
    Box::pin(async move { appended(&set, reply.await) })
}

/// Group or user of a send, if recorded.
pub(super) fn record_of(fleet: &FleetEntry, hub: &NamedHub, to: &Addressee) -> Option<RecordedSet> {
    set_of(to).filter(|set| fleet.history_of(hub, set).is_some())
}

/// Outcome of an append. Fails if the record refused the message.
fn appended(set: &RecordedSet, reply: RecordReply) -> Result<FleetDelivery, RestError> {
    let reply = accepted(reply)?;
    let kind = if set.is_user { "users" } else { "groups" };
    Ok(FleetDelivery {
        nodes: reply.nodes,
        clients: reply.clients,
        missing: reply.missing.iter().map(ToString::to_string).collect(),
        is_known: true,
        positions: vec![(format!("{kind}/{}", set.name), reply.position.to_string())],
    })
}

/// Fails if a request was refused.
pub(super) fn accepted(reply: RecordReply) -> Result<RecordReply, RestError> {
    let (status, code) = match reply.refused {
        None => return Ok(reply),
        Some(RecordRefusal::Finished) => (StatusCode::CONFLICT, "Error.Record.Finished"),
        Some(RecordRefusal::Missing) => (StatusCode::NOT_FOUND, "Error.Record.NotExisted"),
        Some(RecordRefusal::OtherMessage) => (StatusCode::UNPROCESSABLE_ENTITY, "Error.Record.OtherMessage"),
        Some(RecordRefusal::TooLarge) => (StatusCode::PAYLOAD_TOO_LARGE, "Error.Request.TooLarge"),
        Some(RecordRefusal::Moving | RecordRefusal::Unreachable) => return Err(RestError::no_record(&reply.problem)),
    };
    Err(RestError::new(status, code, &*reply.problem))
}

/// Page of a record: its messages, and the position that the next page follows.
#[derive(Debug, Serialize)]
struct HistoryAnswer<'p> {
    items: Vec<Box<RawValue>>,
    position: String,
    newest: String,
    oldest: Option<String>,
    reset: Option<&'p str>,
    finished: bool,
}

pub(super) fn page_answer(page: &RecordPage) -> Response {
    let position = |number| Position { epoch: page.epoch, number }.to_string();
    let last = page.messages.last().map_or(page.after, |message| message.number);
    let answer = HistoryAnswer {
        items: page.messages.iter().map(|message| recorded_json(&position(message.number), message)).collect(),
        position: position(last),
        newest: position(page.newest),
        oldest: page.oldest.map(position),
        reset: page.reset.as_deref(),
        finished: page.is_finished,
    };
    Json(answer).into_response()
}
