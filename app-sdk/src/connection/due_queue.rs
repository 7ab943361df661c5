//! Queue of what one link has brought work for, in the order of arrival, and the number of tasks that take from it.
//!
//! ```text
//!  link reader ──push, once per read──► waiting ──take──► task: works until nothing is left
//!                                          └─────take──► another one, where the first takes long
//! ```
//!
//! One task for all that a read has brought: most messages are handled without a wait, so a task for each would cost
//! more than the message, and what they answer leaves in one write. But a method may keep its thread, so what waits
//! behind it must not depend on it.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sync::lock;

/// How long a task works before another one helps it.
pub(crate) const TURN: Duration = Duration::from_micros(200);

/// The queue of one link.
#[derive(Debug)]
pub(crate) struct DueQueue<T>(Mutex<State<T>>);

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    tasks: usize,
    /// Tasks of these that have taken nothing yet.
    beginning: usize,
    /// When the last one was taken.
    taken_at: Option<Instant>,
}

impl<T> Default for DueQueue<T> {
    fn default() -> Self {
        Self(Mutex::new(State { waiting: VecDeque::new(), tasks: 0, beginning: 0, taken_at: None }))
    }
}

impl<T> DueQueue<T> {
    /// Adds what a read has brought. Returns the number of tasks that must begin: one if there is none; and where they
    /// have been held up, one for each that waits, because those may be held up, too.
    #[must_use = "tasks must begin"]
    pub(crate) fn push(&self, due: &mut Vec<T>, now: Instant) -> usize {
        let mut state = lock(&self.0);
        state.waiting.extend(due.drain(..));
        let are_held_up = state.taken_at.is_some_and(|at| now.saturating_duration_since(at) > TURN);
        match state.tasks {
            0 => state.begin(1, now),
            _ if are_held_up => state.begin(usize::MAX, now),
            _ => 0,
        }
    }

    /// Whether something waits for a task.
    pub(crate) fn is_waiting(&self) -> bool {
        !lock(&self.0).waiting.is_empty()
    }

    /// Adds what a task could not finish in its turn.
    pub(crate) fn push_back(&self, unfinished: T) {
        lock(&self.0).waiting.push_back(unfinished);
    }

    /// Notes that a task has begun, which is about to take.
    pub(crate) fn enter(&self) {
        lock(&self.0).beginning -= 1;
    }

    /// Takes the next; `None` ends the task.
    pub(crate) fn take(&self, now: Instant) -> Option<T> {
        let mut state = lock(&self.0);
        state.taken_at = Some(now);
        let next = state.waiting.pop_front();
        if next.is_none() {
            state.tasks -= 1;
            // An idle link owns no buffer.
            state.waiting = VecDeque::new();
        }
        next
    }

    /// Has another task begin beside those that work, of `tasks_max` at most. Returns the number of tasks that must
    /// begin.
    #[must_use = "a task must begin"]
    pub(crate) fn begin_help(&self, tasks_max: usize, now: Instant) -> usize {
        let mut state = lock(&self.0);
        if state.tasks < tasks_max { state.begin(1, now) } else { 0 }
    }

    /// Has a task begin for each that waits: nobody is going to look whether those that work are held up.
    #[must_use = "tasks must begin"]
    pub(crate) fn begin_rest(&self, now: Instant) -> usize {
        lock(&self.0).begin(usize::MAX, now)
    }
}

impl<T> State<T> {
    /// Counts more tasks, but none without work for it.
    fn begin(&mut self, tasks_max: usize, now: Instant) -> usize {
        let count = self.waiting.len().saturating_sub(self.beginning).min(tasks_max);
        if count > 0 {
            self.tasks += count;
            self.beginning += count;
            self.taken_at = Some(now);
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes what one read has brought. Returns how many tasks must begin.
    fn push(queue: &DueQueue<u8>, read: &[u8], now: Instant) -> usize {
        queue.push(&mut read.to_vec(), now)
    }

    #[test]
    fn one_task_takes_all_in_order() {
        let (queue, now) = (DueQueue::default(), Instant::now());
        assert_eq!(push(&queue, &[1, 2], now), 1, "the first read begins a task");
        queue.enter();
        assert_eq!(push(&queue, &[3], now), 0, "which takes what comes meanwhile, too");
        assert_eq!([1, 2, 3].map(|_| queue.take(now)), [Some(1), Some(2), Some(3)]);
        assert!(!queue.is_waiting());
        assert_eq!(queue.take(now), None);
        assert_eq!(push(&queue, &[4], now), 1, "the one before has ended");
    }

    #[test]
    fn nothing_begins_a_task_where_nothing_waits() {
        let (queue, now) = (DueQueue::default(), Instant::now());
        assert_eq!(push(&queue, &[], now), 0);
        assert_eq!(push(&queue, &[1], now), 1);
        queue.enter();
        assert_eq!(queue.take(now), Some(1));
        assert_eq!(push(&queue, &[], now + 2 * TURN), 0, "it is held up, but nothing waits for it");
        assert_eq!((queue.begin_help(9, now), queue.begin_rest(now)), (0, 0));
    }

    #[test]
    fn each_that_waits_behind_tasks_that_are_held_up_gets_one() {
        let (queue, now) = (DueQueue::default(), Instant::now());
        assert_eq!(push(&queue, &[1, 2, 3], now), 1);
        queue.enter();
        assert_eq!(queue.take(now), Some(1));
        assert_eq!(push(&queue, &[4], now + TURN), 0);
        let later = now + 2 * TURN;
        assert_eq!(push(&queue, &[], later), 3, "nothing was taken for longer than a turn");
        assert_eq!(push(&queue, &[5], later), 0, "the new ones are about to take");
        assert_eq!(push(&queue, &[], later + 2 * TURN), 1, "they have not begun, but there is one more by now");
        (0..4).for_each(|_| queue.enter());
        assert_eq!([(); 4].map(|()| queue.take(later)), [Some(2), Some(3), Some(4), Some(5)]);
        assert_eq!([(); 4].map(|()| queue.take(later)), [None; 4]);
        assert_eq!(push(&queue, &[6], later), 0, "the first one goes on");
        assert_eq!([(); 2].map(|()| queue.take(later)), [Some(6), None]);
        assert_eq!(push(&queue, &[7], later), 1);
    }

    #[test]
    fn help_has_a_bound_and_ends_as_others_do() {
        let (queue, now) = (DueQueue::default(), Instant::now());
        assert_eq!(push(&queue, &[1, 2], now), 1);
        queue.enter();
        assert_eq!(queue.begin_help(2, now), 1);
        queue.enter();
        assert_eq!(queue.begin_help(2, now), 0, "two work by now");
        queue.push_back(3);
        assert_eq!([(); 5].map(|()| queue.take(now)), [Some(1), Some(2), Some(3), None, None]);
        assert_eq!(push(&queue, &[4], now), 1, "both have ended");
    }

    #[test]
    fn the_rest_gets_a_task_each() {
        let (queue, now) = (DueQueue::default(), Instant::now());
        assert_eq!(push(&queue, &[1, 2, 3], now), 1);
        queue.enter();
        assert_eq!((queue.take(now), queue.begin_rest(now), queue.begin_rest(now)), (Some(1), 2, 0));
    }
}
