//! Limit of the log lines that clients bring about: a client that fails again and again must not fill a disk.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::lock;

/// Span of time in which lines are counted.
const SPAN: Duration = Duration::from_secs(1);

/// Lines in a span: enough to see what is wrong, and some megabytes an hour.
const LINES_MAX: u32 = 10;

/// Budget of one hub's log lines that clients bring about.
#[derive(Debug, Default)]
pub(crate) struct LogLimit(Mutex<LineCount>);

/// Lines of the current span, and those that were left out since the last line. Pure: time comes in as an argument.
#[derive(Debug, Default)]
struct LineCount {
    span_begun: Option<Instant>,
    lines: u32,
    left_out: u64,
}

/// Permission for one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinePermit {
    /// Number of lines that were left out before it; a field without value where there are none.
    pub(crate) left_out: Option<u64>,
}

impl LogLimit {
    /// Permission for one more line; `None` where it is to be left out.
    pub(crate) fn take(&self) -> Option<LinePermit> {
        lock(&self.0).take(Instant::now())
    }
}

impl LineCount {
    fn take(&mut self, now: Instant) -> Option<LinePermit> {
        if self.span_begun.is_none_or(|begun| now.saturating_duration_since(begun) >= SPAN) {
            (self.span_begun, self.lines) = (Some(now), 0);
        }
        if self.lines >= LINES_MAX {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        let left_out = std::mem::take(&mut self.left_out);
        Some(LinePermit { left_out: (left_out > 0).then_some(left_out) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_limit_are_left_out_and_their_number_stands_in_the_next_one() {
        let (mut count, begun) = (LineCount::default(), Instant::now());
        let taken: Vec<_> = (0..1000).filter_map(|_| count.take(begun)).collect();
        assert_eq!(taken, vec![LinePermit { left_out: None }; 10]);
        assert_eq!(count.take(begun + SPAN), Some(LinePermit { left_out: Some(990) }));
        assert_eq!(count.take(begun + SPAN), Some(LinePermit { left_out: None }));
    }
}
