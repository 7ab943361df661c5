//! Connection to a hub over any transport: handshake, calls, pings.

use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use bytestring::ByteString;
use http::StatusCode;
use tokio::time::timeout;
use trunkline_protocol::hub::{
    HUB_PROTOCOL_VERSION, HandshakeRequest, HandshakeResponse, HubMessage, HubProtocol, Invocation, Outcome, Payload,
    next_frame,
};
use trunkline_protocol::json_text::JsonText;
use trunkline_protocol::manifest::Transport;

use super::event_carrier::EventCarrier;
use super::probe_client::{ANSWER_MAX_BYTES, ProbeClient, ProbeError};
use super::websocket_carrier::WebSocketCarrier;

/// Hub protocol of all checks, supported by each transport.
const PROTOCOL: HubProtocol = HubProtocol::Json;

/// Nonexistent method: its error comes from the app server, so it measures the round trip.
const NO_METHOD: &str = "TrunklineDoctor";

#[derive(Debug, Clone)]
pub(super) struct ProbeCall {
    pub(super) target: ByteString,
    arguments: Vec<Payload>,
    is_real: bool,
}

impl ProbeCall {
    pub(super) fn of_no_method() -> Self {
        Self { target: ByteString::from_static(NO_METHOD), arguments: Vec::new(), is_real: false }
    }

    pub(super) fn of(method: &str, arguments: &[JsonText]) -> Self {
        let encoded =
            arguments.iter().map(|argument| Payload::new(Bytes::copy_from_slice(argument.get().as_bytes()))).collect();
        Self { target: method.into(), arguments: encoded, is_real: true }
    }

    pub(super) fn is_real(&self) -> bool {
        self.is_real
    }
}

/// Answer to a call, with timings.
#[derive(Debug, Clone)]
pub(super) struct CallSeen {
    pub(super) took: Duration,
    /// Time until the call was sent; for transports with POSTs, until the POST was answered.
    pub(super) sent: Duration,
    pub(super) error: Option<String>,
}

#[derive(Debug)]
enum Carrier {
    Socket(Box<WebSocketCarrier>),
    Events(Box<EventCarrier>),
    Poll(Box<PollCarrier>),
}

#[derive(Debug)]
pub(super) struct HubConnection {
    carrier: Carrier,
    rest: BytesMut,
    deadline: Duration,
    calls: u64,
}

impl HubConnection {
    /// Opens a connection over a transport.
    pub(super) async fn open(client: &ProbeClient, id: &str, transport: Transport) -> Result<Self, ProbeError> {
        let carrier = match transport {
            Transport::WebSockets => Carrier::Socket(Box::new(WebSocketCarrier::open(client, id, false).await?)),
            Transport::ServerSentEvents => Carrier::Events(Box::new(EventCarrier::open(client, id).await?)),
            Transport::LongPolling => Carrier::Poll(Box::new(PollCarrier::open(client, id).await?)),
        };
        Ok(Self { carrier, rest: BytesMut::new(), deadline: client.deadline, calls: 0 })
    }

    /// Performs the hub handshake and returns its duration.
    pub(super) async fn handshake(&mut self) -> Result<Duration, ProbeError> {
        let begun = Instant::now();
        let (deadline, request) =
            (self.deadline, HandshakeRequest { protocol: PROTOCOL, version: HUB_PROTOCOL_VERSION });
        let shaken = timeout(deadline, async {
            self.send(&request.encode()).await?;
            loop {
                if let Some((response, length)) = HandshakeResponse::read_response(&self.rest, ANSWER_MAX_BYTES)? {
                    self.rest.advance(length);
                    return response.error.map_or(Ok(()), |error| Err(ProbeError::Refused(error)));
                }
                self.receive().await?;
            }
        });
        shaken.await.unwrap_or(Err(ProbeError::Late(deadline)))?;
        Ok(begun.elapsed())
    }

    pub(super) async fn call(&mut self, call: &ProbeCall) -> Result<CallSeen, ProbeError> {
        self.calls += 1;
        let id = ByteString::from(self.calls.to_string());
        let message = HubMessage::Invocation(Invocation {
            invocation_id: Some(id.clone()),
            target: call.target.clone(),
            arguments: call.arguments.clone(),
            ..Invocation::default()
        });
        let begun = Instant::now();
        let deadline = self.deadline;
        let answered = timeout(deadline, async {
            self.send(&encoded(&message)).await?;
            let sent = begun.elapsed();
            loop {
                if let HubMessage::Completion(completion) = self.message().await?
                    && completion.invocation_id == id
                {
                    let error = match completion.outcome {
                        Outcome::Error(text) => Some(text.to_string()),
                        Outcome::Void | Outcome::Value(_) => None,
                    };
                    return Ok(CallSeen { took: begun.elapsed(), sent, error });
                }
            }
        });
        answered.await.unwrap_or(Err(ProbeError::Late(deadline)))
    }

    /// Sends a keep-alive, as clients do every 15 s.
    pub(super) async fn ping(&mut self) -> Result<(), ProbeError> {
        self.send(&encoded(&HubMessage::Ping)).await
    }

    /// Waits for the next message without a deadline. Cancelling loses at most a poll in flight.
    pub(super) async fn message(&mut self) -> Result<HubMessage, ProbeError> {
        loop {
            while let Some(frame) = next_frame(PROTOCOL, &self.rest, ANSWER_MAX_BYTES)? {
                let bytes = self.rest.split_to(frame.length).freeze();
                match PROTOCOL.decode(&bytes.slice(frame.body))? {
                    Some(HubMessage::Close(close)) => {
                        let text = close.error.unwrap_or_else(|| ByteString::from_static("no reason given"));
                        return Err(ProbeError::Closed(format!("the server closes: {text}")));
                    }
                    Some(message) => return Ok(message),
                    None => {}
                }
            }
            self.receive().await?;
        }
    }

    pub(super) async fn close(self) {
        match self.carrier {
            Carrier::Socket(socket) => drop(timeout(self.deadline, socket.close()).await),
            // Ending the stream ends the connection.
            Carrier::Events(stream) => drop(stream),
            Carrier::Poll(poll) => poll.close().await,
        }
    }

    async fn send(&mut self, messages: &Bytes) -> Result<(), ProbeError> {
        match &mut self.carrier {
            Carrier::Socket(socket) => socket.send(messages).await,
            Carrier::Events(stream) => stream.send(messages).await,
            Carrier::Poll(poll) => poll.send(messages).await,
        }
    }

    async fn receive(&mut self) -> Result<(), ProbeError> {
        let bytes = match &mut self.carrier {
            Carrier::Socket(socket) => socket.receive().await?,
            Carrier::Events(stream) => stream.receive().await?,
            Carrier::Poll(poll) => poll.receive().await?,
        };
        self.rest.extend_from_slice(&bytes);
        Ok(())
    }
}

fn encoded(message: &HubMessage) -> Bytes {
    let mut bytes = BytesMut::new();
    PROTOCOL.encode(message, &mut bytes);
    bytes.freeze()
}

/// Time limit of a poll: nodes hold polls for 90 s by default, and for an hour at most.
const POLL_MAX: Duration = Duration::from_secs(3700);

#[derive(Debug)]
pub(super) struct PollCarrier {
    client: ProbeClient,
    id: String,
}

impl PollCarrier {
    /// Makes the first poll, which opens the connection and is answered immediately.
    pub(super) async fn open(client: &ProbeClient, id: &str) -> Result<Self, ProbeError> {
        client.poll(id, client.deadline).await?.successful()?;
        Ok(Self { client: client.clone(), id: id.to_owned() })
    }

    pub(super) async fn send(&mut self, messages: &Bytes) -> Result<(), ProbeError> {
        self.client.post(&self.id, messages.clone()).await?.successful().map(drop)
    }

    pub(super) async fn receive(&mut self) -> Result<Bytes, ProbeError> {
        loop {
            let answer = self.client.poll(&self.id, POLL_MAX).await?.successful()?;
            if answer.status == StatusCode::NO_CONTENT {
                return Err(ProbeError::Closed("the response to the poll ends the connection".into()));
            }
            if !answer.body.is_empty() {
                return Ok(answer.body);
            }
        }
    }

    /// Ends the connection at the server.
    pub(super) async fn close(self) {
        // If this fails, the node ends the connection later.
        drop(self.client.delete(&self.id).await);
    }
}
