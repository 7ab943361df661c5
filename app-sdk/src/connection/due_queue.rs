//! Queue of what one link has brought work for, in the order of arrival, and the number of tasks that take from it.
//!
//! ```text
//!  link reader ──push, once per read──► waiting ──take──► task: works until nothing is left
//!                                          └─────take──► another one, where the first takes long
//! ```
//!
//! One task for all that a read has brought: most messages are handled without a wait, so a task for each would cost more
//! than the message, and what they answer leaves in one write. But a method may keep its thread, so what waits behind it
//! must not depend on it.

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
    /// When the last one was taken.
    taken_at: Option<Instant>,
}

impl<T> Default for DueQueue<T> {
    fn default() -> Self {
        Self(Mutex::new(State { waiting: VecDeque::new(), tasks: 0, taken_at: None }))
    }
}

impl<T> DueQueue<T> {
    /// Adds what a read has brought. Returns whether a task must begin: there is none, or they have been held up.
    #[must_use = "a task must begin"]
    pub(crate) fn push(&self, due: &mut Vec<T>, now: Instant) -> bool {
        let mut state = lock(&self.0);
        state.waiting.extend(due.drain(..));
        let are_held_up = state.taken_at.is_some_and(|at| now.saturating_duration_since(at) > TURN);
        let is_due = !state.waiting.is_empty() && (state.tasks == 0 || are_held_up);
        if is_due {
            (state.tasks, state.taken_at) = (state.tasks + 1, Some(now));
        }
        is_due
    }

    /// Whether something waits for a task.
    pub(crate) fn is_waiting(&self) -> bool {
        !lock(&self.0).waiting.is_empty()
    }

    /// Adds what a task could not finish in its turn.
    pub(crate) fn push_back(&self, unfinished: T) {
        lock(&self.0).waiting.push_back(unfinished);
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

    /// Has another task begin beside those that work, of `tasks_max` at most. Returns whether there is something for it.
    #[must_use = "a task must begin"]
    pub(crate) fn begin_help(&self, tasks_max: usize) -> bool {
        let mut state = lock(&self.0);
        let is_needed = !state.waiting.is_empty() && state.tasks < tasks_max;
        state.tasks += usize::from(is_needed);
        is_needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes what one read has brought. Returns whether a task must begin.
    fn push(queue: &DueQueue<u8>, read: &[u8], now: Instant) -> bool {
        queue.push(&mut read.to_vec(), now)
    }

    #[test]
    fn one_task_takes_all_in_order() {
        let (queue, now) = (DueQueue::default(), Instant::now());
        assert!(push(&queue, &[1, 2], now), "the first read begins a task");
        assert!(!push(&queue, &[3], now), "which takes what comes meanwhile, too");
        assert_eq!([1, 2, 3].map(|_| queue.take(now)), [Some(1), Some(2), Some(3)]);
        assert!(!queue.is_waiting());
        assert_eq!(queue.take(now), None);
        assert!(push(&queue, &[4], now), "the one before has ended");
    }

    #[test]
    fn nothing_begins_a_task_where_nothing_waits() {
        let (queue, now) = (DueQueue::default(), Instant::now());
        assert!(!push(&queue, &[], now));
        assert!(push(&queue, &[1], now));
        assert_eq!(queue.take(now), Some(1));
        assert!(!push(&queue, &[], now + 2 * TURN), "it is held up, but nothing waits for it");
        assert!(!queue.begin_help(9));
    }

    #[test]
    fn what_waits_behind_a_task_that_is_held_up_gets_another() {
        let (queue, now) = (DueQueue::default(), Instant::now());
        assert!(push(&queue, &[1, 2], now));
        assert_eq!(queue.take(now), Some(1));
        assert!(!push(&queue, &[3], now + TURN));
        let later = now + 2 * TURN;
        assert!(push(&queue, &[], later), "nothing was taken for longer than a turn");
        assert!(!push(&queue, &[4], later), "the new one is about to take");
        assert_eq!([2, 3, 4].map(|_| queue.take(later)), [Some(2), Some(3), Some(4)]);
        assert_eq!(queue.take(later), None);
        assert!(!push(&queue, &[5], later), "the first one goes on");
        assert_eq!([(); 2].map(|()| queue.take(later)), [Some(5), None]);
    }

    #[test]
    fn help_has_a_bound_and_ends_as_others_do() {
        let (queue, now) = (DueQueue::default(), Instant::now());
        assert!(push(&queue, &[1, 2], now));
        assert!(queue.begin_help(2));
        assert!(!queue.begin_help(2), "two work by now");
        queue.push_back(3);
        assert_eq!([(); 5].map(|()| queue.take(now)), [Some(1), Some(2), Some(3), None, None]);
        assert!(push(&queue, &[4], now), "both have ended");
    }
}
