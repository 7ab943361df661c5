//! Running calls of a test client: a single result or a stream.

use std::marker::PhantomData;
use std::sync::Arc;

use bytestring::ByteString;
use serde::de::DeserializeOwned;
use trunkline_protocol::hub::{Completion, HubMessage, Outcome};

use super::call_error::CallError;
use super::client_wire::ClientWire;
use crate::brief_debug::brief_debug;

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
        match self.wire.answer(is_answer).await? {
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
        let next = match self.wire.answer(is_mine).await {
            Ok(HubMessage::StreamItem(item)) => return Some(self.wire.outcome(Outcome::Value(item.item))),
            Ok(HubMessage::Completion(Completion { outcome: Outcome::Error(error), .. })) => {
                Some(Err(CallError::of(&error)))
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
