//! The reading side of a socket: frames in batches, numbered, and counted as taken once their consumer has them.
//!
//! A batch is all frames that are there at once, up to a bound: what they cause leaves together. A batch that has begun
//! is finished whatever happens to the socket: a frame that was handed out is counted as taken, or it would come twice.

use std::convert::Infallible;

use bytes::Bytes;
use trunkline_protocol::service::{FrameError, FrameHead, Incoming, Ping, ServiceMessage, bytes_of_frame};

use super::{LinkClock, LinkEnd, LinkOutbox, LinkReader, LinkWebSocket, SocketStop};

/// A batch ends when it has this much: other tasks of the thread are to be served too.
const BATCH_MAX_BYTES: usize = 256 * 1024;

/// The consumer of a link's frames. It is called for each frame, so it is called directly and never waited for within a
/// batch.
pub trait FrameSink {
    /// Counts a frame of `bytes` bytes that was read, new or not; `None` is a message of an unknown type.
    fn count(&mut self, _message: Option<&ServiceMessage>, _bytes: usize) {}

    /// Takes a ping, behind the acknowledgement that may ride on it.
    fn handle_ping(&mut self, ping: &Ping);

    /// Takes a new frame. Newer than this end, or not: it is counted, so that both ends agree.
    ///
    /// # Errors
    /// When the far end must not send it; the text says why.
    fn handle_frame(&mut self, body: &Bytes, message: Option<ServiceMessage>) -> Result<(), String>;

    /// Notes a frame that was skipped because it is over the limit, malformed or not allowed. It is counted, and only
    /// the connections that it was for are affected: all others share the link.
    fn handle_skipped(&mut self, head: &FrameHead, problem: &str);

    /// Finishes a batch, whose new frames have `bytes` bytes. They count as taken once this returns.
    fn end_batch(&mut self, bytes: usize) -> impl Future<Output = ()>;

    /// Does what has its time while no frame comes. It is dropped when one does, and may last for ever.
    fn idle(&mut self) -> impl Future<Output = Infallible> {
        std::future::pending()
    }

    /// Lets other tasks run between two batches, where the thread has no other rule for that.
    fn yield_after_batch(&mut self) -> impl Future<Output = ()> {
        std::future::ready(())
    }
}

/// Reads what one socket brings to a session.
#[derive(Debug)]
pub struct LinkReadLoop<'a, S: LinkWebSocket> {
    /// The session's queue, which counts what is taken.
    pub outbox: &'a LinkOutbox,
    /// Clock that the session's milliseconds count by.
    pub clock: LinkClock,
    /// Numbering of the session's received frames.
    pub incoming: &'a mut Incoming,
    /// Reading half of the present socket.
    pub reader: LinkReader<S>,
}

/// Number and bytes of the frames read since the last batch.
#[derive(Debug, Default)]
struct Batch {
    /// The number of the last new frame.
    taken: Option<u64>,
    /// The bytes of all new frames.
    bytes: usize,
}

impl<S: LinkWebSocket> LinkReadLoop<'_, S> {
    /// Reads batch after batch, and says why it ends. It stops only between two batches.
    pub async fn run(&mut self, sink: &mut impl FrameSink, stop: &SocketStop) -> LinkEnd {
        loop {
            let mut batch = Batch::default();
            let mut taken = self.take_frames(sink, &mut batch);
            if taken.is_ok() && batch.taken.is_none() {
                let filled = tokio::select! {
                    biased;
                    () = stop.stopped() => return stop.end(),
                    filled = self.reader.fill() => filled,
                    never = sink.idle() => match never {},
                };
                if let Err(end) = filled {
                    return end;
                }
                taken = self.take_frames(sink, &mut batch);
            }
            // More of the same batch, if it is there already.
            while taken.is_ok()
                && batch.bytes < BATCH_MAX_BYTES
                && let Some(filled) = self.reader.fill_now()
            {
                taken = filled.and_then(|()| self.take_frames(sink, &mut batch));
            }
            // What came before the end still counts.
            sink.end_batch(batch.bytes).await;
            self.outbox.handle_batch(batch.taken, batch.bytes, self.clock.now_ms());
            if let Err(end) = taken {
                return end;
            }
            sink.yield_after_batch().await;
        }
    }

    /// Hands out all whole frames that have been read.
    fn take_frames(&mut self, sink: &mut impl FrameSink, batch: &mut Batch) -> Result<(), LinkEnd> {
        loop {
            let body = match self.reader.next_body() {
                Ok(Some(body)) => body,
                Ok(None) => return Ok(()),
                Err(FrameError::TooLarge(frame)) => {
                    self.skip_frame(sink, batch, &frame.head, &frame.to_string());
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let message = match ServiceMessage::decode(&body) {
                Ok(message) => message,
                Err(error) => {
                    self.skip_frame(sink, batch, &body, &error.to_string());
                    continue;
                }
            };
            sink.count(message.as_ref(), bytes_of_frame(body.len()));
            if let Some(ServiceMessage::Ping(ping)) = &message {
                self.outbox.handle_ping(ping)?;
                sink.handle_ping(ping);
                continue;
            }
            // What was handed out before comes again where the far end could not know.
            let Some(number) = self.incoming.next() else { continue };
            batch.taken = Some(number);
            batch.bytes += body.len();
            if let Err(problem) = sink.handle_frame(&body, message) {
                sink.handle_skipped(&FrameHead::read(&body), &problem);
            }
        }
    }

    /// Counts a frame that can't be read, as its sender has.
    fn skip_frame(&mut self, sink: &mut impl FrameSink, batch: &mut Batch, head: &Bytes, problem: &str) {
        sink.count(None, bytes_of_frame(head.len()));
        let frame = FrameHead::read(head);
        if !frame.is_ping() {
            let Some(number) = self.incoming.next() else { return };
            batch.taken = Some(number);
            batch.bytes += head.len();
        }
        sink.handle_skipped(&frame, problem);
    }
}
