//! State of one run: settings, clock, connections, tally.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use tokio::sync::watch;
use trunkline_protocol::hub::Outcome;

use crate::carrier::Carrier;
use crate::cli::RunArguments;
use crate::clock::Clock;
use crate::connect::{How, connect};
use crate::connection::Connection;
use crate::dial::ConnectError;
use crate::stamp::{RunId, Stamps};
use crate::tally::Tally;
use crate::target::Target;
use crate::token::Tokens;

/// Time limit for the answer to a call.
const CALL_PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) arguments: RunArguments,
    pub(crate) targets: Vec<Target>,
    pub(crate) how: How,
    pub(crate) clock: Clock,
    pub(crate) id: RunId,
    pub(crate) stamps: Stamps,
    /// Number of clients that are ready or have failed.
    pub(crate) settled: Cell<usize>,
    /// Whether the run has to end early.
    is_stopped: watch::Sender<bool>,
    tokens: Tokens,
    clients: RefCell<Vec<Option<Rc<Connection>>>>,
    tally: RefCell<Tally>,
}

impl Run {
    pub(crate) fn new(arguments: RunArguments) -> Result<Rc<Self>> {
        let how = How::of(&arguments)?;
        let targets: Result<Vec<_>> =
            arguments.servers.iter().map(|server| Target::parse(server, &arguments.hub)).collect();
        let targets = targets?;
        let id = RunId::fresh();
        let clients = targets.len() * arguments.clients as usize;
        Ok(Rc::new(Self {
            targets,
            how,
            clock: Clock::start(),
            id,
            stamps: Stamps::of(id),
            settled: Cell::new(0),
            is_stopped: watch::Sender::new(false),
            tokens: Tokens::of(&arguments),
            clients: RefCell::new(vec![None; clients]),
            tally: RefCell::default(),
            arguments,
        }))
    }

    pub(crate) fn stop(&self) {
        self.is_stopped.send_replace(true);
    }

    /// Runs this until the run ends early. Returns whether it was completed.
    pub(crate) async fn unless_stopped(&self, work: impl Future<Output = ()>) -> bool {
        let mut is_stopped = self.is_stopped.subscribe();
        tokio::select! {
            biased;
            _ = is_stopped.wait_for(|is_stopped| *is_stopped) => false,
            () = work => true,
        }
    }

    pub(crate) fn client_count(&self) -> usize {
        self.clients.borrow().len()
    }

    /// Number of a client among its server's clients.
    pub(crate) fn index(&self, client: usize) -> usize {
        client / self.targets.len().max(1)
    }

    pub(crate) fn connection(&self, client: usize) -> Option<Rc<Connection>> {
        self.clients.borrow().get(client).cloned().flatten()
    }

    pub(crate) fn connected(&self) -> Vec<(usize, Rc<Connection>)> {
        let clients = self.clients.borrow();
        clients.iter().enumerate().filter_map(|(client, connection)| Some((client, connection.clone()?))).collect()
    }

    pub(crate) fn set_connection(&self, client: usize, connection: Option<Rc<Connection>>) {
        if let Some(place) = self.clients.borrow_mut().get_mut(client) {
            *place = connection;
        }
    }

    pub(crate) fn tally(&self) -> RefMut<'_, Tally> {
        self.tally.borrow_mut()
    }

    pub(crate) fn counted(&self) -> Ref<'_, Tally> {
        self.tally.borrow()
    }

    pub(crate) async fn connect(&self, client: usize) -> Option<Rc<Connection>> {
        self.tally().attempted += 1;
        let begun_us = self.clock.now_us();
        match self.open(client).await {
            Ok(carrier) => {
                let now_us = self.clock.now_us();
                self.tally().opened(now_us, now_us - begun_us);
                Some(Connection::new(carrier, self.how.protocol, self.clock))
            }
            Err(error) => {
                self.tally().failed(error.to_string());
                None
            }
        }
    }

    async fn open(&self, client: usize) -> Result<Carrier, ConnectError> {
        let target = self.targets.get(client % self.targets.len().max(1)).ok_or(ConnectError::Closed)?;
        let token = self.tokens.of_client(client);
        let source = target.source(self.index(client) * self.how.transport.sockets());
        connect(target, source, token.as_deref(), &self.how).await
    }

    /// Calls a method and waits for its result. A failure is counted and returns `None`.
    pub(crate) async fn call(&self, connection: &Connection, method: &str, arguments: &[Value]) -> Option<Value> {
        let outcome = tokio::time::timeout(CALL_PATIENCE, connection.call(method, arguments)).await;
        let cause = match outcome {
            Ok(Ok(Outcome::Void)) => return Some(Value::Null),
            Ok(Ok(Outcome::Value(result))) => return Some(connection.value(&result).unwrap_or(Value::Null)),
            Ok(Ok(Outcome::Error(error))) => format!("{method}: {error}"),
            Ok(Err(_)) => format!("{method}: the connection ended"),
            Err(_) => format!("{method}: no answer"),
        };
        self.tally().error(cause);
        None
    }
}
