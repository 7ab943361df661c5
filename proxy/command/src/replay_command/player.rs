//! Player of a recording: opens its clients, sends their messages, and passes received messages to the ledger.
//!
//! ```text
//!  open, up, close ─► not before its time ─► all earlier messages of the recording received? ─► done
//!                                                └─ no: waited for, then missing
//!  down ─► expected
//! ```
//!
//! So the app has reacted to one message before the next one is sent, as during the recording.

use std::collections::{HashMap, HashSet};
use std::io::BufRead;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{HUB_PROTOCOL_VERSION, HandshakeRequest, HubProtocol};
use trunkline_proxy::parts::{
    CloseLine, Hub, MessageLine, OpenLine, RecordedPayload, RecordingLine, ReplayNode, ReplayedOpening,
};

use super::answer_ledger::{AccountNumber, Answer, AnswerLedger, AnswerName, CLOSED, Difference, Tally};
use super::recording_reader::{ReadRecordingError, RecordingReader};
use super::replayed_client::{ARRIVALS_MAX, ReplayArrival, ReplayedClient, closed};

const HANDSHAKE: &str = "handshake";

/// Silence that ends waiting if each missing answer has a counterpart.
const QUIET: Duration = Duration::from_millis(300);

/// Consecutive waits without any answer before an app server is given up.
const VAIN_WAITS_MAX: u32 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplayPace {
    /// Messages are sent at their recorded times.
    Recorded,
    /// Messages are sent as soon as all earlier ones of the recording are complete.
    Fast,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ReplayOutcome {
    pub(super) tally: Tally,
    pub(super) differences: Vec<Difference>,
    pub(super) connections: u64,
    pub(super) sent: u64,
    pub(super) sent_without_secrets: u64,
    /// Messages that could not be sent, because their connection or payload is missing.
    pub(super) unsent: u64,
    /// Messages missing from the recording.
    pub(super) lost: u64,
    /// Connections opened before the recording.
    pub(super) opened_anew: u64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PlayError {
    #[error(transparent)]
    Read(#[from] ReadRecordingError),
    #[error("line {line}: {problem}")]
    Line { line: u64, problem: String },
    #[error("line {0}: the app server no longer answers")]
    Silent(u64),
}

pub(super) struct Player<'a> {
    node: &'a ReplayNode,
    hub: Arc<Hub>,
    pace: ReplayPace,
    /// Additional time for an answer, compared with the recording.
    patience: Duration,
    clients: HashMap<String, PlayedClient>,
    /// Connections ended by the recorded client.
    left: HashSet<AccountNumber>,
    ledger: AnswerLedger,
    arrivals: mpsc::Receiver<ReplayArrival>,
    sender: mpsc::Sender<ReplayArrival>,
    outcome: ReplayOutcome,
    /// Start of the replay, and the corresponding time in the recording.
    begun: Option<(Instant, u64)>,
    last_us: u64,
    vain_waits: u32,
}

struct PlayedClient {
    client: ReplayedClient,
    was_open: bool,
}

impl<'a> Player<'a> {
    pub(super) fn new(
        node: &'a ReplayNode,
        hub: Arc<Hub>,
        pace: ReplayPace,
        patience: Duration,
        differences: usize,
    ) -> Self {
        let (sender, arrivals) = mpsc::channel(ARRIVALS_MAX);
        Self {
            node,
            hub,
            pace,
            patience,
            clients: HashMap::new(),
            left: HashSet::new(),
            ledger: AnswerLedger::new(differences),
            arrivals,
            sender,
            outcome: ReplayOutcome::default(),
            begun: None,
            last_us: 0,
            vain_waits: 0,
        }
    }

    pub(super) async fn play<R: BufRead>(
        mut self,
        reader: &mut RecordingReader<R>,
    ) -> Result<ReplayOutcome, PlayError> {
        let mut last = 0;
        while let Some((line, event)) = reader.next()? {
            last = line;
            match event {
                RecordingLine::Open(open) => self.open(line, *open).await?,
                RecordingLine::Up(message) => self.send(line, message).await?,
                RecordingLine::Down(message) => self.expect(line, &message)?,
                RecordingLine::Close(close) => self.close(line, &close).await?,
                RecordingLine::Lost(loss) => self.outcome.lost += loss.messages,
                RecordingLine::Header(_) => {}
            }
        }
        self.wait_for_answers(last, Duration::ZERO).await?;
        self.wait_until(Instant::now() + QUIET).await;
        let (tally, differences) = self.ledger.finish();
        for (_, PlayedClient { client, .. }) in self.clients.drain() {
            client.close().await;
        }
        Ok(ReplayOutcome { tally, differences, ..self.outcome })
    }

    async fn open(&mut self, line: u64, open: OpenLine) -> Result<(), PlayError> {
        if !open.was_open {
            self.step(line, open.at_us).await?;
        }
        let wrong = |problem: String| PlayError::Line { line, problem };
        let OpenLine { connection, protocol, user, claims, headers, query, was_open, .. } = open;
        let named = |name: &String| HubProtocol::from_name(name).ok_or_else(|| wrong(format!("no protocol {name:?}")));
        let protocol = protocol.as_ref().map(named).transpose()?;
        let opening = ReplayedOpening { connection: connection.clone(), user, claims, headers, query };
        let pipe = self.node.connect(&self.hub, opening);
        let pipe = pipe.ok_or_else(|| wrong(format!("the connection {connection:?} is opened twice")))?;
        let account = self.ledger.add(&connection, was_open);
        let mut client = ReplayedClient::open(pipe, account, protocol, self.sender.clone()).await;
        self.outcome.connections += 1;
        if was_open {
            self.outcome.opened_anew += 1;
            if let Some(protocol) = protocol {
                let request = HandshakeRequest { protocol, version: HUB_PROTOCOL_VERSION };
                // Fails if the connection is refused; its answer is then missing.
                drop(client.send(RecordedPayload::Binary(request.encode())).await);
                let name = AnswerName { kind: HANDSHAKE.into(), target: None, invocation_id: None };
                self.ledger.expect(account, Answer { name, bytes: None, line });
            }
        }
        self.clients.insert(connection, PlayedClient { client, was_open });
        Ok(())
    }

    async fn send(&mut self, line: u64, message: MessageLine) -> Result<(), PlayError> {
        self.step(line, message.at_us).await?;
        let payload = payload(line, &message)?;
        let (Some(PlayedClient { client, .. }), Some(payload)) = (self.clients.get_mut(&message.connection), payload)
        else {
            self.outcome.unsent += 1;
            return Ok(());
        };
        if message.kind != HANDSHAKE {
            self.ledger.sent(client.account);
            if let (Some(id), Some(method)) = (&message.invocation_id, &message.target) {
                self.ledger.called(client.account, id.clone(), method.clone());
            }
        }
        let sending = client.send(payload);
        tokio::pin!(sending);
        // Receives messages meanwhile: otherwise app server and player would wait for each other.
        let sent = loop {
            tokio::select! {
                sent = &mut sending => break sent,
                Some(arrival) = self.arrivals.recv() => receive(&mut self.ledger, &self.left, arrival),
            }
        };
        match sent {
            Ok(()) => {
                self.outcome.sent += 1;
                self.outcome.sent_without_secrets += u64::from(message.redacted);
            }
            Err(_) => self.outcome.unsent += 1,
        }
        Ok(())
    }

    fn expect(&mut self, line: u64, message: &MessageLine) -> Result<(), PlayError> {
        let Some(PlayedClient { client, was_open }) = self.clients.get(&message.connection) else { return Ok(()) };
        if *was_open && message.kind == HANDSHAKE {
            return Ok(());
        }
        let payload = payload(line, message)?.filter(|_| !message.redacted);
        let bytes = payload.map(|payload| payload.into_bytes());
        let MessageLine { kind, target, invocation_id, .. } = message.clone();
        self.ledger.expect(client.account, Answer { name: AnswerName { kind, target, invocation_id }, bytes, line });
        Ok(())
    }

    async fn close(&mut self, line: u64, close: &CloseLine) -> Result<(), PlayError> {
        self.step(line, close.at_us).await?;
        let cause = Cause::from_label(&close.cause);
        let is_by_app =
            matches!(cause, Some(Cause::AppClosed | Cause::AppError | Cause::Ordered | Cause::AppHandshakeRefused));
        if is_by_app {
            if let Some(PlayedClient { client, .. }) = self.clients.get(&close.connection) {
                self.ledger.expect(client.account, Answer { line, ..closed() });
            }
        } else if let Some(PlayedClient { client, .. }) = self.clients.remove(&close.connection) {
            self.left.insert(client.account);
            match cause {
                Some(Cause::ClientClosed) => client.close().await,
                _ => client.cut(),
            }
        }
        Ok(())
    }

    async fn step(&mut self, line: u64, at_us: u64) -> Result<(), PlayError> {
        let (begun, begun_us) = *self.begun.get_or_insert_with(|| (Instant::now(), at_us));
        let mut more = Duration::ZERO;
        match self.pace {
            ReplayPace::Recorded => {
                self.wait_until(begun + Duration::from_micros(at_us.saturating_sub(begun_us))).await
            }
            // A step may take as long as in the recording.
            ReplayPace::Fast => more = Duration::from_micros(at_us.saturating_sub(self.last_us.max(begun_us))),
        }
        self.last_us = at_us;
        self.wait_for_answers(line, more).await
    }

    async fn wait_until(&mut self, until: Instant) {
        loop {
            tokio::select! {
                () = sleep_until(until) => return,
                Some(arrival) = self.arrivals.recv() => receive(&mut self.ledger, &self.left, arrival),
            }
        }
    }

    async fn wait_for_answers(&mut self, line: u64, more: Duration) -> Result<(), PlayError> {
        let until = Instant::now() + self.patience + more;
        let mut quiet_at = Instant::now() + QUIET;
        while !self.ledger.is_settled() {
            let is_explained = self.ledger.is_explained();
            let end = if is_explained { quiet_at.min(until) } else { until };
            tokio::select! {
                () = sleep_until(end) => {
                    self.ledger.settle();
                    self.vain_waits += u32::from(!is_explained);
                    if self.vain_waits >= VAIN_WAITS_MAX {
                        return Err(PlayError::Silent(line));
                    }
                }
                Some(arrival) = self.arrivals.recv() => {
                    receive(&mut self.ledger, &self.left, arrival);
                    (quiet_at, self.vain_waits) = (Instant::now() + QUIET, 0);
                }
            }
        }
        Ok(())
    }
}

fn receive(ledger: &mut AnswerLedger, left: &HashSet<AccountNumber>, arrival: ReplayArrival) {
    let ReplayArrival { account, answer } = arrival;
    if answer.name.kind != CLOSED || !left.contains(&account) {
        ledger.receive(account, answer);
    }
}

fn payload(line: u64, message: &MessageLine) -> Result<Option<RecordedPayload>, PlayError> {
    message.payload().map_err(|error| PlayError::Line { line, problem: format!("invalid base64: {error}") })
}
