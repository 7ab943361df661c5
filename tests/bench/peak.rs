//! Peak memory of a server at work, sampled at short intervals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use anyhow::{Result, anyhow};
use trunkline_generator::memory::Resident;

/// Short compared with a broadcast of large messages.
const LOOK: Duration = Duration::from_millis(5);

/// Thread that samples the memory of these processes until the peak is requested.
#[derive(Debug)]
pub struct Peak {
    is_over: Arc<AtomicBool>,
    looking: JoinHandle<Result<u64>>,
}

impl Peak {
    /// Starts sampling these processes.
    pub fn watch(pids: Vec<u32>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let looking = thread::spawn({
            let is_over = Arc::clone(&is_over);
            move || inspect(&pids, &is_over)
        });
        Self { is_over, looking }
    }

    /// Stops sampling and returns the peak of their total.
    pub fn end(self) -> Result<u64> {
        self.is_over.store(true, Ordering::Release);
        self.looking.join().map_err(|_| anyhow!("the memory was not looked at"))?
    }
}

fn inspect(pids: &[u32], is_over: &AtomicBool) -> Result<u64> {
    let mut peak = 0;
    while !is_over.load(Ordering::Acquire) {
        let now: u64 = pids.iter().map(|pid| Ok(Resident::of(*pid)?.anonymous_bytes)).sum::<Result<_>>()?;
        peak = peak.max(now);
        sleep(LOOK);
    }
    Ok(peak)
}
