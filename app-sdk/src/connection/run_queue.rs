//! Queue of the work from one link in order of arrival, and the number of tasks that process it.
//!
//! ```text
//!  link reader ──push, once per read──► waiting ──take──► task: works until the queue is empty
//!                                          └─────take──► another task, if the first is slow
//! ```
//!
//! One task processes everything from a read, and the replies leave in one write: most messages cost less than a task
//! of their own. But a method may block its thread, so work behind it must not depend on it.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sync::lock;

/// Time that a task works alone before another one is started.
pub(crate) const TIME_SLICE: Duration = Duration::from_micros(200);

#[derive(Debug)]
pub(crate) struct RunQueue<T>(Mutex<State<T>>);

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    tasks: usize,
    /// Started tasks that have not taken work yet.
    beginning: usize,
    taken_at: Option<Instant>,
}

impl<T> Default for RunQueue<T> {
    fn default() -> Self {
        Self(Mutex::new(State { waiting: VecDeque::new(), tasks: 0, beginning: 0, taken_at: None }))
    }
}

impl<T> RunQueue<T> {
    /// Adds the work from a read. Returns the number of tasks to start: one if there is none; if the running tasks are
    /// blocked, one per waiting item, because new tasks may block as well.
    #[must_use = "tasks must begin"]
    pub(crate) fn push(&self, due: &mut Vec<T>, now: Instant) -> usize {
        let mut state = lock(&self.0);
        state.waiting.extend(due.drain(..));
        let are_held_up = state.taken_at.is_some_and(|at| now.saturating_duration_since(at) > TIME_SLICE);
        match state.tasks {
            0 => state.begin_tasks(1, now),
            _ if are_held_up => state.begin_tasks(usize::MAX, now),
            _ => 0,
        }
    }

    pub(crate) fn is_waiting(&self) -> bool {
        !lock(&self.0).waiting.is_empty()
    }

    /// Adds work that a task could not finish in its time slice.
    pub(crate) fn push_back(&self, unfinished: T) {
        lock(&self.0).waiting.push_back(unfinished);
    }

    /// Records that a started task is about to take work.
    pub(crate) fn enter(&self) {
        lock(&self.0).beginning -= 1;
    }

    /// Takes the next item. `None` ends the task.
    pub(crate) fn take_ready(&self, now: Instant) -> Option<T> {
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

    /// Starts another task next to the running ones, up to `tasks_max`. Returns the number of tasks to start.
    #[must_use = "a task must begin"]
    pub(crate) fn begin_help(&self, tasks_max: usize, now: Instant) -> usize {
        let mut state = lock(&self.0);
        if state.tasks < tasks_max { state.begin_tasks(1, now) } else { 0 }
    }

    /// Starts a task per waiting item, when no further check for blocked tasks will happen.
    #[must_use = "tasks must begin"]
    pub(crate) fn begin_rest(&self, now: Instant) -> usize {
        lock(&self.0).begin_tasks(usize::MAX, now)
    }
}

impl<T> State<T> {
    /// Counts new tasks, at most one per waiting item.
    fn begin_tasks(&mut self, tasks_max: usize, now: Instant) -> usize {
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

    /// Pushes the work of one read. Returns the number of tasks to start.
    fn push(queue: &RunQueue<u8>, read: &[u8], now: Instant) -> usize {
        queue.push(&mut read.to_vec(), now)
    }

    #[test]
    fn one_task_takes_all_in_order() {
        let (queue, now) = (RunQueue::default(), Instant::now());
        assert_eq!(push(&queue, &[1, 2], now), 1, "the first read begins a task");
        queue.enter();
        assert_eq!(push(&queue, &[3], now), 0, "which takes what comes meanwhile, too");
        assert_eq!([1, 2, 3].map(|_| queue.take_ready(now)), [Some(1), Some(2), Some(3)]);
        assert!(!queue.is_waiting());
        assert_eq!(queue.take_ready(now), None);
        assert_eq!(push(&queue, &[4], now), 1, "the one before has ended");
    }

    #[test]
    fn nothing_begins_a_task_where_nothing_waits() {
        let (queue, now) = (RunQueue::default(), Instant::now());
        assert_eq!(push(&queue, &[], now), 0);
        assert_eq!(push(&queue, &[1], now), 1);
        queue.enter();
        assert_eq!(queue.take_ready(now), Some(1));
        assert_eq!(push(&queue, &[], now + 2 * TIME_SLICE), 0, "it is held up, but nothing waits for it");
        assert_eq!((queue.begin_help(9, now), queue.begin_rest(now)), (0, 0));
    }

    #[test]
    fn each_item_waiting_behind_blocked_tasks_gets_a_task() {
        let (queue, now) = (RunQueue::default(), Instant::now());
        assert_eq!(push(&queue, &[1, 2, 3], now), 1);
        queue.enter();
        assert_eq!(queue.take_ready(now), Some(1));
        assert_eq!(push(&queue, &[4], now + TIME_SLICE), 0);
        let later = now + 2 * TIME_SLICE;
        assert_eq!(push(&queue, &[], later), 3, "nothing was taken for longer than a turn");
        assert_eq!(push(&queue, &[5], later), 0, "the new ones are about to take");
        assert_eq!(push(&queue, &[], later + 2 * TIME_SLICE), 1, "they have not begun, but there is one more by now");
        (0..4).for_each(|_| queue.enter());
        assert_eq!([(); 4].map(|()| queue.take_ready(later)), [Some(2), Some(3), Some(4), Some(5)]);
        assert_eq!([(); 4].map(|()| queue.take_ready(later)), [None; 4]);
        assert_eq!(push(&queue, &[6], later), 0, "the first one goes on");
        assert_eq!([(); 2].map(|()| queue.take_ready(later)), [Some(6), None]);
        assert_eq!(push(&queue, &[7], later), 1);
    }

    #[test]
    fn help_has_a_bound_and_ends_as_others_do() {
        let (queue, now) = (RunQueue::default(), Instant::now());
        assert_eq!(push(&queue, &[1, 2], now), 1);
        queue.enter();
        assert_eq!(queue.begin_help(2, now), 1);
        queue.enter();
        assert_eq!(queue.begin_help(2, now), 0, "two work by now");
        queue.push_back(3);
        assert_eq!([(); 5].map(|()| queue.take_ready(now)), [Some(1), Some(2), Some(3), None, None]);
        assert_eq!(push(&queue, &[4], now), 1, "both have ended");
    }

    #[test]
    fn the_rest_gets_a_task_each() {
        let (queue, now) = (RunQueue::default(), Instant::now());
        assert_eq!(push(&queue, &[1, 2, 3], now), 1);
        queue.enter();
        assert_eq!((queue.take_ready(now), queue.begin_rest(now), queue.begin_rest(now)), (Some(1), 2, 0));
    }
}
