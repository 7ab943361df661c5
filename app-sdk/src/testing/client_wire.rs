//! Connection of a test client: its inbox, and sending to its hub. Shared by its calls.

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
        let handshake = HandshakeRequest { protocol: self.codec.protocol(), version: HUB_PROTOCOL_VERSION }.encode();
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
        self.send_bytes(encode::message(self.codec.protocol(), message)).await;
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
    pub(super) async fn answer(&self, is_wanted: impl Fn(&HubMessage) -> bool) -> Result<HubMessage, CallError> {
        let answer = tokio::time::timeout(self.timeout, self.inbox.wait_for(is_wanted)).await;
        match answer {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(CallError::Closed(self.inbox.close_error())),
            Err(_) => Err(CallError::Timeout),
        }
    }

    pub(super) fn outcome<T: DeserializeOwned>(&self, outcome: Outcome) -> Result<T, CallError> {
        let payload = match outcome {
            Outcome::Error(error) => return Err(CallError::of(&error)),
            Outcome::Value(payload) => payload,
            Outcome::Void => self.payload(&())?,
        };
        self.codec.value(&payload).map_err(|error| CallError::Type(error.to_string()))
    }
}
