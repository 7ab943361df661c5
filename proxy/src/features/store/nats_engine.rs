//! Engine in NATS JetStream: a key-value bucket per fleet, which the nodes create.
//!
//! ```text
//!  bucket = stream KV_PREFIX, subjects $KV.PREFIX.>: the newest value per key, no deletion, no purge
//! ```
//!
//! One connection, to one server at a time: after a failure the next server is tried. The client library's own
//! reconnects are off, because they name neither the server nor the reason.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::datetime::DateTime;
use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy, push};
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use async_nats::{Client, ConnectOptions, Event, jetstream};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use serde_json::json;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::nats_log::NatsLogs;
use super::nats_streams::{NatsStreams, Said};
use super::seal::VALUE_MAX_BYTES;
use super::store_engine::{
    ANSWER_TIMEOUT, Change, Connected, Connection, Engine, EngineAnswer, EngineLogs, EngineMessages, Opened, Revised,
    StoreChanges, check_clock,
};
use crate::ground::config::{NatsServer, NatsSettings};

/// Oldest server: values that end by themselves.
const VERSION_MIN: (u64, u64) = (2, 11);

/// Number of servers in a cluster with three copies.
const CLUSTER_MIN: usize = 3;

/// Interval of pings. After two without an answer, the connection ends.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// Received messages of a subscription that wait for their socket, whose window is a quarter of it. More are rubbish of
/// other clients, and the client library drops them.
const MESSAGES_WAITING_MAX: usize = 4096;

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
    streams: NatsStreams,
    stream: Stream<()>,
    logs: NatsLogs,
    prefix: String,
    /// Time of the bucket's creation. Another time is another bucket.
    created: Option<DateTime>,
    ended: CancellationToken,
}

/// Connection for messages between nodes.
#[derive(Debug)]
struct NatsMessages {
    client: Client,
    said: Said,
    ended: CancellationToken,
}

impl NatsEngine {
    pub(super) fn new(settings: &NatsSettings) -> Self {
        Self { settings: settings.clone(), next: AtomicUsize::new(0) }
    }

    async fn open_at(&self, server: &NatsServer) -> Result<Opened, String> {
        let (ended, said) = (CancellationToken::new(), Said::default());
        let client = timeout(ANSWER_TIMEOUT, self.connect_to(server, (&ended, &said), WAITING_MAX)).await;
        let client = client.map_err(|_| said.with("no connection in time"))??;
        let info = client.server_info();
        if version(&info.version).is_none_or(|version| version < VERSION_MIN) {
            let (major, minor) = VERSION_MIN;
            return Err(format!("NATS {} is too old: {major}.{minor} or later is needed", info.version));
        }
        let NatsSettings { servers, prefix, replicas, .. } = &self.settings;
        let is_cluster = servers.len().max(info.connect_urls.len()) >= CLUSTER_MIN;
        let mut context = jetstream::new(client);
        context.set_timeout(ANSWER_TIMEOUT);
        let name = bucket_name(prefix);
        let stream = context.get_stream_no_info(&name).await.map_err(|error| error.to_string())?;
        let streams = NatsStreams { context, said, replicas: *replicas, is_cluster };
        let config = json!({
            "subjects": [format!("$KV.{prefix}.>")], "description": "Trunkline", "max_msgs_per_subject": 1,
            "max_msg_size": VALUE_MAX_BYTES, "deny_delete": true, "deny_purge": true,
        });
        let bucket = streams.find_or_create(&name, &config).await?;
        if !bucket.info.config.allow_message_ttl || bucket.info.config.max_messages_per_subject != 1 {
            return Err(format!(
                "the bucket {prefix} was not made by a node (it needs allow_msg_ttl, and a history of 1): delete it, or \
                 choose another --nats-prefix"
            ));
        }
        let logs = NatsLogs::open(streams.clone(), prefix).await?;
        let created = Some(bucket.info.created);
        let connection = NatsConnection { streams, stream, logs, prefix: prefix.clone(), created, ended };
        let now = chrono::DateTime::parse_from_rfc3339(&bucket.ts).map_err(|_| "its clock can't be read")?;
        let now_ms = now.timestamp_millis().try_into().unwrap_or_default();
        check_clock(now_ms)?;
        Ok(Opened { connection: Box::new(connection), server: server.url.clone(), now_ms })
    }

    /// Uses the first server that can be used.
    async fn first<'a, T>(&'a self, open: impl Fn(&'a NatsServer) -> EngineAnswer<'a, T> + Send) -> Result<T, String> {
        let (servers, first) = (&self.settings.servers, self.next.fetch_add(1, Ordering::Relaxed));
        let mut problems = Vec::new();
        for server in servers.iter().cycle().skip(first % servers.len().max(1)).take(servers.len()) {
            match open(server).await {
                Ok(opened) => return Ok(opened),
                Err(problem) => problems.push(format!("{}: {problem}", server.url)),
            }
        }
        problems.sort();
        Err(problems.join("; "))
    }

    async fn connect_to(
        &self,
        server: &NatsServer,
        (ended, said): (&CancellationToken, &Said),
        waiting_max: usize,
    ) -> Result<Client, String> {
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
            .subscription_capacity(waiting_max)
            .event_callback(events);
        options.connect(&*server.url).await.map_err(|error| said.with(error))
    }
}

impl NatsConnection {
    fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.prefix)
    }
}

impl Engine for NatsEngine {
    fn open(&self) -> EngineAnswer<'_, Opened> {
        Box::pin(self.first(move |server| Box::pin(self.open_at(server))))
    }

    fn connect(&self) -> EngineAnswer<'_, Connected> {
        Box::pin(self.first(move |server| {
            Box::pin(async move {
                let (ended, said) = (CancellationToken::new(), Said::default());
                let client =
                    timeout(ANSWER_TIMEOUT, self.connect_to(server, (&ended, &said), MESSAGES_WAITING_MAX)).await;
                let client = client.map_err(|_| said.with("no connection in time"))??;
                Ok(Connected { messages: Box::new(NatsMessages { client, said, ended }), server: server.url.clone() })
            })
        }))
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
                Err(error) => Err(self.streams.said.with(error)),
            }
        })
    }

    fn write<'a>(&'a self, key: &'a str, value: Bytes, revision: u64, kept_ms: Option<u64>) -> EngineAnswer<'a, bool> {
        Box::pin(async move {
            let mut message = PublishMessage::build().payload(value).expected_last_subject_sequence(revision);
            if let Some(kept_ms) = kept_ms {
                message = message.ttl(Duration::from_millis(kept_ms).max(Duration::from_secs(1)));
            }
            let sent = self.streams.context.send_publish(self.subject(key), message).await;
            let answered = match sent {
                Ok(ack) => ack.await,
                Err(error) => Err(error),
            };
            match answered {
                Ok(_) => Ok(true),
                Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(false),
                Err(error) => Err(self.streams.said.with(error)),
            }
        })
    }

    fn changes(&self) -> EngineAnswer<'_, StoreChanges> {
        Box::pin(async {
            let watch = push::OrderedConfig {
                deliver_subject: self.streams.context.client().new_inbox(),
                filter_subject: self.subject(">"),
                replay_policy: ReplayPolicy::Instant,
                deliver_policy: DeliverPolicy::LastPerSubject,
                ..Default::default()
            };
            let consumer = self.stream.create_consumer(watch).await.map_err(|error| self.streams.said.with(error))?;
            let messages = consumer.messages().await.map_err(|error| self.streams.said.with(error))?;
            let (subjects, said, last_said) = (self.subject(""), self.streams.said.clone(), self.streams.said.clone());
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
            match self.streams.describe(&bucket_name(&self.prefix)).await? {
                Some(bucket) if Some(bucket.info.created) == self.created => Ok(()),
                _ => Err("the bucket was deleted: making a new one".into()),
            }
        })
    }

    fn logs(&self) -> &dyn EngineLogs {
        &self.logs
    }
}

impl EngineMessages for NatsMessages {
    fn message_max(&self) -> usize {
        self.client.server_info().max_payload
    }

    fn subscribe<'a>(&'a self, subject: &'a str) -> EngineAnswer<'a, BoxStream<'static, Bytes>> {
        Box::pin(async {
            let subscribed = self.client.subscribe(subject.to_owned()).await;
            let messages = subscribed.map_err(|error| self.said.with(error))?.map(|message| message.payload);
            Ok(messages.take_until(self.ended.clone().cancelled_owned()).boxed())
        })
    }

    fn publish(&self, subject: String, message: Bytes) -> EngineAnswer<'_, ()> {
        Box::pin(async { self.client.publish(subject, message).await.map_err(|error| self.said.with(error)) })
    }

    fn flush(&self) -> EngineAnswer<'_, ()> {
        Box::pin(async { self.client.flush().await.map_err(|error| self.said.with(error)) })
    }

    fn explain(&self, problem: &str) -> String {
        self.said.with(problem)
    }
}

fn bucket_name(prefix: &str) -> String {
    format!("KV_{prefix}")
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
