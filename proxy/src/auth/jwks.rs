//! Published key sets (JWKS): read in turn, read early for a key that is not known, and kept when reading fails.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::Uri;
use jsonwebtoken::jwk::Jwk;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::fetch::fetch;
use super::{Dial, VerifyingKey};
use crate::metrics::Counter;

/// Largest key set: a hundred certificates fit.
const SET_MAX_BYTES: usize = 512 * 1024;

/// Why a key set can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwksError {
    /// It can't be read.
    #[error("can't be read: {0}")]
    Read(String),
    #[error("is no JWKS: {0}")]
    Format(String),
    /// None of its keys is for us.
    #[error("holds no key for RS256 (RSA) or ES256 (P-256)")]
    NoKey,
}

/// Where a key set is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwksSource {
    File(PathBuf),
    /// At an `https://` or `http://` URL.
    Url(Uri),
}

impl JwksSource {
    /// Whether it is fetched with TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Url(url) if url.scheme_str() == Some("https"))
    }

    /// Reads the keys; those of a URL by a connection that `dial` opens.
    ///
    /// # Errors
    /// When there are none.
    pub async fn read(&self, dial: &dyn Dial) -> Result<Vec<VerifyingKey>, JwksError> {
        match self {
            Self::File(_) => self.read_file(),
            Self::Url(url) => parse(&fetch(dial, url, SET_MAX_BYTES).await.map_err(JwksError::Read)?),
        }
    }

    /// Reads the keys of a file; a URL has none of these.
    ///
    /// # Errors
    /// When there are none.
    pub fn read_file(&self) -> Result<Vec<VerifyingKey>, JwksError> {
        match self {
            Self::File(path) => parse(&std::fs::read(path).map_err(|error| JwksError::Read(error.to_string()))?),
            Self::Url(_) => Ok(Vec::new()),
        }
    }
}

impl fmt::Display for JwksSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url(url) => url.fmt(f),
        }
    }
}

pub(crate) fn parse(text: &[u8]) -> Result<Vec<VerifyingKey>, JwksError> {
    /// Keys are read one by one, so that one of a kind not known here spoils no other.
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_slice(text).map_err(|error| JwksError::Format(error.to_string()))?;
    let jwks = set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
    let keys: Vec<_> = jwks.filter_map(|jwk| VerifyingKey::from_jwk(&jwk)).collect();
    if keys.is_empty() { Err(JwksError::NoKey) } else { Ok(keys) }
}

/// One source, and its last good set.
#[derive(Debug)]
struct KeySet {
    source: JwksSource,
    keys: ArcSwap<Vec<VerifyingKey>>,
    is_failing: AtomicBool,
}

/// All key sets of a node.
#[derive(Debug)]
pub(super) struct KeySets {
    sets: Vec<KeySet>,
    /// The way to those at URLs.
    dial: Arc<dyn Dial>,
    refetch: Duration,
    /// When they were read last. Held while they are read: who comes meanwhile waits and finds them fresh.
    last_read: Mutex<Option<Instant>>,
    rounds: AtomicU64,
    pub(super) read: Counter,
    pub(super) failed: Counter,
}

impl KeySets {
    pub(super) fn new(sources: &[JwksSource], refetch: Duration, dial: Arc<dyn Dial>) -> Self {
        let sets = sources.iter().map(|source| KeySet {
            source: source.clone(),
            keys: ArcSwap::from_pointee(source.read_file().unwrap_or_default()),
            is_failing: AtomicBool::new(false),
        });
        Self {
            sets: sets.collect(),
            dial,
            refetch,
            last_read: Mutex::new(None),
            rounds: AtomicU64::new(0),
            read: Counter::default(),
            failed: Counter::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// The keys of each set.
    pub(super) fn keys(&self) -> impl Iterator<Item = Arc<Vec<VerifyingKey>>> {
        self.sets.iter().map(|set| set.keys.load_full())
    }

    /// Reads all sets at once, and then in turn, for ever.
    pub(super) async fn keep_fresh(&self, refresh: Duration) {
        loop {
            {
                let mut last_read = self.last_read.lock().await;
                self.read_all(&mut last_read).await;
            }
            sleep(refresh).await;
        }
    }

    /// Reads all sets, because somebody shows a key that is in none; but not again and again for a guesser.
    /// Whether they have been read since the call.
    pub(super) async fn read_early(&self) -> bool {
        let rounds = self.rounds.load(Ordering::Acquire);
        let mut last_read = self.last_read.lock().await;
        if self.rounds.load(Ordering::Acquire) != rounds {
            return true;
        }
        if last_read.is_some_and(|last| last.elapsed() < self.refetch) {
            return false;
        }
        self.read_all(&mut last_read).await;
        true
    }

    async fn read_all(&self, last_read: &mut Option<Instant>) {
        // Noted first: a caller that goes away in between has asked all the same.
        *last_read = Some(Instant::now());
        for set in &self.sets {
            let outcome = set.source.read(&*self.dial).await;
            self.settle(set, outcome);
        }
        self.rounds.fetch_add(1, Ordering::Release);
    }

    fn settle(&self, set: &KeySet, outcome: Result<Vec<VerifyingKey>, JwksError>) {
        match outcome {
            Ok(keys) => {
                self.read.increment();
                if set.is_failing.swap(false, Ordering::Relaxed) {
                    info!(jwks = %set.source, keys = keys.len(), "the key set can be read again");
                }
                set.keys.store(Arc::new(keys));
            }
            Err(problem) => {
                self.failed.increment();
                if !set.is_failing.swap(true, Ordering::Relaxed) {
                    let kept = set.keys.load().len();
                    warn!(jwks = %set.source, %problem, kept, "the key set can't be read: its last good keys are kept");
                }
            }
        }
    }
}
