//! Bounded queue of lines in front of a writer thread: pushing a line never blocks.
//!
//! ```text
//!  push ─► urgent ─┐
//!       ─► lines ──┴─► writer thread ─► sink (a file, a standard stream)
//!       └► full: counted, and reported by a notice in front of the next line
//! ```

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, io};

/// Maximum bytes of waiting lines. Further lines are dropped.
const QUEUE_MAX_BYTES: usize = 1024 * 1024;

/// Additional bytes for lines of the audit log and of panics.
const RESERVE_MAX_BYTES: usize = 256 * 1024;

/// Priority of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinePriority {
    /// Dropped if the queue is full.
    Normal,
    /// Uses the reserve of a full queue.
    Kept,
    /// Uses the reserve, and is written before all waiting lines.
    Urgent,
}

/// Destination of lines. Its methods run on the queue's own thread and may block.
pub trait LineSink: Send + 'static {
    /// Writes a line, which ends with a line break. Fails if the line was not written completely.
    fn write_line(&mut self, line: &[u8]) -> io::Result<()>;

    /// Reopens the destination, after a signal.
    fn reopen(&mut self);
}

/// Receiver of reports about lost lines. Its methods run on the writer thread and on pushing threads.
pub trait LineLosses: Send + Sync + 'static {
    /// Handles a line that was dropped or not written.
    fn lost(&self, line: &[u8], priority: LinePriority, error: &io::Error);

    /// Returns a line that reports the losses since the last such line.
    fn notice(&self, lost: u64) -> Option<String>;
}

/// Bounded queue of lines. Clones share it.
#[derive(Clone)]
pub struct LineQueue(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    filled: Condvar,
    written: Condvar,
    losses: Box<dyn LineLosses>,
}

#[derive(Default)]
struct State {
    urgent: VecDeque<Entry>,
    lines: VecDeque<Entry>,
    bytes: usize,
    current: Option<LinePriority>,
    /// Lines lost so far, and the reason of the last loss.
    lost: u64,
    last_error: String,
    unreported: u64,
    is_failing: bool,
    must_reopen: bool,
}

struct Entry {
    text: Vec<u8>,
    priority: LinePriority,
    /// Losses reported by this line; zero except for notices.
    reports: u64,
}

/// Next step of the writer thread.
enum Step {
    Reopen,
    Write(Entry),
}

impl LineQueue {
    /// Starts a thread of this name that writes to the sink. Fails if the system can't start a thread.
    pub fn start(name: &str, mut sink: impl LineSink, losses: impl LineLosses) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            filled: Condvar::new(),
            written: Condvar::new(),
            losses: Box::new(losses),
        });
        let queue = Self(shared.clone());
        std::thread::Builder::new().name(name.into()).spawn(move || {
            loop {
                match shared.next_step() {
                    Step::Reopen => sink.reopen(),
                    Step::Write(entry) => {
                        let outcome = sink.write_line(&entry.text);
                        shared.finish(&entry, outcome);
                    }
                }
            }
        })?;
        Ok(queue)
    }

    /// Queues a line, which ends with a line break, without blocking. Returns whether it was accepted.
    pub fn push(&self, text: impl Into<Vec<u8>>, priority: LinePriority) -> bool {
        let (shared, text) = (&*self.0, text.into());
        let room = if priority == LinePriority::Normal { QUEUE_MAX_BYTES } else { QUEUE_MAX_BYTES + RESERVE_MAX_BYTES };
        let mut state = shared.lock();
        if state.bytes.saturating_add(text.len()) <= room {
            if priority != LinePriority::Urgent {
                state.report(&*shared.losses);
            }
            state.add_entry(Entry { text, priority, reports: 0 });
            drop(state);
            shared.filled.notify_one();
            return true;
        }
        let error = io::Error::other("the queue of lines to be written is full");
        state.note_loss(&error);
        drop(state);
        // The receiver may push a line to another queue.
        shared.losses.lost(&text, priority, &error);
        false
    }

    /// Reopens the sink before the next line is written.
    pub fn reopen(&self) {
        self.0.lock().must_reopen = true;
        self.0.filled.notify_one();
    }

    /// Waits until all lines are written, up to a time limit. Returns whether they are.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.0.wait_until(timeout, |state| state.is_idle()).is_some()
    }

    /// Waits until urgent lines are written, up to a time limit.
    pub fn flush_urgent(&self, timeout: Duration) {
        let is_done = |state: &State| state.urgent.is_empty() && state.current != Some(LinePriority::Urgent);
        self.0.wait_until(timeout, is_done);
    }

    /// Runs `push`, which pushes lines, and waits until they are written, up to a time limit. Fails if a line was lost
    /// meanwhile or the time limit has passed, with the reason.
    pub fn confirm(&self, timeout: Duration, push: &mut dyn FnMut()) -> Result<(), String> {
        let lost_before = self.0.lock().lost;
        push();
        match self.0.wait_until(timeout, |state| state.is_idle() || state.lost != lost_before) {
            Some(state) if state.lost == lost_before => Ok(()),
            Some(state) => Err(state.last_error.clone()),
            None => Err(format!("not written within {} s", timeout.as_secs_f32())),
        }
    }
}

impl fmt::Debug for LineQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineQueue").finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_step(&self) -> Step {
        let mut state = self.lock();
        loop {
            if std::mem::take(&mut state.must_reopen) {
                return Step::Reopen;
            }
            if let Some(entry) = state.urgent.pop_front().or_else(|| state.lines.pop_front()) {
                state.bytes = state.bytes.saturating_sub(entry.text.len());
                state.current = Some(entry.priority);
                return Step::Write(entry);
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn finish(&self, entry: &Entry, outcome: io::Result<()>) {
        let mut state = self.lock();
        state.current = None;
        state.is_failing = outcome.is_err();
        match &outcome {
            // The losses reported by a lost notice are still unreported.
            Err(_) if entry.reports > 0 => state.unreported += entry.reports,
            Err(error) => state.note_loss(error),
            Ok(()) => {}
        }
        // Before a waiting flush finds the queue empty.
        if state.lines.is_empty() && !state.is_failing {
            state.report(&*self.losses);
        }
        drop(state);
        if let (Err(error), 0) = (&outcome, entry.reports) {
            self.losses.lost(&entry.text, entry.priority, error);
        }
        self.written.notify_all();
    }

    /// Waits for a state; `None` on timeout.
    fn wait_until(&self, timeout: Duration, is_wanted: impl Fn(&State) -> bool) -> Option<MutexGuard<'_, State>> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        while !is_wanted(&state) {
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            (state, _) = self.written.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
        Some(state)
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.urgent.is_empty() && self.lines.is_empty() && self.current.is_none()
    }

    fn add_entry(&mut self, entry: Entry) {
        self.bytes += entry.text.len();
        match entry.priority {
            LinePriority::Urgent => self.urgent.push_back(entry),
            LinePriority::Normal | LinePriority::Kept => self.lines.push_back(entry),
        }
    }

    fn note_loss(&mut self, error: &io::Error) {
        self.lost += 1;
        self.unreported += 1;
        self.last_error = error.to_string();
    }

    /// Queues a notice of unreported losses.
    fn report(&mut self, losses: &dyn LineLosses) {
        let reports = std::mem::take(&mut self.unreported);
        if reports > 0
            && let Some(text) = losses.notice(reports)
        {
            self.add_entry(Entry { text: text.into_bytes(), priority: LinePriority::Normal, reports });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Longer than any test runs.
    const LONG: Duration = Duration::from_secs(60);

    /// Sink that writes a line each time it receives an outcome.
    struct Gate {
        outcomes: Receiver<io::Result<()>>,
        written: Sender<String>,
    }

    impl LineSink for Gate {
        fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
            let outcome = self.outcomes.recv().unwrap_or(Ok(()));
            let line = String::from_utf8(line.to_vec()).unwrap();
            self.written.send(if outcome.is_ok() { line } else { format!("failed {line}") }).unwrap();
            outcome
        }

        fn reopen(&mut self) {
            self.written.send("reopened".into()).unwrap();
        }
    }

    /// Losses as they were reported.
    struct Lost(Sender<String>);

    impl LineLosses for Lost {
        fn lost(&self, line: &[u8], priority: LinePriority, error: &io::Error) {
            self.0.send(format!("{priority:?} {}: {error}", String::from_utf8_lossy(line).trim_end())).unwrap();
        }

        fn notice(&self, lost: u64) -> Option<String> {
            Some(format!("lost {lost}\n"))
        }
    }

    struct Scene {
        queue: LineQueue,
        outcomes: Sender<io::Result<()>>,
        written: Receiver<String>,
        lost: Receiver<String>,
    }

    impl Scene {
        /// Creates a queue with a blocked sink.
        fn new() -> Self {
            let ((outcomes, waiting), (write, written), (lose, lost)) = (channel(), channel(), channel());
            let gate = Gate { outcomes: waiting, written: write };
            Self { queue: LineQueue::start("gate", gate, Lost(lose)).unwrap(), outcomes, written, lost }
        }

        /// Writes and returns all waiting lines.
        fn release(self) -> Vec<String> {
            drop(self.outcomes);
            assert!(self.queue.flush(LONG));
            self.written.try_iter().map(|line| line.trim_end().to_owned()).collect()
        }
    }

    fn full() -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }

    #[test]
    fn a_stuck_sink_delays_no_caller_and_the_next_line_reports_dropped_lines() {
        let scene = Scene::new();
        let long = format!("{}\n", "x".repeat(QUEUE_MAX_BYTES - 1));
        assert!(scene.queue.push("first\n", LinePriority::Normal));
        while scene.queue.0.lock().current.is_none() {
            std::thread::yield_now();
        }
        assert!(scene.queue.push(long, LinePriority::Normal));
        for _ in 0..100 {
            assert!(!scene.queue.push("dropped\n", LinePriority::Normal));
        }
        assert_eq!(scene.lost.try_iter().count(), 100);
        assert!(scene.queue.push("an act\n", LinePriority::Kept));
        assert!(scene.queue.push("a panic\n", LinePriority::Urgent));
        assert!(!scene.queue.flush(Duration::from_millis(20)), "it hangs");
        let written = scene.release();
        let place = |wanted: &str| written.iter().position(|line| line == wanted);
        assert_eq!((place("first"), place("a panic")), (Some(0), Some(1)), "before all that wait");
        assert!(place("lost 100") < place("an act"), "{:?}", written.last());
    }

    #[test]
    fn losses_are_reported_when_the_queue_is_empty_without_further_lines() {
        let scene = Scene::new();
        while scene.queue.push("x".repeat(1000) + "\n", LinePriority::Normal) {}
        assert!(scene.release().contains(&"lost 1".to_owned()));
    }

    #[test]
    fn a_line_that_was_not_written_is_handed_back_and_reported_before_the_next_one() {
        let scene = Scene::new();
        scene.outcomes.send(full()).unwrap();
        scene.queue.push("one\n", LinePriority::Kept);
        let lost = scene.lost.recv_timeout(LONG).unwrap();
        assert!(lost.starts_with("Kept one: "), "{lost}");
        // A lost notice adds its count to the next one.
        scene.outcomes.send(full()).unwrap();
        scene.outcomes.send(full()).unwrap();
        scene.queue.push("two\n", LinePriority::Normal);
        assert!(scene.lost.recv_timeout(LONG).unwrap().starts_with("Normal two: "));
        scene.outcomes.send(Ok(())).unwrap();
        scene.outcomes.send(Ok(())).unwrap();
        scene.queue.push("three\n", LinePriority::Normal);
        assert_eq!(scene.release(), ["failed one", "failed lost 1", "failed two", "lost 2", "three"]);
    }

    #[test]
    fn a_line_is_confirmed_once_it_is_written_and_not_if_it_is_lost_or_takes_too_long() {
        let scene = Scene::new();
        let confirm = |timeout: Duration| {
            scene.queue.confirm(timeout, &mut || assert!(scene.queue.push("act\n", LinePriority::Kept)))
        };
        scene.outcomes.send(Ok(())).unwrap();
        assert_eq!(confirm(LONG), Ok(()));
        scene.outcomes.send(full()).unwrap();
        assert!(confirm(LONG).unwrap_err().contains("storage"));
        // The notice and the line.
        scene.outcomes.send(Ok(())).unwrap();
        scene.outcomes.send(Ok(())).unwrap();
        assert_eq!(confirm(LONG), Ok(()), "there is room again");
        assert!(confirm(Duration::from_millis(20)).unwrap_err().starts_with("not written within"));
    }

    #[test]
    fn a_sink_is_reopened_before_the_next_line() {
        let scene = Scene::new();
        scene.queue.reopen();
        assert_eq!(scene.written.recv_timeout(LONG).unwrap(), "reopened");
        scene.queue.push("one\n", LinePriority::Normal);
        assert_eq!(scene.release(), ["one"]);
    }
}
