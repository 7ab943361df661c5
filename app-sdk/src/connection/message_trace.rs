//! Messages followed by a proxy's live trace: their marks, and how long they took on this app server.
//!
//! Only durations are reported, by this machine's clock, because the proxy's clock may differ.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytestring::ByteString;
use trunkline_protocol::service::TraceReport;

#[derive(Debug)]
pub(crate) struct MessageTrace {
    mark: i64,
    waited: Duration,
    taken_at: Instant,
}

/// Traced pieces of an inbox that have not been taken completely.
#[derive(Debug, Default)]
pub(crate) struct TracedPieces {
    pieces: VecDeque<TracedPiece>,
    taken: Option<Box<MessageTrace>>,
}

#[derive(Debug)]
struct TracedPiece {
    /// Untraced bytes between the previous piece, or the read position, and this piece.
    bytes_before: usize,
    bytes: usize,
    mark: i64,
    read_at: Instant,
}

impl TracedPieces {
    /// Adds a piece of `bytes` behind all `waiting` ones. Its first message has this mark.
    pub(super) fn push(&mut self, waiting: usize, bytes: usize, mark: i64) {
        let known: usize = self.pieces.iter().map(|piece| piece.bytes_before + piece.bytes).sum();
        let bytes_before = waiting.saturating_sub(known);
        self.pieces.push_back(TracedPiece { bytes_before, bytes, mark, read_at: Instant::now() });
    }

    /// Takes a message of this length from the front.
    pub(super) fn take_bytes(&mut self, mut bytes: usize) {
        let mut taken = None;
        while bytes > 0
            && let Some(piece) = self.pieces.front_mut()
        {
            let skipped = bytes.min(piece.bytes_before);
            piece.bytes_before -= skipped;
            bytes -= skipped;
            let of_piece = bytes.min(piece.bytes);
            if of_piece > 0 {
                let taken_at = Instant::now();
                let waited = taken_at.saturating_duration_since(piece.read_at);
                taken.get_or_insert_with(|| Box::new(MessageTrace { mark: piece.mark, waited, taken_at }));
                piece.mark = piece.mark.wrapping_add(1);
                piece.bytes -= of_piece;
                bytes -= of_piece;
            }
            if piece.bytes_before == 0 && piece.bytes == 0 {
                self.pieces.pop_front();
            }
        }
        self.taken = taken;
    }

    pub(super) fn take_last(&mut self) -> Option<Box<MessageTrace>> {
        self.taken.take()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.taken.is_none()
    }
}

impl MessageTrace {
    /// Report on a message that calls no method.
    pub(crate) fn taken(&self, connection_id: ByteString) -> TraceReport {
        TraceReport { connection_id, mark: self.mark, waited_us: micros(self.waited), ..TraceReport::default() }
    }

    /// Report on a call that began at this time.
    pub(crate) fn begun(&self, connection_id: ByteString, begun_at: Instant) -> TraceReport {
        let queued = begun_at.saturating_duration_since(self.taken_at);
        TraceReport { queued_us: Some(micros(queued)), ..self.taken(connection_id) }
    }
}

pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(pieces: &mut TracedPieces, lengths: &[usize]) -> Vec<Option<i64>> {
        let mark = |&length: &usize| {
            pieces.take_bytes(length);
            pieces.take_last().map(|trace| trace.mark)
        };
        lengths.iter().map(mark).collect()
    }

    #[test]
    fn messages_of_marked_pieces_alone_are_traced_and_count_up() {
        let mut pieces = TracedPieces::default();
        pieces.push(5, 4, 10);
        assert_eq!(marks(&mut pieces, &[2, 3]), [None, None]);
        // Three bytes are between the two pieces.
        pieces.push(4 + 3, 6, 20);
        assert_eq!(marks(&mut pieces, &[1, 3, 3, 2, 2, 2]), [Some(10), Some(11), None, Some(20), Some(21), Some(22)]);
        assert!(pieces.is_empty());
        assert_eq!(marks(&mut pieces, &[9]), [None]);
    }

    #[test]
    fn a_message_over_two_pieces_has_the_mark_of_the_first() {
        let mut pieces = TracedPieces::default();
        pieces.push(0, 3, 1);
        pieces.push(3, 3, 7);
        assert_eq!(marks(&mut pieces, &[6]), [Some(1)]);
        assert!(pieces.is_empty());
    }

    #[test]
    fn a_report_has_each_duration_as_soon_as_it_is_known() {
        let mut pieces = TracedPieces::default();
        pieces.push(0, 3, 1);
        pieces.take_bytes(3);
        let trace = pieces.take_last().unwrap();
        let taken = trace.taken("c1".into());
        assert_eq!((taken.mark, taken.queued_us, taken.ran_us), (1, None, None));
        let begun = trace.begun("c1".into(), trace.taken_at + Duration::from_millis(2));
        assert_eq!((begun.waited_us, begun.queued_us, begun.ran_us), (taken.waited_us, Some(2_000), None));
    }
}
