//! Engine in NATS JetStream: a key-value bucket per fleet, which the nodes create.
//!
//! ```text
//!  bucket = stream KV_PREFIX, subjects $KV.PREFIX.>: the newest value per key, no deletion, no purge
//! ```
//!
//! One connection, to one server at a time: after a failure the next server is tried. The client library's own
//! reconnects are off, because they name neither the server nor the reason.

use std::fmt::Display;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy, push};
use async_nats::jetstream::context::{PublishErrorKind, RequestErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::{self, Context, ErrorCode};
use async_nats::{Client, ConnectOptions, Event};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::DateTime;
use futures_util::StreamExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::ANSWER_TIMEOUT;
use super::engine::{Change, Connection, Opened, Revised};
use super::seal::VALUE_MAX_BYTES;
use crate::config::{NatsServer, NatsSettings};

/// Oldest server: values that end by themselves.
const VERSION_MIN: (u64, u64) = (2, 11);

/// Number of servers in a cluster with three copies.
const CLUSTER_MIN: usize = 3;

/// Interval of pings. After two without an answer, the connection ends.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// Received values that wait to be applied. A slower node reads the rest again, so a small number never ends.
const WAITING_MAX: usize = 65_536;

/// Error code of a single server that is asked for copies.
const NOT_CLUSTERED: ErrorCode = ErrorCode(10074);
const STREAM_NOT_FOUND: ErrorCode = ErrorCode(10059);
const NO_MESSAGE: ErrorCode = ErrorCode(10037);
const NOT_ENABLED: [ErrorCode; 2] = [ErrorCode(10076), ErrorCode(10039)];

#[derive(Debug, Clone)]
pub(super) struct NatsEngine {
    settings: NatsSettings,
    /// Number of the server that is tried first.
    next: Arc<AtomicUsize>,
}

#[derive(Debug)]
pub(super) struct NatsConnection {
    context: Context,
    bucket: String,
    /// Time of the bucket's creation. Another time is another bucket.
    created: String,
    /// Cancelled when the connection has ended.
    ended: CancellationToken,
    said: Said,
}

pub(super) struct NatsChanges {
    messages: push::Ordered,
    prefix: String,
    reading: Reading,
    ended: CancellationToken,
    said: Said,
}

/// Progress of a watch: what was stored is followed by one mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Stored,
    Mark,
    Changes,
}

/// Last error that a server sent on its own account, such as a missing right.
#[derive(Debug, Clone, Default)]
struct Said(Arc<Mutex<Option<String>>>);

/// A bucket, as its server describes it.
#[derive(Debug, Deserialize)]
struct Bucket {
    config: BucketConfig,
    created: String,
    #[serde(default)]
    ts: Option<String>,
}

#[derive(Debug, Deserialize)]
struct BucketConfig {
    #[serde(default)]
    allow_msg_ttl: bool,
    #[serde(default)]
    max_msgs_per_subject: i64,
}

#[derive(Debug, Deserialize)]
struct FoundMessage {
    message: RawMessage,
}

#[derive(Debug, Deserialize)]
struct RawMessage {
    seq: u64,
    #[serde(default)]
    data: String,
}

impl Said {
    fn note(&self, text: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    /// Adds what the server said to an error.
    fn with(&self, error: impl Display) -> String {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(said) => format!("{error}; the server said: {said}"),
            None => error.to_string(),
        }
    }
}

impl NatsEngine {
    pub(super) fn new(settings: &NatsSettings) -> Self {
        Self { settings: settings.clone(), next: Arc::default() }
    }

    pub(super) fn servers(&self) -> String {
        self.settings.servers.iter().map(|server| &*server.url).collect::<Vec<_>>().join(", ")
    }

    /// Connects to the first server that can be used.
    pub(super) async fn open(&self) -> Result<Opened, String> {
        let (servers, first) = (&self.settings.servers, self.next.fetch_add(1, Ordering::Relaxed));
        let mut problems = Vec::new();
        for server in servers.iter().cycle().skip(first % servers.len().max(1)).take(servers.len()) {
            match self.open_at(server).await {
                Ok(opened) => return Ok(opened),
                Err(problem) => problems.push(format!("{}: {problem}", server.url)),
            }
        }
        problems.sort();
        Err(problems.join("; "))
    }

    async fn open_at(&self, server: &NatsServer) -> Result<Opened, String> {
        let (ended, said) = (CancellationToken::new(), Said::default());
        let client = timeout(ANSWER_TIMEOUT, self.connect(server, &ended, &said)).await;
        let client = client.map_err(|_| said.with("no connection in time"))??;
        let info = client.server_info();
        if version(&info.version).is_none_or(|version| version < VERSION_MIN) {
            let (major, minor) = VERSION_MIN;
            return Err(format!("NATS {} is too old: {major}.{minor} or later is needed", info.version));
        }
        let is_cluster = self.settings.servers.len().max(info.connect_urls.len()) >= CLUSTER_MIN;
        let mut context = jetstream::new(client);
        context.set_timeout(ANSWER_TIMEOUT);
        let prefix = &self.settings.prefix;
        let mut connection =
            NatsConnection { context, bucket: prefix.clone(), created: String::new(), ended, said: said.clone() };
        let bucket = match connection.described().await? {
            Some(bucket) => bucket,
            None => connection.create(self.settings.replicas, is_cluster).await?,
        };
        if !bucket.config.allow_msg_ttl || bucket.config.max_msgs_per_subject != 1 {
            return Err(format!(
                "the bucket {prefix} was not made by a node (it needs allow_msg_ttl, and a history of 1): delete it, or \
                 choose another --nats-prefix"
            ));
        }
        connection.created = bucket.created;
        let now = bucket.ts.as_deref().and_then(|ts| DateTime::parse_from_rfc3339(ts).ok());
        let now_ms = now.and_then(|now| now.timestamp_millis().try_into().ok()).ok_or("its clock can't be read")?;
        Ok(Opened { connection: Connection::Nats(connection), server: server.url.clone(), now_ms })
    }

    async fn connect(&self, server: &NatsServer, ended: &CancellationToken, said: &Said) -> Result<Client, String> {
        let mut options = match &self.settings.credentials {
            Some(credentials) => ConnectOptions::with_credentials(&credentials.0).map_err(|error| error.to_string())?,
            None => ConnectOptions::new(),
        };
        options = match server.user.clone() {
            Some((user, Some(password))) => options.user_and_password(user, password),
            Some((token, None)) => options.token(token),
            None => options,
        };
        if let Some(ca) = &self.settings.ca {
            options = options.add_root_certificates(ca.clone()).require_tls(true);
        }
        let (ended, said_last) = (ended.clone(), said.clone());
        let events = move |event: Event| {
            match event {
                Event::Disconnected | Event::Closed => ended.cancel(),
                Event::ServerError(error) => said_last.note(error.to_string()),
                _ => {}
            }
            std::future::ready(())
        };
        let options = options
            .name("trunkline")
            .max_reconnects(1_usize)
            .ignore_discovered_servers()
            .connection_timeout(ANSWER_TIMEOUT)
            .request_timeout(Some(ANSWER_TIMEOUT))
            .ping_interval(PING_INTERVAL)
            .subscription_capacity(WAITING_MAX)
            .event_callback(events);
        options.connect(&*server.url).await.map_err(|error| said.with(error))
    }
}

impl NatsConnection {
    fn stream(&self) -> String {
        format!("KV_{}", self.bucket)
    }

    fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.bucket)
    }

    async fn request<T: DeserializeOwned>(&self, act: &str, body: &Value) -> Result<Result<T, ErrorCode>, String> {
        let asked = self.context.request(format!("{act}.{}", self.stream()), body);
        match asked.await {
            Ok(Response::Ok(answer)) => Ok(Ok(answer)),
            Ok(Response::Err { error }) if NOT_ENABLED.contains(&error.error_code()) => {
                Err("JetStream is off for this account: enable it".into())
            }
            Ok(Response::Err { error }) => match error.error_code() {
                code @ (STREAM_NOT_FOUND | NO_MESSAGE | NOT_CLUSTERED) => Ok(Err(code)),
                _ => Err(self.said.with(error)),
            },
            Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                Err("JetStream is off at this server, or has no leader: start it with -js".into())
            }
            Err(error) => Err(self.said.with(error)),
        }
    }

    async fn described(&self) -> Result<Option<Bucket>, String> {
        Ok(self.request("STREAM.INFO", &json!({})).await?.ok())
    }

    /// Creates the bucket. Another node may do so at the same time, with the same settings.
    async fn create(&self, replicas: Option<u8>, is_cluster: bool) -> Result<Bucket, String> {
        let config = |replicas: u8| {
            json!({
                "name": self.stream(), "subjects": [self.subject(">")], "description": "Trunkline",
                "retention": "limits", "storage": "file", "discard": "new", "num_replicas": replicas,
                "max_msgs_per_subject": 1, "max_msgs": -1, "max_bytes": -1, "max_consumers": -1,
                "max_msg_size": VALUE_MAX_BYTES, "allow_msg_ttl": true,
                "deny_delete": true, "deny_purge": true, "allow_direct": true,
            })
        };
        let wanted = replicas.unwrap_or(if is_cluster { 3 } else { 1 });
        let mut created = self.request::<Bucket>("STREAM.CREATE", &config(wanted)).await?;
        if created.is_err() && replicas.is_none() {
            created = self.request("STREAM.CREATE", &config(1)).await?;
        }
        created.map_err(|_| format!("this server is alone: --nats-replicas {wanted} needs as many servers"))?;
        // The answer to a creation has no time of the server.
        self.described().await?.ok_or_else(|| "the bucket is gone again".into())
    }

    pub(super) async fn check(&self) -> Result<(), String> {
        match self.described().await? {
            Some(bucket) if bucket.created == self.created => Ok(()),
            _ => Err("the bucket was deleted: making a new one".into()),
        }
    }

    pub(super) async fn get(&self, key: &str) -> Result<Revised, String> {
        let found = self.request("STREAM.MSG.GET", &json!({ "last_by_subj": self.subject(key) })).await?;
        let Ok(FoundMessage { message: RawMessage { seq, data } }) = found else { return Ok(Revised::default()) };
        let value = STANDARD.decode(data).map_err(|_| "a value can't be read")?;
        // A deletion by another client is a message without a value.
        Ok(Revised { value: Some(value).filter(|value| !value.is_empty()).map(Bytes::from), revision: seq })
    }

    pub(super) async fn write(
        &self,
        key: &str,
        value: Bytes,
        revision: u64,
        kept_ms: Option<u64>,
    ) -> Result<bool, String> {
        let mut message = PublishMessage::build().payload(value).expected_last_subject_sequence(revision);
        if let Some(kept_ms) = kept_ms {
            message = message.ttl(Duration::from_millis(kept_ms).max(Duration::from_secs(1)));
        }
        let sent = self.context.send_publish(self.subject(key), message).await;
        let answered = match sent {
            Ok(ack) => ack.await,
            Err(error) => Err(error),
        };
        match answered {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(false),
            Err(error) => Err(self.said.with(error)),
        }
    }

    pub(super) async fn changes(&self) -> Result<NatsChanges, String> {
        let stream = self.context.get_stream_no_info(self.stream()).await.map_err(|error| error.to_string())?;
        let watch = push::OrderedConfig {
            deliver_subject: self.context.client().new_inbox(),
            filter_subject: self.subject(">"),
            replay_policy: ReplayPolicy::Instant,
            deliver_policy: DeliverPolicy::LastPerSubject,
            ..Default::default()
        };
        let consumer = stream.create_consumer(watch).await.map_err(|error| self.said.with(error))?;
        let messages = consumer.messages().await.map_err(|error| self.said.with(error))?;
        let (prefix, ended, said) = (self.subject(""), self.ended.clone(), self.said.clone());
        Ok(NatsChanges { messages, prefix, reading: Reading::Stored, ended, said })
    }
}

impl NatsChanges {
    pub(super) async fn next(&mut self) -> Result<Change, String> {
        if self.reading == Reading::Mark {
            self.reading = Reading::Changes;
            return Ok(Change::Complete);
        }
        let message = tokio::select! {
            message = self.messages.next() => message,
            () = self.ended.cancelled() => return Err(self.said.with("the connection was lost")),
        };
        let message = message.ok_or("the watch was cut")?.map_err(|error| self.said.with(error))?;
        let behind = message.info().map_err(|error| error.to_string())?.pending;
        // The data key is stored, so there is a last value.
        if behind == 0 && self.reading == Reading::Stored {
            self.reading = Reading::Mark;
        }
        let key = message.subject.strip_prefix(&self.prefix).unwrap_or_default().to_owned();
        Ok(Change::Value { key, value: message.payload.clone(), behind })
    }
}

/// Major and minor number of a version.
fn version(text: &str) -> Option<(u64, u64)> {
    let mut numbers = text.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Checks that a store can be used with these settings. Returns what is there, for people.
///
/// # Errors
/// The server's address, and what is wrong.
pub async fn check_nats(settings: &NatsSettings) -> Result<String, String> {
    let Opened { server, now_ms, .. } = NatsEngine::new(settings).open().await?;
    super::keeper::check_clock(now_ms).map_err(|problem| format!("{server}: {problem}"))?;
    Ok(format!("{server} has the bucket {}", settings.prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(version("2.9.3").unwrap() < VERSION_MIN && version("2.11.0-preview.1").unwrap() >= VERSION_MIN);
        assert!(version("3.0.0").unwrap() > VERSION_MIN && version("10.1").unwrap() > VERSION_MIN);
        assert_eq!((version(""), version("2"), version("99999999999999999999.1")), (None, None, None));
    }
}
