//! Answers to app servers that dial in: large ones in progress, and bytes that the app servers have not read.
//!
//! ```text
//!  question ─► permit of the key ─► answer ─► unread bytes of the link and of its key ─► written to the socket
//! ```
//!
//! A question of some bytes may have an answer of 256 KiB. So, if several keys are in use, each may have as many
//! questions and unread bytes as are free. Links with few unread bytes are not counted, so an app server that reads
//! costs little.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::signer_share::SignerShare;
use crate::ground::auth::Signer;
use crate::ground::bounded::{Permit, Permits};

/// Maximum number of questions with large answers in progress. Each may hold a page of 256 KiB.
const QUESTIONS_MAX: usize = 512;

/// Maximum number of questions with large answers in progress for a link.
const QUESTIONS_PER_LINK_MAX: usize = 64;

/// Maximum size of all answers that app servers have not read.
const UNREAD_ANSWERS_MAX_BYTES: usize = 256 * 1024 * 1024;

/// Maximum size of a link's unread answers that are not counted.
const UNCOUNTED_MAX_BYTES: usize = 64 * 1024;

/// Answers of a node, by the key of the app servers.
#[derive(Debug, Clone)]
pub(crate) struct AnswerBudget {
    questions: Permits<Signer>,
    unread: Permits<Signer>,
}

#[derive(Debug)]
pub(crate) struct LinkAnswers {
    budget: AnswerBudget,
    share: SignerShare,
    in_progress: AtomicUsize,
    unread: Mutex<UnreadAnswers>,
}

#[derive(Debug, Default)]
struct UnreadAnswers {
    bytes: usize,
    /// Bytes counted for the key: all or none.
    counted: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QuestionRefusal {
    #[error("this connection has {QUESTIONS_PER_LINK_MAX} queries in progress: wait for some answers")]
    Link,
    #[error("the node answers too many queries at the moment, or too many of {0}: try again later")]
    Questions(Signer),
    #[error("app servers with {0} do not read the answers to their queries: the node answers no further ones")]
    Unread(Signer),
}

impl Default for AnswerBudget {
    fn default() -> Self {
        let [questions, unread] = [QUESTIONS_MAX, UNREAD_ANSWERS_MAX_BYTES].map(|most| Permits::new(most, usize::MAX));
        Self { questions, unread }
    }
}

impl AnswerBudget {
    pub(crate) fn of_link(&self, share: SignerShare) -> LinkAnswers {
        let (in_progress, unread) = (AtomicUsize::new(0), Mutex::default());
        LinkAnswers { budget: self.clone(), share, in_progress, unread }
    }

    fn is_over(&self, share: &SignerShare) -> bool {
        let most = if share.has_others { self.unread.free() } else { self.unread.limit() };
        self.unread.held(&share.signer) > most
    }
}

impl LinkAnswers {
    /// Begins a question with a large answer. The caller must [`end`](Self::end) it.
    ///
    /// # Errors
    /// Returns the limit that was reached.
    pub(crate) fn begin(&self) -> Result<Permit<Signer>, QuestionRefusal> {
        let (questions, signer) = (&self.budget.questions, &self.share.signer);
        if self.in_progress() >= QUESTIONS_PER_LINK_MAX {
            return Err(QuestionRefusal::Link);
        }
        if self.budget.is_over(&self.share) {
            return Err(QuestionRefusal::Unread(signer.clone()));
        }
        let permit = match self.share.has_others {
            true => questions.take_within(questions.free(), Some(signer.clone())),
            false => questions.take(Some(signer.clone())),
        };
        let permit = permit.map_err(|_| QuestionRefusal::Questions(signer.clone()))?;
        self.in_progress.fetch_add(1, Ordering::Relaxed);
        Ok(permit)
    }

    pub(crate) fn end(&self) {
        self.in_progress.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn in_progress(&self) -> usize {
        self.in_progress.load(Ordering::Relaxed)
    }

    /// Whether half of the link's questions are in progress, so its further frames should wait.
    pub(crate) fn are_many(&self) -> bool {
        self.in_progress() >= QUESTIONS_PER_LINK_MAX / 2
    }

    /// Counts an answer that was queued.
    pub(crate) fn add(&self, bytes: usize) {
        let mut unread = self.unread();
        let more = unread.bytes.saturating_add(bytes);
        self.set(&mut unread, more);
    }

    /// Adapts the count after a write to the bytes, of all kinds, still queued.
    pub(crate) fn trim(&self, queued: usize) {
        let mut unread = self.unread();
        if unread.bytes > queued {
            self.set(&mut unread, queued);
        }
    }

    /// Whether the link has unread answers that count while the app servers of its key have more than their share.
    pub(crate) fn are_over(&self) -> bool {
        self.unread().counted > 0 && self.budget.is_over(&self.share)
    }

    fn set(&self, unread: &mut UnreadAnswers, bytes: usize) {
        unread.bytes = bytes;
        let (counted, before) = (if bytes > UNCOUNTED_MAX_BYTES { bytes } else { 0 }, unread.counted);
        if counted > before {
            self.budget.unread.charge(&self.share.signer, counted - before);
        } else if counted < before {
            self.budget.unread.release(Some(&self.share.signer), before - counted);
        }
        unread.counted = counted;
    }

    fn unread(&self) -> MutexGuard<'_, UnreadAnswers> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LinkAnswers {
    fn drop(&mut self) {
        self.trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(budget: &AnswerBudget, app: &str) -> LinkAnswers {
        budget.of_link(SignerShare::new(Signer::App(app.into()), true))
    }

    #[test]
    fn unread_answers_of_many_links_have_a_sum_of_which_each_key_has_a_share() {
        let budget = AnswerBudget::default();
        let shop: Vec<_> = (0..100).map(|_| link(&budget, "shop")).collect();
        let news = link(&budget, "news");
        news.add(1024 * 1024);
        let reached = shop.iter().position(|link| {
            link.add(16 * 1024 * 1024);
            link.are_over()
        });
        assert_eq!(reached, Some(7), "half of the sum");
        assert_eq!(shop[50].begin().unwrap_err(), QuestionRefusal::Unread(Signer::App("shop".into())));
        assert!(!shop[50].are_over(), "it has none unread");
        assert!(news.begin().is_ok() && !news.are_over());
        shop[0].trim(UNCOUNTED_MAX_BYTES);
        shop[1].trim(0);
        assert!(shop[50].begin().is_ok(), "some were read");
        drop(shop);
        assert_eq!(budget.unread.len(), 1024 * 1024, "and the others are gone with their links");
    }

    #[test]
    fn an_app_server_that_reads_is_not_counted_and_a_key_alone_has_all() {
        let budget = AnswerBudget::default();
        let alone = budget.of_link(SignerShare::new(Signer::Fleet, false));
        (0..100).for_each(|_| {
            alone.add(UNCOUNTED_MAX_BYTES);
            alone.trim(0);
        });
        assert_eq!(budget.unread.len(), 0);
        alone.add(UNREAD_ANSWERS_MAX_BYTES);
        assert!(!alone.are_over());
        alone.add(1);
        assert!(alone.are_over());
    }

    #[test]
    fn questions_in_progress_have_a_sum_of_which_each_key_has_a_share() {
        let budget = AnswerBudget::default();
        let (shop, news) = ([(); 9].map(|()| link(&budget, "shop")), link(&budget, "news"));
        let first: Vec<_> = std::iter::from_fn(|| shop[0].begin().ok()).collect();
        assert_eq!((first.len(), shop[0].begin().unwrap_err()), (QUESTIONS_PER_LINK_MAX, QuestionRefusal::Link));
        let taken: Vec<_> = shop.iter().flat_map(|link| std::iter::from_fn(|| link.begin().ok())).collect();
        assert_eq!(first.len() + taken.len(), QUESTIONS_MAX / 2);
        assert_eq!(shop[8].begin().unwrap_err(), QuestionRefusal::Questions(Signer::App("shop".into())));
        assert!(news.begin().is_ok());
        drop(first);
        (0..QUESTIONS_PER_LINK_MAX).for_each(|_| shop[0].end());
        assert!(shop[0].begin().is_ok() && !shop[0].are_many());
    }
}
