//! Date of a hello: the minute of its making, with a proof by the channel's secret that it belongs to that hello.
//!
//! It travels in a header of its own. A hello that shows none, or one that is not of the last minutes, opens nothing:
//! it could have been recorded at any time, and played as often as somebody likes.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Minutes by which the clocks of two machines may differ, in either direction.
pub(crate) const CLOCK_SKEW_MAX_MINUTES: u64 = 5;

/// Purpose of the proof, so that it is garbage anywhere else.
const LABEL: &[u8] = b"trunkline 1 date of a hello";

/// Bytes of a proof in base64, with room for more than any.
const PROOF_ROOM: usize = 48;

/// Writes the date of a hello that was made in this minute.
pub(crate) fn write(secret: &[u8; 32], hello: &str, minute: u64) -> String {
    let proof = hmac::sign(&key(secret), &dated(hello, minute));
    format!("{minute}.{}", URL_SAFE_NO_PAD.encode(proof))
}

/// Whether a date belongs to this hello, and the hello was made about now.
pub(crate) fn is_fresh(secret: &[u8; 32], hello: &str, date: &str, minute: u64) -> bool {
    let Some((made, proof)) = date.split_once('.') else { return false };
    let Ok(made) = made.parse::<u64>() else { return false };
    let mut room = [0; PROOF_ROOM];
    let Ok(length) = URL_SAFE_NO_PAD.decode_slice(proof, &mut room) else { return false };
    let proof = room.get(..length).unwrap_or_default();
    made.abs_diff(minute) <= CLOCK_SKEW_MAX_MINUTES && hmac::verify(&key(secret), &dated(hello, made), proof).is_ok()
}

fn key(secret: &[u8; 32]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret)
}

fn dated(hello: &str, minute: u64) -> Vec<u8> {
    [LABEL, &minute.to_be_bytes(), hello.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u8; 32] = [7; 32];
    const NOW: u64 = 29_000_000;

    #[test]
    fn a_hello_is_fresh_for_five_minutes_in_either_direction() {
        let fresh = |made| is_fresh(&SECRET, "hello", &write(&SECRET, "hello", made), NOW);
        assert_eq!([NOW, NOW - 5, NOW + 5].map(fresh), [true; 3]);
        assert_eq!([NOW - 6, NOW + 6, 0, u64::MAX].map(fresh), [false; 4]);
    }

    #[test]
    fn a_date_is_good_for_its_own_hello_minute_and_key_only() {
        let date = write(&SECRET, "hello", NOW - 6);
        let (_, proof) = date.split_once('.').unwrap();
        let moved = format!("{NOW}.{proof}");
        assert!(!is_fresh(&SECRET, "hello", &moved, NOW), "a later minute was put before the proof");
        let date = write(&SECRET, "hello", NOW);
        assert!(!is_fresh(&SECRET, "another", &date, NOW) && !is_fresh(&[8; 32], "hello", &date, NOW));
        for rubbish in ["", ".", "29000000", "29000000.", "29000000.!", &format!("{NOW}.{}", "A".repeat(500))] {
            assert!(!is_fresh(&SECRET, "hello", rubbish, NOW), "{rubbish}");
        }
    }
}
