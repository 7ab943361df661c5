//! Read certificates anew when their files change, or on SIGHUP. Connections that are open live on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::metrics::Outcome;
use crate::net::tls::{Certificates, TlsError};
use crate::shard::{Shared, Ways};

/// How often files are looked at: links that a deployment tool swaps can't be watched reliably, and this is cheap.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// What is read from files.
struct Sources {
    /// Of the listener with TLS.
    certificates: Option<Arc<Certificates>>,
    /// Of this node as a client.
    ways: Ways,
}

/// What tells one version of a file from another.
type Stamp = (PathBuf, Option<(SystemTime, u64)>);

impl Sources {
    /// All files as they are now.
    fn stamps(&self) -> Vec<Stamp> {
        let own = self.certificates.iter().flat_map(|certificates| certificates.files());
        let stamp = |path: &std::path::Path| {
            let seen = std::fs::metadata(path).and_then(|data| Ok((data.modified()?, data.len())));
            (path.to_owned(), seen.ok())
        };
        own.chain(self.ways.fleet.files()).chain(self.ways.issuers.files()).map(stamp).collect()
    }

    fn read_again(&self) -> Result<(), TlsError> {
        self.certificates.as_ref().map_or(Ok(()), |certificates| certificates.read_again())?;
        self.ways.fleet.read_again()?;
        self.ways.issuers.read_again()
    }
}

/// Watches for ever, if there is anything to watch.
pub(super) async fn watch(shared: Arc<Shared>, ways: Ways, certificates: Option<Arc<Certificates>>) {
    let sources = Sources { certificates, ways };
    let mut seen = sources.stamps();
    if seen.is_empty() {
        return;
    }
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut hangups = Hangups::new();
    loop {
        let is_told = tokio::select! {
            () = hangups.next() => true,
            _ = looks.tick() => false,
        };
        let now = sources.stamps();
        if !is_told && now == seen {
            continue;
        }
        seen = now;
        let outcomes = &shared.counters_of(0).certificate_reads;
        match sources.read_again() {
            Ok(()) => {
                outcomes.of(Outcome::Done).increment();
                info!("certificates were read anew");
            }
            Err(error) => {
                outcomes.of(Outcome::Invalid).increment();
                warn!(%error, "certificates can't be read anew: the old ones stay in use");
            }
        }
    }
}

/// SIGHUP, where there is such a thing.
struct Hangups {
    #[cfg(unix)]
    signals: Option<tokio::signal::unix::Signal>,
}

impl Hangups {
    fn new() -> Self {
        Self {
            #[cfg(unix)]
            signals: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok(),
        }
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(signals) = &mut self.signals
            && signals.recv().await.is_some()
        {
            return;
        }
        std::future::pending().await
    }
}
