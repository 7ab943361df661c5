//! One open client connection: its socket, what waits to be written, the calls that wait for their outcome.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use serde_json::Value;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use trunkline_protocol::hub::{Completion, HubMessage, HubProtocol, Invocation, MessageKind, Outcome, Payload};

use crate::clock::Clock;
use crate::connect::Opened;
use crate::wire::frame::{self, Opcode};
use crate::wire::inbound::{Event, Inbound};

/// All connections read into one buffer: this is for the whole process.
const SCRATCH_BYTES: usize = 256 * 1024;

/// Reads in a row before other connections have their turn.
const READS_MAX: usize = 8;

/// A server that reads so little that this much waits has stopped reading.
const UNSENT_MAX_BYTES: usize = 4 * 1024 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_BYTES]);
}

/// How a connection ended; the text is the cause under which it is counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ended {
    /// By us, as planned.
    #[error("closed by us")]
    Closed,
    #[error("closed by the server: {0}")]
    ByServer(String),
    #[error("socket: {0}")]
    Socket(io::ErrorKind),
    #[error("the server sent what is no SignalR: {0}")]
    Protocol(String),
    #[error("the server was silent for too long")]
    Silent,
    #[error("the server reads too slowly")]
    Slow,
}

/// Who is told of invocations by the server.
pub(crate) trait Receiver {
    /// The body of an invocation has come to a client.
    fn invoked(&self, client: usize, connection: &Rc<Connection>, body: &[u8]);

    /// An answer has come for which no call waits, or waits any more.
    fn answered_again(&self, _client: usize) {}
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    protocol: HubProtocol,
    clock: Clock,
    unsent: RefCell<Vec<u8>>,
    wake: Notify,
    end: RefCell<Option<Ended>>,
    heard_us: Cell<u64>,
    calls: RefCell<Vec<(u64, oneshot::Sender<Outcome>)>>,
    next_call: Cell<u64>,
}

impl Connection {
    /// Of a fresh socket.
    pub(crate) fn new(stream: TcpStream, protocol: HubProtocol, clock: Clock) -> Rc<Self> {
        Rc::new(Self {
            stream,
            protocol,
            clock,
            unsent: RefCell::default(),
            wake: Notify::new(),
            end: RefCell::default(),
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

    /// Tells the server that we live.
    pub(crate) fn ping(&self) {
        self.put(&HubMessage::Ping);
    }

    /// Ends it as a client does that goes for good.
    pub(crate) fn close(&self) {
        self.put(&HubMessage::Close(trunkline_protocol::hub::Close::default()));
        self.put_frame(Opcode::Close, &1000_u16.to_be_bytes());
        self.end_with(Ended::Closed);
    }

    /// Ends it as a client does whose machine vanishes: the socket is reset.
    pub(crate) fn cut(&self) {
        // It fails only where the socket is gone already.
        drop(self.stream.set_zero_linger());
        self.end_with(Ended::Closed);
    }

    /// Ends it with a cause, unless it has one.
    pub(crate) fn end_with(&self, cause: Ended) {
        self.end.borrow_mut().get_or_insert(cause);
        self.wake.notify_one();
    }

    /// When anything came last.
    pub(crate) fn heard_us(&self) -> u64 {
        self.heard_us.get()
    }

    /// Reads a result.
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
    pub(crate) async fn serve(self: &Rc<Self>, client: usize, rest: Vec<u8>, receiver: &dyn Receiver) -> Ended {
        let mut inbound = Inbound::new(self.protocol);
        let begun = self.take(client, &rest, &mut inbound, receiver);
        drop(rest);
        if let Err(ended) = begun {
            return ended;
        }
        loop {
            if let Some(ended) = self.end.borrow().clone() {
                return ended;
            }
            let interest = if self.unsent.borrow().is_empty() {
                Interest::READABLE
            } else {
                Interest::READABLE | Interest::WRITABLE
            };
            tokio::select! {
                ready = self.stream.ready(interest) => if let Err(error) = ready {
                    return Ended::Socket(error.kind());
                },
                () = self.wake.notified() => continue,
            }
            self.flush();
            if let Err(ended) = self.read(client, &mut inbound, receiver) {
                return ended;
            }
        }
    }

    fn read(self: &Rc<Self>, client: usize, inbound: &mut Inbound, receiver: &dyn Receiver) -> Result<(), Ended> {
        SCRATCH.with_borrow_mut(|scratch| {
            for _ in 0..READS_MAX {
                match self.stream.try_read(scratch) {
                    Ok(0) => return Err(Ended::ByServer("without a word".into())),
                    Ok(count) => {
                        self.heard_us.set(self.clock.now_us());
                        let bytes = scratch.get(..count).unwrap_or_default();
                        self.take(client, bytes, inbound, receiver)?;
                        if count < SCRATCH_BYTES {
                            return Ok(());
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(Ended::Socket(error.kind())),
                }
            }
            Ok(())
        })
    }

    fn take(
        self: &Rc<Self>,
        client: usize,
        bytes: &[u8],
        inbound: &mut Inbound,
        receiver: &dyn Receiver,
    ) -> Result<(), Ended> {
        let mut ended = None;
        let taken = inbound.take(bytes, |event| {
            let result = match event {
                Event::Message(body) => self.message(client, body, receiver),
                Event::Ping(payload) => {
                    self.put_frame(Opcode::Pong, payload);
                    Ok(())
                }
                Event::Close => Err(Ended::ByServer("WebSocket close".into())),
            };
            if let Err(cause) = result {
                ended.get_or_insert(cause);
            }
        });
        match (ended, taken) {
            (Some(ended), _) => Err(ended),
            (None, Err(error)) => Err(Ended::Protocol(error.to_string())),
            (None, Ok(())) => Ok(()),
        }
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
        let opcode = match self.protocol {
            HubProtocol::Json => Opcode::Text,
            HubProtocol::MessagePack => Opcode::Binary,
        };
        self.put_frame(opcode, &bytes);
    }

    fn put_frame(&self, opcode: Opcode, payload: &[u8]) {
        let mut unsent = self.unsent.borrow_mut();
        let was_empty = unsent.is_empty();
        frame::put(opcode, payload, &mut unsent);
        let is_slow = unsent.len() > UNSENT_MAX_BYTES;
        drop(unsent);
        if was_empty {
            self.flush();
        }
        if is_slow {
            self.end_with(Ended::Slow);
        }
        if !self.unsent.borrow().is_empty() {
            self.wake.notify_one();
        }
    }

    /// Writes what the socket takes. Errors are left to the reading half, which meets them too.
    fn flush(&self) {
        let mut unsent = self.unsent.borrow_mut();
        while !unsent.is_empty() {
            match self.stream.try_write(&unsent) {
                Ok(count) => drop(unsent.drain(..count)),
                Err(_) => return,
            }
        }
        *unsent = Vec::new();
    }
}

/// Makes a connection of what [`connect`](crate::connect::connect) opened.
pub(crate) fn of(opened: Opened, protocol: HubProtocol, clock: Clock) -> (Rc<Connection>, Vec<u8>) {
    (Connection::new(opened.stream, protocol, clock), opened.rest)
}
