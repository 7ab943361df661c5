//! Logs in NATS JetStream: one stream of a fleet, with a subject for each log.
//!
//! ```text
//!  stream PREFIX_history, subjects PREFIX_history.LOG: made before the first append, so a fleet without logs has none
//! ```

use std::error::Error;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::header::NATS_SEQUENCE;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use async_nats::jetstream::{self, ErrorCode};
use bytes::Bytes;
use futures_util::stream::StreamExt;
use serde_json::json;
use tokio::time::sleep;

use super::nats_streams::NatsStreams;
use super::store_engine::{EngineAnswer, EngineLogs};

/// Bytes of a message besides its value: headers and subject.
const HEAD_MAX_BYTES: usize = 1024;

/// Maximum number of messages per request for many.
const READ_MAX: usize = 1000;

/// Interval between reads from a server that does not have the newest message yet.
const LAG_INTERVAL: Duration = Duration::from_millis(50);

/// Codes of servers without room.
const FULL: [ErrorCode; 3] =
    [ErrorCode::INSUFFICIENT_RESOURCES, ErrorCode::STORAGE_RESOURCES_EXCEEDED, ErrorCode::STREAM_STORE_FAILED];

/// Status that ends a read.
const END_OF_READ: u16 = 204;

#[derive(Debug)]
pub(super) struct NatsLogs {
    streams: NatsStreams,
    stream: Stream<()>,
    name: String,
    /// Whether the stream was there when it was last used.
    is_made: AtomicBool,
}

impl NatsLogs {
    pub(super) async fn open(streams: NatsStreams, prefix: &str) -> Result<Self, String> {
        let name = format!("{prefix}_history");
        let stream = streams.context.get_stream_no_info(&name).await.map_err(|error| error.to_string())?;
        Ok(Self { streams, stream, name, is_made: AtomicBool::new(false) })
    }

    fn subject(&self, log: &str) -> String {
        format!("{}.{log}", self.name)
    }

    fn error(&self, error: impl Display) -> String {
        self.streams.said.with(error)
    }

    /// Makes the stream, unless it exists.
    async fn make(&self) -> Result<(), String> {
        if self.is_made.load(Ordering::Acquire) {
            return Ok(());
        }
        let config = json!({
            "subjects": [self.subject(">")], "description": "Trunkline: records of groups and users",
            "max_msgs_per_subject": -1, "deny_delete": true,
        });
        self.streams.find_or_create(&self.name, &config).await?;
        self.is_made.store(true, Ordering::Release);
        Ok(())
    }

    /// Error of a request, with the code of the server. If the stream was deleted, the next request makes it again.
    fn failed(&self, error: &impl Display, code: Option<ErrorCode>) -> String {
        match code {
            Some(ErrorCode::STREAM_NOT_FOUND) => self.is_made.store(false, Ordering::Release),
            Some(code) if FULL.contains(&code) => {
                let remedy = "raise max_file_store of the NATS servers, or delete records";
                return self.error(format!("it is full: {error}; {remedy}"));
            }
            _ => {}
        }
        self.error(error)
    }

    /// Reads from any server that has the stream. Returns the messages behind a sequence, up to a limit.
    async fn read_part(&self, subject: &str, behind: u64) -> Result<Vec<(u64, Bytes)>, String> {
        let client = self.streams.context.client();
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| self.error(error))?;
        let request = json!({ "seq": behind + 1, "next_by_subj": subject, "batch": READ_MAX }).to_string();
        let direct = format!("$JS.API.DIRECT.GET.{}", self.name);
        client.publish_with_reply(direct, inbox, request.into()).await.map_err(|error| self.error(error))?;
        let mut read = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer.status {
                Some(status) if status.as_u16() == END_OF_READ => break,
                // Nothing behind the sequence, or no server that can answer.
                Some(status) if read.is_empty() && status.as_u16() == 404 => break,
                Some(status) => return Err(self.error(format!("reading failed with status {status}"))),
                None => {}
            }
            let sequence = answer.headers.as_ref().and_then(|headers| headers.get(NATS_SEQUENCE));
            let sequence = sequence.and_then(|sequence| sequence.as_str().parse().ok());
            read.push((sequence.ok_or("a message without a sequence")?, answer.payload));
        }
        Ok(read)
    }
}

/// Code of the server for a message that was not stored.
fn code_of(error: &PublishError) -> Option<ErrorCode> {
    match error.kind() {
        PublishErrorKind::StreamNotFound => Some(ErrorCode::STREAM_NOT_FOUND),
        _ => error.source()?.downcast_ref::<jetstream::Error>().map(jetstream::Error::error_code),
    }
}

impl EngineLogs for NatsLogs {
    fn value_max(&self) -> usize {
        self.streams.context.client().server_info().max_payload.saturating_sub(HEAD_MAX_BYTES)
    }

    fn append<'a>(&'a self, log: &'a str, value: Bytes, newest: u64, kept_ms: u64) -> EngineAnswer<'a, Option<u64>> {
        Box::pin(async move {
            self.make().await?;
            let message = PublishMessage::build().payload(value).expected_last_subject_sequence(newest);
            let message = message.ttl(Duration::from_millis(kept_ms).max(Duration::from_secs(1)));
            let answered = match self.streams.context.send_publish(self.subject(log), message).await {
                Ok(ack) => ack.await,
                Err(error) => Err(error),
            };
            match answered {
                Ok(ack) => Ok(Some(ack.sequence)),
                Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(None),
                Err(error) => Err(self.failed(&error, code_of(&error))),
            }
        })
    }

    fn newest<'a>(&'a self, log: &'a str) -> EngineAnswer<'a, u64> {
        Box::pin(async move {
            self.make().await?;
            match self.stream.get_last_raw_message_by_subject(&self.subject(log)).await {
                Ok(message) => Ok(message.sequence),
                Err(error) => match error.kind() {
                    LastRawMessageErrorKind::NoMessageFound => Ok(0),
                    LastRawMessageErrorKind::JetStream(cause) => Err(self.failed(&error, Some(cause.error_code()))),
                    _ => Err(self.error(error)),
                },
            }
        })
    }

    fn read<'a>(&'a self, log: &'a str, newest: u64) -> EngineAnswer<'a, Vec<(u64, Bytes)>> {
        Box::pin(async move {
            let (subject, mut all, mut behind) = (self.subject(log), Vec::new(), 0);
            while behind < newest {
                let part = self.read_part(&subject, behind).await?;
                match part.last() {
                    Some((sequence, _)) => behind = *sequence,
                    None => sleep(LAG_INTERVAL).await,
                }
                all.extend(part);
            }
            Ok(all)
        })
    }

    fn trim<'a>(&'a self, log: &'a str, before: u64) -> EngineAnswer<'a, ()> {
        Box::pin(async move {
            let purged = self.stream.purge().sequence(before).filter(self.subject(log)).await;
            purged.map(drop).map_err(|error| self.error(error))
        })
    }
}
