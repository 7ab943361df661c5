//! Frames of a mirror's app server. They reach no client, group or other app server.
//!
//! Data reaches a client only where this app server is still the home of a client that it had before the rules changed.
//! Read-only queries are answered and commands acknowledged as if executed, so that the app server behaves like a
//! primary.

use bytestring::ByteString;
use trunkline_protocol::service::{ErrorCompletion, FlowSubject, MessageClass, RawKind, ServiceMessage};

use super::route::{FrameSource, RoutedBatch, control_flow, route};
use crate::engine::shard::{ConnectionCommand, CopyOrder, PendingAck};

/// Error for a mirror's app server that invokes a client.
const NO_RESULTS: &str = "This app server gets copies of a connection, so its client can't be asked for a result.";

/// Handles one frame of a mirror. Fails if app servers must not send such a frame; the error names it.
pub(super) fn take_mirrored(
    source: FrameSource<'_>,
    message: ServiceMessage,
    batch: &mut RoutedBatch,
) -> Result<(), String> {
    use ServiceMessage as M;
    match message {
        M::ConnectionData(data) => {
            let kind = RawKind::from_data_type(data.data_type);
            let data_of_copy = CopyOrder::Data { payload: data.payload, kind };
            batch.for_owner(source, data.connection_id, ConnectionCommand::Copied(data_of_copy));
        }
        // From clients that were assigned to this app server until a moment ago.
        M::CloseConnection(close) if close.is_reassignment() => return route(source, M::CloseConnection(close), batch),
        M::CloseConnection(close) => {
            batch.for_owner(source, close.connection_id, ConnectionCommand::Copied(CopyOrder::Close));
        }
        M::ConnectionFlowControl(flow) if flow.subject == FlowSubject::Client => {
            let order = ConnectionCommand::Copied(CopyOrder::Flow(flow.operation));
            batch.for_owner(source, flow.connection_id, order);
        }
        M::ConnectionFlowControl(flow) => control_flow(source, flow, batch),
        M::ClientInvocation(request) => source.reply_to.answer(&M::ErrorCompletion(ErrorCompletion {
            invocation_id: request.invocation_id,
            connection_id: request.connection_id,
            caller_server_id: request.caller_server_id,
            error: ByteString::from_static(NO_RESULTS),
        })),
        // No client waits for a copy.
        M::DownMark(mark) => source.reply_to.answer(&M::DownDone(mark)),
        M::Stamped(stamped) => match M::decode(&stamped.body) {
            Ok(Some(inner)) if !matches!(inner, M::Stamped(_)) => return take_mirrored(source, inner, batch),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        },
        message => match (message.class(), message.ack_id()) {
            (MessageClass::Question | MessageClass::Service, _) => return route(source, message, batch),
            (_, Some(ack_id)) => PendingAck::new(source.reply_to.clone(), ack_id).found(),
            (_, None) => {}
        },
    }
    Ok(())
}
