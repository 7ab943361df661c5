#![forbid(unsafe_code)]
//! The tests' own auction: several app servers that take bids on lots and keep them in one file.
//!
//! Hub `/auction`: `Watch(lot)` → its bids so far, and from then on `Placed(bid)` · `Bid(id, lot, amount)` → its number. A bid is
//! stored before it is told and answered, and once only: whoever got no answer repeats it with the same id, as an app does
//! whose bids are worth money.

mod store;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::serve::ListenerExt;
use clap::Parser;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use trunkline::{Context, Hub, HubError, Server, ServerHandle};

use store::{Bid, BidStore};

/// The tests' own auction.
#[derive(Debug, Parser)]
struct Arguments {
    /// Address to listen on.
    #[arg(long)]
    listen: String,
    /// File of the bids, which all app servers share.
    #[arg(long)]
    store: PathBuf,
}

async fn watch(ctx: Context, State(store): State<BidStore>, lot: String) -> Result<Vec<Bid>, HubError> {
    // First the group, then the list: what comes between is in both.
    ctx.join(&lot).await?;
    store.bids_of(lot).await.map_err(failed)
}

async fn bid(
    ctx: Context,
    State(store): State<BidStore>,
    id: String,
    lot: String,
    amount: u64,
) -> Result<u64, HubError> {
    let (bid, is_new) = store.place(Bid { number: 0, id, lot, amount }).await.map_err(failed)?;
    let number = bid.number;
    if is_new {
        ctx.clients().group(bid.lot.clone()).send("Placed", (bid,)).await?;
    }
    Ok(number)
}

fn failed(error: anyhow::Error) -> HubError {
    HubError::new(format!("the store failed: {error:#}"))
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the tests read this line")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let hub = Hub::new("/auction")
        .stateful_reconnect(true)
        .method("Watch", watch)
        .method("Bid", bid)
        .with_state(BidStore::new(arguments.store));
    let server = Server::new().hub(hub);
    let handle = server.handle();
    let app = Router::new().route("/metrics", handle.metrics()).merge(server.into_router()?);
    let listener = TcpListener::bind(&arguments.listen).await.context("can't listen: choose another --listen")?;
    println!("listening on http://{}", listener.local_addr()?);
    let listener = listener.tap_io(|tcp| drop(tcp.set_nodelay(true)));
    let serving = axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>());
    Ok(serving.with_graceful_shutdown(stopped(handle)).await?)
}

async fn stopped(handle: ServerHandle) {
    if let Ok(mut terminate) = signal(SignalKind::terminate()) {
        terminate.recv().await;
    }
    handle.shutdown().await;
}
