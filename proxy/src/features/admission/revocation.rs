//! Revocations of access tokens before they expire: by user, audience or app, and by time of issue.
//!
//! ```text
//!  operator ─► this node ─┬─► kept here until all such tokens have expired ◄── checked for each verified token
//!                         └─► all other nodes; a joining node receives all before it counts as joined
//! ```
//!
//! Revocations merge: for the same tokens the later times win, so nodes may receive them in any order. A revocation
//! cannot be undone; users log in again.
//!
//! Nodes close a revoked user's connections at different moments, and could miss an opening, moving or forwarded one.
//! So a connection is checked again in the step that registers it; from then on a close finds it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytestring::ByteString;
use trunkline_protocol::fleet::SharedRevocation;

use super::signed_token::SignedToken;
use super::token_error::TokenError;
use crate::engine::shard::RevocationMark;
use crate::ground::metrics::Counter;

/// Maximum number of revocations on a node. A single one for an audience, or for all tokens, replaces many.
const REVOCATIONS_MAX: usize = 10_000;

/// Maximum memory of all revocations. A joining node receives as much in one piece.
const REVOCATIONS_MAX_BYTES: usize = 1024 * 1024;

/// Memory of a revocation in bytes, excluding its names.
const OVERHEAD_BYTES: usize = 64;

/// Maximum length of the name of a user, an audience or an app in a revocation.
const NAME_MAX_BYTES: usize = 4096;

/// Maximum lifetime of a revocation in seconds: a year and a day.
pub(crate) const REVOCATION_KEPT_MAX_S: u64 = 366 * 24 * 3600;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RevocationRefused {
    #[error("a node stores at most {REVOCATIONS_MAX} revocations: revoke the tokens of an audience, of an app, or all")]
    TooMany,
    #[error(
        "a node stores at most {REVOCATIONS_MAX_BYTES} bytes of revocations: revoke the tokens of an audience, of an \
         app, or all"
    )]
    TooLarge,
    #[error("a name in a revocation has {0} bytes, but at most {NAME_MAX_BYTES} are allowed")]
    NameTooLong(usize),
}

/// Set of revoked tokens. `None` matches any value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct TokenSet {
    user: Option<ByteString>,
    audience: Option<ByteString>,
    app: Option<ByteString>,
}

impl TokenSet {
    fn from_revocation(told: &SharedRevocation) -> Self {
        let SharedRevocation { user, audience, app, .. } = told;
        Self { user: user.clone(), audience: audience.clone(), app: app.clone() }
    }

    fn names(&self) -> impl Iterator<Item = &ByteString> {
        [&self.user, &self.audience, &self.app].into_iter().flatten()
    }

    fn bytes(&self) -> usize {
        OVERHEAD_BYTES + self.names().map(|name| name.len()).sum::<usize>()
    }
}

/// Times of a revocation, and its position in the order of changes on this node.
#[derive(Debug, Clone, Copy)]
struct KeptRevocation {
    issued_before_s: u64,
    kept_until_s: u64,
    /// Number of the last change on this node.
    number: u64,
    /// Time of that change in seconds since 1970.
    changed_s: u64,
    /// Time when this node last closed the user's connections, in milliseconds since 1970; 0 for never.
    closed_ms: u64,
    /// Whether the store, if there is one, has it.
    is_stored: bool,
}

#[derive(Debug)]
pub(crate) struct Revocations {
    /// Tolerated clock skew in seconds. A token issued later than now plus this skew has no trusted age.
    clock_skew_s: u64,
    /// Number of revocations. Checked first for each token.
    count: AtomicUsize,
    newest: AtomicU64,
    /// Revocations from other nodes that were refused because the table was full.
    pub(crate) refused: Counter,
    kept: Mutex<RevocationTable>,
}

#[derive(Debug, Default)]
struct RevocationTable {
    by_tokens: HashMap<TokenSet, KeptRevocation>,
    bytes: usize,
    none_ends_before_s: u64,
}

impl RevocationTable {
    /// Removes all expired revocations.
    fn forget(&mut self, now_s: u64) {
        if now_s < self.none_ends_before_s {
            return;
        }
        self.by_tokens.retain(|_, kept| kept.kept_until_s > now_s);
        self.bytes = self.by_tokens.keys().map(TokenSet::bytes).sum();
        self.none_ends_before_s = self.by_tokens.values().map(|kept| kept.kept_until_s).min().unwrap_or(u64::MAX);
    }

    fn keep(&mut self, tokens: TokenSet, kept: KeptRevocation) {
        let bytes = tokens.bytes();
        self.none_ends_before_s = self.none_ends_before_s.min(kept.kept_until_s);
        if self.by_tokens.insert(tokens, kept).is_none() {
            self.bytes += bytes;
        }
    }
}

impl Revocations {
    pub(crate) fn new(clock_skew_s: u64) -> Self {
        let (count, newest) = (AtomicUsize::new(0), AtomicU64::new(0));
        Self { clock_skew_s, count, newest, refused: Counter::default(), kept: Mutex::default() }
    }

    /// Fails if the table is full or a name is too long.
    pub(crate) fn revoke(&self, told: &SharedRevocation, now_s: u64) -> Result<(), RevocationRefused> {
        let tokens = TokenSet::from_revocation(told);
        if let Some(name) = tokens.names().find(|name| name.len() > NAME_MAX_BYTES) {
            return Err(RevocationRefused::NameTooLong(name.len()));
        }
        let kept_until_s = told.kept_until_s.min(now_s.saturating_add(REVOCATION_KEPT_MAX_S));
        if kept_until_s <= now_s {
            return Ok(());
        }
        let mut table = self.table();
        table.forget(now_s);
        let number = self.newest.load(Ordering::Relaxed) + 1;
        let kept = match table.by_tokens.get(&tokens) {
            Some(kept) if told.issued_before_s <= kept.issued_before_s && kept_until_s <= kept.kept_until_s => {
                return Ok(());
            }
            Some(kept) => KeptRevocation {
                issued_before_s: kept.issued_before_s.max(told.issued_before_s),
                kept_until_s: kept.kept_until_s.max(kept_until_s),
                number,
                changed_s: now_s,
                closed_ms: kept.closed_ms,
                is_stored: false,
            },
            None if table.by_tokens.len() >= REVOCATIONS_MAX => return Err(RevocationRefused::TooMany),
            None if table.bytes + tokens.bytes() > REVOCATIONS_MAX_BYTES => return Err(RevocationRefused::TooLarge),
            None => KeptRevocation {
                issued_before_s: told.issued_before_s,
                kept_until_s,
                number,
                changed_s: now_s,
                closed_ms: 0,
                is_stored: false,
            },
        };
        table.keep(tokens, kept);
        self.newest.store(number, Ordering::Release);
        self.count.store(table.by_tokens.len(), Ordering::Release);
        Ok(())
    }

    pub(super) fn check(&self, token: SignedToken<'_>, now_s: u64) -> Result<(), TokenError> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        let text = |text: &str| Some(ByteString::from(text));
        let issued_s = token.issued_s().filter(|issued_s| *issued_s <= now_s.saturating_add(self.clock_skew_s));
        let users = [None, token.user.and_then(text)];
        let apps = [None, token.app.and_then(text)];
        let named: Vec<_> = std::iter::once(None).chain(token.audiences().map(text)).collect();
        let table = self.table();
        let is_revoked = |user: &Option<ByteString>, audience: &Option<ByteString>, app: &Option<ByteString>| {
            let tokens = TokenSet { user: user.clone(), audience: audience.clone(), app: app.clone() };
            let kept = table.by_tokens.get(&tokens).filter(|kept| kept.kept_until_s > now_s);
            // Token times are in whole seconds, so a token of the same second may have been issued earlier.
            kept.is_some_and(|kept| issued_s.is_none_or(|issued_s| issued_s <= kept.issued_before_s))
        };
        let of_user = |user| named.iter().any(|audience| apps.iter().any(|app| is_revoked(user, audience, app)));
        if users.iter().any(of_user) { Err(TokenError::Revoked) } else { Ok(()) }
    }

    /// Whether a refreshed login reported by an app server is revoked: its user or an audience was revoked after the
    /// app's token was issued. Without an issue time, it counts as issued now.
    #[must_use]
    pub(crate) fn void_refresh(&self, user: Option<&str>, claims: &[(ByteString, ByteString)], now_s: u64) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let named = |name: &'static str| claims.iter().filter(move |(claim, _)| claim == name).map(|(_, value)| value);
        let mut times = named("asrs.u.iat").chain(named("iat"));
        let issued_s = times.next().and_then(|time| time.parse().ok()).unwrap_or(now_s);
        let mut audiences = std::iter::once(None).chain(named("asrs.u.aud").chain(named("aud")).cloned().map(Some));
        let users = [None, user.map(ByteString::from)];
        let table = self.table();
        audiences.any(|audience| {
            users.iter().any(|user| {
                let tokens = TokenSet { user: user.clone(), audience: audience.clone(), app: None };
                let kept = table.by_tokens.get(&tokens).filter(|kept| kept.kept_until_s > now_s);
                kept.is_some_and(|kept| issued_s <= kept.issued_before_s)
            })
        })
    }

    pub(crate) fn mark(&self) -> RevocationMark {
        RevocationMark(self.newest.load(Ordering::Acquire))
    }

    /// Mark for a request forwarded by another node, which verified the token at most `within_s` seconds ago. Newer
    /// revocations may not have reached that node.
    pub(crate) fn mark_of_carried(&self, within_s: u64, now_s: u64) -> RevocationMark {
        let newest = self.mark();
        let table = self.table();
        let unknown = table.by_tokens.values().filter(|kept| kept.changed_s.saturating_add(within_s) >= now_s);
        unknown.map(|kept| kept.number - 1).min().map_or(newest, RevocationMark)
    }

    /// Records that this node is about to close a revoked user's connections. Returns `false` if it did before, or the
    /// revocation is not stored.
    pub(crate) fn note_close(&self, told: &SharedRevocation, at_ms: u64) -> bool {
        let mut table = self.table();
        let kept = table.by_tokens.get_mut(&TokenSet::from_revocation(told)).filter(|kept| kept.closed_ms < at_ms);
        kept.map(|kept| kept.closed_ms = at_ms).is_some()
    }

    /// Returns whether a login reported by the app itself, which presents no token again, is revoked: all logins of its
    /// user, or of all users, were revoked later.
    #[must_use]
    pub(crate) fn void_log_in(&self, user: Option<&str>, made_s: u64, now_s: u64) -> bool {
        if user.is_none() || self.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let table = self.table();
        [None, user.map(ByteString::from)].into_iter().any(|user| {
            let kept = table.by_tokens.get(&TokenSet { user, audience: None, app: None });
            kept.is_some_and(|kept| kept.kept_until_s > now_s && made_s <= kept.issued_before_s)
        })
    }

    /// Returns whether this node closed the connections of a user after another node opened one. The other node may not
    /// have received the revocation yet.
    pub(crate) fn have_closed(&self, user: Option<&str>, opened_ms: u64) -> bool {
        if user.is_none() || self.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let opened_ms = opened_ms.saturating_sub(self.clock_skew_s.saturating_mul(1000));
        let is_closed = |(tokens, kept): (&TokenSet, &KeptRevocation)| {
            tokens.user.as_deref() == user && kept.closed_ms > 0 && kept.closed_ms >= opened_ms
        };
        self.table().by_tokens.iter().any(is_closed)
    }

    pub(crate) fn have_come_since(&self, mark: RevocationMark, user: Option<&str>) -> bool {
        if self.mark() == mark {
            return false;
        }
        let table = self.table();
        let mut newer = table.by_tokens.iter().filter(|(_, kept)| kept.number > mark.0);
        newer.any(|(tokens, _)| tokens.user.as_deref().is_none_or(|revoked| user == Some(revoked)))
    }

    pub(crate) fn len(&self, now_s: u64) -> usize {
        let mut table = self.table();
        table.forget(now_s);
        self.count.store(table.by_tokens.len(), Ordering::Release);
        table.by_tokens.len()
    }

    /// Active revocations, newest first.
    #[must_use]
    pub(crate) fn all(&self, now_s: u64) -> Vec<SharedRevocation> {
        self.list(now_s, |_| true)
    }

    /// Active revocations changed up to this second that the store doesn't have yet, newest first.
    #[must_use]
    pub(crate) fn unwritten(&self, now_s: u64, changed_by_s: u64) -> Vec<SharedRevocation> {
        self.list(now_s, |kept| !kept.is_stored && kept.changed_s <= changed_by_s)
    }

    /// Notes that the store has a revocation, which includes the one kept here, or more.
    pub(crate) fn note_stored(&self, stored: &SharedRevocation) {
        if let Some(kept) = self.table().by_tokens.get_mut(&TokenSet::from_revocation(stored)) {
            let is_included =
                kept.issued_before_s <= stored.issued_before_s && kept.kept_until_s <= stored.kept_until_s;
            kept.is_stored |= is_included;
        }
    }

    /// Notes that the store may have lost these revocations.
    pub(crate) fn mark_unwritten(&self, is_lost: impl Fn(&SharedRevocation) -> bool) {
        for told in self.list(0, |kept| kept.is_stored).into_iter().filter(is_lost) {
            if let Some(kept) = self.table().by_tokens.get_mut(&TokenSet::from_revocation(&told)) {
                kept.is_stored = false;
            }
        }
    }

    fn list(&self, now_s: u64, is_wanted: impl Fn(&KeptRevocation) -> bool) -> Vec<SharedRevocation> {
        let table = self.table();
        let is_listed = |kept: &KeptRevocation| kept.kept_until_s > now_s && is_wanted(kept);
        let mut kept: Vec<_> = table.by_tokens.iter().filter(|(_, kept)| is_listed(kept)).collect();
        kept.sort_by_key(|(_, kept)| std::cmp::Reverse(kept.number));
        let told = |(tokens, kept): (&TokenSet, &KeptRevocation)| {
            let TokenSet { user, audience, app } = tokens.clone();
            let KeptRevocation { issued_before_s, kept_until_s, closed_ms, .. } = *kept;
            SharedRevocation { user, audience, app, issued_before_s, kept_until_s, closed_ms }
        };
        kept.into_iter().map(told).collect()
    }

    fn table(&self) -> MutexGuard<'_, RevocationTable> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW_S: u64 = 1_000_000;

    fn revocation(user: Option<&str>, issued_before_s: u64) -> SharedRevocation {
        let user = user.map(ByteString::from);
        SharedRevocation { user, audience: None, app: None, issued_before_s, kept_until_s: NOW_S + 3600, closed_ms: 0 }
    }

    fn revocations(all: &[SharedRevocation]) -> Revocations {
        let revocations = Revocations::new(5);
        all.iter().for_each(|told| revocations.revoke(told, NOW_S).unwrap());
        revocations
    }

    fn is_good(revocations: &Revocations, claims: &Value, app: Option<&str>) -> bool {
        let user = claims.get("sub").and_then(Value::as_str);
        let claims = &serde_json::from_value(claims.clone()).unwrap();
        revocations.check(SignedToken { claims, user, app }, NOW_S).is_ok()
    }

    #[test]
    fn a_revocation_is_unwritten_until_the_store_has_as_much() {
        let all = revocations(&[revocation(Some("ann"), 10), revocation(None, 20)]);
        let unwritten = |all: &Revocations| all.unwritten(NOW_S, NOW_S).len();
        assert_eq!(unwritten(&all), 2);
        all.note_stored(&SharedRevocation { kept_until_s: NOW_S + 60, ..revocation(Some("ann"), 10) });
        assert_eq!(unwritten(&all), 2, "the store keeps it for a shorter time");
        all.note_stored(&revocation(Some("ann"), 11));
        all.note_stored(&revocation(Some("ben"), 11));
        assert_eq!((unwritten(&all), all.unwritten(NOW_S, NOW_S)[0].user.is_none()), (1, true));
        all.revoke(&revocation(Some("ann"), 12), NOW_S).unwrap();
        assert_eq!(unwritten(&all), 2, "it has grown");
        all.note_stored(&revocation(Some("ann"), 12));
        all.note_stored(&revocation(None, 20));
        all.mark_unwritten(|told| told.user.is_none());
        assert_eq!((unwritten(&all), all.unwritten(NOW_S, NOW_S - 1).len()), (1, 0));
        assert!(all.unwritten(NOW_S + 3600, NOW_S).is_empty(), "ended");
    }

    #[test]
    fn a_revocation_covers_tokens_up_to_its_second_and_tokens_without_a_valid_issue_time() {
        let revocations = revocations(&[revocation(Some("ann"), NOW_S - 10)]);
        let good = |claims: Value| is_good(&revocations, &claims, None);
        for issued in [json!(NOW_S - 10), json!(NOW_S - 1000), json!(0), json!(999_989.5)] {
            assert!(!good(json!({ "sub": "ann", "iat": issued })), "{issued}");
            assert!(good(json!({ "sub": "bob", "iat": issued })), "{issued}");
        }
        assert!(good(json!({ "sub": "ann", "iat": NOW_S - 9 })) && good(json!({ "sub": "ann", "iat": NOW_S + 5 })));
        for no_age in [json!(null), json!("1000000"), json!(-1), json!(NOW_S * 1000), json!(NOW_S + 6), json!([NOW_S])]
        {
            assert!(!good(json!({ "sub": "ann", "iat": no_age })), "{no_age}");
        }
        assert!(!good(json!({ "sub": "ann" })) && good(json!({ "sub": "bob" })) && good(json!({})));
    }

    #[test]
    fn an_audience_an_app_a_user_and_all_of_them_together_choose_tokens() {
        let told = |user: Option<&str>, audience: Option<&str>, app: Option<&str>| SharedRevocation {
            audience: audience.map(ByteString::from),
            app: app.map(ByteString::from),
            ..revocation(user, NOW_S)
        };
        let token = json!({ "sub": "ann", "aud": ["shop", "news"], "iat": NOW_S });
        let voids = |user, audience, app| !is_good(&revocations(&[told(user, audience, app)]), &token, Some("store"));
        for (user, audience, app) in [
            (None, None, None),
            (Some("ann"), None, None),
            (None, Some("news"), None),
            (None, Some("shop"), Some("store")),
            (Some("ann"), Some("shop"), Some("store")),
        ] {
            assert!(voids(user, audience, app), "{user:?} {audience:?} {app:?}");
        }
        for (user, audience, app) in [
            (Some("bob"), None, None),
            (None, Some("chat"), None),
            (None, None, Some("other")),
            (Some("ann"), Some("chat"), Some("store")),
            (Some("bob"), Some("shop"), Some("store")),
        ] {
            assert!(!voids(user, audience, app), "{user:?} {audience:?} {app:?}");
        }
        let one = json!({ "sub": "ann", "aud": "shop", "iat": NOW_S });
        assert!(!is_good(&revocations(&[told(None, Some("shop"), None)]), &one, None), "a lone audience is no list");
    }

    #[test]
    fn of_two_about_the_same_tokens_the_later_times_count_whichever_comes_first() {
        let (early, late) = (revocation(Some("ann"), NOW_S - 100), revocation(Some("ann"), NOW_S - 50));
        let longer = SharedRevocation { kept_until_s: NOW_S + 7200, ..early.clone() };
        let merged = SharedRevocation { issued_before_s: NOW_S - 50, ..longer.clone() };
        for order in [[&early, &late, &longer], [&longer, &late, &early], [&late, &longer, &late]] {
            let revocations = revocations(&order.map(Clone::clone));
            assert_eq!(revocations.all(NOW_S), std::slice::from_ref(&merged));
        }
    }

    #[test]
    fn a_revocation_expires_in_its_time_and_after_a_year_at_the_latest() {
        let revocations = revocations(&[revocation(Some("ann"), NOW_S)]);
        let claims = serde_json::from_value(json!({ "iat": NOW_S })).unwrap();
        let at = |now_s| {
            let token = SignedToken { claims: &claims, user: Some("ann"), app: None };
            (revocations.check(token, now_s).is_ok(), revocations.all(now_s).len(), revocations.len(now_s))
        };
        assert_eq!((at(NOW_S + 3599), at(NOW_S + 3600)), ((false, 1, 1), (true, 0, 0)));
        let forever = SharedRevocation { kept_until_s: u64::MAX, ..revocation(Some("bob"), NOW_S) };
        revocations.revoke(&forever, NOW_S + 3600).unwrap();
        let until: Vec<_> = revocations.all(NOW_S + 3600).iter().map(|kept| kept.kept_until_s).collect();
        assert_eq!(until, [NOW_S + 3600 + REVOCATION_KEPT_MAX_S]);
        assert_eq!(revocations.table().by_tokens.len(), 1, "the first one takes no place any more");
        let over = SharedRevocation { kept_until_s: NOW_S, ..revocation(Some("eve"), NOW_S) };
        revocations.revoke(&over, NOW_S + 1).unwrap();
        assert_eq!(revocations.all(NOW_S + 1).len(), 1, "its time was over when it came");
    }

    #[test]
    fn a_carried_request_may_not_have_met_what_has_come_in_the_last_seconds() {
        let revocations = revocations(&[revocation(Some("ann"), NOW_S)]);
        revocations.revoke(&revocation(Some("bob"), NOW_S), NOW_S + 10).unwrap();
        let missed = |user, later_s| {
            let mark = revocations.mark_of_carried(10, NOW_S + later_s);
            revocations.have_come_since(mark, Some(user))
        };
        assert!(missed("ann", 10) && missed("bob", 10));
        assert!(!missed("ann", 11) && missed("bob", 11));
        assert!(!missed("bob", 21) && !missed("eve", 0));
    }

    #[test]
    fn a_connection_that_was_opened_before_those_of_its_user_were_closed_is_one_of_them() {
        let revocations = revocations(&[revocation(Some("ann"), NOW_S), revocation(Some("bob"), NOW_S)]);
        revocations.note_close(&revocation(Some("ann"), NOW_S - 9), 1_000_000);
        let later = revocation(Some("ann"), NOW_S + 1);
        revocations.revoke(&later, NOW_S).unwrap();
        let is_closed = |user, opened_ms| revocations.have_closed(user, opened_ms);
        // Within the tolerated clock skew.
        assert!(is_closed(Some("ann"), 0) && is_closed(Some("ann"), 1_005_000) && !is_closed(Some("ann"), 1_005_001));
        assert!(!is_closed(Some("bob"), 0) && !is_closed(None, 0));
    }

    #[test]
    fn each_close_is_recorded_once_and_sent_to_nodes_that_were_disconnected() {
        let revocations = revocations(&[revocation(Some("ann"), NOW_S)]);
        let hers = revocation(Some("ann"), NOW_S);
        let noted = [5, 5, 4, 6].map(|at_ms| revocations.note_close(&hers, at_ms));
        assert_eq!(noted, [true, false, false, true]);
        assert_eq!(revocations.all(NOW_S), [SharedRevocation { closed_ms: 6, ..hers }]);
        assert!(!revocations.note_close(&revocation(Some("bob"), NOW_S), 7), "nothing of his is revoked");
    }

    #[test]
    fn a_log_in_that_the_app_has_named_is_void_like_a_token_of_the_same_second() {
        let is_void =
            |revoked: SharedRevocation, user, made_s| revocations(&[revoked]).void_log_in(user, made_s, NOW_S);
        let of_ann = || revocation(Some("ann"), NOW_S);
        assert!(is_void(of_ann(), Some("ann"), NOW_S) && !is_void(of_ann(), Some("ann"), NOW_S + 1));
        assert!(!is_void(of_ann(), Some("bob"), NOW_S) && !is_void(of_ann(), None, 0));
        let everybodys = || revocation(None, NOW_S);
        assert!(is_void(everybodys(), Some("bob"), NOW_S) && !is_void(everybodys(), None, 0));
        let at_shop = SharedRevocation { app: Some("shop".into()), ..of_ann() };
        assert!(!is_void(at_shop, Some("ann"), NOW_S), "no key of an app has signed it");
        let kept_until_s = of_ann().kept_until_s;
        assert!(!revocations(&[of_ann()]).void_log_in(Some("ann"), NOW_S, kept_until_s), "its time is over");
    }

    #[test]
    fn their_number_their_names_and_the_bytes_of_all_are_bounded() {
        let full = Revocations::new(5);
        for number in 0..REVOCATIONS_MAX {
            full.revoke(&revocation(Some(&number.to_string()), NOW_S), NOW_S).unwrap();
        }
        assert_eq!(full.revoke(&revocation(Some("ann"), NOW_S), NOW_S), Err(RevocationRefused::TooMany));
        full.revoke(&revocation(Some("7"), NOW_S + 1), NOW_S).unwrap();
        assert_eq!(full.all(NOW_S)[0], revocation(Some("7"), NOW_S + 1), "one that is kept may grow");
        let wide = Revocations::new(5);
        let name = |number: usize| format!("{number:0>NAME_MAX_BYTES$}");
        let kept = (0..).take_while(|number| wide.revoke(&revocation(Some(&name(*number)), NOW_S), NOW_S).is_ok());
        assert_eq!(kept.count(), REVOCATIONS_MAX_BYTES / (NAME_MAX_BYTES + OVERHEAD_BYTES));
        let one = revocation(Some(&name(1_000)), NOW_S);
        assert_eq!(wide.revoke(&one, NOW_S), Err(RevocationRefused::TooLarge));
        wide.revoke(&SharedRevocation { kept_until_s: NOW_S + 7200, ..one.clone() }, NOW_S + 3600).unwrap();
        let long = revocation(Some(&"x".repeat(NAME_MAX_BYTES + 1)), NOW_S);
        assert_eq!(wide.revoke(&long, NOW_S), Err(RevocationRefused::NameTooLong(NAME_MAX_BYTES + 1)));
    }

    #[test]
    fn a_mark_detects_later_revocations_of_its_user() {
        let revocations = revocations(&[revocation(Some("ann"), NOW_S - 10)]);
        let mark = revocations.mark();
        assert!(!revocations.have_come_since(mark, Some("ann")));
        revocations.revoke(&revocation(Some("ann"), NOW_S - 20), NOW_S).unwrap();
        assert!(!revocations.have_come_since(mark, Some("ann")), "that was known");
        revocations.revoke(&revocation(Some("ann"), NOW_S), NOW_S).unwrap();
        assert!(revocations.have_come_since(mark, Some("ann")));
        assert!(!revocations.have_come_since(mark, Some("bob")) && !revocations.have_come_since(mark, None));
        revocations.revoke(&revocation(None, NOW_S), NOW_S).unwrap();
        assert!(revocations.have_come_since(mark, Some("bob")) && revocations.have_come_since(mark, None));
    }
}
