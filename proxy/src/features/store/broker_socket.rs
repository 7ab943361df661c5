//! Socket between two nodes through a broker: its messages, and the window of unread data. Pure.
//!
//! ```text
//!  message = number (8 bytes) │ AES-256-GCM of: kind (1 byte) │ body
//!  Data ─► at most 256 KiB and 1024 messages that were not read ─► Read: the sums that were read
//!  a number is missing ─► the socket ends        a wrong seal, a number again ─► ignored and counted
//! ```
//!
//! Each direction has a key of its own, made from the random parts of both ends: a copy of a dial opens nothing.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;

/// Bytes of a number before a sealed message, of its seal and its kind.
const NUMBER_BYTES: usize = 8;
pub(super) const OVERHEAD_BYTES: usize = NUMBER_BYTES + MAX_TAG_LEN + 1;

/// Maximum unread data sent to a peer, in bytes and in messages. The server keeps 64 MiB for a slow
/// node, and the client library 65 536 messages of a subscription.
const WINDOW_MAX_BYTES: u64 = 256 * 1024;
const WINDOW_MAX_MESSAGES: u64 = 1024;

/// Fraction of a window after which the reader reports to its peer.
const REPORTED_FRACTION: u64 = 4;

/// Random part of a key, one from each end.
pub(super) type KeyPart = [u8; 32];

/// Sums of what an end has read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ReadSums {
    pub(super) bytes: u64,
    pub(super) messages: u64,
}

/// Message of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SocketMessage {
    Data(Vec<u8>),
    /// Sums of the read data. Also sent from time to time as a sign of life.
    Read(ReadSums),
    /// The sender has ended its direction of the socket.
    End,
    /// The socket is over in both directions.
    Abort,
}

/// Result of opening a received message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ReceivedMessage {
    Message(SocketMessage),
    /// Not of the peer, or a copy.
    Ignored,
    /// Messages before this one were lost.
    Gap,
}

/// End that has dialled, or that was dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SocketEnd {
    Dialler,
    Listener,
}

pub(super) struct MessageSealer {
    key: LessSafeKey,
    next: u64,
}

pub(super) struct MessageOpener {
    key: LessSafeKey,
    next: u64,
}

/// Keys of one end for what it sends and what it receives.
pub(super) fn seals(own: SocketEnd, parts: [&KeyPart; 2]) -> Result<(MessageSealer, MessageOpener), Unspecified> {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, &parts.map(<[u8; 32]>::as_slice).concat());
    let key = |sender| {
        let label: &[u8] = if sender == SocketEnd::Dialler { b"from the dialler" } else { b"from the listener" };
        UnboundKey::new(&AES_256_GCM, hmac::sign(&secret, label).as_ref()).map(LessSafeKey::new)
    };
    let other = if own == SocketEnd::Dialler { SocketEnd::Listener } else { SocketEnd::Dialler };
    Ok((MessageSealer { key: key(own)?, next: 0 }, MessageOpener { key: key(other)?, next: 0 }))
}

/// Each number is used once per key.
fn nonce_of(number: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - NUMBER_BYTES..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

impl MessageSealer {
    pub(super) fn seal(&mut self, message: &SocketMessage) -> Result<Vec<u8>, Unspecified> {
        let (kind, body, sums) = match message {
            SocketMessage::Data(data) => (0, &data[..], None),
            SocketMessage::Read(sums) => (1, &[][..], Some(sums)),
            SocketMessage::End => (2, &[][..], None),
            SocketMessage::Abort => (3, &[][..], None),
        };
        let mut sealed = Vec::with_capacity(OVERHEAD_BYTES + body.len() + 2 * NUMBER_BYTES);
        sealed.push(kind);
        sealed.extend(body);
        sealed.extend(sums.iter().flat_map(|sums| [sums.bytes, sums.messages]).flat_map(u64::to_be_bytes));
        let number = self.next;
        let tag = self.key.seal_in_place_separate_tag(nonce_of(number), Aad::empty(), &mut sealed)?;
        self.next += 1;
        Ok([&number.to_be_bytes(), &sealed[..], tag.as_ref()].concat())
    }
}

impl MessageOpener {
    pub(super) fn open(&mut self, message: &[u8]) -> ReceivedMessage {
        let Some((number, plain)) = self.opened(message) else { return ReceivedMessage::Ignored };
        if number != self.next {
            return if number < self.next { ReceivedMessage::Ignored } else { ReceivedMessage::Gap };
        }
        self.next += 1;
        read_message(plain).map_or(ReceivedMessage::Ignored, ReceivedMessage::Message)
    }

    fn opened(&self, message: &[u8]) -> Option<(u64, Vec<u8>)> {
        let (number, sealed) = message.split_first_chunk()?;
        let (number, mut plain) = (u64::from_be_bytes(*number), sealed.to_vec());
        let opened = self.key.open_in_place(nonce_of(number), Aad::empty(), &mut plain).ok()?.len();
        plain.truncate(opened);
        Some((number, plain))
    }
}

fn read_message(mut plain: Vec<u8>) -> Option<SocketMessage> {
    Some(match (*plain.first()?, plain.len()) {
        (0, _) => {
            plain.remove(0);
            SocketMessage::Data(plain)
        }
        (1, 17) => {
            let sum = |at: usize| Some(u64::from_be_bytes(*plain.get(at..)?.first_chunk()?));
            SocketMessage::Read(ReadSums { bytes: sum(1)?, messages: sum(9)? })
        }
        (2, 1) => SocketMessage::End,
        (3, 1) => SocketMessage::Abort,
        _ => return None,
    })
}

/// Window of the data that the peer has not read.
#[derive(Debug, Default)]
pub(super) struct SendWindow {
    sent: ReadSums,
    read: ReadSums,
}

impl SendWindow {
    /// Bytes that may be sent now.
    pub(super) fn room(&self) -> usize {
        if self.sent.messages - self.read.messages >= WINDOW_MAX_MESSAGES {
            return 0;
        }
        usize::try_from(WINDOW_MAX_BYTES.saturating_sub(self.sent.bytes - self.read.bytes)).unwrap_or_default()
    }

    pub(super) fn note_sent(&mut self, bytes: usize) {
        self.sent.bytes += bytes as u64;
        self.sent.messages += 1;
    }

    /// Takes what the peer has read. More than was sent counts as all of it.
    pub(super) fn note_read(&mut self, sums: ReadSums) {
        self.read.bytes = sums.bytes.clamp(self.read.bytes, self.sent.bytes);
        self.read.messages = sums.messages.clamp(self.read.messages, self.sent.messages);
    }
}

/// Sums of the data that this end has read, and those last reported to the peer.
#[derive(Debug, Default)]
pub(super) struct ReadLedger {
    read: ReadSums,
    reported: ReadSums,
}

impl ReadLedger {
    pub(super) fn note_read(&mut self, bytes: usize, messages: usize) {
        self.read.bytes += bytes as u64;
        self.read.messages += messages as u64;
    }

    /// Whether the peer may soon wait for room.
    pub(super) fn is_due(&self) -> bool {
        self.read.bytes - self.reported.bytes >= WINDOW_MAX_BYTES / REPORTED_FRACTION
            || self.read.messages - self.reported.messages >= WINDOW_MAX_MESSAGES / REPORTED_FRACTION
    }

    /// Report to the peer.
    pub(super) fn report(&mut self) -> SocketMessage {
        self.reported = self.read;
        SocketMessage::Read(self.read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> ((MessageSealer, MessageOpener), (MessageSealer, MessageOpener)) {
        let parts = [&[1; 32], &[2; 32]];
        (seals(SocketEnd::Dialler, parts).unwrap(), seals(SocketEnd::Listener, parts).unwrap())
    }

    fn data(text: &str) -> SocketMessage {
        SocketMessage::Data(text.into())
    }

    #[test]
    fn each_message_arrives_as_it_was_sent_in_both_directions() {
        let (mut dialler, mut listener) = pair();
        let sums = ReadSums { bytes: 1 << 40, messages: 7 };
        for message in [data("a"), data(""), SocketMessage::Read(sums), SocketMessage::End, SocketMessage::Abort] {
            let sealed = dialler.0.seal(&message).unwrap();
            assert_eq!(listener.1.open(&sealed), ReceivedMessage::Message(message.clone()));
            let sealed = listener.0.seal(&message).unwrap();
            assert_eq!(dialler.1.open(&sealed), ReceivedMessage::Message(message));
        }
        assert_eq!(dialler.0.seal(&data("abc")).unwrap().len(), 3 + OVERHEAD_BYTES);
    }

    #[test]
    fn rubbish_and_copies_change_nothing_and_a_lost_message_is_noticed() {
        let (mut dialler, mut listener) = pair();
        let [one, two, three] = ["1", "2", "3"].map(|text| dialler.0.seal(&data(text)).unwrap());
        for at in 0..one.len() {
            let mut changed = one.clone();
            changed[at] ^= 1;
            assert_eq!(listener.1.open(&changed), ReceivedMessage::Ignored, "byte {at}");
            assert_eq!(listener.1.open(&one[..at]), ReceivedMessage::Ignored);
        }
        let back = listener.0.seal(&data("1")).unwrap();
        assert_eq!(listener.1.open(&back), ReceivedMessage::Ignored, "its own message");
        assert_eq!(listener.1.open(&one), ReceivedMessage::Message(data("1")));
        assert_eq!(listener.1.open(&one), ReceivedMessage::Ignored);
        assert_eq!(listener.1.open(&three), ReceivedMessage::Gap);
        assert_eq!(listener.1.open(&two), ReceivedMessage::Message(data("2")));
        let mut other = seals(SocketEnd::Listener, [&[1; 32], &[3; 32]]).unwrap().1;
        assert_eq!(other.open(&one), ReceivedMessage::Ignored, "a dial again has another key");
    }

    #[test]
    fn a_window_is_used_up_by_bytes_or_by_messages_until_they_are_read() {
        let mut window = SendWindow::default();
        assert_eq!(window.room(), 256 * 1024);
        window.note_sent(256 * 1024);
        assert_eq!(window.room(), 0);
        window.note_read(ReadSums { bytes: u64::MAX, messages: u64::MAX });
        assert_eq!(window.room(), 256 * 1024, "no more than all");
        (0..1024).for_each(|_| window.note_sent(1));
        assert_eq!(window.room(), 0);
        window.note_read(ReadSums::default());
        assert_eq!(window.room(), 0, "an old sum");
        window.note_read(ReadSums { bytes: 256 * 1024 + 1, messages: 2 });
        assert_eq!(window.room(), 256 * 1024 - 1023);
    }

    #[test]
    fn a_quarter_of_the_window_is_reported_to_the_peer() {
        let mut ledger = ReadLedger::default();
        ledger.note_read(64 * 1024 - 1, 255);
        assert!(!ledger.is_due());
        ledger.note_read(1, 0);
        assert!(ledger.is_due());
        assert_eq!(ledger.report(), SocketMessage::Read(ReadSums { bytes: 64 * 1024, messages: 255 }));
        assert!(!ledger.is_due());
        ledger.note_read(0, 256);
        assert!(ledger.is_due());
    }
}
