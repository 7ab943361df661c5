//! Doubt about an app server that does not answer: what else has to say so before it counts as gone. Pure.
//!
//! ```text
//!  answers ──silent for 1 s──► its name is resolved again ──silent for 3 s──► doubted ──second sign──► gone
//!     ▲                                                                         │
//!     └──────────────────────────── anything comes ─────────────────────────────┘
//! ```
//!
//! Second signs: its name no longer resolves to the address, the address refuses connections, or another start answers
//! there. Without one it may be frozen or cut off for a moment, and the resume window decides.

use std::time::Duration;

/// Silence after which the name of an app server is resolved again.
const SUSPICION_TIMEOUT: Duration = Duration::from_secs(1);

/// Silence after which a second sign makes it certain that an app server is gone.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(3);

/// Meaning of the silence of an app server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum AppDoubt {
    Answers,
    /// Its name is to be resolved.
    Suspected,
    /// A second sign is enough.
    Doubted,
}

impl AppDoubt {
    /// Judges by how long each of its pools has been silent; `None` for one that can't be, as while it stops.
    pub(super) fn of(silences: impl Iterator<Item = Option<Duration>>) -> Self {
        // No pool, or one that answers, is no silence.
        match silences.min().flatten() {
            Some(silence) if silence >= SILENCE_TIMEOUT => Self::Doubted,
            Some(silence) if silence >= SUSPICION_TIMEOUT => Self::Suspected,
            _ => Self::Answers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubt(silences_ms: &[Option<u64>]) -> AppDoubt {
        AppDoubt::of(silences_ms.iter().map(|silence| silence.map(Duration::from_millis)))
    }

    #[test]
    fn an_app_server_is_doubted_when_all_of_its_pools_are_silent_for_three_seconds() {
        assert_eq!(doubt(&[]), AppDoubt::Answers);
        for (silences_ms, expected) in [
            ([Some(0), Some(9_000)], AppDoubt::Answers),
            ([Some(999), Some(9_000)], AppDoubt::Answers),
            ([Some(1_000), Some(9_000)], AppDoubt::Suspected),
            ([Some(2_999), Some(3_000)], AppDoubt::Suspected),
            ([Some(3_000), Some(3_500)], AppDoubt::Doubted),
            ([None, Some(9_000)], AppDoubt::Answers),
        ] {
            assert_eq!(doubt(&silences_ms), expected, "{silences_ms:?}");
        }
    }
}
