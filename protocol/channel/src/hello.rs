//! Contents of a hello: its minute, and the dialled name. The handshake seals both, so that only a holder of the key
//! can read or write them.

/// Maximum clock difference between two machines in minutes, in either direction.
pub(crate) const CLOCK_SKEW_MAX_MINUTES: u64 = 5;

/// Maximum length of a dialled name: a host of 253 characters and a port.
pub(crate) const DIALLED_MAX_BYTES: usize = 259;

const MINUTE_BYTES: usize = 8;

/// Maximum length of the contents.
pub(crate) const CONTENTS_MAX_BYTES: usize = MINUTE_BYTES + DIALLED_MAX_BYTES;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HelloContents {
    /// Minute since 1970 when the hello was made, by the sender's clock.
    pub minute: u64,
    /// Host and port that the sender dials, as configured by its operator.
    pub dialled: Box<str>,
}

impl HelloContents {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        [&self.minute.to_be_bytes()[..], self.dialled.as_bytes()].concat()
    }

    /// Reads contents written by a holder of the key; `None` if they are not of this version.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (minute, dialled) = bytes.split_first_chunk::<MINUTE_BYTES>()?;
        let dialled = std::str::from_utf8(dialled).ok().filter(|name| !name.is_empty())?;
        Some(Self { minute: u64::from_be_bytes(*minute), dialled: dialled.into() })
    }

    pub(crate) fn is_fresh(&self, minute: u64) -> bool {
        self.minute.abs_diff(minute) <= CLOCK_SKEW_MAX_MINUTES
    }

    pub(crate) fn ahead_min(&self, minute: u64) -> i64 {
        let difference = i64::try_from(self.minute.abs_diff(minute)).unwrap_or(i64::MAX);
        if self.minute < minute { -difference } else { difference }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 29_000_000;

    fn made(minute: u64) -> HelloContents {
        HelloContents { minute, dialled: "app:5000".into() }
    }

    #[test]
    fn a_hello_is_fresh_for_five_minutes_in_either_direction() {
        let fresh = |minute| made(minute).is_fresh(NOW);
        assert_eq!([NOW, NOW - 5, NOW + 5].map(fresh), [true; 3]);
        assert_eq!([NOW - 6, NOW + 6, 0, u64::MAX].map(fresh), [false; 4]);
        assert_eq!([NOW - 6, NOW + 6, u64::MAX].map(|minute| made(minute).ahead_min(NOW)), [-6, 6, i64::MAX]);
    }

    #[test]
    fn contents_are_read_as_they_were_written_and_others_not_at_all() {
        assert_eq!(HelloContents::read(&made(NOW).to_bytes()), Some(made(NOW)));
        for wrong in [&b""[..], &[0; 7], &[0; 8], &[0, 0, 0, 0, 0, 0, 0, 0, 0xff]] {
            assert_eq!(HelloContents::read(wrong), None, "{wrong:?}");
        }
    }
}
