//! Rate limit: a filter that counts every call of a connection, including invalid calls.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use trunkline::{Context, HubCall, HubCallKind, HubError, Next, Rehomed, Reply};

/// Maximum burst of calls.
const BURST: f64 = 20.0;
/// Sustained calls per second.
const PER_SECOND: f64 = 10.0;

/// Number of calls that a client may still make.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Allowance(f64);

#[derive(Debug, Clone)]
struct Pace(Arc<Mutex<(Allowance, Instant)>>);

impl Pace {
    fn new(allowance: Allowance) -> Self {
        Self(Arc::new(Mutex::new((allowance, Instant::now()))))
    }

    fn of(ctx: &Context) -> Self {
        ctx.items().get_or_insert_with(|| Self::new(Allowance(BURST)))
    }

    /// Takes one call from the allowance. Returns `false` if the allowance is used up.
    fn take(&self) -> bool {
        let mut pace = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (Allowance(left), since) = *pace;
        let left = (left + since.elapsed().as_secs_f64() * PER_SECOND).min(BURST);
        let is_allowed = left >= 1.0;
        *pace = (Allowance(if is_allowed { left - 1.0 } else { left }), Instant::now());
        is_allowed
    }

    fn left(&self) -> Allowance {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Passes a call on if the client has allowance left. Hooks always pass.
pub(crate) async fn limit(ctx: Context, call: HubCall, next: Next) -> Result<Reply, HubError> {
    match call.kind() != HubCallKind::Method || Pace::of(&ctx).take() {
        true => next.run(call).await,
        false => Err(HubError::new("slow down, please")),
    }
}

/// Hands the client's remaining allowance to its next app server.
pub(crate) async fn hand_over(ctx: Context) -> Allowance {
    Pace::of(&ctx).left()
}

/// Restores the allowance from the previous app server. After a crash the client starts with a full one.
pub(crate) async fn take_over(ctx: Context, moved: Rehomed) -> Result<(), HubError> {
    if let Some(allowance) = moved.items()? {
        ctx.items().insert(Pace::new(allowance));
    }
    Ok(())
}
