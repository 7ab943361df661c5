//! Test client: it speaks a hub protocol as real ones do.

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use bytestring::ByteString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use trunkline_protocol::hub::{
    CancelInvocation, Completion, HUB_PROTOCOL_VERSION, HandshakeRequest, HandshakeResponse, HubMessage, HubProtocol,
    Invocation, Outcome, Payload, StreamItem, next_frame,
};
use trunkline_protocol::limits::HANDSHAKE_MAX_BYTES;
use trunkline_protocol::service::{CloseConnection, ConnectionData, OpenConnection, ServiceMessage};
use trunkline_protocol::wire::USER_ID_CLAIM;

use super::far_end::FarEnd;
use super::received::{FromArguments, Received};
use crate::encode::{self, Arguments};
use crate::naming::Codec;

/// Timeout of an answer, after which a test fails.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Error of a client that could not connect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No hub has this path.
    #[error("no hub is served at this path")]
    NoHub,
    /// The hub refused the handshake with this text.
    #[error("{0}")]
    Refused(String),
    /// The server shuts down.
    #[error("the server is gone")]
    Gone,
}

/// Client that is connected to a hub under test.
pub struct TestClient {
    far_end: Arc<FarEnd>,
    protocol: HubProtocol,
    id: ByteString,
    latest_invocation: u64,
    incoming: mpsc::UnboundedReceiver<Bytes>,
    /// Bytes that were received and not read yet.
    unread: Bytes,
    /// Calls and items that arrived while another message was awaited.
    aside: VecDeque<HubMessage>,
    close_error: Option<String>,
}

/// Stream of items from a method to a client.
#[must_use = "items wait until they are asked for"]
pub struct TestStream<'a, T> {
    client: &'a mut TestClient,
    invocation_id: ByteString,
    is_over: bool,
    items: PhantomData<fn() -> T>,
}

impl TestClient {
    pub(super) async fn connect(
        far_end: Arc<FarEnd>,
        protocol: HubProtocol,
        mut open: OpenConnection,
    ) -> Result<Self, ConnectError> {
        open.protocol = Some(ByteString::from_static(protocol.name()));
        let id = open.connection_id.clone();
        let user = open.claims.iter().find(|(name, _)| name == USER_ID_CLAIM).map(|(_, value)| value.clone());
        let incoming = far_end.join(id.clone(), protocol, user).await;
        let (unread, aside) = (Bytes::new(), VecDeque::new());
        let mut client =
            Self { far_end, protocol, id, latest_invocation: 0, incoming, unread, aside, close_error: None };
        client.far_end.send(ServiceMessage::OpenConnection(open)).await;
        client.send_bytes(HandshakeRequest { protocol, version: HUB_PROTOCOL_VERSION }.encode()).await;
        client.shake_hands().await?;
        Ok(client)
    }

    /// Connection id of the client.
    #[must_use]
    pub fn connection_id(&self) -> &str {
        &self.id
    }

    /// Calls a method, and waits for its result. What the hub sends to this client meanwhile is kept for
    /// [`next`](Self::next).
    ///
    /// # Errors
    /// The text that a client reads; or, when there is no answer within 10 s or the result is of another type, one for
    /// people.
    pub async fn invoke<T: DeserializeOwned>(&mut self, method: &str, arguments: impl Arguments) -> Result<T, String> {
        let call = self.call(method, &arguments)?;
        let id = self.next_id();
        self.write(&HubMessage::Invocation(Invocation { invocation_id: Some(id.clone()), ..call })).await;
        self.result(&id).await
    }

    /// Calls a method that takes one stream, as [`invoke`](Self::invoke): sends all items, then the end.
    ///
    /// # Errors
    /// As with `invoke`.
    pub async fn invoke_uploading<T: DeserializeOwned>(
        &mut self,
        method: &str,
        arguments: impl Arguments,
        items: impl IntoIterator<Item = impl Serialize>,
    ) -> Result<T, String> {
        let call = self.call(method, &arguments)?;
        let (id, stream_id) = (self.next_id(), self.next_id());
        let call = Invocation { invocation_id: Some(id.clone()), stream_ids: vec![stream_id.clone()], ..call };
        self.write(&HubMessage::Invocation(call)).await;
        for item in items {
            let item = StreamItem { headers: Vec::new(), invocation_id: stream_id.clone(), item: self.payload(&item)? };
            self.write(&HubMessage::StreamItem(item)).await;
        }
        self.complete(stream_id, Outcome::Void).await;
        self.result(&id).await
    }

    /// Calls a method without waiting for its result.
    ///
    /// # Errors
    /// When an argument can't be encoded.
    pub async fn send(&mut self, method: &str, arguments: impl Arguments) -> Result<(), String> {
        let call = self.call(method, &arguments)?;
        self.write(&HubMessage::Invocation(call)).await;
        Ok(())
    }

    /// Calls a method that streams.
    ///
    /// # Errors
    /// When an argument can't be encoded. Other errors come from the stream.
    pub async fn stream<T: DeserializeOwned>(
        &mut self,
        method: &str,
        arguments: impl Arguments,
    ) -> Result<TestStream<'_, T>, String> {
        let call = self.call(method, &arguments)?;
        let id = self.next_id();
        self.write(&HubMessage::StreamInvocation(Invocation { invocation_id: Some(id.clone()), ..call })).await;
        Ok(TestStream { client: self, invocation_id: id, is_over: false, items: PhantomData })
    }

    /// The next call that the hub sends to this client; `None` when the connection has ended.
    pub async fn next(&mut self) -> Option<Received> {
        self.wait_for(|message| matches!(message, HubMessage::Invocation(_)))
            .await
            .and_then(|message| self.received(message))
    }

    /// Returns the next call, as [`next`](Self::next), but `None` too when nothing has come yet.
    pub fn try_next(&mut self) -> Option<Received> {
        while let Some(message) = self.read_now() {
            self.aside.push_back(message);
        }
        let message = self.take_aside(&|message| matches!(message, HubMessage::Invocation(_)))?;
        self.received(message)
    }

    /// The arguments of the next call that the hub sends to this client, which must be to this method.
    ///
    /// # Panics
    /// When another call comes, other arguments, or nothing within 10 s.
    pub async fn expect<T: FromArguments>(&mut self, method: &str) -> T {
        let next = tokio::time::timeout(ANSWER_TIMEOUT, self.next()).await;
        match next {
            Ok(Some(received)) if received.target() == method => match received.arguments() {
                Ok(arguments) => arguments,
                Err(problem) => panic!("{method} came with other arguments: {problem} ({received:?})"),
            },
            Ok(Some(other)) => panic!("{method} was expected, {} came: {other:?}", other.target()),
            Ok(None) => panic!("{method} was expected, and the connection has ended: {:?}", self.close_error),
            Err(_) => panic!("{method} was expected, and nothing came within {} s", ANSWER_TIMEOUT.as_secs()),
        }
    }

    /// Answers a call whose result the hub awaits.
    ///
    /// # Errors
    /// When the result can't be encoded, or the call wants none.
    pub async fn answer(&mut self, call: &Received, result: impl Serialize) -> Result<(), String> {
        let id = call.invocation_id().ok_or("nobody waits for a result")?.clone();
        let result = self.payload(&result)?;
        self.complete(id, Outcome::Value(result)).await;
        Ok(())
    }

    /// Answers a call whose result the hub awaits with an error.
    ///
    /// # Errors
    /// When the call wants no result.
    pub async fn refuse(&mut self, call: &Received, error: &str) -> Result<(), String> {
        let id = call.invocation_id().ok_or("nobody waits for a result")?.clone();
        self.complete(id, Outcome::Error(error.into())).await;
        Ok(())
    }

    /// Closes the connection from this side, as a client that closes its socket. The hub's `on_disconnected` runs soon
    /// after; what it sends is the sign of it, or [`TestServer::shutdown`](super::TestServer::shutdown).
    pub async fn disconnect(&mut self) {
        self.far_end.leave(&self.id);
        let close = CloseConnection { connection_id: self.id.clone(), ..CloseConnection::default() };
        self.far_end.send(ServiceMessage::CloseConnection(close)).await;
    }

    /// Waits until the hub has closed the connection, and returns the error that it told the client, if there was one.
    pub async fn closed(&mut self) -> Option<String> {
        while let Some(message) = self.read().await {
            self.aside.push_back(message);
        }
        self.close_error.clone()
    }

    async fn shake_hands(&mut self) -> Result<(), ConnectError> {
        let bytes = self.incoming.recv().await.ok_or(ConnectError::Gone)?;
        match HandshakeResponse::read(&bytes, HANDSHAKE_MAX_BYTES) {
            Ok(Some((HandshakeResponse { error: None }, length))) => {
                self.unread = bytes.slice(length..);
                Ok(())
            }
            Ok(Some((HandshakeResponse { error: Some(error) }, _))) => Err(ConnectError::Refused(error)),
            Ok(None) => Err(ConnectError::Refused("half an answer to the handshake".into())),
            Err(error) => Err(ConnectError::Refused(error.to_string())),
        }
    }

    fn call(&self, method: &str, arguments: &impl Arguments) -> Result<Invocation, String> {
        let arguments = arguments.payloads(self.codec()).map_err(|error| error.to_string())?;
        Ok(Invocation { target: method.into(), arguments, ..Invocation::default() })
    }

    fn payload(&self, value: &impl Serialize) -> Result<Payload, String> {
        self.codec().payload(value).map_err(|error| error.to_string())
    }

    /// How the hub's clients encode values.
    fn codec(&self) -> Codec {
        Codec::new(self.protocol, self.far_end.naming())
    }

    fn next_id(&mut self) -> ByteString {
        self.latest_invocation += 1;
        self.latest_invocation.to_string().into()
    }

    async fn complete(&self, invocation_id: ByteString, outcome: Outcome) {
        self.write(&HubMessage::Completion(Completion { headers: Vec::new(), invocation_id, outcome })).await;
    }

    async fn write(&self, message: &HubMessage) {
        self.send_bytes(encode::message(self.protocol, message)).await;
    }

    /// Sends bytes to the hub; a closed connection shows only where something is read.
    async fn send_bytes(&self, payload: Bytes) {
        let data = ConnectionData { connection_id: self.id.clone(), payload, ..ConnectionData::default() };
        self.far_end.send(ServiceMessage::ConnectionData(data)).await;
    }

    async fn result<T: DeserializeOwned>(&mut self, id: &ByteString) -> Result<T, String> {
        let is_answer =
            |message: &HubMessage| matches!(message, HubMessage::Completion(end) if end.invocation_id == *id);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.wait_for(is_answer)).await;
        match answer.map_err(|_| format!("no answer came within {} s", ANSWER_TIMEOUT.as_secs()))? {
            Some(HubMessage::Completion(end)) => self.outcome(end.outcome),
            _ => Err(match &self.close_error {
                Some(error) => format!("the connection has ended: {error}"),
                None => "the connection has ended".to_owned(),
            }),
        }
    }

    fn outcome<T: DeserializeOwned>(&self, outcome: Outcome) -> Result<T, String> {
        let payload = match outcome {
            Outcome::Error(error) => return Err(error.into()),
            Outcome::Value(payload) => payload,
            Outcome::Void => self.payload(&())?,
        };
        self.codec().value(&payload).map_err(|error| format!("the result is of another type: {error}"))
    }

    fn received(&self, message: HubMessage) -> Option<Received> {
        match message {
            HubMessage::Invocation(invocation) => Some(Received::new(self.codec(), invocation)),
            _ => None,
        }
    }

    /// Waits for the oldest message that is wanted; others are kept aside in their order. `None` when the connection is closed.
    async fn wait_for(&mut self, is_wanted: impl Fn(&HubMessage) -> bool) -> Option<HubMessage> {
        if let Some(message) = self.take_aside(&is_wanted) {
            return Some(message);
        }
        loop {
            let message = self.read().await?;
            if is_wanted(&message) {
                return Some(message);
            }
            self.aside.push_back(message);
        }
    }

    fn take_aside(&mut self, is_wanted: &impl Fn(&HubMessage) -> bool) -> Option<HubMessage> {
        let place = self.aside.iter().position(is_wanted)?;
        self.aside.remove(place)
    }

    async fn read(&mut self) -> Option<HubMessage> {
        loop {
            if let Some(message) = self.read_now() {
                return Some(message);
            }
            self.unread = self.incoming.recv().await?;
        }
    }

    fn read_now(&mut self) -> Option<HubMessage> {
        loop {
            if self.unread.is_empty() {
                self.unread = self.incoming.try_recv().ok()?;
            }
            // The hub's messages come whole; one that can't be read is a fault of this crate, and shows as silence.
            let Ok(Some(frame)) = next_frame(self.protocol, &self.unread, usize::MAX) else {
                self.unread = Bytes::new();
                continue;
            };
            let body = self.unread.slice(frame.body);
            self.unread.advance(frame.length);
            match self.protocol.decode(&body) {
                Ok(Some(HubMessage::Close(close))) => self.close_error = close.error.map(Into::into),
                Ok(Some(HubMessage::Ping)) | Ok(None) | Err(_) => {}
                Ok(Some(message)) => return Some(message),
            }
        }
    }
}

impl<T: DeserializeOwned> TestStream<'_, T> {
    /// The next item; an error is the last. `None`: the stream is complete.
    pub async fn next(&mut self) -> Option<Result<T, String>> {
        if self.is_over {
            return None;
        }
        let id = self.invocation_id.clone();
        let is_mine = |message: &HubMessage| match message {
            HubMessage::StreamItem(item) => item.invocation_id == id,
            HubMessage::Completion(end) => end.invocation_id == id,
            _ => false,
        };
        let next = tokio::time::timeout(ANSWER_TIMEOUT, self.client.wait_for(is_mine)).await;
        let error = match next {
            Ok(Some(HubMessage::StreamItem(item))) => {
                return Some(self.client.outcome(Outcome::Value(item.item)));
            }
            Ok(Some(HubMessage::Completion(Completion { outcome: Outcome::Error(error), .. }))) => error.into(),
            Ok(Some(_)) => {
                self.is_over = true;
                return None;
            }
            Ok(None) => "the connection has ended".to_owned(),
            Err(_) => format!("no item came within {} s", ANSWER_TIMEOUT.as_secs()),
        };
        self.is_over = true;
        Some(Err(error))
    }

    /// Cancels the stream; items that were on their way still come.
    pub async fn cancel(&mut self) {
        let cancel = CancelInvocation { headers: Vec::new(), invocation_id: self.invocation_id.clone() };
        self.client.write(&HubMessage::CancelInvocation(cancel)).await;
    }
}

impl fmt::Debug for TestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestClient").field("id", &self.id).field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for TestStream<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestStream").field("client", self.client).finish_non_exhaustive()
    }
}
