//! Places of requests to the REST data plane: all of them for whoever comes, until others want some.
//!
//! ```text
//!  takes a place ─► waits for the body ─► is executed ─► leaves
//!                     ▲ displaced            ▲ never
//! ```
//!
//! A hub, a token, its signer and an address each have a share. While there are free places a share may be exceeded.
//! When all are taken, a newcomer gets the place of the request that has waited longest for its body among those of
//! another caller beyond its share. So a token for one hub whose bodies never come costs the callers of other hubs
//! nothing. What waits for a client has no place here: see [`SignerPlaces`](super::SignerPlaces).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::address_limit::AddressKey;
use crate::auth::Signer;

/// Callers that have a share when all places are taken.
const SHARES: usize = 4;

/// Caller of a request, as far as it counts for shares.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum RestShare {
    Hub(String),
    /// Hash of the token that the request has shown.
    Token(u64),
    /// Signer of that token.
    Signer(Signer),
    Address(IpAddr),
}

/// Places of requests; its clones share one table.
#[derive(Debug, Clone)]
pub(crate) struct RestPlaces(Arc<PlaceTable>);

#[derive(Debug)]
struct PlaceTable {
    most: usize,
    taken: Mutex<TakenPlaces>,
}

#[derive(Debug, Default)]
struct TakenPlaces {
    requests: HashMap<u64, PlacedRequest>,
    /// Counts requests, so that the lowest number is the oldest.
    last: u64,
}

#[derive(Debug)]
struct PlacedRequest {
    shares: Vec<RestShare>,
    waits_for_body: bool,
    displaced: CancellationToken,
}

/// Place of one request; dropping it frees it.
#[derive(Debug)]
pub(crate) struct RestPlace {
    table: RestPlaces,
    number: u64,
    displaced: CancellationToken,
}

impl RestPlaces {
    #[must_use]
    pub(crate) fn new(most: usize) -> Self {
        Self(Arc::new(PlaceTable { most, taken: Mutex::default() }))
    }

    /// Takes a place for a request with these shares; another one may be displaced for it. `None` if none can be.
    pub(crate) fn take(&self, shares: impl IntoIterator<Item = RestShare>) -> Option<RestPlace> {
        let shares: Vec<_> = shares.into_iter().map(RestShare::of_network).collect();
        let mut taken = self.taken();
        if taken.requests.len() >= self.0.most {
            taken.displace(&shares, self.0.most / SHARES)?;
        }
        taken.last += 1;
        let (number, displaced) = (taken.last, CancellationToken::new());
        taken.requests.insert(number, PlacedRequest { shares, waits_for_body: true, displaced: displaced.clone() });
        Some(RestPlace { table: self.clone(), number, displaced })
    }

    fn taken(&self) -> MutexGuard<'_, TakenPlaces> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RestShare {
    /// Counts addresses of one /64 of IPv6 as one, as all limits by address do.
    fn of_network(self) -> Self {
        match self {
            Self::Address(ip) => Self::Address(AddressKey::from(ip).network()),
            other => other,
        }
    }
}

impl TakenPlaces {
    /// Displaces the oldest request that waits for its body and exceeds a share which the newcomer has no part in.
    fn displace(&mut self, newcomer: &[RestShare], share: usize) -> Option<()> {
        let mut counts: HashMap<&RestShare, usize> = HashMap::new();
        for one in self.requests.values().flat_map(|request| &request.shares) {
            *counts.entry(one).or_default() += 1;
        }
        let is_too_many = |one: &RestShare| !newcomer.contains(one) && counts.get(one).is_some_and(|n| *n > share);
        let is_candidate = |request: &PlacedRequest| request.waits_for_body && request.shares.iter().any(is_too_many);
        let candidates = self.requests.iter().filter(|(_, request)| is_candidate(request));
        let number = *candidates.min_by_key(|(number, _)| **number)?.0;
        self.requests.remove(&number)?.displaced.cancel();
        Some(())
    }
}

impl RestPlace {
    /// Notes that the body has come, from which moment on the request is not displaced any more.
    pub(crate) fn body_has_come(&self) {
        if let Some(request) = self.table.taken().requests.get_mut(&self.number) {
            request.waits_for_body = false;
        }
    }

    /// Waits until the request is displaced.
    pub(crate) async fn displaced(&self) {
        self.displaced.cancelled().await;
    }
}

impl Drop for RestPlace {
    fn drop(&mut self) {
        self.table.taken().requests.remove(&self.number);
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
        RestShare::Address([192, 0, 2, last].into())
    }

    #[test]
    fn one_caller_may_take_all_places_until_another_one_comes() {
        let places = RestPlaces::new(MOST);
        let mut of_chat: Vec<_> = (0..MOST).map(|_| places.take([hub("chat"), ip(1)]).unwrap()).collect();
        assert!(places.take([hub("chat"), ip(1)]).is_none(), "nobody is displaced by his own requests");
        of_chat[0].body_has_come();
        let other = places.take([hub("shop"), ip(1)]).unwrap();
        let displaced: Vec<_> = of_chat.iter().map(|place| place.displaced.is_cancelled()).collect();
        assert_eq!(displaced.iter().filter(|is| **is).count(), 1);
        assert!(displaced[1], "the oldest one whose body has not come");
        let elsewhere = places.take([hub("chat"), ip(2)]).unwrap();
        assert!(of_chat[2].displaced.is_cancelled(), "an address has a share, too");
        drop((other, elsewhere));
        of_chat.clear();
        assert!(places.taken().requests.is_empty());
    }

    #[test]
    fn a_token_for_everything_can_not_take_all_by_naming_many_hubs() {
        let places = RestPlaces::new(MOST);
        let many: Vec<_> =
            (0..MOST).map(|number| places.take([hub(&number.to_string()), RestShare::Token(1)]).unwrap()).collect();
        let one = places.take([hub("0"), RestShare::Token(2)]).unwrap();
        assert!(many[0].displaced.is_cancelled());
        drop(one);
    }

    #[test]
    fn the_key_of_an_app_can_not_take_all_by_signing_many_tokens() {
        let places = RestPlaces::new(MOST);
        let caller = |app: &str, token| [RestShare::Token(token), RestShare::Signer(Signer::App(app.into()))];
        let many: Vec<_> = (0..MOST as u64).map(|token| places.take(caller("shop", token)).unwrap()).collect();
        assert!(places.take(caller("shop", 99)).is_none());
        let other = places.take(caller("news", 100)).unwrap();
        assert!(many[0].displaced.is_cancelled() && !other.displaced.is_cancelled());
    }

    #[test]
    fn whoever_keeps_to_a_share_is_not_displaced() {
        let places = RestPlaces::new(MOST);
        let kept: Vec<_> =
            (0..MOST).map(|number| places.take([hub(&(number % SHARES).to_string())]).unwrap()).collect();
        assert!(places.take([hub("late")]).is_none());
        assert!(kept.iter().all(|place| !place.displaced.is_cancelled()));
    }
}
