#![forbid(unsafe_code)]
//! App servers of the tests, in one program, which is linked once.

mod auction;
mod calls;
mod ends;
mod members;
mod moves;
mod plain;
mod records;
mod roles;
mod sends;
mod web;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::net::TcpListener;
use trunkline_tests::harness::command::print_line;

#[derive(Debug, Parser)]
struct Arguments {
    /// Address to listen on.
    #[arg(long)]
    listen: String,
    #[command(subcommand)]
    app: App,
}

#[derive(Debug, Subcommand)]
enum App {
    Auction(auction::AuctionSettings),
    Calls(calls::CallsSettings),
    Ends,
    Members,
    Moves(moves::MovesSettings),
    Records,
    Roles(roles::RolesSettings),
    Sends,
    Web(web::WebSettings),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let listener = TcpListener::bind(&arguments.listen).await.context("can't listen: choose another --listen")?;
    print_line(&format!("listening on http://{}", listener.local_addr()?));
    match arguments.app {
        App::Auction(settings) => auction::serve(listener, settings).await,
        App::Calls(settings) => calls::serve(listener, settings).await,
        App::Ends => ends::serve(listener).await,
        App::Members => members::serve(listener).await,
        App::Moves(settings) => moves::serve(listener, settings).await,
        App::Records => records::serve(listener).await,
        App::Roles(settings) => roles::serve(listener, settings).await,
        App::Sends => sends::serve(listener).await,
        App::Web(settings) => web::serve(listener, settings).await,
    }
}
