//! Socket addresses of one server.

use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Socket addresses of a server, shared by all clones. Compared by the address of discovery only.
#[derive(Debug, Clone)]
pub(super) struct Endpoints {
    pub(super) found_at: SocketAddr,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug)]
struct Known {
    /// Whether the address of discovery is still valid.
    is_listed: bool,
    alternatives: Vec<SocketAddr>,
}

/// Alternative address of a server, dialled until this guard is dropped.
#[derive(Debug)]
pub(crate) struct AlternativeEndpoint {
    of: Endpoints,
    at: SocketAddr,
}

impl Endpoints {
    pub(super) fn new(found_at: SocketAddr) -> Self {
        let known = Known { is_listed: true, alternatives: Vec::new() };
        Self { found_at, known: Arc::new(Mutex::new(known)) }
    }

    /// Addresses to dial, best first.
    pub(super) fn dialled(&self) -> Vec<SocketAddr> {
        let known = self.lock();
        let own = (known.is_listed || known.alternatives.is_empty()).then_some(self.found_at);
        own.into_iter().chain(known.alternatives.iter().copied()).collect()
    }

    pub(super) fn has_alternative(&self) -> bool {
        !self.lock().alternatives.is_empty()
    }

    /// Whether any address of the server is still listed.
    pub(super) fn is_listed(&self) -> bool {
        let known = self.lock();
        known.is_listed || !known.alternatives.is_empty()
    }

    pub(super) fn set_listed(&self, is_listed: bool) {
        self.lock().is_listed = is_listed;
    }

    /// Adds an alternative; `None` if the address is already known.
    pub(super) fn add(&self, at: SocketAddr) -> Option<AlternativeEndpoint> {
        let mut known = self.lock();
        if at == self.found_at || known.alternatives.contains(&at) {
            return None;
        }
        known.alternatives.push(at);
        Some(AlternativeEndpoint { of: self.clone(), at })
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AlternativeEndpoint {
    fn drop(&mut self) {
        self.of.lock().alternatives.retain(|at| *at != self.at);
    }
}

impl PartialEq for Endpoints {
    fn eq(&self, other: &Self) -> bool {
        self.found_at == other.found_at
    }
}

impl Eq for Endpoints {}

impl Hash for Endpoints {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.found_at.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alternative_is_dialled_after_the_first_address_and_alone_once_that_is_gone() {
        let [v4, v6] = ["10.0.0.1:80", "[2001:db8::1]:80"].map(|at| at.parse::<SocketAddr>().unwrap());
        let endpoints = Endpoints::new(v4);
        assert!(endpoints.add(v4).is_none());
        let alternative = endpoints.clone().add(v6);
        assert!(endpoints.has_alternative() && endpoints.add(v6).is_none());
        assert_eq!(endpoints.dialled(), [v4, v6]);
        endpoints.set_listed(false);
        assert_eq!(endpoints.dialled(), [v6]);
        assert!(endpoints.is_listed());
        drop(alternative);
        assert!(!endpoints.is_listed());
        assert!(!endpoints.has_alternative());
        assert_eq!(endpoints.dialled(), [v4], "there is nothing better");
        assert_eq!(endpoints, Endpoints::new(v4));
    }
}
