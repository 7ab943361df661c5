//! Plain WebSocket fan-out with axum alone.
//!
//! Texts starting with `b` go to everyone, texts starting with `e` back to the sender.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::thread;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::get;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, oneshot};
use trunkline_bench::child::READY;
use trunkline_tests::harness::command::print_line;

/// Maximum number of queued messages per client; slower clients are closed.
const WAITING_MAX: usize = 1024;

/// Arguments of the fan-out.
#[derive(Debug, clap::Args)]
pub(crate) struct FanOutArguments {
    /// Address to listen on
    #[arg(long)]
    listen: SocketAddr,
}

/// Serves until its input ends, so that it never outlives its parent process.
#[tokio::main]
pub(crate) async fn run(arguments: &FanOutArguments) -> Result<()> {
    let listen = arguments.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
    let listener = listener.tap_io(|tcp| {
        // Disables Nagle's algorithm for small messages. A failure only makes the socket slower.
        drop(tcp.set_nodelay(true));
    });
    let (end, ended) = oneshot::channel::<()>();
    thread::spawn(move || {
        drop(io::stdin().read_to_end(&mut Vec::new()));
        drop(end);
    });
    let app = Router::new().route("/", get(upgrade)).with_state(broadcast::Sender::new(WAITING_MAX));
    print_line(READY);
    tokio::select! {
        served = async { axum::serve(listener, app).await } => Ok(served?),
        _ = ended => Ok(()),
    }
}

async fn upgrade(State(everyone): State<broadcast::Sender<Utf8Bytes>>, upgrade: WebSocketUpgrade) -> Response {
    // Subscribes before the response: the client may expect all messages sent after it.
    let messages = everyone.subscribe();
    upgrade.on_upgrade(async move |socket| {
        // A client that leaves notices first.
        drop(serve(socket, messages, everyone).await);
    })
}

async fn serve(
    mut socket: WebSocket,
    mut messages: broadcast::Receiver<Utf8Bytes>,
    everyone: broadcast::Sender<Utf8Bytes>,
) -> Result<()> {
    loop {
        tokio::select! {
            heard = socket.recv() => {
                let Some(message) = heard.transpose()? else { return Ok(()) };
                let Message::Text(text) = message else { continue };
                match text.split_at_checked(1) {
                    Some(("b", text)) => drop(everyone.send(text.into())),
                    Some(("e", text)) => socket.send(Message::text(text)).await?,
                    _ => {}
                }
            }
            message = messages.recv() => socket.send(Message::Text(message?)).await?,
        }
    }
}
