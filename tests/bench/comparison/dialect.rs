//! Client protocols of the peers as bytes, with texts of equal length.

use anyhow::{Result, bail, ensure};
use trunkline_generator::callers::Call;
use trunkline_generator::frame::{self, Frame, Opcode};
use trunkline_generator::frame_protocol::{FrameProtocol, Heard, Hub};
use trunkline_generator::upgrade;
use trunkline_generator::welcome::{HubWelcome, Next, Welcome};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// SignalR's JSON hub protocol, without negotiation.
    SignalR,
    /// Plain texts: `b` and a text for everyone, or `e` and a text to echo.
    Plain,
    /// Socket.IO 4 over a WebSocket from the start.
    SocketIo,
    /// Centrifuge's JSON: clients are subscribed to one channel on connecting, and publish there.
    Centrifuge,
    /// nchan: subscribers use a WebSocket, a publisher posts, and there are no answers.
    Nchan,
}

/// Packet prefixes of Engine.IO, and of Socket.IO inside them.
mod packet {
    /// Engine.IO: the session is open.
    pub(super) const OPEN: &[u8] = b"0{";
    /// Engine.IO: ping to be answered.
    pub(super) const PING: &[u8] = b"2";
    /// Engine.IO: answer to a ping.
    pub(super) const PONG: &[u8] = b"3";
    /// Socket.IO: requests the main namespace.
    pub(super) const CONNECT: &[u8] = b"40";
    /// Socket.IO: confirms the connection.
    pub(super) const CONNECTED: &[u8] = b"40{";
}

/// Centrifuge's messages that are equal for all clients.
mod command {
    /// Request to open a session.
    pub(super) const CONNECT: &[u8] = br#"{"id":1,"connect":{}}"#;
    /// Prefix of the answer that accepts a client.
    pub(super) const CONNECTED: &[u8] = br#"{"id":1,"connect":{"#;
    /// Ping and its answer.
    pub(super) const PING: &[u8] = b"{}";
}

impl Dialect {
    pub(crate) fn target(self) -> &'static str {
        match self {
            Self::SignalR => "/bench",
            Self::Plain => "/",
            Self::SocketIo => "/socket.io/?EIO=4&transport=websocket",
            Self::Centrifuge => "/connection/websocket",
            Self::Nchan => "/sub",
        }
    }

    /// Encodes a request to send this text to everyone.
    pub(crate) fn publish(self, text: &str) -> Vec<u8> {
        let message = match self {
            Self::SignalR => format!("{{\"type\":1,\"target\":\"Broadcast\",\"arguments\":[\"{text}\"]}}\x1e"),
            Self::Plain => format!("b{text}"),
            Self::SocketIo => format!("42[\"broadcast\",\"{text}\"]"),
            Self::Centrifuge => format!(r#"{{"send":{{"data":"{text}"}}}}"#),
            Self::Nchan => return post(text),
        };
        frame::from_client(message.as_bytes())
    }

    /// Encodes the message that everyone then receives.
    pub(crate) fn published(self, text: &str) -> Vec<u8> {
        match self {
            Self::SignalR => format!("{{\"type\":1,\"target\":\"Message\",\"arguments\":[\"{text}\"]}}\x1e"),
            Self::Plain | Self::Nchan => text.to_owned(),
            Self::SocketIo => format!("42[\"message\",\"{text}\"]"),
            Self::Centrifuge => format!(r#"{{"push":{{"channel":"all","pub":{{"data":"{text}"}}}}}}"#),
        }
        .into_bytes()
    }

    /// Call that echoes this text; `None` if there are no answers.
    pub(crate) fn echo(self, text: &str) -> Option<Call> {
        let (asked, answered) = match self {
            Self::SignalR => (
                format!("{{\"type\":1,\"invocationId\":\"1\",\"target\":\"Echo\",\"arguments\":[\"{text}\"]}}\x1e"),
                format!("{{\"type\":3,\"invocationId\":\"1\",\"result\":\"{text}\"}}\x1e"),
            ),
            Self::Plain => (format!("e{text}"), text.to_owned()),
            Self::SocketIo => (format!("421[\"echo\",\"{text}\"]"), format!("431[\"{text}\"]")),
            Self::Centrifuge => (
                format!(r#"{{"id":2,"rpc":{{"method":"echo","data":"{text}"}}}}"#),
                format!(r#"{{"id":2,"rpc":{{"data":"{text}"}}}}"#),
            ),
            Self::Nchan => return None,
        };
        Some(Call { asked: frame::from_client(asked.as_bytes()), answered: answered.into_bytes() })
    }

    /// Whether a separate connection publishes, and clients may not.
    pub(crate) fn publishes_apart(self) -> bool {
        self == Self::Nchan
    }
}

/// Request of nchan's publisher.
fn post(text: &str) -> Vec<u8> {
    let length = text.len();
    let head = "POST /pub HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n";
    format!("{head}Content-Length: {length}\r\n\r\n{text}").into_bytes()
}

/// Opening of a connection after its upgrade, in each protocol.
///
/// ```text
///  Upgrading ──101──► in                                     plain, nchan
///      ├──101, handshake sent──► Joining ──{}──► in          SignalR
///      ├──101, connect sent──► Joining ──connect──► in       Centrifuge
///      └──101──► Opening ──0{…}, 40 sent──► Joining ──40{…}──► in     Socket.IO
/// ```
#[derive(Debug)]
pub(crate) enum DialectWelcome {
    Hub(HubWelcome),
    Plain,
    SocketIo(SocketIoStep),
    Centrifuge { is_upgraded: bool },
}

/// Next step of Socket.IO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SocketIoStep {
    Upgrading,
    Opening,
    Joining,
}

impl DialectWelcome {
    pub(crate) fn new(dialect: Dialect) -> Self {
        match dialect {
            Dialect::SignalR => Self::Hub(HubWelcome::new(Hub::Json)),
            Dialect::Plain | Dialect::Nchan => Self::Plain,
            Dialect::SocketIo => Self::SocketIo(SocketIoStep::Upgrading),
            Dialect::Centrifuge => Self::Centrifuge { is_upgraded: false },
        }
    }
}

impl Welcome for DialectWelcome {
    fn step(&mut self, heard: &mut Vec<u8>) -> Result<Next> {
        match self {
            Self::Hub(hub) => hub.step(heard),
            Self::Plain => {
                let Some(end) = upgrade::accepted(heard)? else { return Ok(Next::Wait) };
                heard.drain(..end);
                Ok(Next::In)
            }
            Self::SocketIo(step) => step.take(heard),
            Self::Centrifuge { is_upgraded: is_upgraded @ false } => {
                let Some(end) = upgrade::accepted(heard)? else { return Ok(Next::Wait) };
                heard.drain(..end);
                *is_upgraded = true;
                Ok(Next::Say(frame::from_client(command::CONNECT)))
            }
            Self::Centrifuge { is_upgraded: true } => {
                let Some(frame) = frame::split(heard)? else { return Ok(Next::Wait) };
                ensure!(
                    frame.payload.starts_with(command::CONNECTED),
                    "{} is no welcome",
                    frame.payload.escape_ascii()
                );
                let length = heard.len() - frame.rest.len();
                heard.drain(..length);
                Ok(Next::In)
            }
        }
    }
}

impl SocketIoStep {
    fn take(&mut self, heard: &mut Vec<u8>) -> Result<Next> {
        if *self == Self::Upgrading {
            let Some(end) = upgrade::accepted(heard)? else { return Ok(Next::Wait) };
            heard.drain(..end);
            // Nothing is sent here: the server opens the session, often within these bytes.
            *self = Self::Opening;
        }
        let Some(frame) = frame::split(heard)? else { return Ok(Next::Wait) };
        let is_text = frame.opcode == Opcode::Text;
        let next = match self {
            Self::Opening if is_text && frame.payload.starts_with(packet::OPEN) => {
                Next::Say(frame::from_client(packet::CONNECT))
            }
            Self::Joining if is_text && frame.payload.starts_with(packet::CONNECTED) => Next::In,
            _ => bail!("{:?} is no welcome", String::from_utf8_lossy(frame.payload)),
        };
        let length = heard.len() - frame.rest.len();
        heard.drain(..length);
        *self = Self::Joining;
        Ok(next)
    }
}

impl FrameProtocol for Dialect {
    fn receive<'a>(self, frame: &Frame<'a>) -> Result<Heard<'a>> {
        if self == Self::SignalR {
            return Hub::Json.receive(frame);
        }
        ensure!(frame.opcode == Opcode::Text && frame.is_final, "a frame {:?} came where a text was due", frame.opcode);
        Ok(match self {
            Self::SocketIo if frame.payload == packet::PING => Heard::Question(packet::PONG),
            Self::Centrifuge if frame.payload == command::PING => Heard::Question(command::PING),
            _ => Heard::Message(frame.payload),
        })
    }
}

#[cfg(test)]
mod tests {
    use trunkline_generator::frame_protocol::PING;

    use super::*;

    const TEXT: &str = "hello";

    /// Recorded bytes from a server of each kind.
    const UPGRADED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                              Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    const OPENED: &[u8] = b"\x81k0{\"sid\":\"cNgjvV-Dui22zS02AAAA\",\"upgrades\":[],\"pingInterval\":25000,\
                            \"pingTimeout\":20000,\"maxPayload\":1000000}";
    const CONNECTED: &[u8] = b"\x81\x6c{\"id\":1,\"connect\":{\"client\":\"6fe45ced-c7d4-466c-92c9-5ac682d752a4\",\
                               \"subs\":{\"all\":{}},\"ping\":25,\"pong\":true}}";
    const JOINED: &[u8] = b"\x81 40{\"sid\":\"Eo4U-StND6UdqEkNAAAA\"}";

    /// All steps of a client that receives these bytes, split at every position.
    fn steps(dialect: Dialect, parts: &[&[u8]]) -> Vec<Next> {
        let bytes = parts.concat();
        let at = |cut: usize| {
            let (mut welcome, mut heard, mut steps) = (DialectWelcome::new(dialect), Vec::new(), Vec::new());
            for part in [&bytes[..cut], &bytes[cut..]] {
                heard.extend_from_slice(part);
                loop {
                    match welcome.step(&mut heard).unwrap() {
                        Next::Wait => break,
                        Next::In => {
                            steps.push(Next::In);
                            break;
                        }
                        print_line @ Next::Say(_) => steps.push(print_line),
                    }
                }
            }
            steps
        };
        let whole = at(bytes.len());
        for cut in 0..bytes.len() {
            assert_eq!(at(cut), whole, "cut at {cut}");
        }
        whole
    }

    #[test]
    fn a_client_is_in_when_its_own_protocol_says_so() {
        let shake = Next::Say(frame::from_client(b"{\"protocol\":\"json\",\"version\":1}\x1e"));
        assert_eq!(steps(Dialect::SignalR, &[UPGRADED, b"\x81\x03{}\x1e"]), [shake, Next::In]);
        let join = Next::Say(frame::from_client(b"40"));
        assert_eq!(steps(Dialect::SocketIo, &[UPGRADED, OPENED, JOINED]), [join, Next::In]);
        let connect = Next::Say(frame::from_client(b"{\"id\":1,\"connect\":{}}"));
        assert_eq!(steps(Dialect::Centrifuge, &[UPGRADED, CONNECTED]), [connect, Next::In]);
        assert_eq!(steps(Dialect::Plain, &[UPGRADED]), [Next::In]);
        assert_eq!(steps(Dialect::Nchan, &[UPGRADED]), [Next::In]);
    }

    #[test]
    fn an_unexpected_answer_is_an_error() {
        let refused = |dialect, parts: &[&[u8]]| {
            let (mut welcome, mut heard) = (DialectWelcome::new(dialect), parts.concat());
            let mut all = std::iter::from_fn(|| Some(welcome.step(&mut heard)));
            all.find(|step| !matches!(step, Ok(Next::Say(_)))).unwrap().is_err()
        };
        assert!(refused(Dialect::Plain, &[b"HTTP/1.1 404 Not Found\r\n\r\n"]));
        assert!(refused(Dialect::SignalR, &[UPGRADED, b"\x81\x0e{\"error\":\"no\"}\x1e"]));
        assert!(refused(Dialect::SocketIo, &[UPGRADED, OPENED, b"\x81\x1544{\"message\":\"no way\"}"]));
        assert!(refused(Dialect::SocketIo, &[UPGRADED, JOINED]));
        assert!(refused(Dialect::Centrifuge, &[UPGRADED, JOINED]));
    }

    #[test]
    fn what_recorded_servers_send_is_what_is_due() {
        let message = |dialect: Dialect, frame: &'static [u8]| match dialect
            .receive(&frame::split(frame).unwrap().unwrap())
            .unwrap()
        {
            Heard::Message(message) => message.to_vec(),
            other => panic!("{other:?}"),
        };
        let Call { answered, .. } = Dialect::SocketIo.echo("hi").unwrap();
        assert_eq!(message(Dialect::SocketIo, b"\x81\x09431[\"hi\"]"), answered);
        assert_eq!(message(Dialect::SocketIo, b"\x81\x1242[\"message\",\"hi\"]"), Dialect::SocketIo.published("hi"));
        let Call { answered, .. } = Dialect::Centrifuge.echo("hi").unwrap();
        assert_eq!(message(Dialect::Centrifuge, b"\x81\x1c{\"id\":2,\"rpc\":{\"data\":\"hi\"}}"), answered);
        let pushed = b"\x81\x31{\"push\":{\"channel\":\"all\",\"pub\":{\"data\":\"hello\"}}}";
        assert_eq!(message(Dialect::Centrifuge, pushed), Dialect::Centrifuge.published(TEXT));
        assert_eq!(message(Dialect::Nchan, b"\x81\x05hello"), Dialect::Nchan.published(TEXT));
        assert_eq!(message(Dialect::Plain, b"\x81\x05hello"), Dialect::Plain.echo(TEXT).unwrap().answered);
        let signalr = b"\x81\x34{\"type\":1,\"target\":\"Message\",\"arguments\":[\"hello\"]}\x1e";
        assert_eq!(message(Dialect::SignalR, signalr), Dialect::SignalR.published(TEXT));
    }

    #[test]
    fn a_ping_is_no_message_and_is_answered_where_that_is_asked_for() {
        let text = |payload| Frame { is_final: true, opcode: Opcode::Text, payload, rest: &[] };
        assert_eq!(Dialect::SignalR.receive(&text(PING)).unwrap(), Heard::KeepAlive);
        assert_eq!(Dialect::SocketIo.receive(&text(b"2")).unwrap(), Heard::Question(b"3"));
        assert_eq!(Dialect::Centrifuge.receive(&text(b"{}")).unwrap(), Heard::Question(b"{}"));
        assert_eq!(Dialect::Plain.receive(&text(b"2")).unwrap(), Heard::Message(b"2"));
        assert!(Dialect::Plain.receive(&Frame { opcode: Opcode::Close, ..text(b"") }).is_err());
    }

    #[test]
    fn nchan_is_published_to_by_a_request_and_answers_no_client() {
        let request = String::from_utf8(Dialect::Nchan.publish(TEXT)).unwrap();
        assert!(request.starts_with("POST /pub HTTP/1.1\r\n") && request.ends_with("Content-Length: 5\r\n\r\nhello"));
        assert!(Dialect::Nchan.echo(TEXT).is_none());
    }
}
