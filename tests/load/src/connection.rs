//! Client connection: pending calls, incoming messages, its end. Bytes are left to its
//! [carrier](crate::carrier).

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

/// Receiver of invocations by the server.
pub(crate) trait Receiver {
    /// The body of an invocation has come to a client.
    fn invoked(&self, client: usize, connection: &Rc<Connection>, body: &[u8]);

    /// An answer has come for which no call waits, or waits any more.
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

/// A connection with the client that it is of, and whom that client tells.
struct Served<'a> {
    client: usize,
    connection: &'a Rc<Connection>,
    receiver: &'a dyn Receiver,
}

impl Connection {
    /// Takes over a carrier that [`connect`](crate::connect::connect) opened.
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

    /// Calls a method and waits for nothing.
    pub(crate) fn send(&self, method: &str, arguments: &[Value]) {
        self.put(&self.invocation(method, arguments, None));
    }

    /// Calls a method; the outcome comes by the channel, which closes if the connection ends first.
    pub(crate) fn call(&self, method: &str, arguments: &[Value]) -> oneshot::Receiver<Outcome> {
        let id = self.next_call.get();
        self.next_call.set(id + 1);
        let (tell, outcome) = oneshot::channel();
        self.calls.borrow_mut().push((id, tell));
        self.put(&self.invocation(method, arguments, Some(id)));
        outcome
    }

    /// Tells the server that we live, and gives it up if it has been silent for too long.
    pub(crate) fn keep_alive(&self) {
        let signs = self.carrier.vital_signs();
        if self.clock.now_us().saturating_sub(self.heard_us.get()) > micros(signs.silence_max) {
            self.carrier.end_with(Ended::Silent);
        } else if signs.pings {
            self.put(&HubMessage::Ping);
        }
    }

    /// Ends it as a client does that goes for good.
    pub(crate) fn close(&self) {
        self.put(&HubMessage::Close(Close::default()));
        self.carrier.close();
    }

    /// Ends it as a client does whose machine vanishes: its sockets are reset.
    pub(crate) fn cut(&self) {
        self.carrier.cut();
    }

    pub(crate) fn value(&self, payload: &Payload) -> Option<Value> {
        self.protocol.value(payload).ok()
    }

    /// Reads an invocation's target and arguments.
    pub(crate) fn decode(&self, body: &[u8]) -> Option<(ByteString, Vec<Value>)> {
        let message = self.protocol.decode(&Bytes::copy_from_slice(body)).ok()??;
        let HubMessage::Invocation(call) = message else { return None };
        let arguments: Option<Vec<Value>> = call.arguments.iter().map(|argument| self.value(argument)).collect();
        Some((call.target, arguments?))
    }

    /// Serves the connection until it ends.
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

    /// Tells who waits; false if nobody does.
    fn completed(&self, completion: Completion) -> bool {
        let Ok(id) = completion.invocation_id.parse::<u64>() else { return false };
        let mut calls = self.calls.borrow_mut();
        let Some(place) = calls.iter().position(|(waiting, _)| *waiting == id) else { return false };
        // Who waited may have given up, which is counted there.
        drop(calls.swap_remove(place).1.send(completion.outcome));
        true
    }

    fn invocation(&self, method: &str, arguments: &[Value], id: Option<u64>) -> HubMessage {
        // Every JSON value has a form in both protocols.
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
    fn heard(&self) {
        self.connection.heard_us.set(self.connection.clock.now_us());
    }

    fn message(&self, body: &[u8]) -> Result<(), Ended> {
        self.connection.message(self.client, body, self.receiver)
    }
}
