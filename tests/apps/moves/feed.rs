//! Raw endpoint for clients that move: it echoes consecutive numbers and sends numbers itself.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use trunkline::{HubError, RawConnection, RawEndpoint};

/// Interval between numbers that the endpoint sends.
const INTERVAL: Duration = Duration::from_millis(10);

/// Endpoint `/feed`: the handler takes `up 1`, `up 2`, … and sends `down 1`, `down 2`, ….
pub(crate) fn endpoint() -> RawEndpoint {
    RawEndpoint::new("/feed", feed).movable(true)
}

async fn feed(mut client: RawConnection) -> Result<(), HubError> {
    let (mut received, mut sent): (u64, u64) = match client.rehomed() {
        Some(moved) => moved.items()?.unwrap_or_default(),
        None => (0, 0),
    };
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            message = client.recv() => {
                let Some(message) = message else { break };
                received += 1;
                if message.as_bytes() != format!("up {received}").as_bytes() {
                    return Err(HubError::new(format!("{message:?} came instead of number {received}")));
                }
                client.send(message).await?;
            }
            _ = ticks.tick() => {
                sent += 1;
                client.send(format!("down {sent}")).await?;
            }
        }
    }
    if client.is_leaving() {
        client.hand_over(&(received, sent))?;
    }
    Ok(())
}
