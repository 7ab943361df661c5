//! The reading half of a link: frames become openings, data, leavings and acknowledgements. It never waits for
//! a method, a client or the other direction.

use bytes::Bytes;
use trunkline_protocol::service::{ECHO_KEY, FrameBuffer, Incoming, Ping, ServiceMessage, bytes_of_frame};

use super::LinkEnd;
use super::session::LinkSession;
use super::socket::LinkReader;
use crate::sync::lock;

/// Reads until the socket ends. Dropped while it waits, it has taken all that it handed out.
pub(super) async fn read(session: &LinkSession, mut frames: FrameBuffer, mut pieces: LinkReader) -> LinkEnd {
    loop {
        if let Err(end) = take_frames(session, &mut frames) {
            return end;
        }
        match pieces.next().await {
            Ok(piece) => frames.push(piece),
            Err(end) => return end,
        }
    }
}

/// Hands out all whole frames, and counts them as taken.
fn take_frames(session: &LinkSession, frames: &mut FrameBuffer) -> Result<(), LinkEnd> {
    let mut incoming = lock(&session.incoming);
    let (mut taken, mut bytes) = (None, 0);
    let handed_out = hand_out(session, frames, &mut incoming, |number, length| {
        taken = Some(number);
        bytes += length;
    });
    let now_ms = session.now_ms();
    let is_due_earlier = session.outbox.with_session(|session| {
        session.handle_heard(now_ms);
        let before = session.poll_ping_timeout();
        if let Some(number) = taken {
            session.handle_taken(number, bytes, now_ms);
        }
        session.poll_ping_timeout() != before
    });
    // The writer sleeps until its next ping is due, which may now be earlier.
    if is_due_earlier == Some(true) {
        session.outbox.wake();
    }
    handed_out
}

fn hand_out(
    session: &LinkSession,
    frames: &mut FrameBuffer,
    incoming: &mut Incoming,
    mut count: impl FnMut(u64, usize),
) -> Result<(), LinkEnd> {
    while let Some(body) = frames.next_body()? {
        match ServiceMessage::decode(&body)? {
            Some(ServiceMessage::Ping(ping)) => handle_ping(session, &ping)?,
            message => {
                // What was handed out before comes again where the proxy could not know.
                let Some(number) = incoming.next() else { continue };
                if let Some(message) = message {
                    handle(session, &body, message);
                }
                let metrics = &session.endpoint.outbound().metrics;
                metrics.frames_up.inc();
                metrics.bytes_up.inc_by(bytes_of_frame(body.len()) as u64);
                count(number, body.len());
            }
        }
    }
    Ok(())
}

fn handle_ping(session: &LinkSession, ping: &Ping) -> Result<(), LinkEnd> {
    session.outbox.handle_ping(ping)?;
    if ping.get(ECHO_KEY).is_some() {
        session.outbox.echo(ping);
    }
    Ok(())
}

fn handle(session: &LinkSession, body: &Bytes, message: ServiceMessage) {
    let LinkSession { endpoint, node, id, .. } = session;
    match message {
        ServiceMessage::OpenConnection(open) => endpoint.handle_open(*id, node, body, open),
        ServiceMessage::ConnectionData(data) => endpoint.handle_data(data),
        ServiceMessage::CloseConnection(close) => endpoint.handle_close(close),
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
