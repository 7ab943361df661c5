//! How many tests run beside each other. The test runner starts more than there may be, because those that wait for
//! their place cost nothing, and it takes them in alphabetical order: heavy ones stand side by side there.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Light tests for each core: most wait for processes more than they compute.
const LIGHT_PER_CORE: usize = 2;

/// Places for tests of one kind.
pub(super) struct Places {
    taken: Mutex<usize>,
    freed: Condvar,
}

/// Place of a test, until it is dropped.
pub(super) struct Place(&'static Places);

static HEAVY: Places = Places::new();
static LIGHT: Places = Places::new();

/// Waits for the place of the one heavy test.
pub(super) fn heavy() -> Place {
    HEAVY.take(1)
}

/// Waits for a place of a light test, beside the heavy one.
pub(super) fn light() -> Place {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    LIGHT.take((LIGHT_PER_CORE * cores - 1).max(1))
}

impl Places {
    const fn new() -> Self {
        Self { taken: Mutex::new(0), freed: Condvar::new() }
    }

    fn take(&'static self, max: usize) -> Place {
        let taken = self.freed.wait_while(self.lock(), |taken| *taken >= max);
        *taken.unwrap_or_else(PoisonError::into_inner) += 1;
        Place(self)
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
        self.0.freed.notify_one();
    }
}
