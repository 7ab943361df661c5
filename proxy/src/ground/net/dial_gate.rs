//! Limits dials to servers named by tokens: few concurrent dials per address, and a pause after a failure.
//!
//! A token outlives the node in it. Without this gate, each request with such a token, not one per second, would dial
//! the address's new owner. Pooled connections bypass the gate.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::ground::net::address::Address;

/// Maximum number of concurrent dials to one address. Further requests wait for the result.
const DIALS_MAX: usize = 8;

/// Pause after a failed dial, followed by a single probing dial.
const REST: Duration = Duration::from_secs(1);

/// Maximum number of addresses being dialled or paused, far more than the nodes of a fleet.
const ADDRESSES_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(crate) struct DialGate(Mutex<HashMap<Address, Arc<AddressGate>>>);

#[derive(Debug)]
struct AddressGate {
    dials: Semaphore,
    probe: tokio::sync::Mutex<()>,
    outcome: Mutex<DialOutcome>,
}

/// Result of the dials to an address so far.
#[derive(Debug, Default, Clone, Copy)]
struct DialOutcome {
    /// Time of the last failure, if no dial has succeeded since.
    failed_at: Option<Instant>,
    answered_at: Option<Instant>,
}

impl DialGate {
    /// Dials an address once the concurrency limit permits.
    ///
    /// # Errors
    /// The error of the dial, or of a recent failed dial during the pause.
    pub(crate) async fn pass<T>(&self, address: &Address, dial: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let gate = self.gate(address)?;
        let dialled = gate.dial(dial).await;
        self.forget(address, gate);
        dialled
    }

    /// Remaining pause of an address; `None` if it may be dialled.
    pub(crate) fn rest_left(&self, address: &Address) -> Option<Duration> {
        let failed_at = self.lock().get(address)?.last_failure()?;
        REST.checked_sub(failed_at.elapsed()).filter(|left| !left.is_zero())
    }

    fn gate(&self, address: &Address) -> io::Result<Arc<AddressGate>> {
        let mut gates = self.lock();
        if gates.len() >= ADDRESSES_MAX && !gates.contains_key(address) {
            gates.retain(|_, gate| Arc::strong_count(gate) > 1 || gate.is_resting());
            if gates.len() >= ADDRESSES_MAX {
                return Err(resting());
            }
        }
        Ok(gates.entry(address.clone()).or_default().clone())
    }

    /// Removes an address that is neither being dialled nor paused.
    fn forget(&self, address: &Address, gate: Arc<AddressGate>) {
        let mut gates = self.lock();
        drop(gate);
        if gates.get(address).is_some_and(|gate| Arc::strong_count(gate) == 1 && gate.last_failure().is_none()) {
            gates.remove(address);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Address, Arc<AddressGate>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Probing dial after a failure. If its client cancels it, it counts as failed.
struct Probe<'a> {
    gate: &'a AddressGate,
    began: Instant,
    is_over: bool,
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.gate.record(false, self.began);
        }
    }
}

impl Default for AddressGate {
    fn default() -> Self {
        Self { dials: Semaphore::new(DIALS_MAX), probe: tokio::sync::Mutex::default(), outcome: Mutex::default() }
    }
}

impl AddressGate {
    async fn dial<T>(&self, dial: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        // These guards are dropped last, so that the next waiter sees the result of this dial.
        let (_permit, lock) = self.enter().await?;
        let began = Instant::now();
        let mut probe = lock.is_some().then(|| Probe { gate: self, began, is_over: false });
        let dialled = dial.await;
        if let Some(probe) = &mut probe {
            probe.is_over = true;
        }
        self.record(dialled.is_ok(), began);
        dialled
    }

    /// Waits for a permit. After a failure, one probing dial holds the lock and the others wait for its result.
    async fn enter(&self) -> io::Result<(SemaphorePermit<'_>, Option<tokio::sync::MutexGuard<'_, ()>>)> {
        if self.is_resting() {
            return Err(resting());
        }
        let probe = if self.last_failure().is_some() { Some(self.probe.lock().await) } else { None };
        let probe = probe.filter(|_| self.last_failure().is_some());
        let permit = self.dials.acquire().await.ok();
        let permit = permit.filter(|_| !self.is_resting()).ok_or_else(resting)?;
        Ok((permit, probe))
    }

    /// Records the result of a dial that started at `began`.
    fn record(&self, has_answered: bool, began: Instant) {
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        if has_answered {
            *outcome = DialOutcome { failed_at: None, answered_at: Some(Instant::now()) };
        } else if outcome.answered_at.is_none_or(|answered_at| answered_at <= began) {
            outcome.failed_at = Some(Instant::now());
        }
    }

    fn last_failure(&self) -> Option<Instant> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).failed_at
    }

    fn is_resting(&self) -> bool {
        self.last_failure().is_some_and(|at| at.elapsed() < REST)
    }
}

fn resting() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "a dial to this address failed a moment ago")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::future::join_all;
    use tokio::time::{advance, sleep};

    use super::*;

    fn address(number: usize) -> Address {
        format!("http://10.0.0.1:{}", number + 1).parse().unwrap()
    }

    /// Runs this many concurrent dials that fail after two seconds; returns the number made.
    async fn failing(gate: &DialGate, requests: usize) -> usize {
        let dials = Cell::new(0);
        let dial = || async {
            dials.set(dials.get() + 1);
            sleep(Duration::from_secs(2)).await; // sleep: a dial that takes its time, in paused time
            Err::<(), _>(io::ErrorKind::TimedOut.into())
        };
        let address = address(0);
        let outcomes = join_all((0..requests).map(|_| gate.pass(&address, dial()))).await;
        assert!(outcomes.iter().all(Result::is_err));
        dials.get()
    }

    #[tokio::test(start_paused = true)]
    async fn when_a_server_answers_again_all_waiting_dials_pass() {
        let gate = DialGate::default();
        assert_eq!(failing(&gate, 1).await, 1);
        advance(REST).await;
        let (address, open) = (address(0), Cell::new(0));
        let dial = || async {
            open.set(open.get() + 1);
            sleep(Duration::from_secs(2)).await; // sleep: a dial that takes its time, in paused time
            Ok(open.replace(open.get() - 1))
        };
        let outcomes = join_all((0..20).map(|_| gate.pass(&address, dial()))).await;
        let at_once: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
        assert_eq!((at_once[0], at_once.iter().max()), (1, Some(&8)), "one shows it, the others follow");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_where_nobody_is_gets_few_dials_whatever_the_number_of_requests() {
        let gate = DialGate::default();
        assert_eq!(failing(&gate, 1000).await, 8, "all that wait share the outcome");
        assert_eq!(failing(&gate, 1000).await, 0, "it rests");
        advance(REST).await;
        assert_eq!(failing(&gate, 1000).await, 1, "one shows that nobody is there still");
        advance(REST).await;
        assert_eq!(gate.pass(&address(0), async { Ok(7) }).await.unwrap(), 7);
        let there = address(0);
        let all = join_all((0..1000).map(|_| gate.pass(&there, async { Ok(()) }))).await;
        assert!(all.iter().all(Result::is_ok), "everybody passes again");
        assert!(gate.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_of_addresses_is_bounded() {
        let gate = DialGate::default();
        for number in 0..3 * ADDRESSES_MAX {
            let refused = async { Err::<(), _>(io::ErrorKind::ConnectionRefused.into()) };
            assert!(gate.pass(&address(number), refused).await.is_err());
        }
        assert_eq!(gate.lock().len(), ADDRESSES_MAX);
        advance(REST).await;
        gate.pass(&address(5 * ADDRESSES_MAX), async { Ok(()) }).await.unwrap();
        assert!(gate.lock().is_empty());
    }
}
