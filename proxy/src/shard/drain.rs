//! The node stops: its clients are told to connect again, not all at once.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until};
use trunkline_protocol::id::random_bytes;

use super::departures::Departures;
use super::{Ending, Shard};
use crate::shard::directory::{Serial, Slot};

/// A node sends at least ten clients away in a second: fewer are no storm anywhere, and nobody shall wait for them.
const LEAVE_INTERVAL: Duration = Duration::from_millis(100);

impl Shard {
    /// Sends everyone away, spread over this time.
    pub(super) fn drain(self: &Rc<Self>, spread: Duration) {
        if spread.is_zero() {
            // Here and now: an app that ends does not wait for a task.
            return self.send_the_rest_away();
        }
        spawn_local(see_off(self.clone(), spread));
    }

    /// Whether all were sent away, so that nobody is let in any more.
    #[must_use]
    pub(crate) fn is_drained(&self) -> bool {
        self.is_drained.get()
    }

    /// Those who were on their way in when the others were told, too.
    fn send_the_rest_away(self: &Rc<Self>) {
        self.is_drained.set(true);
        let everyone = self.directory.borrow().everyone();
        everyone.iter().for_each(|(slot, _)| self.end(*slot, &Ending::drained()));
        self.finish_turn();
    }
}

async fn see_off(shard: Rc<Shard>, spread: Duration) {
    let begun = Instant::now();
    let everyone = shard.directory.borrow().everyone();
    let spread = spread.min(longest_spread(everyone.len(), shard.shared.shards().len()));
    let mut departures: Departures<(Slot, Serial)> = Departures::new(everyone, spread, chance);
    while let Some(next_at) = departures.next_at() {
        sleep_until(begun + next_at).await;
        while let Some((slot, serial)) = departures.next(begun.elapsed(), chance) {
            if shard.with_client(slot, serial, |_| ()).is_some() {
                shard.end(slot, &Ending::drained());
            }
        }
        shard.finish_turn();
    }
    shard.send_the_rest_away();
}

/// So many clients of one of so many shards need no longer.
fn longest_spread(clients: usize, shards: usize) -> Duration {
    LEAVE_INTERVAL.saturating_mul(u32::try_from(clients.saturating_mul(shards)).unwrap_or(u32::MAX))
}

fn chance() -> f64 {
    f64::from(u32::from_ne_bytes(random_bytes())) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_clients_hold_nobody_up() {
        assert_eq!(longest_spread(5, 2), Duration::from_secs(1));
        assert_eq!(longest_spread(0, 2), Duration::ZERO);
    }
}
