//! Published key sets (JWKS): read at intervals, early for an unknown key, and kept when reading fails.

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

use super::VerifyingKey;
use super::fetch::fetch;
use crate::metrics::Counter;
use crate::net::connector::Connector;

/// Largest key set: a hundred certificates fit.
const SET_MAX_BYTES: usize = 512 * 1024;

/// Error of reading a key set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwksError {
    /// The set can't be fetched or read.
    #[error("can't be read: {0}")]
    Read(String),
    /// The text is no key set.
    #[error("is no JWKS: {0}")]
    Format(String),
    /// None of its keys is of a supported kind.
    #[error("holds no key for RS256 (RSA) or ES256 (P-256)")]
    NoKey,
}

/// Place where a key set is published.
#[derive(Clone, PartialEq, Eq)]
pub enum JwksSource {
    /// A file of this machine.
    File(PathBuf),
    /// An `https://` or `http://` URL.
    Url(Uri),
}

impl JwksSource {
    /// Whether it is fetched over TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Url(url) if url.scheme_str() == Some("https"))
    }

    /// Reads the keys; those of a URL over a connection of `connector`.
    ///
    /// # Errors
    /// When it can't be read, or holds no key of a supported kind.
    pub(crate) async fn read(&self, connector: &Connector) -> Result<Vec<VerifyingKey>, JwksError> {
        match self {
            Self::File(_) => {
                let file = self.clone();
                let read = tokio::task::spawn_blocking(move || file.read_file()).await;
                read.map_err(|error| JwksError::Read(error.to_string()))?
            }
            Self::Url(url) => parse(&fetch(connector, url, SET_MAX_BYTES).await.map_err(JwksError::Read)?),
        }
    }

    /// Reads the keys of a file; a URL has none before it is fetched.
    ///
    /// # Errors
    /// When it can't be read, or holds no key of a supported kind.
    pub fn read_file(&self) -> Result<Vec<VerifyingKey>, JwksError> {
        match self {
            Self::File(path) => parse(&std::fs::read(path).map_err(|error| JwksError::Read(error.to_string()))?),
            Self::Url(_) => Ok(Vec::new()),
        }
    }
}

impl fmt::Debug for JwksSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JwksSource({self})")
    }
}

impl fmt::Display for JwksSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            // Without its query, which may hold a key of its own.
            Self::Url(url) => {
                let (scheme, host) =
                    (url.scheme_str().unwrap_or_default(), url.authority().map_or("", |host| host.as_str()));
                write!(f, "{scheme}://{host}{}{}", url.path(), if url.query().is_some() { "?…" } else { "" })
            }
        }
    }
}

pub(crate) fn parse(text: &[u8]) -> Result<Vec<VerifyingKey>, JwksError> {
    /// Keys are parsed one by one, so that one of an unknown kind spoils no other.
    #[derive(Deserialize)]
    struct JwksDocument {
        keys: Vec<Value>,
    }
    let document: JwksDocument = serde_json::from_slice(text).map_err(|error| JwksError::Format(error.to_string()))?;
    let jwks = document.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
    let keys: Vec<_> = jwks.filter_map(|jwk| VerifyingKey::from_jwk(&jwk)).collect();
    if keys.is_empty() { Err(JwksError::NoKey) } else { Ok(keys) }
}

/// Key set of one source: the last one that could be read.
#[derive(Debug)]
struct KeySet {
    source: JwksSource,
    keys: ArcSwap<Vec<VerifyingKey>>,
    is_failing: AtomicBool,
}

/// Key sets of a node.
#[derive(Debug)]
pub(super) struct KeySets {
    sets: Vec<KeySet>,
    connector: Connector,
    refetch: Duration,
    /// Time of the last read. Locked while sets are read: a caller that comes meanwhile waits, and finds them fresh.
    last_read: Mutex<Option<Instant>>,
    rounds: AtomicU64,
    pub(super) read: Counter,
    pub(super) failed: Counter,
}

impl KeySets {
    pub(super) fn new(sources: &[JwksSource], refetch: Duration, connector: Connector) -> Self {
        let sets = sources.iter().map(|source| KeySet {
            source: source.clone(),
            keys: ArcSwap::from_pointee(source.read_file().unwrap_or_default()),
            is_failing: AtomicBool::new(false),
        });
        Self {
            sets: sets.collect(),
            connector,
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

    /// Returns the keys of each set.
    pub(super) fn keys(&self) -> impl Iterator<Item = Arc<Vec<VerifyingKey>>> {
        self.sets.iter().map(|set| set.keys.load_full())
    }

    /// Reads all sets now, and then at intervals without end.
    pub(super) async fn keep_fresh(&self, refresh: Duration) {
        loop {
            {
                let mut last_read = self.last_read.lock().await;
                self.read_all(&mut last_read).await;
            }
            sleep(refresh).await;
        }
    }

    /// Reads all sets for a token whose key is in none, but not again and again for a guesser. Returns whether they
    /// were read since the call. The reading goes on when the caller goes away: a stranger who asks and hangs up would
    /// else spend the one reading that somebody with a new key waits for.
    pub(super) async fn read_early(self: &Arc<Self>) -> bool {
        let sets = Arc::clone(self);
        tokio::spawn(async move { sets.read_unless_fresh().await }).await.unwrap_or_default()
    }

    async fn read_unless_fresh(&self) -> bool {
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
        // Set first: a caller that goes away in between has caused a read all the same.
        *last_read = Some(Instant::now());
        for set in &self.sets {
            let outcome = set.source.read(&self.connector).await;
            self.store(set, outcome);
        }
        self.rounds.fetch_add(1, Ordering::Release);
    }

    fn store(&self, set: &KeySet, outcome: Result<Vec<VerifyingKey>, JwksError>) {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Public key on P-256, of RFC 7517, appendix A.1.
    fn ec_key() -> Value {
        json!({ "kty": "EC", "crv": "P-256", "kid": "1", "use": "sig",
                "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
                "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM" })
    }

    fn parsed(document: &Value) -> Result<usize, JwksError> {
        parse(document.to_string().as_bytes()).map(|keys| keys.len())
    }

    #[test]
    fn keys_of_unknown_kinds_spoil_no_other() {
        let unknown = [json!({ "kty": "new" }), json!({ "kty": "oct", "k": "c2VjcmV0" }), json!(7)];
        let [first, second, third] = unknown;
        assert_eq!(parsed(&json!({ "keys": [first, ec_key(), second, third] })), Ok(1));
    }

    #[test]
    fn a_set_without_a_key_for_signatures_is_refused() {
        let mut for_encryption = ec_key();
        for_encryption["use"] = json!("enc");
        assert_eq!(parsed(&json!({ "keys": [for_encryption] })), Err(JwksError::NoKey));
        assert_eq!(parsed(&json!({ "keys": [] })), Err(JwksError::NoKey));
        assert!(matches!(parsed(&json!([])), Err(JwksError::Format(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn sets_are_read_early_but_not_again_and_again() {
        let file = std::env::temp_dir().join(format!("trunkline-jwks-{}.json", std::process::id()));
        std::fs::write(&file, json!({ "keys": [ec_key()] }).to_string()).unwrap();
        let sources = [JwksSource::File(file.clone())];
        let sets = Arc::new(KeySets::new(&sources, Duration::from_secs(10), Connector::default()));
        assert!(sets.read_early().await);
        assert!(!sets.read_early().await);
        std::fs::remove_file(&file).unwrap();
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(sets.read_early().await);
        let kept: usize = sets.keys().map(|keys| keys.len()).sum();
        assert_eq!((sets.read.get(), sets.failed.get(), kept), (1, 1, 1));
    }

    #[test]
    fn the_query_of_a_url_is_not_shown() {
        let source = JwksSource::Url("https://issuer.example:8443/keys.json?api-key=hush&v=1".parse().unwrap());
        assert_eq!(source.to_string(), "https://issuer.example:8443/keys.json?…");
        assert!(!format!("{source:?}").contains("hush"));
    }

    #[tokio::test]
    async fn a_stranger_who_hangs_up_does_not_stop_the_reading() {
        let issuer = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", issuer.local_addr().unwrap()).parse().unwrap();
        let sources = [JwksSource::Url(url)];
        let sets = Arc::new(KeySets::new(&sources, Duration::from_secs(3600), Connector::default()));
        let asked = {
            let reading = sets.read_early();
            tokio::pin!(reading);
            tokio::select! {
                _ = &mut reading => panic!("the issuer has not answered"),
                asked = issuer.accept() => asked.unwrap().0,
            }
        };
        // The stranger is gone, and nobody else may cause a reading for an hour.
        let (mut asked, body) = (asked, json!({ "keys": [ec_key()] }).to_string());
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        tokio::io::AsyncWriteExt::write_all(&mut asked, answer.as_bytes()).await.unwrap();
        assert!(sets.read_early().await, "this waits for the reading that goes on");
        assert_eq!(sets.keys().map(|keys| keys.len()).sum::<usize>(), 1);
    }
}
