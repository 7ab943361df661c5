//! Notices about the links to one upstream: all open, some missing for long, all open again.
//!
//! ```text
//!  Nothing ──all open──► Linked ──some missing for long──► Impaired ──all open──► Linked
//!     └─────────────────some missing for long─────────────────▲
//! ```
//!
//! Pure: time is an argument. Briefly lost links are logged only at level `debug`.

use std::time::Duration;

use tokio::time::Instant;

/// Time without all links before a notice; starts and resumed sockets take less.
const PATIENCE: Duration = Duration::from_secs(5);

/// State of the links as last logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum LinkTold {
    #[default]
    Nothing,
    Linked,
    Impaired,
}

/// Change in the links worth a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkNews {
    /// All links are open for the first time.
    Linked,
    /// Some links have been missing for too long.
    Impaired,
    /// All links are open again.
    LinkedAgain,
}

/// State of the notices of one upstream.
#[derive(Debug, Default)]
pub(super) struct LinkNotice {
    told: LinkTold,
    away_since: Option<Instant>,
}

impl LinkNotice {
    /// Compares the number of open links with the total; returns the notice to log, if any.
    pub(super) fn update(&mut self, (open, all): (usize, usize), now: Instant) -> Option<LinkNews> {
        if open < all {
            let since = *self.away_since.get_or_insert(now);
            let is_news = self.told != LinkTold::Impaired && now.saturating_duration_since(since) >= PATIENCE;
            return is_news.then(|| {
                self.told = LinkTold::Impaired;
                LinkNews::Impaired
            });
        }
        self.away_since = None;
        match std::mem::replace(&mut self.told, LinkTold::Linked) {
            LinkTold::Linked => None,
            LinkTold::Nothing => Some(LinkNews::Linked),
            LinkTold::Impaired => Some(LinkNews::LinkedAgain),
        }
    }

    /// Resets the state; the next links are reported as new.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(500);

    #[test]
    fn ten_links_that_open_one_by_one_are_one_line() {
        let (mut notice, start) = (LinkNotice::default(), Instant::now());
        let news: Vec<_> = (0..=10).filter_map(|open| notice.update((open, 10), start)).collect();
        assert_eq!(news, [LinkNews::Linked]);
        assert_eq!(notice.update((10, 10), start + 2 * PATIENCE), None);
    }

    #[test]
    fn links_that_are_soon_back_are_no_news() {
        let (mut notice, start) = (LinkNotice::default(), Instant::now());
        notice.update((10, 10), start);
        for round in 0..20 {
            let lost_at = start + round * PATIENCE;
            assert_eq!(notice.update((0, 10), lost_at), None);
            assert_eq!(notice.update((9, 10), lost_at + PATIENCE - STEP), None);
            assert_eq!(notice.update((10, 10), lost_at + PATIENCE - STEP), None);
        }
    }

    #[test]
    fn links_that_stay_away_are_told_once_and_once_when_they_are_back() {
        let (mut notice, start) = (LinkNotice::default(), Instant::now());
        let news: Vec<_> = (0..40).filter_map(|step| notice.update((4, 10), start + step * STEP)).collect();
        assert_eq!(news, [LinkNews::Impaired]);
        assert_eq!(notice.update((10, 10), start + 40 * STEP), Some(LinkNews::LinkedAgain));
        notice.reset();
        assert_eq!(notice.update((10, 10), start + 41 * STEP), Some(LinkNews::Linked));
    }
}
