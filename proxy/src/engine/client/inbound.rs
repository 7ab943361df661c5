//! Inbound data of a client: transport frames, if any, and hub messages, parsed only for their kind.
//!
//! Pure: bytes in, [`Piece`]s and [`Upward`]s out. Pings are consumed, a close ends the connection, and other messages
//! are forwarded unparsed, adjacent ones together: new kinds need no new proxy.

use std::borrow::Cow;
use std::mem;
use std::ops::Range;

use bytes::Bytes;
use trunkline_protocol::hub::{
    CallScan, HubMessage, HubProtocol, MessageKind, ReceivedSequence, Scan, ScanError, next_frame_behind,
};
use trunkline_protocol::manifest::Transport;
use trunkline_protocol::service::RawKind;

use super::deflated_input::{DeflatedInput, InflateStep};
use super::inbound_error::InboundError;
use crate::engine::shard::MessageRest;
use crate::engine::transport::websocket::{Decoder, Event, Inflater, PiecePosition};

/// One or more messages of a client to forward.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Upward<'a> {
    /// Complete hub messages for the app server, framing included.
    Messages { bytes: &'a [u8], count: u64 },
    /// A complete hub message at this position, to be checked by rules; `scan` is `None` if unreadable.
    Single { place: Range<usize>, scan: Option<CallScan<'a>> },
    /// Invocation id of a call with an answer, among the messages that follow.
    Call { id: Cow<'a, str>, kind: MessageKind },
    /// A message of a raw connection.
    Raw { bytes: Cow<'a, [u8]>, kind: RawKind },
    /// A hub ping, which shows that the client is alive and starts its timeout.
    Ping,
    /// A hub close of the client.
    Close,
    /// Acknowledgement of messages sent to the client.
    Acknowledgement(u64),
}

/// Data of one client between socket and messages; small, except within a frame or message.
#[derive(Debug)]
pub(super) struct Inbound {
    /// Decoder of a transport with frames.
    pub(super) decoder: Option<Decoder>,
    pub(super) partial: PartialMessage,
    /// Compressed message that is incomplete or not read to its end.
    deflated: Option<Box<DeflatedInput>>,
}

/// Beginning of an incomplete message.
#[derive(Debug, Default)]
pub(super) struct PartialMessage {
    bytes: Vec<u8>,
    /// Number of bytes already searched for the end of a message.
    searched: usize,
    /// Whether the stored bytes include complete messages that wait for an app server.
    is_held: bool,
    /// Number of messages completed from a stored beginning.
    ended: u32,
}

impl Inbound {
    pub(super) fn new(transport: Transport, is_compressed: bool) -> Self {
        let decoder = (transport == Transport::WebSockets).then(|| Decoder::new(is_compressed));
        Self { decoder, partial: PartialMessage::default(), deflated: None }
    }

    /// Stores payload read along with the hub handshake, or, at a raw endpoint, along with the connect request.
    pub(super) fn keep(&mut self, rest: &[u8]) {
        self.partial.bytes.extend_from_slice(rest);
    }

    /// Takes the stored bytes of a raw endpoint, which are not yet decoded.
    pub(super) fn take_kept(&mut self) -> Vec<u8> {
        mem::take(&mut self.partial.bytes)
    }

    /// Splits these bytes into pieces of the transport's stream, beside the incomplete message. Compressed messages are
    /// read with the shard's inflater, which returns at their end.
    pub(super) fn pieces<'a>(
        &'a mut self,
        bytes: &'a mut [u8],
        (inflater, limit_bytes): (&'a mut Option<Box<Inflater>>, usize),
    ) -> (Pieces<'a>, &'a mut PartialMessage) {
        let Self { decoder, partial, deflated } = self;
        let inflates = decoder.as_ref().is_some_and(Decoder::inflates);
        let step = inflates.then(|| InflateStep::new(inflater, limit_bytes));
        (Pieces::new(decoder.as_mut(), bytes, (deflated, step)), partial)
    }

    /// Transport frames of a closing client, without the content of its messages.
    pub(super) fn frames<'a>(&'a mut self, bytes: &'a mut [u8]) -> Pieces<'a> {
        Pieces::new(self.decoder.as_mut(), bytes, (&mut self.deflated, None))
    }

    /// Whether data waits for the next step.
    pub(super) fn is_behind(&self) -> bool {
        self.deflated.as_ref().is_some_and(|input| input.is_behind())
    }

    /// Takes undecoded data that waits for the next step.
    pub(super) fn take_behind(&mut self) -> Vec<u8> {
        self.deflated.as_mut().map(|input| mem::take(&mut input.rest)).unwrap_or_default()
    }

    /// Drops incomplete messages, but no undecoded data.
    pub(super) fn drop_messages(&mut self) {
        self.partial = PartialMessage::default();
        self.deflated = self.deflated.take_if(|input| !input.rest.is_empty());
        self.deflated.iter_mut().for_each(|input| input.drop_message());
    }

    /// Memory and number of the incomplete message.
    pub(super) fn rest(&self) -> MessageRest {
        let rest = self.partial.rest();
        let (bytes, length) = self.deflated.as_ref().map_or((0, 0), |input| input.size());
        MessageRest { bytes: rest.bytes + bytes, length: rest.length + length, ..rest }
    }
}

#[derive(Debug)]
pub(super) enum Piece<'a> {
    /// Payload, and its position in a transport message.
    Payload(&'a [u8], PiecePosition),
    /// Ping, to be answered with the same bytes.
    Ping(Vec<u8>),
    Close,
}

/// Decoder for the bytes of one read.
#[derive(Debug)]
pub(super) struct Pieces<'a> {
    decoder: Option<&'a mut Decoder>,
    bytes: &'a mut [u8],
    at: usize,
    frames: u64,
    /// Compressed message that is not handled to its end.
    pub(super) deflated: &'a mut Option<Box<DeflatedInput>>,
    /// Reading of compressed messages, if negotiated.
    step: Option<InflateStep<'a>>,
}

impl<'a> Pieces<'a> {
    fn new(
        decoder: Option<&'a mut Decoder>,
        bytes: &'a mut [u8],
        (deflated, step): (&'a mut Option<Box<DeflatedInput>>, Option<InflateStep<'a>>),
    ) -> Self {
        Self { decoder, bytes, at: 0, frames: 0, deflated, step }
    }

    /// Number of bytes handled. A compressed message counts as what it holds, or as received if that is more.
    pub(super) fn length(&self) -> usize {
        let (inflated, credit) = self.step.as_ref().map_or((0, 0), |step| (step.inflated, step.credit));
        (self.at.min(self.bytes.len()) + inflated).saturating_sub(credit)
    }

    /// Whether a compressed message was read to its end.
    pub(super) fn has_inflated(&self) -> bool {
        self.step.as_ref().is_some_and(|step| step.completed > 0)
    }

    /// Drops compressed messages from here on.
    pub(super) fn discard(&mut self) {
        (self.step, *self.deflated) = (None, None);
    }

    /// Decompresses the next piece of a whole message; `None` without one, and if the step is over.
    fn inflate(&mut self) -> Result<Option<usize>, InboundError> {
        let input = self.deflated.as_mut().filter(|input| input.is_whole());
        let (Some(step), Some(input)) = (&mut self.step, input) else { return Ok(None) };
        if step.is_over() {
            let bytes = mem::take(&mut self.bytes);
            let (handled, rest) = bytes.split_at_mut(self.at.min(bytes.len()));
            input.rest.extend_from_slice(rest);
            self.bytes = handled;
            return Ok(None);
        }
        let length = step.next(input)?;
        if length.is_none() {
            *self.deflated = None;
        }
        Ok(length)
    }

    /// Number of completed frames, including empty ones. Data without frames counts as one.
    pub(super) fn frames(&self) -> u64 {
        self.frames
    }

    /// Next piece; `None` at the end of the bytes. Fails if the client violated the transport protocol; decoding can't
    /// continue.
    pub(super) fn next(&mut self) -> Result<Option<Piece<'_>>, InboundError> {
        if self.decoder.is_none() {
            let is_new = mem::replace(&mut self.at, self.bytes.len()) < self.bytes.len();
            self.frames += u64::from(is_new);
            return Ok(is_new.then_some(Piece::Payload(self.bytes, PiecePosition::UNKNOWN)));
        }
        loop {
            if self.deflated.is_some()
                && let Some(length) = self.inflate()?
            {
                let piece = self.deflated.as_ref().map(|input| input.piece(length)).unwrap_or_default();
                return Ok(Some(Piece::Payload(piece, PiecePosition::UNKNOWN)));
            }
            let (Some(decoder), Some(rest)) = (&mut self.decoder, self.bytes.get_mut(self.at..)) else {
                return Ok(None);
            };
            let from = self.at;
            let (used, event) = decoder.decode(rest)?;
            self.at += used;
            self.frames += u64::from(event != Event::NeedMore && decoder.is_between_frames());
            match event {
                Event::Data(range) if decoder.position().is_compressed => {
                    let part = self.bytes.get(from + range.start..from + range.end).unwrap_or_default();
                    if let Some(step) = &mut self.step {
                        step.store(self.deflated.get_or_insert_default(), part, decoder.position().is_last)?;
                    }
                }
                Event::Data(range) => {
                    let payload = self.bytes.get(from + range.start..from + range.end).unwrap_or_default();
                    return Ok(Some(Piece::Payload(payload, decoder.position())));
                }
                Event::Ping(payload) => return Ok(Some(Piece::Ping(payload))),
                Event::Close => return Ok(Some(Piece::Close)),
                Event::Pong => {}
                Event::NeedMore => {
                    // Past the end, so that later calls return `None`.
                    self.at = usize::MAX;
                }
            }
        }
    }
}

impl PartialMessage {
    /// Hub messages completed by this payload, after stored data.
    pub(super) fn join<'a>(
        &'a mut self,
        payload: &'a [u8],
        protocol: HubProtocol,
        limit_bytes: usize,
    ) -> HubMessages<'a> {
        let bytes = if self.bytes.is_empty() {
            payload
        } else {
            self.bytes.extend_from_slice(payload);
            &self.bytes
        };
        HubMessages::new(bytes, self.searched, protocol, limit_bytes)
    }

    /// Stores the joined bytes after `used`, which contain no complete message.
    pub(super) fn keep_rest(&mut self, payload: &[u8], used: usize) {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(payload.get(used..).unwrap_or_default());
        } else if used > 0 {
            // Frees the memory: an idle connection holds no buffer, and a short rest not that of a long message.
            self.bytes = self.bytes.get(used..).unwrap_or_default().to_vec();
            self.note_end();
        }
        self.searched = self.bytes.len();
    }

    /// Stores the joined bytes from here on, including complete messages, to be read again.
    pub(super) fn hold(&mut self, payload: &[u8], from: usize) {
        self.keep_rest(payload, from);
        (self.searched, self.is_held) = (0, true);
    }

    /// Stores payload after waiting messages; `false` without any.
    pub(super) fn hold_too(&mut self, payload: &[u8]) -> bool {
        if self.is_held {
            self.bytes.extend_from_slice(payload);
        }
        self.is_held
    }

    pub(super) fn note_end(&mut self) {
        self.ended = self.ended.wrapping_add(1);
    }

    /// Memory and number of the incomplete message.
    pub(super) fn rest(&self) -> MessageRest {
        let length = self.bytes.len();
        let bytes = if length == 0 { 0 } else { self.bytes.capacity() };
        MessageRest { bytes, length, number: self.ended, is_held: self.is_held }
    }

    /// Whether a message is incomplete.
    pub(super) fn has_begun(&self) -> bool {
        !self.bytes.is_empty()
    }

    pub(super) fn is_held(&self) -> bool {
        self.is_held
    }

    /// Clears the waiting mark before messages are read again; `false` if it was not set.
    pub(super) fn release(&mut self) -> bool {
        mem::take(&mut self.is_held)
    }

    pub(super) fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

/// Reader of the complete hub messages in a piece of payload.
#[derive(Debug)]
pub(super) struct HubMessages<'a> {
    bytes: &'a [u8],
    protocol: HubProtocol,
    limit_bytes: usize,
    /// Start and number of the messages in the current run.
    run_start: usize,
    run_count: u64,
    at: usize,
    /// Number of bytes after `at` already searched for the end of a message.
    searched: usize,
    /// Result to return after the last run.
    queued: Option<Result<Upward<'a>, InboundError>>,
    is_done: bool,
    are_judged: bool,
}

impl<'a> HubMessages<'a> {
    fn new(bytes: &'a [u8], searched: usize, protocol: HubProtocol, limit_bytes: usize) -> Self {
        let (run_start, run_count, at) = (0, 0, 0);
        let (queued, is_done, are_judged) = (None, false, false);
        Self { bytes, protocol, limit_bytes, run_start, run_count, at, searched, queued, is_done, are_judged }
    }

    /// Returns messages singly, to be checked by rules.
    pub(super) fn one_by_one(self) -> Self {
        Self { are_judged: true, ..self }
    }

    /// Bytes of adjacent messages at this position.
    pub(super) fn slice(&self, place: Range<usize>) -> &'a [u8] {
        self.bytes.get(place).unwrap_or_default()
    }

    /// Number of bytes consumed by messages.
    pub(super) fn used(&self) -> usize {
        self.at
    }

    /// Next run of messages, or a single one that is not forwarded; `None` without another complete one. Fails if the
    /// bytes are invalid or a message is too large.
    ///
    /// `received` counts the messages of a resumable client; repeated ones are skipped.
    pub(super) fn next(
        &mut self,
        mut received: Option<&mut ReceivedSequence>,
    ) -> Result<Option<Upward<'a>>, InboundError> {
        if let Some(queued) = self.queued.take() {
            return queued.map(Some);
        }
        while !self.is_done {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let searched = mem::take(&mut self.searched);
            let found = next_frame_behind(self.protocol, rest, searched, self.limit_bytes);
            self.is_done = !matches!(found, Ok(Some(_)));
            let frame = match found {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(self.take_run()),
                Err(error) => return self.after_run(Err(error.into())),
            };
            let after = self.at + frame.length;
            // Unknown messages are forwarded; the app server answers with its own error.
            let body = rest.get(frame.body).unwrap_or_default();
            let scan = self.scan(body);
            let then = match scan {
                Ok(CallScan { kind: MessageKind::Ping, .. }) => Upward::Ping,
                Ok(CallScan { kind: MessageKind::Close, .. }) => Upward::Close,
                Ok(CallScan { kind: MessageKind::Ack | MessageKind::Sequence, .. })
                    if let Some(received) = received.as_deref_mut() =>
                {
                    match take_sequence(self.protocol, body, received) {
                        Ok(Some(then)) => then,
                        Ok(None) if let Some(run) = self.leave_out(after) => return Ok(Some(run)),
                        Ok(None) => continue,
                        Err(error) => {
                            self.is_done = true;
                            return self.after_run(Err(error));
                        }
                    }
                }
                Ok(CallScan { kind, .. })
                    if kind.is_sequenced()
                        && let Some(received) = received.as_deref_mut()
                        && !received.take_message() =>
                {
                    match self.leave_out(after) {
                        Some(run) => return Ok(Some(run)),
                        None => continue,
                    }
                }
                scan if self.are_judged => {
                    let place = self.at..after;
                    (self.run_start, self.at) = (after, after);
                    return Ok(Some(Upward::Single { place, scan: scan.ok() }));
                }
                scan => {
                    (self.run_count, self.at) = (self.run_count + 1, after);
                    if let Ok(CallScan { kind, invocation_id: Some(id), .. }) = scan
                        && kind.is_call()
                    {
                        return Ok(Some(Upward::Call { id, kind }));
                    }
                    continue;
                }
            };
            let next = self.after_run(Ok(then));
            (self.run_start, self.at) = (after, after);
            return next;
        }
        Ok(None)
    }

    /// Scans a message as needed for rules, or for other messages.
    fn scan(&self, body: &'a [u8]) -> Result<CallScan<'a>, ScanError> {
        if self.are_judged {
            return self.protocol.scan_call(body);
        }
        let Scan { kind, invocation_id, .. } = self.protocol.scan(body)?;
        Ok(CallScan { kind, invocation_id, target: None, stream_ids: Vec::new() })
    }

    /// Skips a message that ends here. Returns the preceding run, if any.
    fn leave_out(&mut self, after: usize) -> Option<Upward<'a>> {
        let run = self.take_run();
        (self.run_start, self.at) = (after, after);
        run
    }

    fn take_run(&mut self) -> Option<Upward<'a>> {
        let bytes = self.bytes.get(self.run_start..self.at).unwrap_or_default();
        let count = mem::take(&mut self.run_count);
        (count > 0).then_some(Upward::Messages { bytes, count })
    }

    /// Returns the run up to here, if any, followed by this result.
    fn after_run(&mut self, then: Result<Upward<'a>, InboundError>) -> Result<Option<Upward<'a>>, InboundError> {
        match self.take_run() {
            Some(run) => {
                self.queued = Some(then);
                Ok(Some(run))
            }
            None => then.map(Some),
        }
    }
}

/// Handles a message of stateful reconnect. An acknowledgement is returned for the buffer of sent messages.
fn take_sequence(
    protocol: HubProtocol,
    body: &[u8],
    received: &mut ReceivedSequence,
) -> Result<Option<Upward<'static>>, InboundError> {
    match protocol.decode(&Bytes::copy_from_slice(body)) {
        Ok(Some(HubMessage::Ack { sequence_id })) => Ok(Some(Upward::Acknowledgement(sequence_id))),
        Ok(Some(HubMessage::Sequence { sequence_id })) => {
            received.begin_at(sequence_id)?;
            Ok(None)
        }
        Ok(_) => Ok(None),
        Err(error) => Err(InboundError::Message(error.to_string())),
    }
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

    /// Results of one read, in order.
    fn take(inbound: &mut Inbound, bytes: &mut [u8], protocol: HubProtocol) -> Result<Vec<String>, InboundError> {
        let (mut seen, mut inflater) = (Vec::new(), None);
        let (mut pieces, partial) = inbound.pieces(bytes, (&mut inflater, LIMIT));
        while let Some(piece) = pieces.next()? {
            let Piece::Payload(payload, _) = piece else {
                seen.push(format!("{piece:?}"));
                continue;
            };
            let mut messages = partial.join(payload, protocol, LIMIT);
            while let Some(upward) = messages.next(None)? {
                seen.push(match upward {
                    Upward::Messages { bytes, .. } => String::from_utf8_lossy(bytes).replace('\u{1e}', ";"),
                    other => format!("{other:?}"),
                });
            }
            let used = messages.used();
            partial.keep_rest(payload, used);
        }
        Ok(seen)
    }

    /// Reads `frames` in pieces of `chunk` bytes, and joins runs of messages.
    fn read(frames: &[Vec<u8>], chunk: usize, protocol: HubProtocol) -> Result<Vec<String>, InboundError> {
        let (mut inbound, mut joined) = (Inbound::new(Transport::WebSockets, false), Vec::<String>::new());
        for piece in frames.concat().chunks(chunk) {
            for seen in take(&mut inbound, &mut piece.to_vec(), protocol)? {
                match joined.last_mut() {
                    Some(last) if last.starts_with('{') && seen.starts_with('{') => last.push_str(&seen),
                    _ => joined.push(seen),
                }
            }
        }
        Ok(joined)
    }

    /// Number of bytes searched for message ends when these pieces arrive, and of messages found.
    fn searched<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, protocol: HubProtocol, limit: usize) -> (usize, u64) {
        let (mut partial, mut bytes, mut count) = (PartialMessage::default(), 0, 0);
        for piece in pieces {
            let mut messages = partial.join(piece, protocol, limit);
            bytes += messages.bytes.len() - messages.searched;
            while let Some(upward) = messages.next(None).unwrap() {
                count += if let Upward::Messages { count, .. } = upward { count } else { 0 };
            }
            let used = messages.used();
            partial.keep_rest(piece, used);
        }
        assert!(partial.bytes.is_empty() && partial.bytes.capacity() == 0, "an idle connection holds no buffer");
        (bytes, count)
    }

    #[test]
    fn empty_pieces_of_a_long_message_cost_no_search() {
        let long = vec![b' '; 16 * 1024 * 1024 - 11];
        let pieces =
            [&long[..]].into_iter().chain(std::iter::repeat_n(&b""[..], 20_000)).chain([&b"{\"type\":1}\x1e"[..]]);
        let (bytes, count) = searched(pieces, HubProtocol::Json, 16 * 1024 * 1024);
        assert_eq!((bytes, count), (16 * 1024 * 1024, 1));
    }

    #[test]
    fn each_byte_is_searched_once_however_the_messages_are_cut() {
        let call = format!("{{\"type\":1,\"target\":\"{}\"}}\x1e", "x".repeat(1000));
        let json = call.repeat(20);
        let packed = [&[0x88, 0x08, 0x95, 0x01, 0x80, 0xc0, 0xda, 0x04, 0x00][..], &[b'x'; 1024], &[0x90]].concat();
        for (protocol, stream) in [(HubProtocol::Json, json.as_bytes()), (HubProtocol::MessagePack, &packed.repeat(20))]
        {
            for size in [1, 2, 7, 999, 1033, 5000, stream.len()] {
                // The rest after the last complete message of a piece is searched once more, as the beginning of the
                // next.
                let (bytes, count) = searched(stream.chunks(size), protocol, 64 * 1024);
                assert_eq!(count, 20, "{protocol:?} in pieces of {size}");
                assert!(
                    bytes <= 2 * stream.len(),
                    "{protocol:?} in pieces of {size}: {bytes} of {} bytes",
                    stream.len()
                );
            }
        }
    }

    #[test]
    fn frames_are_counted_with_those_that_bring_nothing() {
        let frames = |first: u8, count| {
            let mut bytes = [first, 0x80, 0, 0, 0, 0].repeat(count);
            let mut inbound = Inbound::new(Transport::WebSockets, false);
            let mut inflater = None;
            let (mut pieces, _) = inbound.pieces(&mut bytes, (&mut inflater, LIMIT));
            while pieces.next().unwrap().is_some() {}
            pieces.frames()
        };
        assert_eq!([0x81, 0x89, 0x8a].map(|first| frames(first, 100)), [100; 3]);
        let mut inbound = Inbound::new(Transport::WebSockets, false);
        let mut ended = 0;
        for part in frame(&[b'x'; 90]).chunks_mut(10) {
            let mut inflater = None;
            let (mut pieces, _) = inbound.pieces(part, (&mut inflater, LIMIT));
            while pieces.next().unwrap().is_some() {}
            ended += pieces.frames();
        }
        assert_eq!(ended, 1, "a frame counts once, in however many reads it comes");
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
    fn bytes_of_http_transports_have_no_frames() {
        let (mut inbound, mut seen) = (Inbound::new(Transport::LongPolling, false), Vec::new());
        for piece in ["{\"type\":1}\x1e{\"ty", "pe\":1}\x1e"] {
            seen.extend(take(&mut inbound, &mut piece.as_bytes().to_vec(), HubProtocol::Json).unwrap());
        }
        assert_eq!(seen.len(), 2, "{seen:?}");
    }

    #[test]
    fn adjacent_whole_messages_go_up_together() {
        let bytes = b"{\"type\":1}\x1e{\"type\":1}\x1e{\"type\":1}\x1e";
        let mut messages = HubMessages::new(bytes, 0, HubProtocol::Json, LIMIT);
        assert_eq!(messages.next(None), Ok(Some(Upward::Messages { bytes, count: 3 })));
        assert_eq!(messages.next(None), Ok(None));
        assert_eq!(messages.used(), bytes.len());
    }

    #[test]
    fn a_malformed_message_goes_up_to_be_answered_there() {
        assert_eq!(read(&[frame(b"{]\x1e")], 100, HubProtocol::Json).unwrap(), ["{];"]);
    }

    #[test]
    fn a_message_over_the_limit_fails_as_soon_as_it_is_certain() {
        let endless = [frame(&[b'x'; 90]), frame(&[b'x'; 90])];
        assert_eq!(read(&endless, 1000, HubProtocol::Json), Err(InboundError::TooLarge(LIMIT)));
        assert_eq!(read(&[frame(&[0xff, 0x01])], 10, HubProtocol::MessagePack), Err(InboundError::TooLarge(LIMIT)));
    }

    #[test]
    fn frames_of_the_transport_come_between_messages() {
        let mut ping = frame(b"x");
        ping[0] = 0x89;
        let mut close = frame(b"");
        close[0] = 0x88;
        let frames = [frame(b"{\"type\":"), ping, frame(b"1}\x1e"), close];
        assert_eq!(read(&frames, 100, HubProtocol::Json).unwrap(), ["Ping([120])", "{\"type\":1};", "Close"]);
    }

    #[test]
    fn a_call_is_named_before_the_run_of_messages_that_it_is_in() {
        let bytes = b"{\"type\":1}\x1e{\"type\":1,\"invocationId\":\"7\"}\x1e{\"type\":6}\x1e";
        let mut messages = HubMessages::new(bytes, 0, HubProtocol::Json, LIMIT);
        assert_eq!(messages.next(None), Ok(Some(Upward::Call { id: "7".into(), kind: MessageKind::Invocation })));
        let run = &bytes[..bytes.len() - 11];
        assert_eq!(messages.next(None), Ok(Some(Upward::Messages { bytes: run, count: 2 })));
        assert_eq!(messages.next(None), Ok(Some(Upward::Ping)));
        assert_eq!(messages.next(None), Ok(None));
    }

    #[test]
    fn messages_for_rules_come_one_by_one_with_their_place_and_what_rules_read() {
        let bytes =
            b"{\"type\":1,\"target\":\"Say\"}\x1e{\"type\":6}\x1e{]\x1e{\"type\":2,\"invocationId\":\"s\"}\x1e{\"ty";
        let mut messages = HubMessages::new(bytes, 0, HubProtocol::Json, LIMIT).one_by_one();
        let mut seen = Vec::new();
        while let Some(message) = messages.next(None).unwrap() {
            seen.push(match message {
                Upward::Single { place, scan } => {
                    let scan = scan.map(|scan| (scan.target.map(Cow::into_owned), scan.invocation_id.is_some()));
                    format!("{} {scan:?}", String::from_utf8_lossy(messages.slice(place)).len())
                }
                other => format!("{other:?}"),
            });
        }
        assert_eq!(seen, ["26 Some((Some(\"Say\"), false))", "Ping", "3 None", "30 Some((None, true))"]);
        assert_eq!(messages.used(), bytes.len() - 4);
    }

    #[test]
    fn messages_before_a_broken_one_still_go_up() {
        let mut bytes = b"{\"type\":1}\x1e".to_vec();
        bytes.extend([b'x'; LIMIT + 1]);
        let mut messages = HubMessages::new(&bytes, 0, HubProtocol::Json, LIMIT);
        assert!(matches!(messages.next(None), Ok(Some(Upward::Messages { count: 1, .. }))));
        assert_eq!(messages.next(None), Err(InboundError::TooLarge(LIMIT)));
        assert_eq!(messages.next(None), Ok(None));
    }
}
