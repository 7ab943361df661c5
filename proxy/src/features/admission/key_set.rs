//! Published key sets (JWKS) in use: refreshed periodically, refetched early for an unknown key, and kept when a fetch
//! fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use axum::body::Body;
use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{ACCEPT, HOST};
use http::{Request, StatusCode, Uri};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::ground::auth::JwksSource;
use crate::ground::auth::jwks::{JwksError, PublishedKeys, parse, parse_file};
use crate::ground::metrics::Counter;
use crate::ground::net::address::Address;
use crate::ground::net::connector::Connector;
use crate::ground::net::http_client::{HttpClient, HttpError, read_whole, within};

/// Maximum size of a key set; enough for a hundred certificates.
const SET_MAX_BYTES: usize = 512 * 1024;

/// Maximum interval between two reads of a set that could not be read.
const FAILED_INTERVAL: Duration = Duration::from_secs(30);

/// Key set of one source, as of the last successful read.
#[derive(Debug)]
struct KeySet {
    source: JwksSource,
    published: ArcSwap<PublishedKeys>,
    /// Reason why the last read failed.
    failure: ArcSwapOption<String>,
    /// Time of the last read. Locked during a read: a concurrent caller waits, then finds the set fresh.
    last_read: Mutex<Option<Instant>>,
    reads: AtomicU64,
}

#[derive(Debug)]
pub(super) struct KeySets {
    sets: ArcSwap<Vec<Arc<KeySet>>>,
    connector: Connector,
    refetch: Duration,
    stored: watch::Sender<()>,
    sources: watch::Sender<()>,
    pub(super) read: Counter,
    pub(super) failed: Counter,
}

impl KeySet {
    fn new(source: &JwksSource) -> Self {
        Self {
            source: source.clone(),
            // The first read logs unusable keys.
            published: ArcSwap::from_pointee(PublishedKeys {
                keys: source.read_file().unwrap_or_default(),
                unusable: Vec::new(),
            }),
            failure: ArcSwapOption::empty(),
            last_read: Mutex::new(None),
            reads: AtomicU64::new(0),
        }
    }
}

impl KeySets {
    pub(super) fn new(sources: &[JwksSource], refetch: Duration, connector: Connector) -> Self {
        Self {
            sets: ArcSwap::from_pointee(sources.iter().map(KeySet::new).map(Arc::new).collect()),
            connector,
            refetch,
            stored: watch::Sender::new(()),
            sources: watch::Sender::new(()),
            read: Counter::default(),
            failed: Counter::default(),
        }
    }

    /// Replaces the sources. Key sets of unchanged sources are kept.
    pub(super) fn set_sources<'s>(&self, sources: impl Iterator<Item = &'s JwksSource>) {
        let (old, mut sets) = (self.sets.load(), Vec::<Arc<KeySet>>::new());
        for source in sources {
            if sets.iter().all(|set| set.source != *source) {
                let kept = old.iter().find(|set| set.source == *source).cloned();
                sets.push(kept.unwrap_or_else(|| Arc::new(KeySet::new(source))));
            }
        }
        self.sets.store(Arc::new(sets));
        self.read_soon();
    }

    /// Reads all sets soon, because sources or files have changed, or an operator has requested it.
    pub(super) fn read_soon(&self) {
        self.sources.send_replace(());
    }

    pub(super) fn keys(&self, sources: &[JwksSource]) -> Vec<Arc<PublishedKeys>> {
        let sets = self.sets.load();
        let sets = sets.iter().filter(|set| sources.contains(&set.source));
        sets.map(|set| set.published.load_full()).collect()
    }

    pub(super) fn failures(&self) -> Vec<(String, String)> {
        let sets = self.sets.load();
        sets.iter().filter_map(|set| Some((set.source.to_string(), set.failure.load_full()?.to_string()))).collect()
    }

    /// Reads all sets immediately, periodically, and whenever the sources change. Never returns.
    pub(super) async fn keep_fresh(&self, refresh: Duration) {
        let mut changed = self.sources.subscribe();
        loop {
            let sets = self.sets.load_full();
            join_all(sets.iter().map(|set| self.read_unless_fresh(set, Duration::ZERO))).await;
            let wait = if self.failures().is_empty() { refresh } else { refresh.min(FAILED_INTERVAL) };
            tokio::select! { () = sleep(wait) => {}, _ = changed.changed() => {} }
        }
    }

    pub(super) fn stored(&self) -> watch::Receiver<()> {
        self.stored.subscribe()
    }

    /// Refetches these sources in parallel for a token with an unknown key, rate limited. Continues after the caller
    /// disconnects; otherwise any client could use up the fetch that a user with a new key needs.
    pub(super) fn read_early(self: &Arc<Self>, sources: Vec<JwksSource>) -> JoinHandle<()> {
        let all = Arc::clone(self);
        tokio::spawn(async move {
            let sets = all.sets.load_full();
            let sets = sets.iter().filter(|set| sources.contains(&set.source));
            join_all(sets.map(|set| all.read_unless_fresh(set, all.refetch))).await;
        })
    }

    /// Reads a set, unless it was read within `rest` or since the call.
    async fn read_unless_fresh(&self, set: &KeySet, rest: Duration) {
        let reads = set.reads.load(Ordering::Acquire);
        let mut last_read = set.last_read.lock().await;
        let is_fresh = last_read.is_some_and(|last| last.elapsed() < rest);
        if is_fresh || set.reads.load(Ordering::Acquire) != reads {
            return;
        }
        *last_read = Some(Instant::now());
        let outcome = read_key_set(&set.source, &self.connector).await;
        self.store(set, outcome);
        set.reads.fetch_add(1, Ordering::Release);
    }

    fn store(&self, set: &KeySet, outcome: Result<PublishedKeys, JwksError>) {
        match outcome {
            Ok(published) => {
                self.read.increment();
                if set.failure.swap(None).is_some() {
                    info!(jwks = %set.source, keys = published.keys.len(), "key set reloaded after failures");
                }
                let published = Arc::new(published);
                let former = set.published.swap(Arc::clone(&published));
                self.stored.send_replace(());
                if !published.unusable.is_empty() && former.unusable != published.unusable {
                    let unusable = published.unusable.join(", ");
                    warn!(jwks = %set.source, unusable, "unusable keys of the set ignored");
                }
            }
            Err(problem) => {
                self.failed.increment();
                let kept = set.published.load().keys.len();
                set.failure.store(Some(Arc::new(format!("{problem}; {kept} keys are in use"))));
            }
        }
    }
}

/// Reads the keys of a source; fetches a URL with `connector`.
async fn read_key_set(source: &JwksSource, connector: &Connector) -> Result<PublishedKeys, JwksError> {
    match source {
        JwksSource::File(path) => {
            let file = path.clone();
            let read = tokio::task::spawn_blocking(move || parse_file(&file)).await;
            read.map_err(|error| JwksError::Read(error.to_string()))?
        }
        JwksSource::Url(url) => parse(&fetch(connector, url, SET_MAX_BYTES).await.map_err(JwksError::Read)?),
    }
}

/// Timeout of a download. Requests may be waiting for the keys.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Fetches the document at `url`. Redirects are not followed: only URLs configured by the operator are trusted.
///
/// # Errors
/// Returns a text for the log if the document can't be fetched.
pub(super) async fn fetch(connector: &Connector, url: &Uri, max_bytes: usize) -> Result<Bytes, String> {
    let host = url.authority().ok_or("the URL has no host")?;
    let address = Address::try_from(url).map_err(|problem| format!("can't connect to {host}: it {problem}"))?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path).header(HOST, host.as_str()).header(ACCEPT, "application/json, */*");
    let request = request.body(Body::empty()).map_err(|error| error.to_string())?;
    let client = HttpClient::without_pool(connector.clone());
    let fetched = async {
        let answer = client.send(&address, request).await?;
        match answer.status() {
            StatusCode::OK => Ok(Ok(read_whole(answer, max_bytes).await?.into_body())),
            status => Ok(Err(format!("the answer is {status}"))),
        }
    };
    within(ANSWER_TIMEOUT, fetched).await.map_err(|error| match error {
        HttpError::Connect(error) => format!("can't connect to {host}: {error}"),
        HttpError::Broken(error) => error.to_string(),
        other => other.to_string(),
    })?
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Public key on P-256 of RFC 7517, appendix A.1.
    fn ec_key() -> Value {
        json!({ "kty": "EC", "crv": "P-256", "kid": "1", "use": "sig",
                "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
                "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM" })
    }

    #[tokio::test(start_paused = true)]
    async fn sets_are_read_early_but_not_again_and_again() {
        let file = std::env::temp_dir().join(format!("trunkline-jwks-{}.json", std::process::id()));
        std::fs::write(&file, json!({ "keys": [ec_key()] }).to_string()).unwrap();
        let sources = [JwksSource::File(file.clone())];
        let sets = Arc::new(KeySets::new(&sources, Duration::from_secs(10), Connector::default()));
        for _ in 0..2 {
            sets.read_early(sources.to_vec()).await.unwrap();
            assert_eq!(sets.read.get(), 1);
        }
        std::fs::remove_file(&file).unwrap();
        tokio::time::advance(Duration::from_secs(10)).await;
        sets.read_early(sources.to_vec()).await.unwrap();
        let kept: usize = sets.keys(&sources).iter().map(|set| set.keys.len()).sum();
        assert_eq!((sets.read.get(), sets.failed.get(), kept), (1, 1, 1));
    }

    #[tokio::test]
    async fn a_reload_keeps_the_sets_of_sources_that_stay() {
        let file = std::env::temp_dir().join(format!("trunkline-kept-jwks-{}.json", std::process::id()));
        std::fs::write(&file, json!({ "keys": [ec_key()] }).to_string()).unwrap();
        let [kept, other] = [JwksSource::File(file.clone()), JwksSource::File("no-such-file".into())];
        let sets = KeySets::new(std::slice::from_ref(&kept), Duration::ZERO, Connector::default());
        std::fs::remove_file(&file).unwrap();
        sets.set_sources([&other, &kept, &other].into_iter());
        let counts = [&kept, &other].map(|source| sets.keys(std::slice::from_ref(source))[0].keys.len());
        assert_eq!((counts, sets.sets.load().len()), ([1, 0], 2));
        sets.set_sources(std::iter::once(&other));
        assert!(sets.keys(&[kept]).is_empty());
    }

    #[tokio::test]
    async fn a_fetch_continues_after_its_client_disconnects() {
        let issuer = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", issuer.local_addr().unwrap()).parse().unwrap();
        let sources = [JwksSource::Url(url)];
        let sets = Arc::new(KeySets::new(&sources, Duration::from_secs(3600), Connector::default()));
        let asked = {
            let mut reading = sets.read_early(sources.to_vec());
            tokio::select! {
                _ = &mut reading => panic!("the issuer has not answered"),
                asked = issuer.accept() => asked.unwrap().0,
            }
        };
        // The first client has disconnected, and no further fetch may start for an hour: others wait for the running
        // one.
        let (mut asked, body) = (asked, json!({ "keys": [ec_key()] }).to_string());
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        tokio::io::AsyncWriteExt::write_all(&mut asked, answer.as_bytes()).await.unwrap();
        sets.read_early(sources.to_vec()).await.unwrap();
        assert_eq!(sets.keys(&sources).iter().map(|set| set.keys.len()).sum::<usize>(), 1);
    }

    async fn issuer(answer: Vec<u8>) -> Uri {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(&answer).await;
            let _ = stream.read(&mut [0; 1024]).await;
        });
        url
    }

    async fn fetched(head: &str, body: &str) -> Result<Bytes, String> {
        let answer = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        fetch(&Connector::default(), &issuer(answer.into()).await, 10_000).await
    }

    #[tokio::test]
    async fn a_document_is_fetched_whole_unless_it_is_too_large() {
        let body = "x".repeat(10_000);
        assert_eq!(fetched("200 OK", &body).await.unwrap(), body);
        assert_eq!(fetched("200 OK", &(body + "x")).await.unwrap_err(), "length limit exceeded");
    }

    #[tokio::test]
    async fn a_request_for_keys_names_its_agent() {
        let issuer = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", issuer.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move { fetch(&Connector::default(), &url, 10).await });
        let (mut stream, _) = issuer.accept().await.unwrap();
        let mut head = vec![0; 1024];
        let count = stream.read(&mut head).await.unwrap();
        let head = String::from_utf8_lossy(&head[..count]).to_ascii_lowercase();
        assert!(head.contains(concat!("\r\nuser-agent: trunkline/", env!("CARGO_PKG_VERSION"), "\r\n")), "{head}");
    }

    #[tokio::test]
    async fn no_redirect_is_followed() {
        let problem = fetched("302 Found\r\nLocation: http://elsewhere.example/keys", "").await.unwrap_err();
        assert_eq!(problem, "the answer is 302 Found");
    }

    #[tokio::test(start_paused = true)]
    async fn an_issuer_that_does_not_end_its_answer_is_given_up() {
        let url = issuer(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n".to_vec()).await;
        let problem = fetch(&Connector::default(), &url, 10).await.unwrap_err();
        assert!(problem.contains("no answer within 5 s"), "{problem}");
    }
}
