//! Counts for each fault, and their table.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::fault::{Disconnects, EXPECTATIONS, Fault, Losses};
use crate::ledger::Arrival;

/// Placeholder for no proxy.
const NOBODY: usize = usize::MAX;

/// Counts of the whole run, by last injected fault.
#[derive(Debug)]
pub(crate) struct Tally {
    rows: Vec<Row>,
    /// Time and row of each fault.
    made: Mutex<Vec<(Instant, usize)>>,
    /// Proxy affected by the fault.
    proxy: AtomicUsize,
    /// Clients that are connected and have joined their groups.
    pub(crate) here: AtomicUsize,
    pub(crate) messages: AtomicU64,
    pub(crate) calls: Calls,
}

/// Results of speakers' calls.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) answered: AtomicU64,
    pub(crate) failed: AtomicU64,
    /// The connection ended first.
    pub(crate) cut_short: AtomicU64,
    /// Calls without an answer, on connections that have not ended.
    pub(crate) silent: AtomicU64,
    pub(crate) answered_twice: AtomicU64,
}

/// Counts since a fault was injected.
#[derive(Debug, Default)]
struct Row {
    times: AtomicU64,
    disconnects: AtomicU64,
    unexpected: AtomicU64,
    pub(crate) lost: AtomicU64,
    duplicated: AtomicU64,
    out_of_order: AtomicU64,
    misdelivered: AtomicU64,
    lost_upward: AtomicU64,
    problems: AtomicU64,
    recoveries: Mutex<Recoveries>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Recoveries {
    count: u32,
    total: Duration,
    longest: Duration,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            // The additional row is for the time before the first fault.
            rows: (0..=EXPECTATIONS.len()).map(|_| Row::default()).collect(),
            made: Mutex::default(),
            proxy: AtomicUsize::new(NOBODY),
            here: AtomicUsize::new(0),
            messages: AtomicU64::new(0),
            calls: Calls::default(),
        }
    }

    /// Starts the counts of a fault that is about to be injected, with the affected proxy.
    pub(crate) fn begin(&self, fault: Fault, proxy: Option<usize>) {
        let row = EXPECTATIONS.iter().position(|expectation| expectation.fault == fault);
        self.proxy.store(proxy.unwrap_or(NOBODY), Ordering::SeqCst);
        lock(&self.made).push((Instant::now(), row.unwrap_or(EXPECTATIONS.len())));
        bump(&self.row().times);
    }

    /// Records a problem that clients do not see.
    pub(crate) fn problem(&self) {
        bump(&self.row().problems);
    }

    pub(crate) fn disconnected(&self, proxy: usize) {
        let expected = EXPECTATIONS.get(self.row_at(Instant::now())).map(|expectation| expectation.disconnects);
        let is_expected = expected == Some(Disconnects::OfItsProxy) && self.proxy.load(Ordering::SeqCst) == proxy;
        bump(if is_expected { &self.row().disconnects } else { &self.row().unexpected });
    }

    pub(crate) fn recovered(&self, after: Duration) {
        let mut recoveries = lock(&self.row().recoveries);
        recoveries.count += 1;
        recoveries.total += after;
        recoveries.longest = recoveries.longest.max(after);
    }

    pub(crate) fn arrived(&self, arrival: Arrival) {
        bump(&self.messages);
        match arrival {
            Arrival::InOrder => {}
            Arrival::OutOfOrder => bump(&self.row().out_of_order),
            Arrival::Duplicate => bump(&self.row().duplicated),
            Arrival::Misdelivered => bump(&self.row().misdelivered),
        }
    }

    /// Records the loss of a message that was confirmed at this time.
    pub(crate) fn lost(&self, confirmed: Instant) {
        bump(&self.rows[self.row_at(confirmed)].lost);
    }

    /// Records the loss of a number sent at this time. Losses are detected late, maybe after another fault. So the loss
    /// counts for the first fault since then that may lose messages, otherwise for the fault during which it was sent.
    pub(crate) fn lost_upward(&self, sent: Instant) {
        let under = self.row_at(sent);
        let later = lock(&self.made).iter().filter(|(at, _)| *at > sent).map(|(_, row)| *row).collect::<Vec<_>>();
        let mut rows = std::iter::once(under).chain(later);
        let row = rows.find(|row| limit(*row).losses == Losses::OfTheKilled).unwrap_or(under);
        bump(&self.rows[row].lost_upward);
    }

    /// Row of the last fault before this time.
    fn row_at(&self, at: Instant) -> usize {
        lock(&self.made).iter().rev().find(|(made, _)| *made <= at).map_or(EXPECTATIONS.len(), |(_, row)| *row)
    }

    fn row(&self) -> &Row {
        &self.rows[self.row_at(Instant::now())]
    }

    /// Whether everything met its expectations.
    pub(crate) fn is_clean(&self) -> bool {
        let rows = self.rows.iter().enumerate();
        rows.fold(true, |clean, (at, row)| clean && row.is_clean(limit(at))) && self.calls.is_clean()
    }

    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{:<16} {:>5} {:>11} {:>10} {:>6} {:>10} {:>12} {:>8} {:>7} {:>15}  \n",
            "fault",
            "times",
            "disconnects",
            "unexpected",
            "lost",
            "duplicated",
            "out of order",
            "astray",
            "lost up",
            "back after s"
        );
        for (at, row) in self.rows.iter().enumerate() {
            let expectation = EXPECTATIONS.get(at);
            let name = expectation.map_or_else(|| "(none yet)".to_owned(), |expectation| expectation.fault.name());
            if get(&row.times) > 0 || !row.is_clean(limit(at)) {
                // Writing to a string does not fail.
                let _ = writeln!(text, "{name:<16} {}", row.line(limit(at)));
            }
        }
        let calls = &self.calls;
        let _ = writeln!(
            text,
            "{} messages came; calls: {} answered, {} failed, {} cut short, {} silent, {} answered twice",
            get(&self.messages),
            get(&calls.answered),
            get(&calls.failed),
            get(&calls.cut_short),
            get(&calls.silent),
            get(&calls.answered_twice)
        );
        text
    }
}

fn limit(row: usize) -> Limit {
    let strict = Limit { recovery: Duration::ZERO, losses: Losses::None };
    EXPECTATIONS.get(row).map_or(strict, |row| Limit { recovery: row.recovery, losses: row.losses })
}

#[derive(Debug, Clone, Copy)]
struct Limit {
    recovery: Duration,
    losses: Losses,
}

impl Calls {
    fn is_clean(&self) -> bool {
        get(&self.silent) == 0 && get(&self.answered_twice) == 0
    }
}

impl Row {
    fn recoveries(&self) -> Recoveries {
        *lock(&self.recoveries)
    }

    fn is_clean(&self, limit: Limit) -> bool {
        let never = [&self.unexpected, &self.duplicated, &self.out_of_order, &self.misdelivered, &self.problems];
        let has_lost = get(&self.lost) + get(&self.lost_upward) > 0;
        never.iter().all(|counter| get(counter) == 0)
            && (!has_lost || limit.losses == Losses::OfTheKilled)
            && self.recoveries().longest <= limit.recovery
    }

    fn line(&self, limit: Limit) -> String {
        let Recoveries { count, total, longest } = self.recoveries();
        let mean = total.checked_div(count).unwrap_or_default();
        format!(
            "{:>5} {:>11} {:>10} {:>6} {:>10} {:>12} {:>8} {:>7} {:>7.2} {:>7.2}  {}",
            get(&self.times),
            get(&self.disconnects),
            get(&self.unexpected),
            get(&self.lost),
            get(&self.duplicated),
            get(&self.out_of_order),
            get(&self.misdelivered),
            get(&self.lost_upward),
            mean.as_secs_f64(),
            longest.as_secs_f64(),
            if self.is_clean(limit) { "ok" } else { "MISSED" }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clients_of_the_proxy_that_is_drained_may_notice() {
        let tally = Tally::new();
        tally.begin(Fault::DrainProxy, Some(1));
        tally.disconnected(1);
        tally.recovered(Duration::from_secs(1));
        assert!(tally.is_clean(), "{}", tally.table());
        tally.disconnected(0);
        assert!(!tally.is_clean());
    }

    #[test]
    fn who_is_back_late_and_whatever_is_lost_is_missed() {
        let late = Tally::new();
        late.begin(Fault::KillProxy, Some(0));
        late.recovered(Duration::from_secs(6));
        let lost = Tally::new();
        lost.lost(Instant::now());
        let silent = Tally::new();
        bump(&silent.calls.silent);
        assert!(!late.is_clean() && !lost.is_clean() && !silent.is_clean());
        assert!(late.table().contains("MISSED"));
    }
}
