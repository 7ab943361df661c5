//! Doubt about an unresponsive app server: evidence required before it counts as gone. Pure.
//!
//! ```text
//!  answers ──silent for 1 s──► DNS is queried again ──silent for 3 s──► doubted ──second sign──► gone
//!     ▲                                                                    │
//!     └──────────────────────────── any frame ─────────────────────────────┘
//! ```
//!
//! Second signs: DNS no longer lists the address, the address refuses connections, or another start answers there.
//! Without one, the app server may be frozen or briefly disconnected, and the resume window decides.

use std::time::Duration;

/// Silence after which the name of an app server is resolved again.
const SUSPICION_TIMEOUT: Duration = Duration::from_secs(1);

/// Silence after which a second sign proves that an app server is gone.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(3);

/// Interpretation of an app server's silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum AppDoubt {
    Answers,
    /// Silent for a moment: DNS should be queried again.
    Suspected,
    /// A second sign is sufficient.
    Doubted,
}

impl AppDoubt {
    /// Judges by the silence of each pool; `None` for a pool that can't be judged, such as a stopping one.
    pub(super) fn of(silences: impl Iterator<Item = Option<Duration>>) -> Self {
        // No pool, or a pool that can't be judged, counts as answering.
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
