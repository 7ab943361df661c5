//! A rate limit: a filter that counts the calls of each connection, sensible or not.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use trunkline::{Context, HubCall, HubCallKind, HubError, Next, Rehomed, Reply};

/// Calls that a client may make at once.
const BURST: f64 = 20.0;
/// Calls per second that it may make for ever.
const PER_SECOND: f64 = 10.0;

/// Calls that a client may still make.
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

    /// Takes one call out of the allowance; `false` if there is none.
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

/// Lets a call pass while its client has some left. Hooks always pass.
pub(crate) async fn limit(ctx: Context, call: HubCall, next: Next) -> Result<Reply, HubError> {
    match call.kind() != HubCallKind::Method || Pace::of(&ctx).take() {
        true => next.run(call).await,
        false => Err(HubError::new("slow down, please")),
    }
}

/// Tells the next app server of a client how many calls it has left.
pub(crate) async fn hand_over(ctx: Context) -> Allowance {
    Pace::of(&ctx).left()
}

/// Goes on where the other app server was; after a crash anew.
pub(crate) async fn take_over(ctx: Context, moved: Rehomed) -> Result<(), HubError> {
    if let Some(allowance) = moved.items()? {
        ctx.items().insert(Pace::new(allowance));
    }
    Ok(())
}
