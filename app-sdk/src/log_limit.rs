//! Limit of the log lines that clients bring about: a client that fails again and again must not fill a disk.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::lock;

/// Budget of one kind of log lines of one hub.
#[derive(Debug)]
pub(crate) struct LogLimit(Mutex<LineCount>);

/// Lines of the current span, and those that were left out since the last line. Pure: time comes in as an argument.
#[derive(Debug)]
struct LineCount {
    /// Span of time in which lines are counted, and their number.
    span: Duration,
    lines_max: u32,
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
    /// Budget of what the app's code does to clients: enough to see what is wrong, and some megabytes an hour.
    pub(crate) fn of_failures() -> Self {
        Self::new(10, Duration::from_secs(1))
    }

    /// Budget of what clients do wrong, which any stranger can: a developer sees the first ones of his own client.
    pub(crate) fn of_mistakes() -> Self {
        Self::new(10, Duration::from_secs(10))
    }

    /// Budget of methods that keep their threads, which each of their calls does.
    pub(crate) fn of_holds() -> Self {
        Self::new(3, Duration::from_secs(60))
    }

    fn new(lines_max: u32, span: Duration) -> Self {
        Self(Mutex::new(LineCount { span, lines_max, span_begun: None, lines: 0, left_out: 0 }))
    }

    /// Permission for one more line; `None` where it is to be left out.
    pub(crate) fn take(&self) -> Option<LinePermit> {
        lock(&self.0).take(Instant::now())
    }
}

impl LineCount {
    fn take(&mut self, now: Instant) -> Option<LinePermit> {
        if self.span_begun.is_none_or(|begun| now.saturating_duration_since(begun) >= self.span) {
            (self.span_begun, self.lines) = (Some(now), 0);
        }
        if self.lines >= self.lines_max {
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
        let (limit, begun) = (LogLimit::new(10, Duration::from_secs(2)), Instant::now());
        let mut count = limit.0.into_inner().unwrap();
        let next = begun + count.span;
        let taken: Vec<_> = (0..1000).filter_map(|_| count.take(begun)).collect();
        assert_eq!(taken, vec![LinePermit { left_out: None }; 10]);
        assert_eq!(count.take(next), Some(LinePermit { left_out: Some(990) }));
        assert_eq!(count.take(next), Some(LinePermit { left_out: None }));
    }
}
