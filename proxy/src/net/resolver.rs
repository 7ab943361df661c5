//! How the names of upstreams become addresses: the system knows, unless whoever makes the settings knows better.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::net::lookup_host;

use super::address::Address;

type Resolve = dyn Fn(&Address) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync;

/// Finds the addresses of a name.
#[derive(Clone)]
pub struct Resolver(Arc<Resolve>);

impl Resolver {
    /// One that knows these addresses, whatever the name.
    #[must_use]
    pub fn knowing(addresses: Vec<SocketAddr>) -> Self {
        Self(Arc::new(move |_| std::future::ready(Ok(addresses.clone())).boxed()))
    }

    /// The addresses of a name.
    ///
    /// # Errors
    /// When it can't be resolved.
    pub async fn resolve(&self, name: &Address) -> io::Result<Vec<SocketAddr>> {
        (self.0)(name).await
    }
}

impl Default for Resolver {
    /// What the system says.
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
