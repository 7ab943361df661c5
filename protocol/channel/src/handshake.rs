//! Handshake of a channel: one text in each direction.
//!
//! The contents of a hello are its minute, and the dialled name. The handshake seals both, so that only a holder of the
//! key can read or write them.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use snow::params::NoiseParams;
use snow::{Builder, HandshakeState, TransportState};
use trunkline_protocol::key::{ChannelSecret, PeerKind};

use crate::resolver::Resolver;

/// Maximum clock difference between two machines in minutes, in either direction.
pub(crate) const CLOCK_SKEW_MAX_MINUTES: u64 = 5;

/// Maximum length of a dialled name: a host of 253 characters and a port.
pub(crate) const DIALLED_MAX_BYTES: usize = 259;

const MINUTE_BYTES: usize = 8;

/// Maximum length of the contents.
pub(crate) const CONTENTS_MAX_BYTES: usize = MINUTE_BYTES + DIALLED_MAX_BYTES;

/// Contents of a hello: its minute, and the dialled name. The handshake seals both, so that only a holder of the key
/// can read or write them.
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
    pub(crate) fn parse_contents(bytes: &[u8]) -> Option<Self> {
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

/// Noise with ephemeral keys at both ends, and a shared secret mixed into the first message. AES, because records are
/// usually small and processors support it in hardware.
const PATTERN: &str = "Noise_NNpsk0_25519_AESGCM_SHA256";

/// Size of a message without its payload: a public key and a tag. The response has no payload.
const ANSWER_BYTES: usize = 48;

/// Maximum length of a message, rounded up to a whole number of base64 groups.
const HELLO_MAX_BYTES: usize = (ANSWER_BYTES + CONTENTS_MAX_BYTES).next_multiple_of(3);

/// Reason for refusing a hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The text is not a hello.
    #[error("not a channel hello")]
    Malformed,
    /// The sender has none of the keys, or expects another kind of peer.
    #[error("the peer does not have the fleet's key")]
    Unproven,
    /// The hello is not from the last minutes: it was recorded, or the clocks differ.
    #[error(
        "the clocks differ by {} minutes, and at most {CLOCK_SKEW_MAX_MINUTES} are allowed: compare the clocks of both \
         machines",
        .ahead_min.unsigned_abs()
    )]
    NotFresh {
        /// Lead of the sender's clock over this machine's, in minutes.
        ahead_min: i64,
    },
    /// The hello was used before: it may have been recorded and replayed.
    #[error("the hello was used before")]
    Replayed,
    /// Too many channels wait for their first record.
    #[error("too many channels of this key wait for their first request")]
    Busy,
}

/// Describes by how much another clock differs from this machine's.
#[must_use]
pub fn clock_difference(ahead_min: i64) -> String {
    let side = if ahead_min < 0 { "behind" } else { "ahead" };
    format!("{} minutes {side}", ahead_min.unsigned_abs())
}

/// End that has sent its hello and waits for the response.
#[derive(Debug)]
pub(crate) struct Initiator(HandshakeState);

impl Initiator {
    /// Starts with one key. Also returns the hello to send.
    pub(crate) fn new(
        secret: &[u8; 32],
        peer_kind: PeerKind,
        contents: &HelloContents,
    ) -> Result<(Self, String), HandshakeError> {
        let mut state = builder(secret, peer_kind)?.build_initiator().map_err(unproven)?;
        let hello = write(&mut state, &contents.to_bytes())?;
        Ok((Self(state), hello))
    }

    pub(crate) fn finish(mut self, answer: &str) -> Result<TransportState, HandshakeError> {
        let mut nothing = [0; CONTENTS_MAX_BYTES];
        match read_handshake(&mut self.0, answer, &mut nothing)? {
            [] => {}
            _ => return Err(HandshakeError::Malformed),
        }
        self.0.into_transport_mode().map_err(unproven)
    }
}

/// End that has opened a hello, with its response.
pub(crate) struct Responder {
    pub noise: TransportState,
    /// Response to send, also called a hello.
    pub answer: String,
    pub contents: HelloContents,
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").finish_non_exhaustive()
    }
}

/// Answers a hello opened by one secret, as this kind of peer.
pub(crate) fn respond(
    secrets: impl IntoIterator<Item = ChannelSecret>,
    peer_kind: PeerKind,
    hello: &str,
) -> Result<Responder, HandshakeError> {
    let mut refusal = HandshakeError::Unproven;
    for ChannelSecret { secret, .. } in secrets {
        let mut state = builder(&secret, peer_kind)?.build_responder().map_err(unproven)?;
        let mut contents = [0; CONTENTS_MAX_BYTES];
        match read_handshake(&mut state, hello, &mut contents) {
            Ok(contents) => {
                let contents = HelloContents::parse_contents(contents).ok_or(HandshakeError::Malformed)?;
                let answer = write(&mut state, &[])?;
                return Ok(Responder { noise: state.into_transport_mode().map_err(unproven)?, answer, contents });
            }
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}

fn builder(secret: &[u8; 32], peer_kind: PeerKind) -> Result<Builder<'_>, HandshakeError> {
    let pattern: NoiseParams = PATTERN.parse().map_err(unproven)?;
    Builder::with_resolver(pattern, Box::new(Resolver))
        .prologue(peer_kind.name())
        .and_then(|builder| builder.psk(0, secret))
        .map_err(unproven)
}

fn write(state: &mut HandshakeState, payload: &[u8]) -> Result<String, HandshakeError> {
    let mut message = [0; HELLO_MAX_BYTES];
    let length = state.write_message(payload, &mut message).map_err(unproven)?;
    Ok(URL_SAFE_NO_PAD.encode(message.get(..length).unwrap_or_default()))
}

fn read_handshake<'a>(
    state: &mut HandshakeState,
    text: &str,
    payload: &'a mut [u8; CONTENTS_MAX_BYTES],
) -> Result<&'a [u8], HandshakeError> {
    // The sender is not authenticated, so longer text is not decoded.
    let mut message = [0; HELLO_MAX_BYTES];
    let length = URL_SAFE_NO_PAD.decode_slice(text, &mut message).map_err(|_| HandshakeError::Malformed)?;
    if !(ANSWER_BYTES..=ANSWER_BYTES + CONTENTS_MAX_BYTES).contains(&length) {
        return Err(HandshakeError::Malformed);
    }
    let message = message.get(..length).unwrap_or_default();
    let length = state.read_message(message, payload).map_err(unproven)?;
    Ok(payload.get(..length).unwrap_or_default())
}

fn unproven(_: snow::Error) -> HandshakeError {
    HandshakeError::Unproven
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::key::{AccessKey, AccessKeys};

    use super::*;
    use crate::handshake::DIALLED_MAX_BYTES;

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
        assert_eq!(HelloContents::parse_contents(&made(NOW).to_bytes()), Some(made(NOW)));
        for wrong in [&b""[..], &[0; 7], &[0; 8], &[0, 0, 0, 0, 0, 0, 0, 0, 0xff]] {
            assert_eq!(HelloContents::parse_contents(wrong), None, "{wrong:?}");
        }
    }

    pub(crate) fn keys(texts: &[&str]) -> AccessKeys {
        AccessKeys::new(texts.iter().map(|text| AccessKey::new(text).unwrap()).collect()).unwrap()
    }

    fn secret(key: &str, peer_kind: PeerKind) -> [u8; 32] {
        keys(&[key]).channel_secrets(peer_kind).next().unwrap().secret
    }

    fn secrets(texts: &[&str]) -> impl Iterator<Item = ChannelSecret> {
        keys(texts).channel_secrets(PeerKind::AppServer)
    }

    const OLD: &str = "the old key of the fleet";
    const NEW: &str = "the new key of the fleet";

    fn contents() -> HelloContents {
        HelloContents { minute: 29_000_000, dialled: "app:5000".into() }
    }

    fn begin(secret: &[u8; 32], peer_kind: PeerKind) -> (Initiator, String) {
        Initiator::new(secret, peer_kind, &contents()).unwrap()
    }

    #[test]
    fn both_ends_prove_the_key_and_then_understand_each_other() {
        let (initiator, hello) = begin(&secret(OLD, PeerKind::AppServer), PeerKind::AppServer);
        let mut far = respond(secrets(&[NEW, OLD]), PeerKind::AppServer, &hello).unwrap();
        assert_eq!(far.contents, contents());
        let mut near = initiator.finish(&far.answer).unwrap();
        let (mut sealed, mut plain) = ([0; 64], [0; 64]);
        let length = near.write_message(b"hi", &mut sealed).unwrap();
        let length = far.noise.read_message(&sealed[..length], &mut plain).unwrap();
        assert_eq!(&plain[..length], b"hi");
    }

    #[test]
    fn another_key_another_kind_of_peer_and_invalid_text_are_refused() {
        let of = |key, peer_kind| begin(&secret(key, peer_kind), peer_kind).1;
        let answer = |hello: &str| respond(secrets(&[OLD]), PeerKind::AppServer, hello).unwrap_err();
        assert_eq!(answer(&of(NEW, PeerKind::AppServer)), HandshakeError::Unproven);
        for other in [PeerKind::NodeAdmin, PeerKind::NodeClients, PeerKind::DialIn] {
            assert_eq!(answer(&of(OLD, other)), HandshakeError::Unproven, "{other:?}");
        }
        for rubbish in ["", "!", &"A".repeat(63), &"A".repeat(65), &"A".repeat(424), &"A".repeat(10_000)] {
            assert_eq!(answer(rubbish), HandshakeError::Malformed, "{rubbish}");
        }
        for length in [64, 72, 420] {
            assert_eq!(answer(&"A".repeat(length)), HandshakeError::Unproven, "{length}");
        }
    }

    #[test]
    fn the_name_that_was_dialled_is_sealed_and_can_t_be_changed() {
        let (_, hello) = begin(&secret(OLD, PeerKind::AppServer), PeerKind::AppServer);
        let bytes = URL_SAFE_NO_PAD.decode(&hello).unwrap();
        assert!(!bytes.windows(4).any(|bytes| bytes == b"app:"), "whoever carries it reads no name");
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let refused = respond(secrets(&[OLD]), PeerKind::AppServer, &URL_SAFE_NO_PAD.encode(changed));
            assert_eq!(refused.unwrap_err(), HandshakeError::Unproven, "byte {at}");
        }
    }

    #[test]
    fn the_longest_name_fits_into_a_hello() {
        let (secret, dialled) = (secret(OLD, PeerKind::AppServer), "a".repeat(DIALLED_MAX_BYTES));
        let longest = HelloContents { dialled: dialled.into(), ..contents() };
        let (_, hello) = Initiator::new(&secret, PeerKind::AppServer, &longest).unwrap();
        assert_eq!(respond(secrets(&[OLD]), PeerKind::AppServer, &hello).unwrap().contents, longest);
    }

    #[test]
    fn an_answer_is_valid_for_its_own_hello_only() {
        let secret = secret(OLD, PeerKind::AppServer);
        let (_, recorded) = begin(&secret, PeerKind::AppServer);
        let Responder { answer, .. } = respond(secrets(&[OLD]), PeerKind::AppServer, &recorded).unwrap();
        let (initiator, _) = begin(&secret, PeerKind::AppServer);
        assert_eq!(initiator.finish(&answer).unwrap_err(), HandshakeError::Unproven);
    }

    #[test]
    fn one_s_own_hello_is_no_answer() {
        let secret = secret(OLD, PeerKind::NodeAdmin);
        let (initiator, hello) = begin(&secret, PeerKind::NodeAdmin);
        assert_eq!(initiator.finish(&hello).unwrap_err(), HandshakeError::Unproven);
    }
}
