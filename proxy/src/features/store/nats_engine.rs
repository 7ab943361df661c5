//! Engine in NATS JetStream: a key-value bucket per fleet, which the nodes create.
//!
//! ```text
//!  bucket = stream KV_PREFIX, subjects $KV.PREFIX.>: the newest value per key, no deletion, no purge
//! ```
//!
//! One connection, to one server at a time: after a failure the next server is tried. The client library's own
//! reconnects are off, because they name neither the server nor the reason.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_nats::datetime::DateTime;
use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy, push};
use async_nats::jetstream::context::{PublishErrorKind, RequestErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{Info, LastRawMessageErrorKind, Stream};
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{Client, ConnectOptions, Event};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::seal::VALUE_MAX_BYTES;
use super::store_engine::{
    ANSWER_TIMEOUT, Change, Connection, Engine, EngineAnswer, Opened, Revised, StoreChanges, check_clock,
};
use crate::ground::config::{NatsServer, NatsSettings};

/// Oldest server: values that end by themselves.
const VERSION_MIN: (u64, u64) = (2, 11);

/// Number of servers in a cluster with three copies.
const CLUSTER_MIN: usize = 3;

/// Interval of pings. After two without an answer, the connection ends.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// Received values that wait to be applied. A slower node reads the rest again, so a small number never ends.
const WAITING_MAX: usize = 65_536;

#[derive(Debug)]
pub(super) struct NatsEngine {
    settings: NatsSettings,
    /// Number of the server that is tried first.
    next: AtomicUsize,
}

#[derive(Debug)]
struct NatsConnection {
    context: jetstream::Context,
    stream: Stream<()>,
    prefix: String,
    /// Time of the bucket's creation. Another time is another bucket.
    created: Option<DateTime>,
    ended: CancellationToken,
    said: Said,
}

/// Last error that a server sent on its own account, such as a missing right.
#[derive(Debug, Clone, Default)]
struct Said(Arc<ArcSwapOption<String>>);

/// A bucket, as its server describes it.
#[derive(Debug, Deserialize)]
struct NatsBucket {
    #[serde(flatten)]
    info: Info,
    /// Current time of the server.
    #[serde(default)]
    ts: String,
}

impl Said {
    /// Adds what the server said to an error.
    fn with(&self, error: impl Display) -> String {
        match &*self.0.load() {
            Some(said) => format!("{error}; the server said: {said}"),
            None => error.to_string(),
        }
    }
}

impl NatsEngine {
    pub(super) fn new(settings: &NatsSettings) -> Self {
        Self { settings: settings.clone(), next: AtomicUsize::new(0) }
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
        let NatsSettings { servers, prefix, replicas, .. } = &self.settings;
        let mut context = jetstream::new(client);
        context.set_timeout(ANSWER_TIMEOUT);
        let stream = context.get_stream_no_info(format!("KV_{prefix}")).await.map_err(|error| error.to_string())?;
        let mut connection = NatsConnection { context, stream, prefix: prefix.clone(), created: None, ended, said };
        let bucket = match connection.bucket("INFO", &json!({})).await? {
            Some(bucket) => bucket,
            None => {
                let is_cluster = servers.len().max(info.connect_urls.len()) >= CLUSTER_MIN;
                connection.create(*replicas, is_cluster).await?
            }
        };
        if !bucket.info.config.allow_message_ttl || bucket.info.config.max_messages_per_subject != 1 {
            return Err(format!(
                "the bucket {prefix} was not made by a node (it needs allow_msg_ttl, and a history of 1): delete it, or \
                 choose another --nats-prefix"
            ));
        }
        connection.created = Some(bucket.info.created);
        let now = chrono::DateTime::parse_from_rfc3339(&bucket.ts).map_err(|_| "its clock can't be read")?;
        let now_ms = now.timestamp_millis().try_into().unwrap_or_default();
        check_clock(now_ms)?;
        Ok(Opened { connection: Box::new(connection), server: server.url.clone(), now_ms })
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
                Event::ServerError(error) => said_last.0.store(Some(Arc::new(error.to_string()))),
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
    fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.prefix)
    }

    /// Describes or creates the bucket. `None` if it does not exist, or the server is alone.
    async fn bucket(&self, act: &str, body: &Value) -> Result<Option<NatsBucket>, String> {
        match self.context.request(format!("STREAM.{act}.KV_{}", self.prefix), body).await {
            Ok(Response::Ok(bucket)) => Ok(Some(bucket)),
            Ok(Response::Err { error }) => match error.error_code() {
                ErrorCode::STREAM_NOT_FOUND | ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED => Ok(None),
                ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT | ErrorCode::JETSTREAM_NOT_ENABLED => {
                    Err("JetStream is off for this account: enable it".into())
                }
                _ => Err(self.said.with(error)),
            },
            Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                Err("JetStream is off at this server, or has no leader: start it with -js".into())
            }
            Err(error) => Err(self.said.with(error)),
        }
    }

    /// Creates the bucket. Another node may do so at the same time, with the same settings.
    async fn create(&self, replicas: Option<u8>, is_cluster: bool) -> Result<NatsBucket, String> {
        let config = |replicas: u8| {
            json!({
                "name": format!("KV_{}", self.prefix), "subjects": [self.subject(">")], "description": "Trunkline",
                "retention": "limits", "storage": "file", "discard": "new", "num_replicas": replicas,
                "max_msgs_per_subject": 1, "max_msgs": -1, "max_bytes": -1, "max_consumers": -1,
                "max_msg_size": VALUE_MAX_BYTES, "allow_msg_ttl": true,
                "deny_delete": true, "deny_purge": true, "allow_direct": true,
            })
        };
        let wanted = replicas.unwrap_or(if is_cluster { 3 } else { 1 });
        let mut created = self.bucket("CREATE", &config(wanted)).await?;
        if created.is_none() && replicas.is_none() {
            created = self.bucket("CREATE", &config(1)).await?;
        }
        created.ok_or_else(|| format!("this server is alone: --nats-replicas {wanted} needs as many servers"))?;
        // The answer to a creation has no time of the server.
        self.bucket("INFO", &json!({})).await?.ok_or_else(|| "the bucket is gone again".into())
    }
}

impl Engine for NatsEngine {
    /// Connects to the first server that can be used.
    fn open(&self) -> EngineAnswer<'_, Opened> {
        Box::pin(async {
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
        })
    }
}

impl Connection for NatsConnection {
    fn get<'a>(&'a self, key: &'a str) -> EngineAnswer<'a, Revised> {
        Box::pin(async move {
            match self.stream.get_last_raw_message_by_subject(&self.subject(key)).await {
                // A deletion by another client is a message without a value.
                Ok(message) => Ok(Revised {
                    value: Some(message.payload).filter(|value| !value.is_empty()),
                    revision: message.sequence,
                }),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(Revised::default()),
                Err(error) => Err(self.said.with(error)),
            }
        })
    }

    fn write<'a>(&'a self, key: &'a str, value: Bytes, revision: u64, kept_ms: Option<u64>) -> EngineAnswer<'a, bool> {
        Box::pin(async move {
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
        })
    }

    fn changes(&self) -> EngineAnswer<'_, StoreChanges> {
        Box::pin(async {
            let watch = push::OrderedConfig {
                deliver_subject: self.context.client().new_inbox(),
                filter_subject: self.subject(">"),
                replay_policy: ReplayPolicy::Instant,
                deliver_policy: DeliverPolicy::LastPerSubject,
                ..Default::default()
            };
            let consumer = self.stream.create_consumer(watch).await.map_err(|error| self.said.with(error))?;
            let messages = consumer.messages().await.map_err(|error| self.said.with(error))?;
            let (subjects, said, last_said) = (self.subject(""), self.said.clone(), self.said.clone());
            let changes = messages.map(move |message| {
                let message = message.map_err(|error| said.with(error))?;
                let behind = message.info().map_err(|error| error.to_string())?.pending;
                let key = message.subject.strip_prefix(&*subjects).unwrap_or_default().to_owned();
                Ok(Change { key, value: message.payload.clone(), behind })
            });
            let end = stream::once(async move { Err(last_said.with("the connection was lost")) });
            Ok(changes.take_until(self.ended.clone().cancelled_owned()).chain(end).boxed())
        })
    }

    fn check(&self) -> EngineAnswer<'_, ()> {
        Box::pin(async {
            match self.bucket("INFO", &json!({})).await? {
                Some(bucket) if Some(bucket.info.created) == self.created => Ok(()),
                _ => Err("the bucket was deleted: making a new one".into()),
            }
        })
    }
}

/// Major and minor number of a version.
fn version(text: &str) -> Option<(u64, u64)> {
    let mut numbers = text.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Checks that a store can be used with these settings. Returns a text with the server and the bucket.
///
/// # Errors
/// A text with the server's address and the problem.
pub async fn check_nats(settings: &NatsSettings) -> Result<String, String> {
    let Opened { server, .. } = NatsEngine::new(settings).open().await?;
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
