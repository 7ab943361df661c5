//! Supervision of hooks: a hook that does not return is reported by name and cancelled at its deadline.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::timeout;

use crate::error::HubError;
use crate::log_limit::LinePermit;
use crate::outbound::Outbound;
use crate::watchdog::{CodeId, watch};

/// Time after which a running hook is reported.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
#[error("{hook} did not return within {timeout:?} and was ended; the time can be configured by Hub::hook_timeout")]
struct HookTimeout {
    hook: String,
    timeout: Duration,
}

/// Runs a hook for a connection, user or group (`subject`) until it returns or its deadline passes; then the hook is
/// dropped. A panic becomes an error.
pub(crate) async fn supervise<T>(
    outbound: &Outbound,
    (hook, subject): (&str, &str),
    hook_timeout: Duration,
    running: impl Future<Output = Result<T, HubError>>,
) -> Result<T, HubError> {
    let running = pin!(AssertUnwindSafe(running).catch_unwind());
    let mut running = pin!(watch(outbound, CodeId::of(&outbound.name, hook), running));
    let mut ran = timeout(hook_timeout.min(REPORT_TIMEOUT), &mut running).await;
    if let Some(left) = hook_timeout.checked_sub(REPORT_TIMEOUT).filter(|left| ran.is_err() && !left.is_zero()) {
        if let Some(LinePermit { left_out }) = outbound.failure_limit.take() {
            let (hub, seconds) = (&*outbound.name, REPORT_TIMEOUT.as_secs());
            tracing::warn!(hub, hook, subject, seconds, left_out, "hook has not returned yet");
        }
        ran = timeout(left, &mut running).await;
    }
    match ran {
        Ok(ran) => ran.unwrap_or_else(|panic| Err(HubError::from_panic(&*panic))),
        Err(_) => Err(HookTimeout { hook: hook.to_owned(), timeout: hook_timeout }.into()),
    }
}
