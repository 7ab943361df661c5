//! Which start of a proxy is its present one: a proxy that comes again under its name has lost all that it held.
//!
//! Only a name and a random id tell starts apart, so of two of them the one that comes later is the newer one. When the
//! older one comes once more, both live: two proxies were given one name, and neither ends the other from then on.

use std::sync::Arc;

/// Starts that are remembered; more than this nobody sees while a proxy has links.
const PAST_MAX: usize = 16;

/// The starts of one proxy.
#[derive(Debug)]
pub(super) struct Starts {
    present: Arc<str>,
    past: Vec<Arc<str>>,
    is_shared: bool,
}

/// News of a proxy that an upgrade brings.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing that was not known.
    None,
    /// It has started again: what its other starts hold is over.
    Restarted,
    /// Two proxies have its name.
    Shared,
}

impl Starts {
    pub(super) fn new(boot: &Arc<str>) -> Self {
        Self { present: Arc::clone(boot), past: Vec::new(), is_shared: false }
    }

    /// A link of this start wants to open.
    pub(super) fn meet(&mut self, boot: &Arc<str>) -> News {
        if self.is_shared || self.present == *boot {
            return News::None;
        }
        if self.past.contains(boot) {
            self.is_shared = true;
            return News::Shared;
        }
        if self.past.len() == PAST_MAX {
            self.past.remove(0);
        }
        self.past.push(std::mem::replace(&mut self.present, Arc::clone(boot)));
        News::Restarted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_start_is_news_once() {
        let (one, two, three): (Arc<str>, Arc<str>, Arc<str>) = ("1".into(), "2".into(), "3".into());
        let mut starts = Starts::new(&one);
        assert_eq!(starts.meet(&one), News::None);
        assert_eq!(starts.meet(&two), News::Restarted);
        assert_eq!(starts.meet(&two), News::None);
        assert_eq!(starts.meet(&three), News::Restarted);
    }

    #[test]
    fn two_proxies_of_one_name_let_each_other_live() {
        let (one, two): (Arc<str>, Arc<str>) = ("1".into(), "2".into());
        let mut starts = Starts::new(&one);
        assert_eq!(starts.meet(&two), News::Restarted);
        assert_eq!(starts.meet(&one), News::Shared);
        assert_eq!((starts.meet(&two), starts.meet(&one)), (News::None, News::None));
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut starts = Starts::new(&"first".into());
        for number in 0..100 {
            assert_eq!(starts.meet(&number.to_string().into()), News::Restarted);
        }
        assert_eq!(starts.past.len(), PAST_MAX);
    }
}
