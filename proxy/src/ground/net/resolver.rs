//! Resolution of host names, by the system or with fixed addresses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fmt, io};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::net::lookup_host;

use super::address::Address;

type Resolve = dyn Fn(&Address) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync;

/// Resolver of host names. Clones share one.
#[derive(Clone)]
pub struct Resolver(Arc<Resolve>);

impl Resolver {
    /// Resolver that returns these addresses for every name.
    #[must_use]
    pub fn knowing(addresses: Vec<SocketAddr>) -> Self {
        Self(Arc::new(move |_| std::future::ready(Ok(addresses.clone())).boxed()))
    }

    /// Resolver that calls a non-blocking function.
    #[must_use]
    pub fn asking(ask: impl Fn(&Address) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(move |name| std::future::ready(ask(name)).boxed()))
    }

    /// Resolver that calls an async function.
    #[cfg(test)]
    pub(crate) fn asking_slowly(
        ask: impl Fn(&Address) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(ask))
    }

    /// Returns the addresses of a name.
    ///
    /// # Errors
    /// If the name can't be resolved.
    pub async fn resolve(&self, name: &Address) -> io::Result<Vec<SocketAddr>> {
        (self.0)(name).await
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self(Arc::new(|name| {
            let name = name.authority().to_owned();
            async { Ok(lookup_host(name).await?.collect()) }.boxed()
        }))
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

/// Address families of one name: whether both are listed, and which have ever answered.
///
/// A server that listens on one family only is no problem of the other.
#[derive(Debug, Default)]
pub(crate) struct AddressFamilies {
    are_both_listed: AtomicBool,
    v4_answers: AtomicBool,
    v6_answers: AtomicBool,
}

impl AddressFamilies {
    pub(crate) fn note_listed(&self, all: &[SocketAddr]) {
        let are_both = all.iter().any(SocketAddr::is_ipv4) && all.iter().any(SocketAddr::is_ipv6);
        self.are_both_listed.store(are_both, Ordering::Relaxed);
    }

    /// Records that a server answers at an address of the name.
    pub(crate) fn note_answer(&self, at: SocketAddr) {
        if at.is_ipv4() { &self.v4_answers } else { &self.v6_answers }.store(true, Ordering::Relaxed);
    }

    pub(crate) fn are_both_listed(&self) -> bool {
        self.are_both_listed.load(Ordering::Relaxed)
    }

    /// Whether this address's family has never answered, while the other one has.
    pub(crate) fn only_other_answers(&self, at: SocketAddr) -> bool {
        let answers = (self.v4_answers.load(Ordering::Relaxed), self.v6_answers.load(Ordering::Relaxed));
        answers == (at.is_ipv6(), at.is_ipv4())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn fixed_addresses_answer_any_name_and_the_system_resolves_ip_addresses() {
        let fixed: Vec<SocketAddr> = vec![([10, 0, 0, 1], 1).into(), ([10, 0, 0, 2], 1).into()];
        let name: Address = "http://name.invalid".parse().unwrap();
        assert_eq!(Resolver::knowing(fixed.clone()).resolve(&name).await.unwrap(), fixed);
        let number: Address = "http://127.0.0.1:5000".parse().unwrap();
        assert_eq!(Resolver::default().resolve(&number).await.unwrap(), [([127, 0, 0, 1], 5000).into()]);
    }

    #[test]
    fn a_family_that_never_answered_does_not_count_while_the_other_answers() {
        let [v6, v4] = ["[2001:db8::1]:80", "10.0.0.1:80"].map(|at| at.parse().unwrap());
        let families = AddressFamilies::default();
        families.note_listed(&[v4]);
        assert!(!families.are_both_listed());
        families.note_listed(&[v6, v4]);
        assert!(families.are_both_listed() && !families.only_other_answers(v6));
        families.note_answer(v4);
        assert!(families.only_other_answers(v6) && !families.only_other_answers(v4));
        families.note_answer(v6);
        assert!(!families.only_other_answers(v6), "an app server is gone there");
    }
}
