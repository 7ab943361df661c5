//! Limits the number of parallel tests. The test runner starts all of them, because waiting tests cost nothing. The
//! slowest begin first, so that no slow test runs alone at the end.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Light tests per core: most wait for processes more than they compute.
const LIGHT_PER_CORE: usize = 2;

/// Tests per core that wait most of their time for a documented time to pass.
const WAITING_PER_CORE: usize = 4;

/// Names of the slowest tests, in descending order of their time.
const SLOWEST_FIRST: &str = include_str!("slowest_first.txt");

/// Permits for tests of one kind.
pub(super) struct TestPermits {
    state: Mutex<PermitState>,
    changed: Condvar,
}

struct PermitState {
    taken: usize,
    arrived: usize,
    /// Ranks of waiting tests, each with its arrival.
    waiting: BTreeSet<(usize, usize)>,
}

/// Permit of a test, released on drop.
pub(super) struct TestPermit(&'static TestPermits);

static HEAVY: TestPermits = TestPermits::new();
static LIGHT: TestPermits = TestPermits::new();
static WAITING: TestPermits = TestPermits::new();

/// Waits for a permit of heavy tests, one for each core.
pub(super) fn heavy() -> TestPermit {
    HEAVY.take(cores())
}

/// Waits for a permit of light tests, in parallel with heavy ones.
pub(super) fn light() -> TestPermit {
    LIGHT.take((LIGHT_PER_CORE * cores() - 1).max(1))
}

/// Waits for a permit of tests that hardly compute.
pub(super) fn waiting() -> TestPermit {
    WAITING.take(WAITING_PER_CORE * cores())
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Rank of this thread's test: that of its line, or behind all lines.
fn rank() -> usize {
    let thread = thread::current();
    let name = thread.name().unwrap_or_default();
    SLOWEST_FIRST.lines().position(|line| line == name).unwrap_or(usize::MAX)
}

impl TestPermits {
    const fn new() -> Self {
        let state = PermitState { taken: 0, arrived: 0, waiting: BTreeSet::new() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn take(&'static self, max: usize) -> TestPermit {
        let mut state = self.lock();
        state.arrived += 1;
        let place = (rank(), state.arrived);
        state.waiting.insert(place);
        let state = self.changed.wait_while(state, |state| state.taken >= max || state.waiting.first() != Some(&place));
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.waiting.remove(&place);
        state.taken += 1;
        drop(state);
        // The next one may fit as well.
        self.changed.notify_all();
        TestPermit(self)
    }

    fn lock(&self) -> MutexGuard<'_, PermitState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TestPermit {
    fn drop(&mut self) {
        self.0.lock().taken -= 1;
        self.0.changed.notify_all();
    }
}
