//! Rate limit of log lines that clients cause: a client that fails repeatedly must not fill a disk.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Rate limit of one kind of log line, shared by all threads.
#[derive(Debug)]
pub struct LogLimit {
    lines_max: u32,
    span: Duration,
    count: Mutex<LineCount>,
}

#[derive(Debug, Default)]
struct LineCount {
    span_begun: Option<Instant>,
    lines: u32,
    left_out: u64,
}

/// Permission for one log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinePermit {
    /// Number of lines suppressed before it; `None` for zero, so that the log field is omitted.
    pub left_out: Option<u64>,
}

impl LogLimit {
    /// Creates a limit of lines per span of time, which begins with its first line.
    #[must_use]
    pub fn new(lines_max: u32, span: Duration) -> Self {
        Self { lines_max, span, count: Mutex::default() }
    }

    /// Takes permission for one more line; `None` if it is to be suppressed.
    pub fn take_line(&self) -> Option<LinePermit> {
        self.take_line_at(Instant::now())
    }

    /// Like [`take_line`](Self::take_line), at a given time.
    pub fn take_line_at(&self, now: Instant) -> Option<LinePermit> {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        if count.span_begun.is_none_or(|begun| now.saturating_duration_since(begun) >= self.span) {
            (count.span_begun, count.lines) = (Some(now), 0);
        }
        if count.lines >= self.lines_max {
            count.left_out += 1;
            return None;
        }
        count.lines += 1;
        let left_out = std::mem::take(&mut count.left_out);
        Some(LinePermit { left_out: (left_out > 0).then_some(left_out) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_limit_are_omitted_and_counted_in_the_next_line() {
        let (limit, begun) = (LogLimit::new(10, Duration::from_secs(2)), Instant::now());
        let next = begun + limit.span;
        let taken: Vec<_> = (0..1000).filter_map(|_| limit.take_line_at(begun)).collect();
        assert_eq!(taken, vec![LinePermit { left_out: None }; 10]);
        assert_eq!(limit.take_line_at(next), Some(LinePermit { left_out: Some(990) }));
        assert_eq!(limit.take_line_at(next), Some(LinePermit { left_out: None }));
    }

    #[test]
    fn a_thousand_warnings_are_one_line_and_their_number() {
        let (limit, start) = (LogLimit::new(1, Duration::from_secs(10)), Instant::now());
        let passed: Vec<_> = (0..1000).filter_map(|_| limit.take_line_at(start)).collect();
        assert_eq!(passed, [LinePermit { left_out: None }]);
        assert_eq!(limit.take_line_at(start + limit.span), Some(LinePermit { left_out: Some(999) }));
    }
}
