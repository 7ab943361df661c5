//! W3C trace context of a request or message: the parsed `traceparent` and the header names.

use std::fmt;
use std::str::FromStr;

use crate::id::random_bytes;

/// Header with trace id, parent id and flags.
pub const TRACEPARENT_HEADER: &str = "traceparent";

/// Header with vendor-specific data of tracing systems, passed on unread.
pub const TRACESTATE_HEADER: &str = "tracestate";

/// Length of a version 0 `traceparent`. Later versions may be longer.
const LENGTH: usize = 55;

const SAMPLED: u8 = 1;

/// Position in a trace: the parent of a new span.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// Trace id, never all zeros.
    pub trace_id: [u8; 16],
    /// Id of the parent span, never all zeros.
    pub span_id: [u8; 8],
    /// Whether the sender recorded the parent span.
    pub is_sampled: bool,
}

/// Error parsing a `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the text is not a traceparent, such as 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]
pub struct TraceContextError;

impl TraceContext {
    /// Starts a recorded trace.
    #[must_use]
    pub fn root() -> Self {
        Self { trace_id: nonzero(random_bytes()), span_id: nonzero(random_bytes()), is_sampled: true }
    }

    /// Creates a recorded child span in this trace.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { trace_id: self.trace_id, span_id: nonzero(random_bytes()), is_sampled: true }
    }
}

impl FromStr for TraceContext {
    type Err = TraceContextError;

    /// Parses a `traceparent`. Fields that later versions append after the flags are ignored, as the standard requires.
    fn from_str(text: &str) -> Result<Self, TraceContextError> {
        let parse = || {
            let bytes = text.as_bytes();
            let [version] = hex(bytes.get(..2)?)?;
            let has_dashes = [2, 35, 52].iter().all(|at| bytes.get(*at) == Some(&b'-'));
            let end = bytes.get(LENGTH);
            let ends_well = match version {
                0 => end.is_none(),
                0xff => false,
                _ => end.is_none_or(|byte| *byte == b'-'),
            };
            let (trace_id, span_id) = (hex(bytes.get(3..35)?)?, hex(bytes.get(36..52)?)?);
            let [flags] = hex(bytes.get(53..LENGTH)?)?;
            let is_good = has_dashes && ends_well && trace_id != [0; 16] && span_id != [0; 8];
            is_good.then_some(Self { trace_id, span_id, is_sampled: flags & SAMPLED != 0 })
        };
        parse().ok_or(TraceContextError)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.span_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{:02x}", u8::from(self.is_sampled))
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Parses lower-case hexadecimal digits, as the standard requires.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    let (pairs, _) = digits.as_chunks::<2>();
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = value(*high)? << 4 | value(*low)?;
    }
    Some(bytes)
}

/// Replaces the forbidden all-zero id.
fn nonzero<const N: usize>(mut id: [u8; N]) -> [u8; N] {
    if id == [0; N]
        && let Some(last) = id.last_mut()
    {
        *last = 1;
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_written_as_it_was_read() {
        let context: TraceContext = EXAMPLE.parse().unwrap();
        assert_eq!((context.trace_id[0], context.span_id[7], context.is_sampled), (0x0a, 0x31, true));
        assert_eq!(context.to_string(), EXAMPLE);
        let unsampled: TraceContext = EXAMPLE.replace("-01", "-00").parse().unwrap();
        assert!(!unsampled.is_sampled);
    }

    #[test]
    fn later_versions_may_append_fields() {
        let later = EXAMPLE.replacen("00", "cc", 1);
        let context: TraceContext = EXAMPLE.parse().unwrap();
        assert_eq!(later.parse(), Ok(context));
        assert_eq!(format!("{later}-more").parse(), Ok(context));
        assert_eq!(format!("{later}more").parse::<TraceContext>(), Err(TraceContextError));
    }

    #[test]
    fn other_texts_are_refused() {
        let bad = [
            String::new(),
            EXAMPLE.to_uppercase(),
            EXAMPLE.replacen("00", "ff", 1),
            EXAMPLE.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            EXAMPLE.replace("b7ad6b7169203331", &"0".repeat(16)),
            EXAMPLE.replacen('-', "_", 1),
            format!("{EXAMPLE}-more"),
            EXAMPLE[..54].to_owned(),
            format!("{}é", &EXAMPLE[..53]),
        ];
        for text in bad {
            assert_eq!(text.parse::<TraceContext>(), Err(TraceContextError), "{text}");
        }
    }

    #[test]
    fn a_child_is_a_new_span_of_the_same_trace() {
        let (root, other) = (TraceContext::root(), TraceContext::root());
        let child = root.child();
        assert_eq!(child.trace_id, root.trace_id);
        assert!(child.span_id != root.span_id && root.trace_id != other.trace_id && child.is_sampled);
        assert_eq!(nonzero([0; 8]), [0, 0, 0, 0, 0, 0, 0, 1]);
    }
}
