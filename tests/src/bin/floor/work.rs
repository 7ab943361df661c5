//! What is measured: which work, its bytes, and what a unit of it is.

use clap::ValueEnum;
use serde::Serialize;
use trunkline_tests::bench::{connect, frame};

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Work {
    /// One message to all clients
    Broadcast,
    /// A call of each client, again and again: client → proxy → link → hub method → back
    Echo,
    /// New clients: upgrade, hub handshake, answer; and they leave
    Connect,
}

impl Work {
    /// As it is typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Work::Broadcast => "broadcast",
            Work::Echo => "echo",
            Work::Connect => "connect",
        }
    }

    /// What is counted.
    pub(crate) fn units(self) -> &'static str {
        match self {
            Work::Broadcast => "deliveries",
            Work::Echo => "round trips",
            Work::Connect => "connects",
        }
    }
}

/// What one client says, and what it is to be answered. The floor answers just so, whatever is said.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) asked: Vec<u8>,
    pub(crate) answered: Vec<u8>,
}

/// A call of the hub method `Echo`.
pub(crate) fn echo(payload: usize) -> Exchange {
    let text = "x".repeat(payload);
    let call = format!("{{\"type\":1,\"invocationId\":\"1\",\"target\":\"Echo\",\"arguments\":[\"{text}\"]}}\x1e");
    let completion = format!("{{\"type\":3,\"invocationId\":\"1\",\"result\":\"{text}\"}}\x1e");
    Exchange { asked: frame::from_client(call.as_bytes()), answered: frame::from_server(completion.as_bytes()) }
}

/// The upgrade, and the hub handshake. Of the first answer only its length counts: it names a node.
pub(crate) fn connect() -> [Exchange; 2] {
    let upgrade = Exchange {
        asked: connect::upgrade_request("localhost", "/bench", "").into_bytes(),
        answered: b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Accept: xqBt3ImNzJbYqRINxEFlkg==\r\n\r\n"
            .to_vec(),
    };
    let handshake = Exchange {
        asked: frame::from_client(connect::HANDSHAKE),
        answered: frame::from_server(connect::HANDSHAKE_ANSWER),
    };
    [upgrade, handshake]
}
