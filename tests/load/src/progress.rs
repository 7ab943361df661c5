//! Progress line on the terminal during a run.

use std::io::{IsTerminal, Write};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::interval;

use crate::run::Run;
use trunkline_generator::histogram::micros;

const REDRAW: Duration = Duration::from_millis(250);
const BAR_CHARS: usize = 30;

/// Draws the line until aborted; does nothing without a terminal.
pub(crate) async fn show(run: Rc<Run>) {
    if !std::io::stderr().is_terminal() {
        return std::future::pending().await;
    }
    let mut timer = interval(REDRAW);
    let mut ready_us = None;
    loop {
        timer.tick().await;
        let now_us = run.clock.now_us();
        if ready_us.is_none() && run.settled.get() == run.client_count() {
            ready_us = Some(now_us);
        }
        let line = line(&run, ready_us, now_us);
        // A closed terminal is not an error.
        drop(write!(std::io::stderr(), "\r\x1b[2K{line}"));
    }
}

pub(crate) fn clear() {
    if std::io::stderr().is_terminal() {
        drop(write!(std::io::stderr(), "\r\x1b[2K"));
    }
}

fn line(run: &Run, ready_us: Option<u64>, now_us: u64) -> String {
    let (settled, count) = (run.settled.get(), run.client_count());
    let (phase, share) = match ready_us {
        None => ("ramp-up", settled as f64 / count.max(1) as f64),
        Some(ready_us) => {
            let share = (now_us - ready_us) as f64 / micros(run.arguments.run).max(1) as f64;
            (if share < 1.0 { "run" } else { "ramp-down" }, share.min(1.0))
        }
    };
    let tally = run.counted();
    let (open, received) = (tally.open_by_second().last().copied().unwrap_or(0), tally.latency.count());
    let failed: u64 = tally.failed.values().sum();
    format!("{phase:<9} {} {open} open, {failed} failed, {received} received", bar(share))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of thirty characters")]
fn bar(share: f64) -> String {
    let full = ((share * BAR_CHARS as f64) as usize).min(BAR_CHARS);
    format!("[{}{}] {:>3.0}%", "#".repeat(full), ".".repeat(BAR_CHARS - full), share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_up() {
        assert_eq!(bar(0.0), format!("[{}]   0%", ".".repeat(30)));
        assert_eq!(bar(0.5), format!("[{}{}]  50%", "#".repeat(15), ".".repeat(15)));
        assert_eq!(bar(1.0), format!("[{}] 100%", "#".repeat(30)));
    }
}
