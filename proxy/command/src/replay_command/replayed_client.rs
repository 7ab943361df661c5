//! Client of a replay: an in-memory WebSocket with a reader that passes received messages to the player.

use std::mem;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use trunkline_protocol::hub::{HubProtocol, RECORD_SEPARATOR};
use trunkline_proxy::parts::{HubPart, RecordedPayload, take_parts};

use super::answer_ledger::{AccountNumber, Answer, AnswerName, CLOSED};

/// Maximum size of an app server's message.
const MESSAGE_MAX_BYTES: usize = 256 * 1024 * 1024;

/// Maximum number of messages of all clients waiting for the player; beyond it, readers wait.
pub(super) const ARRIVALS_MAX: usize = 1_024;

#[derive(Debug)]
pub(super) struct ReplayArrival {
    pub(super) account: AccountNumber,
    pub(super) answer: Answer,
}

type ClientSocket = WebSocketStream<DuplexStream>;

#[derive(Debug)]
pub(super) struct ReplayedClient {
    pub(super) account: AccountNumber,
    sink: SplitSink<ClientSocket, Message>,
    reader: AbortHandle,
}

impl ReplayedClient {
    /// Opens the client at its end of a pipe and starts its reader.
    pub(super) async fn open(
        pipe: DuplexStream,
        account: AccountNumber,
        protocol: Option<HubProtocol>,
        arrivals: mpsc::Sender<ReplayArrival>,
    ) -> Self {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_MAX_BYTES))
            .max_frame_size(Some(MESSAGE_MAX_BYTES));
        let socket = WebSocketStream::from_raw_socket(pipe, Role::Client, Some(config)).await;
        let (sink, stream) = socket.split();
        let decoder = AnswerDecoder { protocol, rest: Bytes::new(), awaits_handshake: protocol.is_some() };
        let reader = tokio::spawn(read(stream, account, decoder, arrivals)).abort_handle();
        Self { account, sink, reader }
    }

    pub(super) async fn send(&mut self, payload: RecordedPayload) -> Result<(), tungstenite::Error> {
        let message = match payload {
            RecordedPayload::Text(text) => Message::text(text),
            RecordedPayload::Binary(bytes) => Message::binary(bytes),
        };
        self.sink.send(message).await
    }

    pub(super) async fn close(mut self) {
        // Fails if the app server has already closed.
        drop(self.sink.close().await);
    }

    pub(super) fn cut(self) {
        // Dropping both halves ends the pipe.
        self.reader.abort();
    }
}

async fn read(
    mut stream: SplitStream<ClientSocket>,
    account: AccountNumber,
    mut decoder: AnswerDecoder,
    arrivals: mpsc::Sender<ReplayArrival>,
) {
    while let Some(Ok(message)) = stream.next().await {
        let answers = match message {
            Message::Text(text) => decoder.take(Bytes::from(text)),
            Message::Binary(bytes) => decoder.take(bytes),
            Message::Close(_) => break,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        for answer in answers {
            // The player has ended.
            let Ok(()) = arrivals.send(ReplayArrival { account, answer }).await else { return };
        }
    }
    drop(arrivals.send(ReplayArrival { account, answer: closed() }).await);
}

pub(super) fn closed() -> Answer {
    let name = AnswerName { kind: CLOSED.into(), target: None, invocation_id: None };
    Answer { name, bytes: Some(Bytes::new()), line: 0 }
}

#[derive(Debug)]
struct AnswerDecoder {
    /// Hub protocol; `None` at a raw endpoint.
    protocol: Option<HubProtocol>,
    rest: Bytes,
    awaits_handshake: bool,
}

impl AnswerDecoder {
    fn take(&mut self, bytes: Bytes) -> Vec<Answer> {
        let Some(protocol) = self.protocol else { return vec![answer("raw", None, None, bytes)] };
        let mut all = match self.rest.is_empty() {
            true => bytes,
            false => {
                let mut joined = BytesMut::from(&*mem::take(&mut self.rest));
                joined.extend_from_slice(&bytes);
                joined.freeze()
            }
        };
        let mut answers = Vec::new();
        if self.awaits_handshake
            && let Some(end) = all.iter().position(|byte| *byte == RECORD_SEPARATOR)
        {
            self.awaits_handshake = false;
            answers.push(answer("handshake", None, None, all.split_to(end + 1)));
        }
        if !self.awaits_handshake {
            let named = |part: HubPart| answer(part.kind, part.target, part.invocation_id, part.whole);
            answers.extend(take_parts(protocol, &mut all).into_iter().map(named));
        }
        self.rest = all;
        answers
    }
}

fn answer(kind: &str, target: Option<String>, invocation_id: Option<String>, bytes: Bytes) -> Answer {
    Answer { name: AnswerName { kind: kind.into(), target, invocation_id }, bytes: Some(bytes), line: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(answers: &[Answer]) -> Vec<(&str, &[u8])> {
        answers.iter().map(|answer| (answer.name.kind.as_str(), answer.bytes.as_deref().unwrap_or_default())).collect()
    }

    #[test]
    fn received_bytes_are_split_into_messages_without_keep_alives() {
        let all = b"{}\x1e{\"type\":6}\x1e{\"type\":3,\"invocationId\":\"1\"}\x1e{\"type\":1,\"target\":\"T\",\"arguments\":[]}\x1e";
        for cut in 0..all.len() {
            let protocol = Some(HubProtocol::Json);
            let mut decoder = AnswerDecoder { protocol, rest: Bytes::new(), awaits_handshake: true };
            let mut answers = decoder.take(Bytes::copy_from_slice(&all[..cut]));
            answers.extend(decoder.take(Bytes::copy_from_slice(&all[cut..])));
            let kinds: Vec<_> = names(&answers).into_iter().map(|(kind, _)| kind).collect();
            assert_eq!(kinds, ["handshake", "completion", "invocation"], "cut at {cut}");
            assert_eq!(answers[0].bytes.as_deref(), Some(&b"{}\x1e"[..]));
        }
    }

    #[test]
    fn messages_of_raw_endpoints_stay_whole() {
        let mut decoder = AnswerDecoder { protocol: None, rest: Bytes::new(), awaits_handshake: false };
        assert_eq!(names(&decoder.take(Bytes::from_static(b"a\x1eb"))), [("raw", &b"a\x1eb"[..])]);
    }
}
