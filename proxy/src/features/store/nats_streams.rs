//! Streams of NATS JetStream: what a server has, and creation with the settings of all of a node's streams.

use std::fmt::Display;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use async_nats::jetstream::context::RequestErrorKind;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::Info;
use async_nats::jetstream::{self, ErrorCode};
use serde::Deserialize;
use serde_json::{Value, json};

/// Streams that a server offers.
#[derive(Debug, Clone)]
pub(super) struct NatsStreams {
    pub(super) context: jetstream::Context,
    pub(super) said: Said,
    /// Number of copies; `None` to choose by the servers.
    pub(super) replicas: Option<u8>,
    pub(super) is_cluster: bool,
}

/// Last error that a server sent on its own account, such as a missing right.
#[derive(Debug, Clone, Default)]
pub(super) struct Said(pub(super) Arc<ArcSwapOption<String>>);

/// A stream, as its server describes it.
#[derive(Debug, Deserialize)]
pub(super) struct NatsStream {
    #[serde(flatten)]
    pub(super) info: Info,
    /// Current time of the server.
    #[serde(default)]
    pub(super) ts: String,
}

impl Said {
    /// Adds what the server said to an error.
    pub(super) fn with(&self, error: impl Display) -> String {
        match &*self.0.load() {
            Some(said) => format!("{error}; the server said: {said}"),
            None => error.to_string(),
        }
    }
}

impl NatsStreams {
    /// Describes a stream. `None` if it does not exist.
    pub(super) async fn describe(&self, name: &str) -> Result<Option<NatsStream>, String> {
        self.request("INFO", name, &json!({})).await
    }

    /// Describes a stream, or creates it. Another node may create it at the same time, with the same settings.
    pub(super) async fn find_or_create(&self, name: &str, own: &Value) -> Result<NatsStream, String> {
        if let Some(found) = self.describe(name).await? {
            return Ok(found);
        }
        let config = |replicas: u8| {
            let mut config = json!({
                "name": name, "retention": "limits", "storage": "file", "discard": "new", "num_replicas": replicas,
                "max_msgs": -1, "max_bytes": -1, "max_consumers": -1, "allow_msg_ttl": true, "allow_direct": true,
            });
            if let (Some(config), Some(own)) = (config.as_object_mut(), own.as_object()) {
                config.extend(own.clone());
            }
            config
        };
        let wanted = self.replicas.unwrap_or(if self.is_cluster { 3 } else { 1 });
        let mut created = self.request("CREATE", name, &config(wanted)).await?;
        if created.is_none() && self.replicas.is_none() {
            created = self.request("CREATE", name, &config(1)).await?;
        }
        created.ok_or_else(|| format!("this server is alone: --nats-replicas {wanted} needs as many servers"))?;
        // The answer to a creation has no time of the server.
        self.describe(name).await?.ok_or_else(|| format!("the stream {name} is gone again"))
    }

    /// Sends a request about a stream. `None` if it does not exist, or the server is alone.
    async fn request(&self, act: &str, name: &str, body: &Value) -> Result<Option<NatsStream>, String> {
        match self.context.request(format!("STREAM.{act}.{name}"), body).await {
            Ok(Response::Ok(stream)) => Ok(Some(stream)),
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
}
