//! Limits the number of parallel tests. The test runner starts more of them, because waiting tests cost nothing, and it
//! starts them alphabetically, which groups heavy ones.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Light tests per core: most wait for processes more than they compute.
const LIGHT_PER_CORE: usize = 2;

/// Permits for tests of one kind.
pub(super) struct TestPermits {
    taken: Mutex<usize>,
    freed: Condvar,
}

/// Permit of a test, released on drop.
pub(super) struct TestPermit(&'static TestPermits);

static HEAVY: TestPermits = TestPermits::new();
static LIGHT: TestPermits = TestPermits::new();

/// Waits for a permit of heavy tests, one for each core.
pub(super) fn heavy() -> TestPermit {
    HEAVY.take(cores())
}

/// Waits for a permit of light tests, in parallel with heavy ones.
pub(super) fn light() -> TestPermit {
    LIGHT.take((LIGHT_PER_CORE * cores() - 1).max(1))
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

impl TestPermits {
    const fn new() -> Self {
        Self { taken: Mutex::new(0), freed: Condvar::new() }
    }

    fn take(&'static self, max: usize) -> TestPermit {
        let taken = self.freed.wait_while(self.lock(), |taken| *taken >= max);
        *taken.unwrap_or_else(PoisonError::into_inner) += 1;
        TestPermit(self)
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TestPermit {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
        self.0.freed.notify_one();
    }
}
