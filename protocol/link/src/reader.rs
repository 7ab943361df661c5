//! Reading side of a socket: frames in batches, numbered, and counted as taken once their consumer has them.
//!
//! A batch is all available frames up to a limit, so that their effects leave together. A started batch is completed
//! even if the socket fails: delivered frames not counted as taken would be delivered again.

use std::convert::Infallible;
use std::future::ready;

use bytes::Bytes;
use futures_util::FutureExt;
use trunkline_protocol::service::{FrameError, FrameHead, Incoming, Ping, ServiceMessage, bytes_of_frame};

use super::{LinkClock, LinkEnd, LinkOutbox, LinkReader, LinkWebSocket, SocketStop};

/// Maximum size of a batch, so that other tasks of the thread can run.
pub(super) const BATCH_MAX_BYTES: usize = 256 * 1024;

/// Bytes that a shorter ping counts as in a batch, because it takes as much time as a small message.
pub(super) const PING_BYTES: usize = 256;

/// Consumer of a link's frames. Called synchronously for each frame, and awaited only between batches.
pub trait FrameSink {
    /// Counts a frame of `bytes` bytes, new or duplicate. `None` is a message of unknown type.
    fn count(&mut self, _message: Option<&ServiceMessage>, _bytes: usize) {}

    /// Handles a ping, after the acknowledgement it may contain.
    fn handle_ping(&mut self, ping: &Ping);

    /// Handles a new frame. Unknown types are also counted, so that both ends agree. Fails if the peer must not send
    /// it; the text gives the reason.
    fn handle_frame(&mut self, body: &Bytes, message: Option<ServiceMessage>) -> Result<(), String>;

    /// Handles a frame skipped because it is too large, malformed or not allowed. The frame is counted, and only its
    /// target connections are affected: all others share the link.
    fn handle_skipped(&mut self, head: &FrameHead, problem: &str);

    /// Waits until a batch may begin, after its first bytes have been read.
    fn begin_batch(&mut self) -> impl Future<Output = ()> {
        ready(())
    }

    /// Whether a batch of this many frames is complete, even if more have been read.
    fn is_batch_full(&mut self, _frames: usize) -> bool {
        false
    }

    /// Completes a batch with `bytes` bytes of new frames. They count as taken when this returns.
    fn end_batch(&mut self, bytes: usize) -> impl Future<Output = ()>;

    /// Does low-priority work while no frame arrives. Dropped on the next frame; may run forever.
    fn idle(&mut self) -> impl Future<Output = Infallible> {
        std::future::pending()
    }

    /// Lets other tasks run between batches, unless the thread has its own rule.
    fn yield_after_batch(&mut self) -> impl Future<Output = ()> {
        ready(())
    }
}

/// Reader of one socket of a session.
#[derive(Debug)]
pub struct LinkReadLoop<'a, S: LinkWebSocket> {
    /// Queue of the session, which counts taken frames.
    pub outbox: &'a LinkOutbox,
    /// Clock of the session's milliseconds.
    pub clock: LinkClock,
    /// Numbering of the session's received frames.
    pub incoming: &'a mut Incoming,
    /// Reading half of the current socket.
    pub reader: LinkReader<S>,
}

/// Number and bytes of the frames read since the last batch.
#[derive(Debug, Default)]
struct Batch {
    frames: usize,
    /// Whether the batch ended before the frames that have been read.
    is_cut: bool,
    /// Number of the last new frame.
    taken: Option<u64>,
    bytes: usize,
    /// Total bytes of pings, which are not acknowledged.
    ping_bytes: usize,
}

/// Batch that is being applied, until dropped.
struct OpenBatch<'a>(&'a LinkOutbox);

impl<'a> OpenBatch<'a> {
    fn open_at(outbox: &'a LinkOutbox) -> Self {
        outbox.set_batch(true);
        Self(outbox)
    }
}

impl Drop for OpenBatch<'_> {
    fn drop(&mut self) {
        self.0.set_batch(false);
    }
}

impl<S: LinkWebSocket> LinkReadLoop<'_, S> {
    /// Reads batches until the socket ends, and returns the reason. Stops only between batches.
    pub async fn run(&mut self, sink: &mut impl FrameSink, stop: &SocketStop) -> LinkEnd {
        // The handshake may have read the first frames.
        let mut has_frames = true;
        loop {
            let filled = tokio::select! {
                biased;
                // Frames that have been read are delivered before the link stops.
                () = ready(()), if has_frames => Ok(()),
                () = stop.stopped() => return stop.link_end(),
                filled = self.reader.fill() => filled,
                never = sink.idle() => match never {},
            };
            if let Err(end) = filled {
                return end;
            }
            let _open = OpenBatch::open_at(self.outbox);
            sink.begin_batch().await;
            let mut batch = Batch::default();
            let mut taken = self.take_frames(sink, &mut batch);
            // Adds data that is already available to the batch. The rest of a cut batch gets none, so that it ends, and
            // the link can stop.
            while taken.is_ok()
                && !has_frames
                && !batch.is_cut
                && batch.bytes < BATCH_MAX_BYTES
                && let Some(filled) = self.reader.fill().now_or_never()
            {
                taken = filled.and_then(|()| self.take_frames(sink, &mut batch));
            }
            has_frames = batch.is_cut;
            // Frames received before the end still count.
            sink.end_batch(batch.bytes).await;
            self.outbox.handle_batch(batch.taken, batch.bytes, self.clock.now_ms());
            if let Err(end) = taken {
                return end;
            }
            sink.yield_after_batch().await;
        }
    }

    /// Delivers the complete frames that have been read, until the batch is full.
    fn take_frames(&mut self, sink: &mut impl FrameSink, batch: &mut Batch) -> Result<(), LinkEnd> {
        loop {
            batch.is_cut = batch.ping_bytes >= BATCH_MAX_BYTES || sink.is_batch_full(batch.frames);
            if batch.is_cut {
                return Ok(());
            }
            let body = match self.reader.frames.next_body() {
                Ok(Some(body)) => body,
                Ok(None) => return Ok(()),
                Err(FrameError::TooLarge(frame)) => {
                    batch.frames += 1;
                    self.skip_frame(sink, batch, &frame.head, &frame.to_string());
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            batch.frames += 1;
            let message = match ServiceMessage::decode(&body) {
                Ok(message) => message,
                Err(error) => {
                    self.skip_frame(sink, batch, &body, &error.to_string());
                    continue;
                }
            };
            sink.count(message.as_ref(), bytes_of_frame(body.len()));
            if let Some(ServiceMessage::Ping(ping)) = &message {
                batch.ping_bytes += body.len().max(PING_BYTES);
                self.outbox.handle_ping(ping)?;
                sink.handle_ping(ping);
                continue;
            }
            // The peer repeats frames for which it had no acknowledgement.
            let Some(number) = self.incoming.next() else { continue };
            batch.taken = Some(number);
            batch.bytes += body.len();
            if let Err(problem) = sink.handle_frame(&body, message) {
                sink.handle_skipped(&FrameHead::read(&body), &problem);
            }
        }
    }

    /// Counts an unreadable frame, as its sender did.
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
