//! Client methods that an app server has invoked for a result, which determine how long an invocation is delayed.
//!
//! Microsoft's SDK sends an invocation before it registers the pending result. In between, its thread may be preempted,
//! and the registration code is compiled once per result type, which takes tens of milliseconds. An earlier result,
//! which Azure's service never produces, finds no pending entry: the call fails with a `NullReferenceException` that
//! closes its client, or never completes. So each invocation is delayed briefly, and longer if the code of the method
//! may not be compiled yet.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytestring::ByteString;
use tokio::time::Instant;
use trunkline_protocol::hub::{HubProtocol, whole_messages};
use trunkline_protocol::service::Payloads;

/// Delay for the first invocation of a method, enough for the SDK on a busy machine.
pub(crate) const FIRST_QUESTION_HOLD: Duration = Duration::from_millis(500);

/// Delay for all later invocations.
pub(crate) const QUESTION_HOLD: Duration = Duration::from_millis(25);

/// Maximum number of remembered methods. Others get the short delay.
const METHODS_MAX: usize = 256;

/// Methods that one app server has invoked at clients of one hub.
#[derive(Debug, Default)]
pub(crate) struct AskedMethods(Mutex<HashMap<ByteString, Instant>>);

impl AskedMethods {
    #[must_use]
    pub(crate) fn hold(&self, question: &Payloads, now: Instant) -> Duration {
        let Some(method) = method_of(question) else { return QUESTION_HOLD };
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ready_at = match asked.get(&method) {
            Some(ready_at) => *ready_at,
            None if asked.len() >= METHODS_MAX => now,
            None => *asked.entry(method).or_insert(now + FIRST_QUESTION_HOLD),
        };
        QUESTION_HOLD.max(ready_at.saturating_duration_since(now))
    }
}

/// Name of the invoked method, from the first readable encoding.
fn method_of(question: &Payloads) -> Option<ByteString> {
    question.0.iter().find_map(|(name, framed)| {
        let protocol = HubProtocol::from_name(name)?;
        let call = protocol.scan_call(whole_messages(protocol, framed).next()?.body).ok()?;
        call.target.map(|target| (*target).into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(method: &str) -> Payloads {
        Payloads::invocation(Some("1"), method, &[7]).unwrap()
    }

    #[test]
    fn questions_for_a_new_method_are_held_until_the_app_server_can_take_answers() {
        let (asked, now) = (AskedMethods::default(), Instant::now());
        let half = FIRST_QUESTION_HOLD / 2;
        assert_eq!(asked.hold(&question("Age"), now), FIRST_QUESTION_HOLD);
        assert_eq!(asked.hold(&question("Age"), now + half), half, "it still prepares for the first one");
        assert_eq!(asked.hold(&question("Name"), now + half), FIRST_QUESTION_HOLD);
        assert_eq!(asked.hold(&question("Age"), now + FIRST_QUESTION_HOLD), QUESTION_HOLD);
    }

    #[test]
    fn whatever_is_asked_little_is_remembered() {
        let (asked, now) = (AskedMethods::default(), Instant::now());
        assert_eq!(asked.hold(&Payloads::single(HubProtocol::Json, "[]\u{1e}".into()), now), QUESTION_HOLD);
        let held =
            (0..METHODS_MAX + 9).filter(|n| asked.hold(&question(&format!("Method{n}")), now) == FIRST_QUESTION_HOLD);
        assert_eq!(held.count(), METHODS_MAX);
    }
}
