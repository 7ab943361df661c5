//! Connection of a test client: its inbox, and sending to its hub. Shared by its calls, which may be streams.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use trunkline_protocol::hub::{
    CancelInvocation, Completion, HUB_PROTOCOL_VERSION, HandshakeRequest, HubMessage, Outcome, Payload,
};
use trunkline_protocol::service::{ConnectionData, OpenConnection, ServiceMessage};

use super::call_error::CallError;
use super::client_inbox::ClientInbox;
use super::fake_proxy::FakeProxy;
use crate::brief_debug::brief_debug;
use crate::encode;
use crate::naming::Codec;

/// Default timeout of an answer, after which a test fails.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct ClientWire {
    pub(super) fake_proxy: Arc<FakeProxy>,
    pub(super) inbox: Arc<ClientInbox>,
    pub(super) codec: Codec,
    pub(super) id: ByteString,
    pub(super) timeout: Duration,
}

pub(super) async fn send_replies(wire: Arc<ClientWire>, mut replies: mpsc::UnboundedReceiver<Completion>) {
    loop {
        tokio::select! {
            reply = replies.recv() => match reply {
                Some(completion) => wire.write(&HubMessage::Completion(completion)).await,
                None => return,
            },
            _ = wire.inbox.closed() => return,
        }
    }
}

impl ClientWire {
    /// Opens the connection at an app server: the open message, then the handshake.
    pub(super) async fn open_at(&self, server: usize, open: OpenConnection) {
        self.fake_proxy.send(server, ServiceMessage::OpenConnection(open)).await;
        let handshake = HandshakeRequest { protocol: self.codec.protocol, version: HUB_PROTOCOL_VERSION }.encode();
        self.send_bytes(handshake).await;
    }

    pub(super) async fn cancel(&self, invocation_id: &ByteString) {
        let cancel = CancelInvocation { headers: Vec::new(), invocation_id: invocation_id.clone() };
        self.write(&HubMessage::CancelInvocation(cancel)).await;
    }

    pub(super) async fn complete(&self, invocation_id: ByteString, outcome: Outcome) {
        self.write(&HubMessage::Completion(Completion { headers: Vec::new(), invocation_id, outcome })).await;
    }

    pub(super) async fn write(&self, message: &HubMessage) {
        self.send_bytes(encode::message(self.codec.protocol, message)).await;
    }

    /// Sends bytes to the hub. A closed connection is only noticed when reading.
    async fn send_bytes(&self, payload: Bytes) {
        let data = ConnectionData { connection_id: self.id.clone(), payload, ..ConnectionData::default() };
        if let Some(home) = self.fake_proxy.home(&self.id) {
            self.fake_proxy.send(home, ServiceMessage::ConnectionData(data)).await;
        }
    }

    pub(super) fn payload(&self, value: &impl Serialize) -> Result<Payload, CallError> {
        self.codec.payload(value).map_err(|error| CallError::Encode(error.to_string()))
    }

    /// Waits for a message of a call. Fails on timeout or when the connection closes.
    pub(super) async fn await_answer(&self, is_wanted: impl Fn(&HubMessage) -> bool) -> Result<HubMessage, CallError> {
        let answer = tokio::time::timeout(self.timeout, self.inbox.wait_for(is_wanted)).await;
        match answer {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(CallError::Closed(self.inbox.close_error())),
            Err(_) => Err(CallError::Timeout),
        }
    }

    pub(super) fn outcome<T: DeserializeOwned>(&self, outcome: Outcome) -> Result<T, CallError> {
        let payload = match outcome {
            Outcome::Error(error) => return Err(CallError::from_text(&error)),
            Outcome::Value(payload) => payload,
            Outcome::Void => self.payload(&())?,
        };
        self.codec.value(&payload).map_err(|error| CallError::Type(error.to_string()))
    }
}

/// A running call, created by [`TestClient::begin`](super::TestClient::begin).
#[derive(Debug)]
#[must_use = "the result of a call is worth a look"]
pub struct TestCall {
    wire: Arc<ClientWire>,
    invocation_id: ByteString,
}

/// Stream of items from a method to a client.
#[must_use = "items wait until they are asked for"]
pub struct TestStream<T> {
    wire: Arc<ClientWire>,
    invocation_id: ByteString,
    is_over: bool,
    items: PhantomData<fn() -> T>,
}

impl TestCall {
    pub(super) fn new(wire: Arc<ClientWire>, invocation_id: ByteString) -> Self {
        Self { wire, invocation_id }
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// The errors of [`TestClient::invoke`](super::TestClient::invoke).
    pub async fn result<T: DeserializeOwned>(self) -> Result<T, CallError> {
        let id = &self.invocation_id;
        let is_answer =
            |message: &HubMessage| matches!(message, HubMessage::Completion(end) if end.invocation_id == *id);
        match self.wire.await_answer(is_answer).await? {
            HubMessage::Completion(end) => self.wire.outcome(end.outcome),
            _ => Err(CallError::Timeout),
        }
    }

    /// Cancels the call: its [`Cancellation`](crate::Cancellation) fires. The call still returns a result.
    pub async fn cancel(&self) {
        self.wire.cancel(&self.invocation_id).await;
    }
}

impl<T: DeserializeOwned> TestStream<T> {
    pub(super) fn new(wire: Arc<ClientWire>, invocation_id: ByteString) -> Self {
        Self { wire, invocation_id, is_over: false, items: PhantomData }
    }

    /// Returns the next item; an error is the last. `None` when the stream is complete.
    pub async fn next(&mut self) -> Option<Result<T, CallError>> {
        if self.is_over {
            return None;
        }
        let id = &self.invocation_id;
        let is_mine = |message: &HubMessage| match message {
            HubMessage::StreamItem(item) => item.invocation_id == *id,
            HubMessage::Completion(end) => end.invocation_id == *id,
            _ => false,
        };
        let next = match self.wire.await_answer(is_mine).await {
            Ok(HubMessage::StreamItem(item)) => return Some(self.wire.outcome(Outcome::Value(item.item))),
            Ok(HubMessage::Completion(Completion { outcome: Outcome::Error(error), .. })) => {
                Some(Err(CallError::from_text(&error)))
            }
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        };
        self.is_over = true;
        next
    }

    /// Cancels the stream. Items in flight still arrive.
    pub async fn cancel(&mut self) {
        self.wire.cancel(&self.invocation_id).await;
    }
}

brief_debug!(TestStream<T>, |it| { invocation_id: it.invocation_id });
