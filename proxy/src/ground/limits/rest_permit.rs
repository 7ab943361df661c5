//! Permits of requests to the REST data plane, shared fairly between callers under load.
//!
//! ```text
//!  takes a permit ─► waits for the body ─► is executed ─► ends
//!                     ▲ displaced            ▲ never
//! ```
//!
//! Each hub, token, signer and address may exceed its share while permits are free. When all are taken, a new request
//! displaces another caller's request beyond its share: the one that has waited longest for its body. So stalled bodies
//! sent with a token of one hub don't block other hubs. A client invocation uses a permit of its
//! [`SignerShare`](super::SignerShare) instead.

use std::collections::HashMap;

use super::address_key::AddressKey;
use crate::ground::auth::Signer;
use crate::ground::bounded::{Lease, LeaseTable, Leases};

/// Divisor for the share of a caller when all permits are taken.
const SHARES: usize = 4;

/// Property of a request that counts towards a share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum RestShare {
    Hub(String),
    /// Hash of the request's token.
    Token(u64),
    Signer(Signer),
    Address(AddressKey),
}

#[derive(Debug)]
pub(crate) struct RestPermits {
    limit: usize,
    requests: Leases<RestRequest>,
}

#[derive(Debug)]
pub(crate) struct RestRequest {
    shares: Vec<RestShare>,
    waits_for_body: bool,
}

pub(crate) type RestPermit = Lease<RestRequest>;

impl RestPermits {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, requests: Leases::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.requests.lock().len() == 0
    }

    /// Takes a permit for a request with these shares, if necessary by displacing another request. `None` if all are in
    /// use.
    pub(crate) fn take(&self, shares: impl IntoIterator<Item = RestShare>) -> Option<RestPermit> {
        let new = RestRequest { shares: shares.into_iter().collect(), waits_for_body: true };
        self.requests.take_or_revoke(self.limit, new, |requests, new| victim(requests, new, self.limit / SHARES))
    }
}

/// Finds the oldest request that waits for its body and exceeds a share unrelated to the new request.
fn victim(requests: &LeaseTable<RestRequest>, new: &RestRequest, share: usize) -> Option<u64> {
    let mut counts: HashMap<&RestShare, usize> = HashMap::new();
    for one in requests.iter().flat_map(|(_, request)| &request.shares) {
        *counts.entry(one).or_default() += 1;
    }
    let is_exceeded = |one: &RestShare| !new.shares.contains(one) && counts.get(one).is_some_and(|n| *n > share);
    let mut candidates = requests.iter().filter(|(_, request)| request.waits_for_body);
    candidates.find(|(_, request)| request.shares.iter().any(is_exceeded)).map(|(number, _)| number)
}

impl RestPermit {
    /// Records that the body has arrived: the request can't be displaced from then on.
    pub(crate) fn body_has_come(&self) {
        self.update(|request| request.waits_for_body = false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 16;

    fn hub(name: &str) -> RestShare {
        RestShare::Hub(name.into())
    }

    fn ip(last: u8) -> RestShare {
        RestShare::Address(AddressKey::V4(last.into()))
    }

    #[test]
    fn one_caller_may_take_all_places_until_another_one_comes() {
        let permits = RestPermits::new(MOST);
        let mut of_chat: Vec<_> = (0..MOST).map(|_| permits.take([hub("chat"), ip(1)]).unwrap()).collect();
        assert!(permits.take([hub("chat"), ip(1)]).is_none(), "nobody is displaced by his own requests");
        of_chat[0].body_has_come();
        let other = permits.take([hub("shop"), ip(1)]).unwrap();
        let displaced: Vec<_> = of_chat.iter().map(|place| place.token().is_cancelled()).collect();
        assert_eq!(displaced.iter().filter(|is| **is).count(), 1);
        assert!(displaced[1], "the oldest one whose body has not come");
        let elsewhere = permits.take([hub("chat"), ip(2)]).unwrap();
        assert!(of_chat[2].token().is_cancelled(), "an address has a share, too");
        drop((other, elsewhere));
        of_chat.clear();
        assert!(permits.requests.lock().len() == 0);
    }

    #[test]
    fn a_token_for_everything_can_not_take_all_by_naming_many_hubs() {
        let permits = RestPermits::new(MOST);
        let many: Vec<_> =
            (0..MOST).map(|number| permits.take([hub(&number.to_string()), RestShare::Token(1)]).unwrap()).collect();
        let one = permits.take([hub("0"), RestShare::Token(2)]).unwrap();
        assert!(many[0].token().is_cancelled());
        drop(one);
    }

    #[test]
    fn the_key_of_an_app_can_not_take_all_by_signing_many_tokens() {
        let permits = RestPermits::new(MOST);
        let caller = |app: &str, token| [RestShare::Token(token), RestShare::Signer(Signer::App(app.into()))];
        let many: Vec<_> = (0..MOST as u64).map(|token| permits.take(caller("shop", token)).unwrap()).collect();
        assert!(permits.take(caller("shop", 99)).is_none());
        let other = permits.take(caller("news", 100)).unwrap();
        assert!(many[0].token().is_cancelled() && !other.token().is_cancelled());
    }

    #[test]
    fn a_request_within_its_share_is_not_displaced() {
        let permits = RestPermits::new(MOST);
        let kept: Vec<_> =
            (0..MOST).map(|number| permits.take([hub(&(number % SHARES).to_string())]).unwrap()).collect();
        assert!(permits.take([hub("late")]).is_none());
        assert!(kept.iter().all(|place| !place.token().is_cancelled()));
    }
}
