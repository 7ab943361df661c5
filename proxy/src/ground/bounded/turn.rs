//! Turns by time: while several holders are busy, each works for about half a millisecond at a time.
//!
//! ```text
//!   lines of holder A   1 ──┐ gate, one turn at a time
//!                       2 ──┴──► turn: a batch of `frames_max` frames ──► ends when all threads have applied it
//! ```
//!
//! A line is one source of work of a holder, such as its links at one thread. The time of a turn sets the frames of the
//! next one. A holder that is busy alone takes no turns; only bytes limit its batches. Clients share a turn of
//! their line until its time is used up.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Time of a turn at a single thread. Every thread's turns reach all others, so more threads have shorter turns.
const TURN_TIME: Duration = Duration::from_micros(400);

/// Minimum time of a turn.
const TURN_TIME_MIN: Duration = Duration::from_micros(100);

/// Maximum frames of a turn.
const TURN_FRAMES_MAX: u32 = 1024;

/// Minimum frames of a turn. Sends to one group share their writes, so even shorter turns would cost more in total.
const TURN_FRAMES_MIN: u32 = 8;

/// Frames of a first turn, before any is measured.
const TURN_FRAMES_FIRST: u32 = 64;

/// Frames between two looks at the clock.
const LOOK_FRAMES: usize = 32;

/// Seconds for which holders take turns after two of them had work.
const CONTENDED_S: u32 = 60;

/// Source of a holder's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum TurnSource {
    /// Links at a thread.
    Links(u16),
    /// Clients at a thread.
    Clients(u16),
    /// REST callers of the node.
    Rest,
    /// Steps of long commands for many clients.
    Steps,
}

/// All lines, and whether several holders are busy.
#[derive(Debug)]
pub(crate) struct Turns {
    state: Arc<TurnState>,
    hasher: RandomState,
    lines: Mutex<HashMap<(u64, TurnSource), Arc<TurnLine>>>,
}

#[derive(Debug)]
struct TurnState {
    turn_time: Duration,
    /// Holder of the last noted work.
    last: AtomicU64,
    /// Remaining seconds in which holders take turns.
    contended_s: AtomicU32,
}

impl Turns {
    pub(crate) fn new(threads: usize) -> Self {
        let threads = u32::try_from(threads).unwrap_or(u32::MAX).max(1);
        let turn_time = (TURN_TIME / threads).max(TURN_TIME_MIN);
        let state = Arc::new(TurnState { turn_time, last: AtomicU64::new(0), contended_s: AtomicU32::new(0) });
        Self { state, hasher: RandomState::new(), lines: Mutex::default() }
    }

    /// Whether holders take turns, because several are busy.
    #[inline]
    pub(crate) fn are_taken(&self) -> bool {
        self.state.are_taken()
    }

    pub(crate) fn line(&self, holder: &impl Hash, source: TurnSource) -> Arc<TurnLine> {
        // Holders with equal hashes would share their turns, which is harmless.
        let holder = self.hasher.hash_one(holder);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = lines.entry((holder, source)).or_insert_with(|| {
            Arc::new(TurnLine {
                holder,
                turns: self.state.clone(),
                gate: Arc::new(Semaphore::new(1)),
                frames_max: AtomicU32::new(TURN_FRAMES_FIRST),
                shared_ns: AtomicU64::new(0),
            })
        });
        line.clone()
    }

    /// Counts a second, and removes the lines without a source.
    pub(crate) fn tick(&self) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, line| Arc::strong_count(line) > 1);
        let contended_s = &self.state.contended_s;
        // No more than one thread ticks; a race with a note loses at most a second.
        contended_s.store(contended_s.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }
}

impl TurnState {
    fn are_taken(&self) -> bool {
        self.contended_s.load(Ordering::Relaxed) > 0
    }
}

#[derive(Debug)]
pub(crate) struct TurnLine {
    holder: u64,
    turns: Arc<TurnState>,
    gate: Arc<Semaphore>,
    frames_max: AtomicU32,
    /// Time of the batches that have shared the current turn.
    shared_ns: AtomicU64,
}

impl TurnLine {
    /// Notes work of the holder, which may make turns necessary.
    pub(crate) fn note_work(&self) {
        let TurnState { last, contended_s, .. } = &*self.turns;
        if last.load(Ordering::Relaxed) != self.holder && contended_s.load(Ordering::Relaxed) < CONTENDED_S {
            let before = last.swap(self.holder, Ordering::Relaxed);
            if before != 0 {
                contended_s.store(CONTENDED_S, Ordering::Relaxed);
            }
        }
    }

    /// Waits for a turn. Returns `None` immediately while no other holder is busy.
    pub(crate) async fn begin(self: &Arc<Self>) -> Option<Turn> {
        if !self.turns.are_taken() {
            return None;
        }
        // The gate is never closed.
        let permit = self.gate.clone().acquire_owned().await.ok()?;
        let frames_max = self.frames_max.load(Ordering::Relaxed);
        Some(Turn {
            line: self.clone(),
            frames_max,
            frames: 0,
            read_time: Duration::ZERO,
            slowest_ns: AtomicU64::new(0),
            _permit: permit,
        })
    }
}

/// A turn, shared by the threads that apply parts of its batch. It ends when the last part is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    line: Arc<TurnLine>,
    frames_max: u32,
    frames: u32,
    read_time: Duration,
    /// Time of the thread that worked longest.
    slowest_ns: AtomicU64,
    _permit: OwnedSemaphorePermit,
}

impl Turn {
    /// Whether the turn has all its frames, or has used its time for reading them.
    pub(crate) fn is_full(&self, frames: usize, begun_at: Instant) -> bool {
        let has_time = || begun_at.elapsed() < self.line.turns.turn_time;
        frames >= self.frames_max as usize || (frames > 0 && frames.is_multiple_of(LOOK_FRAMES) && !has_time())
    }

    /// Records the frames of the batch and the time of reading them. Each thread that applies a part gets the result.
    pub(crate) fn read(mut self, frames: usize, time: Duration) -> Arc<Self> {
        self.note_read(frames, time);
        Arc::new(self)
    }

    /// Records a batch that was read and applied at this thread, and returns whether the turn is over. Otherwise the
    /// next batch of the line shares it.
    pub(crate) fn share(&mut self, frames: usize, time: Duration) -> bool {
        self.note_read(frames, time);
        let shared_ns = self.line.shared_ns.load(Ordering::Relaxed).saturating_add(nanos(time));
        let is_over = self.frames >= self.frames_max || shared_ns >= nanos(self.line.turns.turn_time);
        self.line.shared_ns.store(if is_over { 0 } else { shared_ns }, Ordering::Relaxed);
        is_over
    }

    /// Maximum frames of the batch.
    pub(crate) fn frames_max(&self) -> usize {
        self.frames_max as usize
    }

    fn note_read(&mut self, frames: usize, time: Duration) {
        self.frames = u32::try_from(frames).unwrap_or(u32::MAX);
        self.read_time = time;
    }

    /// Does one thread's work and records its time.
    pub(crate) fn work<T>(&self, work: impl FnOnce() -> T) -> T {
        let begun_at = Instant::now();
        let result = work();
        self.note_work(begun_at.elapsed());
        result
    }

    /// Records the time of one thread's work.
    pub(crate) fn note_work(&self, time: Duration) {
        self.slowest_ns.fetch_max(nanos(time), Ordering::Relaxed);
    }
}

impl Drop for Turn {
    /// Chooses the frames of the next turn: as many as its time allows, at most twice as many as in this one. A short
    /// batch proves nothing about longer ones.
    fn drop(&mut self) {
        let (frames, applied_ns) = (u64::from(self.frames), *self.slowest_ns.get_mut());
        let ns = applied_ns.saturating_add(nanos(self.read_time));
        let turn_ns = nanos(self.line.turns.turn_time);
        if frames == 0 || (frames < u64::from(self.frames_max) && ns <= turn_ns) {
            return;
        }
        let fitting = turn_ns.saturating_mul(frames) / ns.max(1);
        let most = self.frames_max.saturating_mul(2).min(TURN_FRAMES_MAX);
        let next = fitting.clamp(u64::from(TURN_FRAMES_MIN), u64::from(most));
        self.line.frames_max.store(u32::try_from(next).unwrap_or(TURN_FRAMES_MAX), Ordering::Relaxed);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// Two busy holders, and a line of each at one thread.
    fn busy_pair() -> (Turns, Arc<TurnLine>, Arc<TurnLine>) {
        let turns = Turns::new(1);
        let (shop, news) = (turns.line(&"shop", TurnSource::Links(0)), turns.line(&"news", TurnSource::Links(0)));
        shop.note_work();
        news.note_work();
        (turns, shop, news)
    }

    #[tokio::test]
    async fn a_lone_holder_takes_no_turns() {
        let turns = Turns::new(1);
        let line = turns.line(&"shop", TurnSource::Links(0));
        line.note_work();
        turns.line(&"shop", TurnSource::Clients(0)).note_work();
        assert!(line.begin().await.is_none() && !turns.are_taken());
    }

    #[tokio::test]
    async fn links_of_one_holder_share_a_turn_and_other_holders_do_not_wait() {
        let (turns, shop, news) = busy_pair();
        let first = shop.begin().await.unwrap();
        let same_line = turns.line(&"shop", TurnSource::Links(0));
        let mut second = Box::pin(same_line.begin());
        assert!(second.as_mut().now_or_never().is_none(), "the holder has its turn already");
        assert!(news.begin().now_or_never().flatten().is_some());
        drop(first);
        assert!(second.now_or_never().flatten().is_some());
    }

    #[tokio::test]
    async fn a_turn_ends_with_its_last_part() {
        let (_turns, shop, _) = busy_pair();
        let turn = Arc::new(shop.begin().await.unwrap());
        let part = turn.clone();
        drop(turn);
        assert!(shop.begin().now_or_never().is_none(), "another thread still works");
        drop(part);
        assert!(shop.begin().now_or_never().flatten().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn slow_frames_make_the_next_turn_shorter_and_fast_ones_longer() {
        let (_turns, shop, _) = busy_pair();
        let turn_of = async |frames: usize, time: Duration| {
            let turn = shop.begin().await.unwrap();
            drop(turn.read(frames, time));
            shop.begin().await.unwrap().frames_max
        };
        assert_eq!(turn_of(64, TURN_TIME * 4).await, 16);
        assert_eq!(turn_of(16, TURN_TIME * 100).await, TURN_FRAMES_MIN);
        assert_eq!(turn_of(8, TURN_TIME / 100).await, 16, "at most twice as many");
        assert_eq!(turn_of(16, TURN_TIME / 100).await, 32);
        assert_eq!(turn_of(1, TURN_TIME / 2).await, 32, "a short batch proves nothing");
    }

    #[tokio::test]
    async fn batches_share_a_turn_until_one_is_full_or_the_time_is_used_up() {
        let (_turns, shop, _) = busy_pair();
        let is_over = async |frames: usize, time: Duration| shop.begin().await.unwrap().share(frames, time);
        assert!(!is_over(1, TURN_TIME / 2).await);
        assert!(is_over(1, TURN_TIME / 2).await, "together they have used the time");
        assert!(!is_over(1, TURN_TIME / 2).await, "of a new turn");
        assert!(is_over(TURN_FRAMES_FIRST as usize, Duration::ZERO).await, "there may be more to read");
    }

    #[tokio::test]
    async fn turns_end_some_seconds_after_the_second_holder_was_busy() {
        let (turns, shop, _) = busy_pair();
        (0..CONTENDED_S).for_each(|_| turns.tick());
        assert!(shop.begin().await.is_none());
    }
}
