//! Frames of the service protocol, and headers of a link's upgrade.

use bytes::Bytes;
use trunkline_protocol::service::{
    Ack, Capabilities, ClientFilter, Counters, FilterSubject, FrameBuffer, FrameError, MemberPage, OversizedFrame,
    ServiceMessage, SessionId, bytes_of_frame, parse_received,
};

use crate::random::Random;

/// Reads frames of a link: framing and decoder.
pub fn service_frames(data: &[u8]) {
    let whole = bodies(&[data]);
    let cut = bodies(&Random::from_bytes(data).pieces(data));
    assert_eq!(whole, cut, "the cuts between WebSocket messages change the frames");
    for body in whole.0.into_iter().flatten() {
        message(&body);
    }
    message(&Bytes::copy_from_slice(data));
}

/// Reads the headers that both link ends negotiate with: capabilities, session id, last frame received.
pub fn link_upgrade(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for line in text.lines() {
        if let Ok(capabilities) = line.parse::<Capabilities>() {
            let written = capabilities.to_string();
            let again: Capabilities = written.parse().expect("written capabilities can be read");
            assert_eq!(again.to_string(), written);
            assert_eq!(again.resume_ring_bytes, capabilities.resume_ring_bytes);
            assert_eq!(again.supports_causes, capabilities.supports_causes);
            assert_eq!(again.lists_members, capabilities.lists_members);
            assert_eq!(again.tells_presence, capabilities.tells_presence);
            assert_eq!(again.client_message_max_bytes, capabilities.client_message_max_bytes);
        }
        if let Ok(id) = line.parse::<SessionId>() {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        if let Ok(received) = parse_received(line) {
            assert_eq!(parse_received(&received.to_string()), Ok(received));
        }
    }
}

/// Reads client filters and evaluates them.
pub fn client_filters(data: &[u8]) {
    struct Client<'a>(Option<&'a str>, &'a str);
    impl FilterSubject for Client<'_> {
        fn user_id(&self) -> Option<&str> {
            self.0
        }
        fn connection_id(&self) -> &str {
            self.1
        }
        fn is_in_group(&self, group: &str) -> bool {
            group == self.1
        }
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(filter) = ClientFilter::parse(text) else { return };
    let negated = ClientFilter::parse(&format!("not ({text})"));
    for client in [Client(None, "c1"), Client(Some("ann"), text), Client(Some(""), "")] {
        if let Ok(negated) = &negated {
            assert_ne!(filter.matches(&client), negated.matches(&client), "a filter and its negation agree");
        }
    }
}

/// Bodies of all whole frames, the skipped frames, and the error that ended them.
fn bodies(pieces: &[&[u8]]) -> (Vec<Result<Bytes, OversizedFrame>>, Option<FrameError>) {
    let (mut buffer, mut bodies) = (FrameBuffer::default(), Vec::new());
    for piece in pieces {
        buffer.push(Bytes::copy_from_slice(piece));
        loop {
            match buffer.next_body() {
                Ok(Some(body)) => bodies.push(Ok(body)),
                Ok(None) => break,
                Err(FrameError::TooLarge(frame)) => bodies.push(Err(frame)),
                Err(error) => return (bodies, Some(error)),
            }
        }
    }
    (bodies, None)
}

fn message(body: &Bytes) {
    let Ok(Some(message)) = ServiceMessage::decode(body) else { return };
    if let ServiceMessage::Ping(ping) = &message {
        let mut counters = Counters::new();
        counters.handle_sent();
        // The counters decide whether it is a valid acknowledgement.
        drop(counters.handle_ping(ping));
        assert!(counters.acknowledged() <= counters.sent(), "more is acknowledged than was sent");
    }
    if let ServiceMessage::Ack(Ack { payload: Some(payload), .. }) = &message
        && let Ok(page) = MemberPage::from_payload(payload)
    {
        assert_eq!(MemberPage::from_payload(&page.to_payload()), Ok(page));
    }
    let frame = message.to_frame();
    let mut buffer = FrameBuffer::default();
    buffer.push(frame.clone());
    let body = buffer.next_body().expect("an encoded message is framed").expect("its frame is whole");
    assert_eq!(bytes_of_frame(body.len()), frame.len(), "an encoded message is one frame");
    assert_eq!(ServiceMessage::decode(&body).expect("an encoded message can be decoded"), Some(message));
}
