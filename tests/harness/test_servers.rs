//! Setup of a scenario: hubs behind two proxies or directly at the app server. Scenarios are equal for both.

use anyhow::Result;

use crate::harness::client::Agents;
use crate::harness::fleet::{App, AppServer, Fleet, Proxy};
use crate::harness::scenario::Fixture;
use crate::harness::sockets::free_address;
use crate::harness::tls::Authority;

/// Kind of a scenario's setup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// App server behind two proxies.
    TwoProxies,
    /// App server that serves clients itself.
    Embedded,
    /// Two proxies with TLS.
    TwoProxiesWithTls,
    /// App server that serves clients itself, with TLS.
    EmbeddedWithTls,
}

impl Setting {
    /// Setups of most scenarios, without TLS.
    pub const ALL: [Setting; 2] = [Setting::TwoProxies, Setting::Embedded];

    /// Setups that are served over TLS.
    pub const WITH_TLS: [Setting; 2] = [Setting::TwoProxiesWithTls, Setting::EmbeddedWithTls];

    /// All setups, for tests of the whole matrix.
    pub const EVERY: [Setting; 4] =
        [Setting::TwoProxies, Setting::Embedded, Setting::TwoProxiesWithTls, Setting::EmbeddedWithTls];
}

/// App server and its optional proxies.
#[derive(Debug)]
pub struct TestServers {
    /// The running app server.
    pub app: AppServer,
    /// Proxies in front of it, if any.
    pub proxies: Vec<Proxy>,
    /// Authority to be trusted by clients, and the TLS addresses.
    tls: Option<(Authority, Vec<String>)>,
}

impl TestServers {
    /// Starts all processes and waits until clients can connect.
    pub async fn start(fleet: &Fleet<'_>, app: App, setting: Setting) -> Result<Self> {
        match setting {
            Setting::TwoProxies => {
                let app = fleet.app(app).await?;
                let proxies = fleet.two_proxies(&app).await?.into();
                Ok(Self { app, proxies, tls: None })
            }
            Setting::Embedded => {
                let app = fleet.app_with(app, &["--embedded"]).await?;
                Ok(Self { app, proxies: Vec::new(), tls: None })
            }
            Setting::TwoProxiesWithTls => {
                let authority = Authority::new(fleet.fixture(), "authority-of-proxies")?;
                let identity = authority.sign("proxy", &["localhost", "127.0.0.1"])?;
                let (certificate, key) = identity.arguments()?;
                let app = fleet.app(app).await?;
                let (mut proxies, mut addresses) = (Vec::new(), Vec::new());
                for _ in 0..2 {
                    let address = free_address()?;
                    let arguments = ["--tls-listen", &address, "--tls-cert", certificate, "--tls-key", key];
                    proxies.push(fleet.proxy_with(&[&app], &arguments).await?);
                    addresses.push(address);
                }
                Ok(Self { app, proxies, tls: Some((authority, addresses)) })
            }
            Setting::EmbeddedWithTls => {
                let authority = Authority::new(fleet.fixture(), "authority-of-apps")?;
                let identity = authority.sign("app", &["localhost", "127.0.0.1"])?;
                let (certificate, key) = identity.arguments()?;
                let address = free_address()?;
                let arguments = ["--embedded", "--tls-listen", &address, "--tls-cert", certificate, "--tls-key", key];
                let app = fleet.app_with(app, &arguments).await?;
                Ok(Self { app, proxies: Vec::new(), tls: Some((authority, vec![address])) })
            }
        }
    }

    /// Clients that trust the certificates of this setup.
    #[must_use]
    pub fn agents<'a>(&self, fixture: &'a Fixture) -> Agents<'a> {
        match &self.tls {
            Some((authority, _)) => Agents::trusting(fixture, &authority.file),
            None => Agents::new(fixture),
        }
    }

    /// Client address as `host:port`. Consecutive indexes use different proxies, if possible.
    #[must_use]
    pub fn address(&self, index: usize) -> &str {
        match self.proxies.get(index % self.proxies.len().max(1)) {
            Some(proxy) => proxy.address(),
            None => self.app.address(),
        }
    }

    /// URL for the client with this index.
    #[must_use]
    pub fn url(&self, index: usize, path: &str) -> String {
        let secure = self.tls.as_ref().and_then(|(_, addresses)| addresses.get(index % addresses.len()));
        match secure {
            Some(address) => format!("https://{address}{path}"),
            None => format!("http://{}{path}", self.address(index)),
        }
    }
}
