//! Rate limit for log lines caused by clients: a client that fails repeatedly must not fill a disk.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::lock;

#[derive(Debug)]
pub(crate) struct LogLimit(Mutex<LineCount>);

/// Lines in the current period, and lines suppressed since the last one. Pure logic: time is an argument.
#[derive(Debug)]
struct LineCount {
    span: Duration,
    lines_max: u32,
    span_begun: Option<Instant>,
    lines: u32,
    left_out: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinePermit {
    /// Number of lines suppressed before it; `None` for zero, so that the log field is omitted.
    pub(crate) left_out: Option<u64>,
}

impl LogLimit {
    /// Limit for failures of app code towards clients: enough to find the problem, and a few megabytes an hour.
    pub(crate) fn of_failures() -> Self {
        Self::new(10, Duration::from_secs(1))
    }

    /// Limit for client mistakes, which anyone can cause. A developer still sees the first ones.
    pub(crate) fn of_mistakes() -> Self {
        Self::new(10, Duration::from_secs(10))
    }

    /// Limit for methods that block their threads, because every call of such a method does.
    pub(crate) fn of_holds() -> Self {
        Self::new(3, Duration::from_secs(60))
    }

    fn new(lines_max: u32, span: Duration) -> Self {
        Self(Mutex::new(LineCount { span, lines_max, span_begun: None, lines: 0, left_out: 0 }))
    }

    /// Takes permission for one more line; `None` if it is to be suppressed.
    pub(crate) fn take_line(&self) -> Option<LinePermit> {
        lock(&self.0).take_line(Instant::now())
    }
}

impl LineCount {
    fn take_line(&mut self, now: Instant) -> Option<LinePermit> {
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
    fn lines_beyond_the_limit_are_omitted_and_counted_in_the_next_line() {
        let (limit, begun) = (LogLimit::new(10, Duration::from_secs(2)), Instant::now());
        let mut count = limit.0.into_inner().unwrap();
        let next = begun + count.span;
        let taken: Vec<_> = (0..1000).filter_map(|_| count.take_line(begun)).collect();
        assert_eq!(taken, vec![LinePermit { left_out: None }; 10]);
        assert_eq!(count.take_line(next), Some(LinePermit { left_out: Some(990) }));
        assert_eq!(count.take_line(next), Some(LinePermit { left_out: None }));
    }
}
