//! Client connection: pending calls, received messages, its end. The [transport](crate::carrier) handles the bytes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use serde_json::Value;
use tokio::sync::oneshot;
use trunkline_protocol::hub::{Close, Completion, HubMessage, HubProtocol, Invocation, MessageKind, Outcome, Payload};

use crate::carrier::Carrier;
use crate::carrier::taker::Taker;
use crate::clock::Clock;
use crate::ended::Ended;
use trunkline_generator::histogram::micros;

/// Receiver of the server's invocations.
pub(crate) trait Receiver {
    /// Handles the body of an invocation for a client.
    fn invoked(&self, client: usize, connection: &Rc<Connection>, body: &[u8]);

    /// Handles an answer without a pending call.
    fn answered_again(&self, _client: usize) {}
}

#[derive(Debug)]
pub(crate) struct Connection {
    carrier: Carrier,
    protocol: HubProtocol,
    clock: Clock,
    heard_us: Cell<u64>,
    calls: RefCell<Vec<(u64, oneshot::Sender<Outcome>)>>,
    next_call: Cell<u64>,
}

/// Connection with its client and the receiver of its messages.
struct Served<'a> {
    client: usize,
    connection: &'a Rc<Connection>,
    receiver: &'a dyn Receiver,
}

impl Connection {
    /// Takes over a transport opened by [`connect`](crate::connect::connect).
    pub(crate) fn new(carrier: Carrier, protocol: HubProtocol, clock: Clock) -> Rc<Self> {
        Rc::new(Self {
            carrier,
            protocol,
            clock,
            heard_us: Cell::new(clock.now_us()),
            calls: RefCell::default(),
            next_call: Cell::new(0),
        })
    }

    pub(crate) fn send(&self, method: &str, arguments: &[Value]) {
        self.put(&self.invocation(method, arguments, None));
    }

    /// Calls a method. The channel returns the outcome, and closes if the connection ends first.
    pub(crate) fn call(&self, method: &str, arguments: &[Value]) -> oneshot::Receiver<Outcome> {
        let id = self.next_call.get();
        self.next_call.set(id + 1);
        let (notify, outcome) = oneshot::channel();
        self.calls.borrow_mut().push((id, notify));
        self.put(&self.invocation(method, arguments, Some(id)));
        outcome
    }

    /// Sends a keep-alive, and gives up a server that has been silent for too long.
    pub(crate) fn keep_alive(&self) {
        let signs = self.carrier.vital_signs();
        if self.clock.now_us().saturating_sub(self.heard_us.get()) > micros(signs.silence_max) {
            self.carrier.end_with(Ended::Silent);
        } else if signs.pings {
            self.put(&HubMessage::Ping);
        }
    }

    pub(crate) fn close(&self) {
        self.put(&HubMessage::Close(Close::default()));
        self.carrier.close();
    }

    /// Ends the connection abruptly by resetting its sockets.
    pub(crate) fn cut(&self) {
        self.carrier.cut();
    }

    pub(crate) fn value(&self, payload: &Payload) -> Option<Value> {
        self.protocol.value(payload).ok()
    }

    pub(crate) fn decode(&self, body: &[u8]) -> Option<(ByteString, Vec<Value>)> {
        let message = self.protocol.decode(&Bytes::copy_from_slice(body)).ok()??;
        let HubMessage::Invocation(call) = message else { return None };
        let arguments: Option<Vec<Value>> = call.arguments.iter().map(|argument| self.value(argument)).collect();
        Some((call.target, arguments?))
    }

    pub(crate) async fn serve(self: &Rc<Self>, client: usize, receiver: &dyn Receiver) -> Ended {
        self.carrier.serve(&Served { client, connection: self, receiver }).await
    }

    fn message(self: &Rc<Self>, client: usize, body: &[u8], receiver: &dyn Receiver) -> Result<(), Ended> {
        let scan = self.protocol.scan(body).map_err(|error| Ended::Protocol(error.to_string()))?;
        match scan.kind {
            MessageKind::Invocation => receiver.invoked(client, self, body),
            MessageKind::Completion | MessageKind::Close => {
                let decoded = self.protocol.decode(&Bytes::copy_from_slice(body));
                match decoded.map_err(|error| Ended::Protocol(error.to_string()))? {
                    Some(HubMessage::Completion(completion)) => {
                        let is_awaited = self.completed(completion);
                        if !is_awaited {
                            receiver.answered_again(client);
                        }
                    }
                    Some(HubMessage::Close(close)) => {
                        return Err(Ended::ByServer(
                            close.error.map_or_else(|| "close".into(), |text| text.to_string()),
                        ));
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Passes a completion to its pending call. Returns `false` if no call is pending.
    fn completed(&self, completion: Completion) -> bool {
        let Ok(id) = completion.invocation_id.parse::<u64>() else { return false };
        let mut calls = self.calls.borrow_mut();
        let Some(place) = calls.iter().position(|(waiting, _)| *waiting == id) else { return false };
        // The caller may have given up and counted that.
        drop(calls.swap_remove(place).1.send(completion.outcome));
        true
    }

    fn invocation(&self, method: &str, arguments: &[Value], id: Option<u64>) -> HubMessage {
        // Every JSON value can be encoded in both protocols.
        let arguments = arguments.iter().filter_map(|argument| self.protocol.payload(argument).ok()).collect();
        let invocation_id = id.map(|id| id.to_string().into());
        HubMessage::Invocation(Invocation { target: method.into(), arguments, invocation_id, ..Invocation::default() })
    }

    fn put(&self, message: &HubMessage) {
        let mut bytes = BytesMut::new();
        self.protocol.encode(message, &mut bytes);
        self.carrier.put(&bytes);
    }
}

impl Taker for Served<'_> {
    fn note_received(&self) {
        self.connection.heard_us.set(self.connection.clock.now_us());
    }

    fn message(&self, body: &[u8]) -> Result<(), Ended> {
        self.connection.message(self.client, body, self.receiver)
    }
}
