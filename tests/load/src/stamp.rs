//! Stamp in each sent message: run, room, sender, number, and the start time for its latency.
//!
//! ```text
//!  ~7f3a90c1.2.17.42.123456~xxxx…
//!   run      │ │  │  │      └ padding
//!            │ │  │  └ microseconds of the run's clock
//!       room ┘ │  └ number, from 0
//!       sender ┘
//! ```
//!
//! The text needs no escaping in JSON or MessagePack, so a receiver can search for it and parse it in place, without
//! decoding the message or allocating.

use memchr::memmem::Finder;

const EDGE: char = '~';

/// Id of one run, unique among generators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunId(u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) room: u32,
    pub(crate) sender: u32,
    /// Number of earlier messages from this sender.
    pub(crate) number: u32,
    /// Start time for its latency.
    pub(crate) from_us: u64,
}

impl RunId {
    pub(crate) fn fresh() -> Self {
        Self(u32::from_le_bytes(trunkline_protocol::id::random_bytes()))
    }
}

impl std::fmt::Display for RunId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:08x}", self.0)
    }
}

impl Stamp {
    pub(crate) fn text(&self, run: RunId, padding: usize) -> String {
        let Self { room, sender, number, from_us } = self;
        format!("{EDGE}{run}.{room}.{sender}.{number}.{from_us}{EDGE}{:x<padding$}", "")
    }
}

/// Finds the stamps of one run.
#[derive(Debug)]
pub(crate) struct Stamps(Finder<'static>);

impl Stamps {
    pub(crate) fn of(run: RunId) -> Self {
        Self(Finder::new(&format!("{EDGE}{run}.")).into_owned())
    }

    /// Finds this run's stamp in the body of a hub message.
    pub(crate) fn find(&self, body: &[u8]) -> Option<Stamp> {
        let start = self.0.find(body)? + self.0.needle().len();
        let mut fields = body.get(start..)?;
        let [room, sender, number, from_us] = [
            field(&mut fields, b'.')?,
            field(&mut fields, b'.')?,
            field(&mut fields, b'.')?,
            field(&mut fields, EDGE as u8)?,
        ];
        let small = |value: u64| u32::try_from(value).ok();
        Some(Stamp { room: small(room)?, sender: small(sender)?, number: small(number)?, from_us })
    }
}

/// Parses a decimal number at the front, terminated by `end`.
fn field(bytes: &mut &[u8], end: u8) -> Option<u64> {
    let mut value: u64 = 0;
    loop {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if byte == end {
            return Some(value);
        }
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: RunId = RunId(0x00ab_cdef);
    const STAMP: Stamp = Stamp { room: 2, sender: 17, number: 42, from_us: 123_456 };

    #[test]
    fn a_stamp_is_found_wherever_it_stands() {
        let text = STAMP.text(RUN, 5);
        assert_eq!(text, "~00abcdef.2.17.42.123456~xxxxx");
        let body = format!("{{\"type\":1,\"target\":\"Message\",\"arguments\":[\"{text}\"]}}");
        assert_eq!(Stamps::of(RUN).find(body.as_bytes()), Some(STAMP));
    }

    #[test]
    fn the_stamp_of_another_run_is_none_of_ours() {
        let text = STAMP.text(RunId(7), 0);
        assert_eq!(Stamps::of(RUN).find(text.as_bytes()), None);
    }

    #[test]
    fn a_cut_or_oversized_stamp_is_ignored() {
        let text = STAMP.text(RUN, 0);
        for end in 0..text.len() {
            assert_eq!(Stamps::of(RUN).find(&text.as_bytes()[..end]), None);
        }
        assert_eq!(Stamps::of(RUN).find(b"~00abcdef.1.1.99999999999.1~"), None);
        assert_eq!(Stamps::of(RUN).find(b"~00abcdef.1.1.x.1~"), None);
    }
}
