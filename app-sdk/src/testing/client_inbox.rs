//! Inbox of a test client: messages from the hub in order, and the answers that a test has prepared.
//!
//! Messages are delivered directly when the loopback server receives them, not by a separate task. So after a result,
//! this client and all others have received everything sent before.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use bytes::{Buf, Bytes};
use bytestring::ByteString;
use tokio::sync::{Notify, mpsc};
use trunkline_protocol::hub::{Completion, HandshakeResponse, HubMessage, Invocation, Outcome, whole_messages};
use trunkline_protocol::limits::HANDSHAKE_MAX_BYTES;

use super::received::Received;
use crate::brief_debug::brief_debug;
use crate::naming::Codec;
use crate::sync::lock;

/// Answer that a test has prepared for the calls of one method.
pub(super) type PreparedAnswer = Arc<dyn Fn(&Received) -> Outcome + Send + Sync>;

pub(super) struct ClientInbox {
    codec: Codec,
    state: Mutex<InboxState>,
    arrived: Notify,
    /// Completions of prepared answers that are to be sent to the hub.
    replies: mpsc::UnboundedSender<Completion>,
}

#[derive(Default)]
struct InboxState {
    handshake: Option<Result<(), String>>,
    is_shaken: bool,
    messages: VecDeque<HubMessage>,
    answers: BTreeMap<String, PreparedAnswer>,
    pending: BTreeSet<ByteString>,
    close_error: Option<String>,
    is_over: bool,
}

impl ClientInbox {
    pub(super) fn new(codec: Codec) -> (Arc<Self>, mpsc::UnboundedReceiver<Completion>) {
        let (replies, to_send) = mpsc::unbounded_channel();
        let inbox = Self { codec, state: Mutex::default(), arrived: Notify::new(), replies };
        (Arc::new(inbox), to_send)
    }

    /// Delivers bytes from the hub that contain whole messages.
    pub(super) fn deliver(&self, bytes: &Bytes) {
        let mut bytes = bytes.clone();
        {
            let mut state = lock(&self.state);
            if !state.is_shaken {
                state.is_shaken = true;
                state.handshake = Some(read_handshake(&mut bytes));
            }
        }
        // An unreadable message is a bug in this crate, and results in a timeout.
        let protocol = self.codec.protocol;
        for message in whole_messages(protocol, &bytes) {
            if let Ok(Some(message)) = protocol.decode(&bytes.slice_ref(message.body)) {
                self.take_in(message);
            }
        }
        self.arrived.notify_waiters();
    }

    /// Ends the inbox: further messages cannot arrive.
    pub(super) fn end_inbox(&self) {
        lock(&self.state).is_over = true;
        self.arrived.notify_waiters();
    }

    pub(super) fn prepare(&self, method: &str, answer: PreparedAnswer) {
        lock(&self.state).answers.insert(method.to_lowercase(), answer);
    }

    /// Records an invocation that waits for its completion.
    pub(super) fn expect(&self, invocation_id: ByteString) {
        lock(&self.state).pending.insert(invocation_id);
    }

    /// Fails the waiting invocations, as a proxy does after a crash.
    pub(super) fn fail_pending(&self, error: &'static str) {
        let mut state = lock(&self.state);
        for invocation_id in std::mem::take(&mut state.pending) {
            let outcome = Outcome::Error(error.into());
            state.messages.push_back(HubMessage::Completion(Completion {
                headers: Vec::new(),
                invocation_id,
                outcome,
            }));
        }
        drop(state);
        self.arrived.notify_waiters();
    }

    /// Waits for the oldest matching message; others keep their order. `None` when the connection is closed.
    pub(super) async fn wait_for(&self, is_wanted: impl Fn(&HubMessage) -> bool) -> Option<HubMessage> {
        self.wait(|state| match state.take_message(&is_wanted) {
            Some(message) => Some(Some(message)),
            None => state.is_over.then_some(None),
        })
        .await
    }

    /// Waits for the response to the handshake; `None` if the connection closes first.
    pub(super) async fn handshake(&self) -> Option<Result<(), String>> {
        self.wait(|state| match state.handshake.take() {
            Some(answer) => Some(Some(answer)),
            None => state.is_over.then_some(None),
        })
        .await
    }

    /// Waits for the close and returns the hub's error.
    pub(super) async fn closed(&self) -> Option<String> {
        self.wait(|state| state.is_over.then(|| state.close_error.clone())).await
    }

    pub(super) fn take_message(&self, is_wanted: impl Fn(&HubMessage) -> bool) -> Option<HubMessage> {
        lock(&self.state).take_message(&is_wanted)
    }

    pub(super) fn close_error(&self) -> Option<String> {
        lock(&self.state).close_error.clone()
    }

    async fn wait<T>(&self, mut check: impl FnMut(&mut InboxState) -> Option<T>) -> T {
        loop {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            if let Some(found) = check(&mut lock(&self.state)) {
                return found;
            }
            arrived.await;
        }
    }

    fn take_in(&self, message: HubMessage) {
        match message {
            HubMessage::Close(close) => lock(&self.state).close_error = close.error.map(Into::into),
            HubMessage::Ping => {}
            HubMessage::Invocation(invocation) => self.take_call(invocation),
            HubMessage::Completion(completion) => {
                let mut state = lock(&self.state);
                state.pending.remove(&completion.invocation_id);
                state.messages.push_back(HubMessage::Completion(completion));
            }
            other => lock(&self.state).messages.push_back(other),
        }
    }

    /// Answers a call as the test has prepared, or stores it for the test.
    fn take_call(&self, invocation: Invocation) {
        let answer = {
            let mut state = lock(&self.state);
            match state.answers.get(&invocation.target.to_lowercase()) {
                Some(answer) => Arc::clone(answer),
                None => return state.messages.push_back(HubMessage::Invocation(invocation)),
            }
        };
        let call = Received::new(self.codec, invocation);
        // The panic has been printed; it must not end the link.
        let outcome = catch_unwind(AssertUnwindSafe(|| answer(&call)));
        let outcome = outcome.unwrap_or_else(|_| Outcome::Error("the test's prepared answer panics".into()));
        if let Some(invocation_id) = call.invocation.invocation_id.clone() {
            let completion = Completion { headers: Vec::new(), invocation_id, outcome };
            let _ = self.replies.send(completion);
        }
    }
}

impl InboxState {
    fn take_message(&mut self, is_wanted: &impl Fn(&HubMessage) -> bool) -> Option<HubMessage> {
        let place = self.messages.iter().position(is_wanted)?;
        self.messages.remove(place)
    }
}

fn read_handshake(bytes: &mut Bytes) -> Result<(), String> {
    match HandshakeResponse::read_response(bytes, HANDSHAKE_MAX_BYTES) {
        Ok(Some((HandshakeResponse { error }, length))) => {
            bytes.advance(length);
            error.map_or(Ok(()), Err)
        }
        Ok(None) => Err("half an answer to the handshake".into()),
        Err(error) => Err(error.to_string()),
    }
}

brief_debug!(ClientInbox, |it| { protocol: it.codec.protocol });
