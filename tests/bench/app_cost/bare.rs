//! Bare handler: SignalR's echo with axum alone, for JSON clients without negotiation.
//!
//! Accepts any handshake; each further message is an invocation, and its first argument is the result.

use std::borrow::Cow;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::thread;

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::get;
use axum::serve::ListenerExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use trunkline_bench::child::READY;
use trunkline_tests::harness::command::print_line;

const RECORD_SEPARATOR: char = '\u{1e}';
const INVOCATION: u8 = 1;
const COMPLETION: u8 = 3;
const HANDSHAKE_ANSWER: &str = "{}\u{1e}";

/// Arguments of the bare handler.
#[derive(Debug, clap::Args)]
pub(crate) struct BareArguments {
    /// Address to listen on
    #[arg(long)]
    listen: SocketAddr,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Invocation<'a> {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(borrow)]
    invocation_id: Cow<'a, str>,
    #[serde(borrow)]
    target: Cow<'a, str>,
    arguments: Vec<Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Completion<'a> {
    #[serde(rename = "type")]
    kind: u8,
    invocation_id: &'a str,
    result: Value,
}

/// Serves until its input ends, so that it never outlives its parent process.
///
/// Uses the runtime of `#[tokio::main]`, like the app server it is compared with.
#[tokio::main]
pub(crate) async fn run(arguments: &BareArguments) -> Result<()> {
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
    print_line(READY);
    let app = Router::new().route("/bench", get(upgrade));
    tokio::select! {
        served = async { axum::serve(listener, app).await } => Ok(served?),
        _ = ended => Ok(()),
    }
}

async fn upgrade(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async |socket| {
        // The client notices and reports the end.
        drop(serve(socket).await);
    })
}

async fn serve(mut socket: WebSocket) -> Result<()> {
    let mut is_greeted = false;
    while let Some(message) = socket.recv().await {
        let Message::Text(text) = message? else { continue };
        for record in text.as_str().split_terminator(RECORD_SEPARATOR) {
            let answer = if is_greeted { answer(record)? } else { HANDSHAKE_ANSWER.to_owned() };
            is_greeted = true;
            socket.send(Message::text(answer)).await?;
        }
    }
    Ok(())
}

fn answer(record: &str) -> Result<String> {
    let Invocation { kind, invocation_id, target, arguments } = serde_json::from_str(record)?;
    let Some(result) = arguments.into_iter().next() else { bail!("an echo of nothing") };
    if kind != INVOCATION || target != "Echo" {
        bail!("no call of Echo");
    }
    let completion = Completion { kind: COMPLETION, invocation_id: &invocation_id, result };
    let mut text = serde_json::to_string(&completion)?;
    text.push(RECORD_SEPARATOR);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use trunkline_bench::echo;

    #[test]
    fn the_answer_is_the_one_that_is_due() {
        let call = String::from_utf8(echo::call(3, 5, 24)).unwrap();
        let record = call.strip_suffix(RECORD_SEPARATOR).unwrap();
        assert_eq!(answer(record).unwrap().as_bytes(), echo::answer(3, 5, 24));
        assert!(answer("{}").is_err());
        assert!(answer("{\"type\":1,\"invocationId\":\"1\",\"target\":\"Other\",\"arguments\":[1]}").is_err());
    }
}
