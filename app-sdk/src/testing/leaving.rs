//! Reassignment of a test client to another app server of the fleet, as a proxy does it.

use bytestring::ByteString;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::timeout;
use trunkline_protocol::service::{CloseConnection, OpenConnection, ServiceMessage, header_of};
use trunkline_protocol::wire::{ITEMS_HEADER, MIGRATE_FROM_HEADER, MIGRATE_TO_HEADER};

use super::call_error::RehomeError;
use super::client_wire::ClientWire;
use super::fake_proxy::TestHub;
use super::test_client::TestClient;
use crate::hub_core::TakenOver;

/// Error of calls that ran when their app server crashed, identical to the text of proxies.
const CRASHED: &str =
    "The app server that ran this call is gone. Whether it was carried out is not known; it is not run again.";

/// How an app server loses a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// Graceful stop: the client's calls finish first, then `on_leaving` runs, and its result is handed over.
    Gracefully,
    /// Crash: no further code runs for this client, and its calls fail.
    Crash,
}

/// Reassigns a client to the next app server of the fleet. Returns when its `on_rehomed` has run.
pub(super) async fn reassign(hub: &TestHub, client: &TestClient, leaving: Leaving) -> Result<(), RehomeError> {
    let wire = &client.wire;
    let closed = || RehomeError::Closed(wire.inbox.close_error());
    let from = wire.fake_proxy.home(&wire.id).ok_or_else(closed)?;
    let to = (from + 1) % hub.servers.len().max(1);
    let (Some(old), Some(new)) = (hub.servers.get(from), hub.servers.get(to)) else { return Err(RehomeError::NoOther) };
    if from == to {
        return Err(RehomeError::NoOther);
    }
    let items = match leaving {
        Leaving::Gracefully => ask_for(wire, from).await?,
        Leaving::Crash => {
            old.dispatcher.forget(&wire.id);
            None
        }
    };
    wire.fake_proxy.set_home(&wire.id, to);
    if leaving == Leaving::Crash {
        wire.inbox.fail_pending(CRASHED);
    }
    let open = opening(&client.open, &old.instance, items);
    let taken_over = new.dispatcher.core.taken_over.observe();
    wire.open_at(to, open).await;
    match timeout(wire.timeout, is_kept(taken_over, &wire.id)).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(RehomeError::Closed(wire.inbox.closed().await)),
        Err(_) => Err(RehomeError::Timeout),
    }
}

async fn is_kept(mut taken_over: broadcast::Receiver<TakenOver>, connection_id: &str) -> bool {
    loop {
        match taken_over.recv().await {
            Ok((id, is_kept)) if *id == *connection_id => return is_kept,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return false,
        }
    }
}

/// Requests a client from an app server. Returns the result of `on_leaving`.
async fn ask_for(wire: &ClientWire, from: usize) -> Result<Option<ByteString>, RehomeError> {
    let given = wire.fake_proxy.expect_reassignment(&wire.id);
    let headers = vec![header_of(MIGRATE_TO_HEADER, "")];
    let close = CloseConnection { connection_id: wire.id.clone(), headers, ..CloseConnection::default() };
    wire.fake_proxy.send(from, ServiceMessage::CloseConnection(close)).await;
    let given = timeout(wire.timeout, given).await.map_err(|_| RehomeError::Timeout)?;
    let close = given.map_err(|_| RehomeError::Closed(wire.inbox.close_error()))?;
    Ok(close.reason().items.cloned())
}

fn opening(open: &OpenConnection, from: &str, items: Option<ByteString>) -> OpenConnection {
    let mut open = open.clone();
    open.headers.push(header_of(MIGRATE_FROM_HEADER, from));
    open.headers.extend(items.map(|items| header_of(ITEMS_HEADER, items)));
    open
}
