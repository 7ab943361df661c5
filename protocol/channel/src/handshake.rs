//! The handshake of a channel as two texts, one for each direction.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use snow::params::NoiseParams;
use snow::{Builder, HandshakeState, TransportState};
use trunkline_protocol::key::{AccessKeys, FarEnd};

use crate::hello_date::CLOCK_SKEW_MAX_MINUTES;
use crate::resolver::Resolver;

/// Noise with fresh keys at both ends, and a secret that goes into the first message already. AES, because records are
/// small as a rule, and processors compute it.
const PATTERN: &str = "Noise_NNpsk0_25519_AESGCM_SHA256";

/// Bytes of either message: a public key and the tag of an empty payload.
const HELLO_BYTES: usize = 48;

/// Reason why a hello is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The text is no hello of any key.
    #[error("this is no hello of a channel")]
    Malformed,
    /// Its sender has none of our keys, or it is for another kind of far end.
    #[error("the far end does not have the fleet's key")]
    Unproven,
    /// It does not prove that it was made in the last minutes: it was recorded, or the clocks of both ends differ.
    #[error("this hello has no date of the last {CLOCK_SKEW_MAX_MINUTES} minutes: compare the clocks of both machines")]
    NotFresh,
    /// Its sender has spoken it before, or somebody plays a recorded one.
    #[error("this hello was taken before")]
    Replayed,
    /// Too many channels wait for their first record.
    #[error("too many channels wait for their first request")]
    Busy,
}

/// The end that has sent its hello and waits for the answer.
#[derive(Debug)]
pub(crate) struct Initiator(HandshakeState);

impl Initiator {
    /// Begins with one key. Returns also the hello to send.
    pub(crate) fn new(secret: &[u8; 32], far_end: FarEnd) -> Result<(Self, String), HandshakeError> {
        let mut state = builder(secret, far_end)?.build_initiator().map_err(unproven)?;
        let hello = write(&mut state)?;
        Ok((Self(state), hello))
    }

    /// Checks the answer of the far end.
    pub(crate) fn finish(mut self, answer: &str) -> Result<TransportState, HandshakeError> {
        read(&mut self.0, answer)?;
        self.0.into_transport_mode().map_err(unproven)
    }
}

/// The end that has opened a hello, with what it answers.
pub(crate) struct Responder {
    pub noise: TransportState,
    /// The hello to send.
    pub answer: String,
    /// Secret of the key that has opened the hello.
    pub secret: [u8; 32],
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").finish_non_exhaustive()
    }
}

/// Answers a hello that one of the keys opens, as the far end of this kind.
pub(crate) fn respond(keys: &AccessKeys, far_end: FarEnd, hello: &str) -> Result<Responder, HandshakeError> {
    let mut refusal = HandshakeError::Unproven;
    for secret in keys.channel_secrets(far_end) {
        let mut state = builder(&secret, far_end)?.build_responder().map_err(unproven)?;
        match read(&mut state, hello) {
            Ok(()) => {
                let answer = write(&mut state)?;
                return Ok(Responder { noise: state.into_transport_mode().map_err(unproven)?, answer, secret });
            }
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}

fn builder(secret: &[u8; 32], far_end: FarEnd) -> Result<Builder<'_>, HandshakeError> {
    let pattern: NoiseParams = PATTERN.parse().map_err(unproven)?;
    Builder::with_resolver(pattern, Box::new(Resolver))
        .prologue(far_end.name())
        .and_then(|builder| builder.psk(0, secret))
        .map_err(unproven)
}

fn write(state: &mut HandshakeState) -> Result<String, HandshakeError> {
    let mut message = [0; HELLO_BYTES];
    let length = state.write_message(&[], &mut message).map_err(unproven)?;
    Ok(URL_SAFE_NO_PAD.encode(message.get(..length).unwrap_or_default()))
}

fn read(state: &mut HandshakeState, text: &str) -> Result<(), HandshakeError> {
    // No longer text is decoded: its sender is a stranger.
    let mut message = [0; HELLO_BYTES];
    let length = URL_SAFE_NO_PAD.decode_slice(text, &mut message).map_err(|_| HandshakeError::Malformed)?;
    if length != HELLO_BYTES {
        return Err(HandshakeError::Malformed);
    }
    state.read_message(&message, &mut []).map_err(unproven)?;
    Ok(())
}

fn unproven(_: snow::Error) -> HandshakeError {
    HandshakeError::Unproven
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::key::AccessKey;

    use super::*;

    pub(crate) fn keys(texts: &[&str]) -> AccessKeys {
        AccessKeys::new(texts.iter().map(|text| AccessKey::new(text).unwrap()).collect()).unwrap()
    }

    fn secret(key: &str, far_end: FarEnd) -> [u8; 32] {
        keys(&[key]).channel_secrets(far_end).next().unwrap()
    }

    const OLD: &str = "the old key of the fleet";
    const NEW: &str = "the new key of the fleet";

    #[test]
    fn both_ends_prove_the_key_and_then_understand_each_other() {
        let (initiator, hello) = Initiator::new(&secret(OLD, FarEnd::AppServer), FarEnd::AppServer).unwrap();
        let mut far = respond(&keys(&[NEW, OLD]), FarEnd::AppServer, &hello).unwrap();
        let mut near = initiator.finish(&far.answer).unwrap();
        let (mut sealed, mut plain) = ([0; 64], [0; 64]);
        let length = near.write_message(b"hi", &mut sealed).unwrap();
        let length = far.noise.read_message(&sealed[..length], &mut plain).unwrap();
        assert_eq!(&plain[..length], b"hi");
    }

    #[test]
    fn another_key_another_kind_of_far_end_and_rubbish_are_refused() {
        let of = |key, far_end| Initiator::new(&secret(key, far_end), far_end).unwrap().1;
        let answer = |hello: &str| respond(&keys(&[OLD]), FarEnd::AppServer, hello).unwrap_err();
        assert_eq!(answer(&of(NEW, FarEnd::AppServer)), HandshakeError::Unproven);
        assert_eq!(answer(&of(OLD, FarEnd::Node)), HandshakeError::Unproven);
        for rubbish in ["", "!", &"A".repeat(63), &"A".repeat(65), &"A".repeat(10_000)] {
            assert_eq!(answer(rubbish), HandshakeError::Malformed, "{rubbish}");
        }
        assert_eq!(answer(&"A".repeat(64)), HandshakeError::Unproven);
    }

    #[test]
    fn an_answer_is_good_for_its_own_hello_only() {
        let secret = secret(OLD, FarEnd::AppServer);
        let (_, recorded) = Initiator::new(&secret, FarEnd::AppServer).unwrap();
        let Responder { answer, .. } = respond(&keys(&[OLD]), FarEnd::AppServer, &recorded).unwrap();
        let (initiator, _) = Initiator::new(&secret, FarEnd::AppServer).unwrap();
        assert_eq!(initiator.finish(&answer).unwrap_err(), HandshakeError::Unproven);
    }

    #[test]
    fn one_s_own_hello_is_no_answer() {
        let secret = secret(OLD, FarEnd::Node);
        let (initiator, hello) = Initiator::new(&secret, FarEnd::Node).unwrap();
        assert_eq!(initiator.finish(&hello).unwrap_err(), HandshakeError::Unproven);
    }
}
