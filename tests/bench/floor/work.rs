//! Measured work: its kind, its bytes, and its unit.

use clap::ValueEnum;
use serde::Serialize;
use trunkline_generator::callers::Call;
use trunkline_generator::frame_protocol::{HANDSHAKE, HANDSHAKE_ANSWER, PING};
use trunkline_generator::{frame, upgrade};

/// Kind of measured work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Work {
    /// One message to all clients
    Broadcast,
    /// Repeated calls by each client: client → proxy → link → hub method → back
    Echo,
    /// Only keep-alives of both ends
    Idle,
    /// New clients: upgrade, hub handshake, answer, disconnect
    Connect,
    /// New clients that stay, at a server without earlier clients
    Storm,
}

impl Work {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Work::Broadcast => "broadcast",
            Work::Echo => "echo",
            Work::Idle => "idle",
            Work::Connect => "connect",
            Work::Storm => "storm",
        }
    }

    pub(crate) fn units(self) -> &'static str {
        match self {
            Work::Broadcast => "deliveries",
            Work::Echo => "round trips",
            Work::Idle => "keep-alives",
            Work::Connect | Work::Storm => "connects",
        }
    }
}

/// Request of a client with its answer, which the floor gives for any request.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) asked: Vec<u8>,
    pub(crate) answered: Vec<u8>,
}

/// Keep-alive of a client, which has no answer.
pub(crate) fn keep_alive() -> Exchange {
    Exchange { asked: frame::from_client(PING), answered: Vec::new() }
}

/// Call of the hub method `Echo`, as answered by the floor.
pub(crate) fn echo(payload: usize) -> Exchange {
    let Call { asked, answered } = echo_call(payload);
    Exchange { asked, answered: frame::from_server(&answered) }
}

pub(crate) fn echo_call(payload: usize) -> Call {
    let text = "x".repeat(payload);
    let call = format!("{{\"type\":1,\"invocationId\":\"1\",\"target\":\"Echo\",\"arguments\":[\"{text}\"]}}\x1e");
    let completion = format!("{{\"type\":3,\"invocationId\":\"1\",\"result\":\"{text}\"}}\x1e");
    Call { asked: frame::from_client(call.as_bytes()), answered: completion.into_bytes() }
}

/// Upgrade and hub handshake. Only the length of the first answer matters, because it contains a node's name.
pub(crate) fn connect() -> [Exchange; 2] {
    let upgrade = Exchange {
        asked: upgrade_request().into_bytes(),
        answered: b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Accept: xqBt3ImNzJbYqRINxEFlkg==\r\n\r\n"
            .to_vec(),
    };
    let handshake = Exchange { asked: frame::from_client(HANDSHAKE), answered: frame::from_server(HANDSHAKE_ANSWER) };
    [upgrade, handshake]
}

pub(crate) fn upgrade_request() -> String {
    upgrade::request("localhost", "/bench", "")
}
