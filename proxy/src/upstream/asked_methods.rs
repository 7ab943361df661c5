//! Methods of clients that an app server has asked for results, which decides how long a question is held.
//!
//! Microsoft's SDK sends a question before it notes that it waits for the answer. Between the two it may lose its
//! processor, and it compiles what notes it, once for each type of result, which takes tens of milliseconds. An answer
//! within that time finds nobody: the call fails with a `NullReferenceException` that closes its client, or it is never
//! answered. Azure's service is never that fast, this node is. So each question is held for a moment, and for a longer
//! one while the SDK may have to compile for it, which the name of the method tells.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytestring::ByteString;
use tokio::time::Instant;
use trunkline_protocol::hub::{HubProtocol, next_frame};
use trunkline_protocol::service::Payloads;

/// Time in which the SDK is ready for answers to a method that it has not asked for before, also on a busy machine.
pub(crate) const FIRST_QUESTION_HOLD: Duration = Duration::from_millis(500);

/// Time in which it is ready for all others.
pub(crate) const QUESTION_HOLD: Duration = Duration::from_millis(25);

/// Maximum number of methods that are remembered; questions for others are held for the shorter time.
const METHODS_MAX: usize = 256;

/// Methods that one app server has asked clients of one hub for.
#[derive(Debug, Default)]
pub(crate) struct AskedMethods(Mutex<HashMap<ByteString, Instant>>);

impl AskedMethods {
    /// Time for which a question is held.
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

/// Name of the method that a question invokes, as the first of its encodings has it that can be read.
fn method_of(question: &Payloads) -> Option<ByteString> {
    question.0.iter().find_map(|(name, framed)| {
        let protocol = HubProtocol::from_name(name)?;
        let frame = next_frame(protocol, framed, usize::MAX).ok()??;
        let call = protocol.scan_call(framed.get(frame.body)?).ok()?;
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
