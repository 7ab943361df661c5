//! Where clients find hubs: behind two proxies, or at the app server itself. A scenario is the same on both.

use anyhow::Result;

use crate::fleet::{App, AppServer, Fleet, Proxy};

/// The kinds of ground.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// An app server behind two proxies.
    TwoProxies,
    /// An app server that serves clients itself.
    Embedded,
}

impl Setting {
    /// What a scenario is played on.
    pub const ALL: [Setting; 2] = [Setting::TwoProxies, Setting::Embedded];
}

/// An app server, and what stands before it.
#[derive(Debug)]
pub struct Ground {
    /// The app server.
    pub app: AppServer,
    /// The proxies before it, if there are any.
    pub proxies: Vec<Proxy>,
}

impl Ground {
    /// Starts all processes, and waits until clients can come.
    ///
    /// # Errors
    /// When one does not start.
    pub async fn start(fleet: &Fleet<'_>, app: App, setting: Setting) -> Result<Self> {
        match setting {
            Setting::TwoProxies => {
                let app = fleet.app(app).await?;
                let proxies = fleet.two_proxies(&app).await?.into();
                Ok(Self { app, proxies })
            }
            Setting::Embedded => {
                let app = fleet.app_with(app, &["--embedded"]).await?;
                Ok(Self { app, proxies: Vec::new() })
            }
        }
    }

    /// `host:port` of a place for clients. The places take turns, so that neighbours in `seat` sit apart if they can.
    #[must_use]
    pub fn address(&self, seat: usize) -> &str {
        match self.proxies.get(seat % self.proxies.len().max(1)) {
            Some(proxy) => proxy.address(),
            None => self.app.address(),
        }
    }

    /// A URL for clients, at the place of this seat.
    #[must_use]
    pub fn url(&self, seat: usize, path: &str) -> String {
        format!("http://{}{path}", self.address(seat))
    }
}
