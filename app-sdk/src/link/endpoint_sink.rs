//! The consumer of a link's frames: they become openings, data, closes and acknowledgements. It never waits for a
//! method, a client or the other direction.

use bytes::Bytes;
use trunkline_link::{FrameSink, LinkEnd};
use trunkline_protocol::service::{ECHO_KEY, Ping, ServiceMessage, TracedData, bytes_of_frame};

use super::session::LinkSession;

/// Gives the frames of one socket to the endpoint of its session.
pub(super) struct EndpointSink<'a>(pub(super) &'a LinkSession);

impl FrameSink for EndpointSink<'_> {
    fn handle_ping(&mut self, ping: &Ping) {
        if ping.get(ECHO_KEY).is_some() {
            self.0.outbox.echo(ping);
        }
        if let Some(service) = &self.0.service {
            service.pings.handle_ping(self.0.id, &self.0.outbox, ping);
        }
    }

    fn handle_frame(&mut self, body: &Bytes, message: Option<ServiceMessage>) -> Result<(), LinkEnd> {
        if let Some(message) = message {
            handle(self.0, body, message);
        }
        let metrics = &self.0.endpoint.outbound().metrics;
        metrics.frames_up.inc();
        metrics.bytes_up.inc_by(bytes_of_frame(body.len()) as u64);
        Ok(())
    }

    /// All is handed out already.
    async fn finish_batch(&mut self, _bytes: usize) {
        self.0.node.note_heard();
    }
}

/// Takes data that a live trace of the proxy follows. What is no data in its cover is skipped, as any frame is that makes no
/// sense here.
fn handle_traced(session: &LinkSession, traced: &TracedData) {
    match ServiceMessage::decode(&traced.body) {
        Ok(Some(ServiceMessage::ConnectionData(data))) => session.endpoint.handle_data(data, Some(traced.mark)),
        _ => tracing::debug!(hub = %session.endpoint.outbound().name, "traced frame is ignored: it holds no data"),
    }
}

fn handle(session: &LinkSession, body: &Bytes, message: ServiceMessage) {
    let LinkSession { endpoint, node, id, .. } = session;
    match message {
        ServiceMessage::OpenConnection(open) => endpoint.handle_open(*id, node, body, open),
        ServiceMessage::ConnectionData(data) => endpoint.handle_data(data, None),
        ServiceMessage::TracedData(traced) => handle_traced(session, &traced),
        ServiceMessage::CloseConnection(close) => endpoint.handle_close(node, close),
        ServiceMessage::ConnectionFlowControl(control) => endpoint.handle_flow_control(*id, node, control),
        ServiceMessage::MoveConnection(request) => endpoint.handle_move(node, request),
        ServiceMessage::PresenceChanges(update) => endpoint.handle_presence(node, update),
        ServiceMessage::RestoreQuery(query) => endpoint.handle_restore_query(node, query),
        ServiceMessage::JoinGroup(change) => endpoint.handle_joined(change),
        ServiceMessage::LeaveGroup(change) | ServiceMessage::LeaveGroupWithAck(change) => endpoint.handle_left(change),
        ServiceMessage::Ack(ack) => endpoint.handle_ack(ack),
        ServiceMessage::ClientInvocation(question) => endpoint.handle_client_invocation(node, question),
        ServiceMessage::ClientCompletion(answer) => endpoint.handle_client_completion(answer),
        ServiceMessage::ErrorCompletion(refusal) => endpoint.handle_error_completion(node, refusal),
        ServiceMessage::ServiceError(error) => {
            tracing::warn!(hub = %endpoint.outbound().name, error = %error.error, "the proxy reports an error");
        }
        other => {
            tracing::debug!(hub = %endpoint.outbound().name, kind = other.name(), "frame is ignored");
        }
    }
}
