//! Resolution of host names: by the system, or by fixed addresses.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::net::lookup_host;

use super::address::Address;

type Resolve = dyn Fn(&Address) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync;

/// Resolver of host names.
#[derive(Clone)]
pub struct Resolver(Arc<Resolve>);

impl Resolver {
    /// Creates a resolver that answers every name with these addresses.
    #[must_use]
    pub fn knowing(addresses: Vec<SocketAddr>) -> Self {
        Self(Arc::new(move |_| std::future::ready(Ok(addresses.clone())).boxed()))
    }

    /// Creates a resolver that asks this function, which must not wait.
    #[must_use]
    pub fn asking(ask: impl Fn(&Address) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(move |name| std::future::ready(ask(name)).boxed()))
    }

    /// Creates a resolver that asks this function, which may wait.
    #[cfg(test)]
    pub(crate) fn asking_slowly(
        ask: impl Fn(&Address) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(ask))
    }

    /// Returns the addresses of a name.
    ///
    /// # Errors
    /// When the name can't be resolved.
    pub async fn resolve(&self, name: &Address) -> io::Result<Vec<SocketAddr>> {
        (self.0)(name).await
    }
}

impl Default for Resolver {
    /// Creates a resolver that asks the system.
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

/// Keeps the addresses of the family that the system prefers, which is that of the first: a server with both would
/// count as two otherwise.
#[must_use]
pub(crate) fn of_one_family(all: &[SocketAddr]) -> Vec<SocketAddr> {
    let is_v4 = all.first().is_some_and(SocketAddr::is_ipv4);
    all.iter().filter(|address| address.is_ipv4() == is_v4).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn fixed_addresses_answer_any_name_and_the_system_knows_numbers() {
        let fixed: Vec<SocketAddr> = vec![([10, 0, 0, 1], 1).into(), ([10, 0, 0, 2], 1).into()];
        let name: Address = "http://name.invalid".parse().unwrap();
        assert_eq!(Resolver::knowing(fixed.clone()).resolve(&name).await.unwrap(), fixed);
        let number: Address = "http://127.0.0.1:5000".parse().unwrap();
        assert_eq!(Resolver::default().resolve(&number).await.unwrap(), [([127, 0, 0, 1], 5000).into()]);
    }

    #[test]
    fn only_the_family_that_the_system_prefers_counts() {
        let all = ["[2001:db8::1]:80", "10.0.0.1:80", "[2001:db8::2]:80"].map(|at| at.parse().unwrap());
        assert_eq!(of_one_family(&all), [all[0], all[2]]);
        assert!(of_one_family(&[]).is_empty());
    }
}
