//! What a client's bytes are: transport frames where there are any, then hub messages, of which only the kind is read.
//!
//! Pure: bytes in, [`Upward`] out. Pings are swallowed, a close ends it, all else goes up unread, so that new
//! kinds of messages need no new proxy. Whole messages that stand together go up together.

use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{FramingError, HubProtocol, MessageKind, next_frame};
use trunkline_protocol::manifest::Transport;
use trunkline_protocol::service::RawKind;

use crate::transport::websocket::{
    CLOSE_NOT_UTF8, CLOSE_PROTOCOL_ERROR, CLOSE_TOO_LARGE, Decoder, Event, PiecePosition, ProtocolError,
};

/// What a client's bytes turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Upward<'a> {
    /// Whole hub messages for the app server.
    Messages {
        /// Their bytes, framing included.
        bytes: &'a [u8],
        /// How many.
        count: u64,
    },
    /// Among the messages that follow is a call that is to be answered.
    Call {
        /// Its invocation id.
        id: &'a str,
    },
    /// A message of a raw connection.
    Raw {
        /// Its bytes.
        bytes: &'a [u8],
        /// What they are.
        kind: RawKind,
    },
    /// A hub ping: the client lives, and its time-out counts from now on.
    Ping,
    /// A hub close: the client leaves.
    Close,
    /// A ping of the transport, to be answered with the same bytes.
    TransportPing(Vec<u8>),
    /// The end of the transport.
    TransportClose,
}

/// Why a client can't be read any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InboundError {
    #[error("WebSocket: {0}")]
    Transport(#[from] ProtocolError),
    /// Text of the official server.
    #[error("The maximum message size of {0}B was exceeded. The message size can be configured in AddHubOptions.")]
    TooLarge(usize),
    #[error("{0}")]
    Framing(FramingError),
    #[error(
        "a message is larger than {0} bytes: see RawEndpoint::message_max_bytes, and --message-max-bytes of proxies"
    )]
    RawTooLarge(usize),
    #[error("a text is not UTF-8")]
    NotUtf8,
}

impl InboundError {
    /// What it is in the taxonomy.
    pub(super) fn cause(&self) -> Cause {
        match self {
            Self::Transport(_) => Cause::WebsocketProtocol,
            Self::TooLarge(_) | Self::RawTooLarge(_) => Cause::MessageTooLarge,
            Self::Framing(_) => Cause::HubProtocol,
            Self::NotUtf8 => Cause::TextInvalid,
        }
    }

    /// What a client of a raw endpoint is told.
    pub(super) fn raw_code(&self) -> u16 {
        match self {
            Self::Transport(_) | Self::Framing(_) => CLOSE_PROTOCOL_ERROR,
            Self::TooLarge(_) | Self::RawTooLarge(_) => CLOSE_TOO_LARGE,
            Self::NotUtf8 => CLOSE_NOT_UTF8,
        }
    }
}

/// What is kept between two reads: little, unless a frame or a message is under way.
#[derive(Debug)]
pub(super) struct Inbound {
    /// `None` where bytes come as they are.
    decoder: Option<Decoder>,
    /// The beginning of a message whose rest has not come.
    partial: Vec<u8>,
}

impl Inbound {
    /// For a client of this transport.
    pub(super) fn new(transport: Transport) -> Self {
        let decoder = (transport == Transport::WebSockets).then(Decoder::default);
        Self { decoder, partial: Vec::new() }
    }

    /// Keeps bytes that were read along with the hub handshake; at a raw endpoint, with the connect request.
    pub(super) fn keep(&mut self, rest: &[u8]) {
        self.partial.extend_from_slice(rest);
    }

    /// What was kept, where nobody has looked at it yet.
    pub(super) fn kept(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.partial)
    }

    /// The transport's payload in `bytes`, to be looked at before the hub protocol is known.
    pub(super) fn take_transport(
        &mut self,
        bytes: &mut [u8],
        mut give: impl FnMut(Piece<'_>),
    ) -> Result<(), ProtocolError> {
        let Some(decoder) = &mut self.decoder else {
            give(Piece::Payload(bytes, PiecePosition::UNKNOWN));
            return Ok(());
        };
        let mut at = 0;
        while let Some(rest) = bytes.get_mut(at..) {
            let (used, event) = decoder.decode(rest)?;
            match event {
                Event::Data(range) => give(Piece::Payload(rest.get(range).unwrap_or_default(), decoder.position())),
                Event::Ping(payload) => give(Piece::Ping(payload)),
                Event::Close => give(Piece::Close),
                Event::Pong => {}
                Event::NeedMore => return Ok(()),
            }
            at += used;
        }
        Ok(())
    }

    /// Takes what was read and gives what it turned out to be, in order.
    pub(super) fn take(
        &mut self,
        bytes: &mut [u8],
        protocol: HubProtocol,
        limit_bytes: usize,
        give: impl FnMut(Upward<'_>),
    ) -> Result<(), InboundError> {
        self.take_each(bytes, give, |partial, payload, _, give| {
            take_payload(partial, payload, protocol, limit_bytes, give)
        })
    }

    /// Takes what was read: the pieces of payload by `take_payload`, which keeps what is incomplete.
    pub(super) fn take_each<G: FnMut(Upward<'_>)>(
        &mut self,
        bytes: &mut [u8],
        mut give: G,
        mut take_payload: impl FnMut(&mut Vec<u8>, &[u8], PiecePosition, &mut G) -> Result<(), InboundError>,
    ) -> Result<(), InboundError> {
        let mut partial = std::mem::take(&mut self.partial);
        let mut problem = None;
        self.take_transport(bytes, |piece| match piece {
            Piece::Payload(payload, place) if problem.is_none() => {
                problem = take_payload(&mut partial, payload, place, &mut give).err();
            }
            Piece::Payload(..) => {}
            Piece::Ping(payload) => give(Upward::TransportPing(payload)),
            Piece::Close => give(Upward::TransportClose),
        })?;
        self.partial = partial;
        problem.map_or(Ok(()), Err)
    }

    /// Gives what [`keep`](Self::keep) kept.
    pub(super) fn take_kept(
        &mut self,
        protocol: HubProtocol,
        limit_bytes: usize,
        mut give: impl FnMut(Upward<'_>),
    ) -> Result<(), InboundError> {
        let mut partial = std::mem::take(&mut self.partial);
        let result = take_payload(&mut partial, &[], protocol, limit_bytes, &mut give);
        self.partial = partial;
        result
    }
}

/// A piece of the transport's stream.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    /// Bytes of what it carries.
    Payload(&'a [u8], PiecePosition),
    /// To be answered.
    Ping(Vec<u8>),
    /// The end.
    Close,
}

fn take_payload(
    partial: &mut Vec<u8>,
    payload: &[u8],
    protocol: HubProtocol,
    limit_bytes: usize,
    give: &mut impl FnMut(Upward<'_>),
) -> Result<(), InboundError> {
    if partial.is_empty() {
        let used = take_messages(payload, protocol, limit_bytes, give)?;
        partial.extend_from_slice(payload.get(used..).unwrap_or_default());
        return Ok(());
    }
    partial.extend_from_slice(payload);
    let used = take_messages(partial, protocol, limit_bytes, give)?;
    if used == partial.len() {
        // The memory goes too: an idle connection holds no buffer.
        *partial = Vec::new();
    } else {
        partial.drain(..used);
    }
    Ok(())
}

/// Gives all whole messages of `bytes` and says how many bytes they took.
fn take_messages(
    bytes: &[u8],
    protocol: HubProtocol,
    limit_bytes: usize,
    give: &mut impl FnMut(Upward<'_>),
) -> Result<usize, InboundError> {
    let (mut run_start, mut run_count, mut at) = (0, 0, 0);
    let mut give_run = |run: std::ops::Range<usize>, count: u64, then: Option<Upward<'_>>| {
        if count > 0 {
            give(Upward::Messages { bytes: bytes.get(run).unwrap_or_default(), count });
        }
        if let Some(then) = then {
            give(then);
        }
    };
    let result = loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let frame = match next_frame(protocol, rest, limit_bytes) {
            Ok(Some(frame)) => frame,
            Ok(None) => break Ok(at),
            Err(FramingError::TooLarge { limit }) => break Err(InboundError::TooLarge(limit)),
            Err(other) => break Err(InboundError::Framing(other)),
        };
        let after = at + frame.length;
        // What can't be told goes up: the app server answers it in its own words.
        let scan = protocol.scan(rest.get(frame.body).unwrap_or_default());
        let then = match scan.as_ref().map(|scan| scan.kind) {
            Ok(MessageKind::Ping) => Upward::Ping,
            Ok(MessageKind::Close) => Upward::Close,
            kind => {
                if let (Ok(MessageKind::Invocation | MessageKind::StreamInvocation), Ok(scan)) = (kind, &scan)
                    && let Some(id) = &scan.invocation_id
                {
                    give_run(0..0, 0, Some(Upward::Call { id }));
                }
                run_count += 1;
                at = after;
                continue;
            }
        };
        give_run(run_start..at, run_count, Some(then));
        (run_start, run_count, at) = (after, 0, after);
    };
    give_run(run_start..at, run_count, None);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 100;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0x82, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
        out.extend(payload);
        out
    }

    /// What comes of `frames`, read in pieces of `chunk` bytes; runs of messages are joined.
    fn read(frames: &[Vec<u8>], chunk: usize, protocol: HubProtocol) -> Result<Vec<String>, InboundError> {
        let (mut inbound, mut seen) = (Inbound::new(Transport::WebSockets), Vec::<String>::new());
        for piece in frames.concat().chunks(chunk) {
            inbound.take(&mut piece.to_vec(), protocol, LIMIT, |upward| match upward {
                Upward::Messages { bytes, .. } => {
                    let text = String::from_utf8_lossy(bytes).replace('\u{1e}', ";");
                    match seen.last_mut() {
                        Some(last) if last.starts_with('{') => last.push_str(&text),
                        _ => seen.push(text),
                    }
                }
                other => seen.push(format!("{other:?}")),
            })?;
        }
        Ok(seen)
    }

    #[test]
    fn pings_are_swallowed_and_the_rest_goes_up_in_order_for_any_split() {
        let frames = [
            frame(b"{\"a\":1,\"type\":1}\x1e{\"type\":6}\x1e{\"b\":"),
            frame(b"2,\"type\":1}\x1e{\"type\":99}\x1e"),
            frame(b"{\"type\":7}\x1e"),
        ];
        for chunk in 1..60 {
            assert_eq!(
                read(&frames, chunk, HubProtocol::Json).unwrap(),
                ["{\"a\":1,\"type\":1};", "Ping", "{\"b\":2,\"type\":1};{\"type\":99};", "Close"],
                "in pieces of {chunk}"
            );
        }
    }

    #[test]
    fn what_requests_carry_is_taken_as_it_is() {
        let (mut inbound, mut seen) = (Inbound::new(Transport::LongPolling), Vec::new());
        for piece in ["{\"type\":1}\x1e{\"ty", "pe\":1}\x1e"] {
            let taken = inbound.take(&mut piece.as_bytes().to_vec(), HubProtocol::Json, LIMIT, |upward| {
                seen.push(format!("{upward:?}"));
            });
            assert_eq!(taken, Ok(()));
        }
        assert_eq!(seen.len(), 2, "{seen:?}");
    }

    #[test]
    fn whole_messages_that_stand_together_go_up_together() {
        let mut runs = vec![];
        let mut bytes = frame(b"{\"type\":1}\x1e{\"type\":1}\x1e{\"type\":1}\x1e");
        Inbound::new(Transport::WebSockets)
            .take(&mut bytes, HubProtocol::Json, LIMIT, |upward| {
                if let Upward::Messages { bytes, count } = upward {
                    runs.push((bytes.len(), count));
                }
            })
            .unwrap();
        assert_eq!(runs, [(33, 3)]);
    }

    #[test]
    fn what_is_no_message_goes_up_to_be_answered_there() {
        assert_eq!(read(&[frame(b"{]\x1e")], 100, HubProtocol::Json).unwrap(), ["{];"]);
    }

    #[test]
    fn a_message_over_the_limit_is_told_as_soon_as_it_is_certain() {
        let endless = [frame(&[b'x'; 90]), frame(&[b'x'; 90])];
        assert_eq!(read(&endless, 1000, HubProtocol::Json), Err(InboundError::TooLarge(LIMIT)));
        assert_eq!(read(&[frame(&[0xff, 0x01])], 10, HubProtocol::MessagePack), Err(InboundError::TooLarge(LIMIT)));
    }

    #[test]
    fn the_transport_speaks_in_between() {
        let mut ping = frame(b"x");
        ping[0] = 0x89;
        let mut close = frame(b"");
        close[0] = 0x88;
        let frames = [frame(b"{\"type\":"), ping, frame(b"1}\x1e"), close];
        assert_eq!(
            read(&frames, 100, HubProtocol::Json).unwrap(),
            ["TransportPing([120])", "{\"type\":1};", "TransportClose"]
        );
    }
}
