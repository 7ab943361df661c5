//! What a connection's opening frame told, kept as it came and read when asked.

use std::net::SocketAddr;

use bytes::Bytes;
use bytestring::ByteString;
use trunkline_protocol::manifest::{ITEMS_HEADER, MIGRATE_FROM_HEADER, TRANSPORT_HEADER, Transport, USER_ID_CLAIM};
use trunkline_protocol::service::{OpenConnection, ServiceMessage};

/// Claims with this prefix are between proxy and SDK.
const PRIVATE_CLAIM_PREFIX: &str = "asrs.s.";
/// The header that holds the client's address, `ip:port`.
const REMOTE_HEADER: &str = "x-trunkline-remote";
/// Headers that are between proxy and SDK.
const PRIVATE_HEADERS: [&str; 4] = [REMOTE_HEADER, TRANSPORT_HEADER, MIGRATE_FROM_HEADER, ITEMS_HEADER];

/// The opening of a connection.
///
/// A browser's headers weigh a kilobyte as bytes and several as a map; nearly no method looks at them. So the frame
/// is kept in one piece of memory of exactly its size, and the ids are where they stand in it.
#[derive(Debug)]
pub(crate) struct Opening {
    /// The client knows the connection to be open: it comes from another app server or another link.
    pub(crate) is_rehomed: bool,
    id: Place,
    user_id: Option<Place>,
    body: Box<[u8]>,
}

/// A stretch of a frame, in bytes. A frame is far smaller than what this can tell.
#[derive(Debug, Default, Clone, Copy)]
struct Place {
    start: u32,
    length: u32,
}

impl Place {
    /// Where `part`, a piece of `whole`, stands in it.
    fn of(part: &[u8], whole: &[u8]) -> Option<Self> {
        // An empty text owns no place in it.
        if part.is_empty() {
            return Some(Self::default());
        }
        let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
        (start + part.len() <= whole.len())
            .then_some(Self { start: u32::try_from(start).ok()?, length: u32::try_from(part.len()).ok()? })
    }

    fn text(self, whole: &[u8]) -> Option<&str> {
        let start = self.start as usize;
        std::str::from_utf8(whole.get(start..start + self.length as usize)?).ok()
    }
}

impl Opening {
    /// Keeps what `body`, the frame that this message was read from, says. The bytes are copied, because the originals
    /// may be a small part of a large WebSocket message, which would live as long as the connection.
    pub(crate) fn new(body: &[u8], message: &OpenConnection) -> Self {
        let id = Place::of(message.connection_id.as_bytes(), body);
        debug_assert!(id.is_some(), "the message was read from this frame");
        let is_rehomed = message.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(MIGRATE_FROM_HEADER));
        let user_id = message.claims.iter().find(|(name, _)| name == USER_ID_CLAIM);
        Self {
            is_rehomed,
            id: id.unwrap_or_default(),
            user_id: user_id.and_then(|(_, value)| Place::of(value.as_bytes(), body)),
            body: Box::from(body),
        }
    }

    /// The connection's id.
    pub(crate) fn id(&self) -> &str {
        self.id.text(&self.body).unwrap_or_default()
    }

    /// The same, as messages to proxies have it.
    pub(crate) fn shared_id(&self) -> ByteString {
        ByteString::from(self.id())
    }

    /// The user that its client is, if it is one.
    pub(crate) fn user_id(&self) -> Option<&str> {
        self.user_id?.text(&self.body)
    }

    /// Claims of the user, without those between proxy and SDK.
    pub(crate) fn claims(&self) -> impl Iterator<Item = (ByteString, ByteString)> {
        self.message().claims.into_iter().filter(|(name, _)| !name.starts_with(PRIVATE_CLAIM_PREFIX))
    }

    /// Headers of the connect request, without those between proxy and SDK.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (ByteString, Vec<ByteString>)> {
        self.message()
            .headers
            .into_iter()
            .filter(|(name, _)| !PRIVATE_HEADERS.iter().any(|private| name.eq_ignore_ascii_case(private)))
    }

    /// Query of the connect request, without its `?`.
    pub(crate) fn query(&self) -> ByteString {
        let query = self.message().query.unwrap_or_default();
        match query.strip_prefix('?') {
            Some(rest) => query.slice_ref(rest),
            None => query,
        }
    }

    /// Address of the client, as the proxy saw it.
    pub(crate) fn remote_addr(&self) -> Option<SocketAddr> {
        self.header(REMOTE_HEADER)?.parse().ok()
    }

    /// How the client's bytes travel. Proxies that don't say so know WebSockets only.
    pub(crate) fn transport(&self) -> Transport {
        let named = self.header(TRANSPORT_HEADER).and_then(|name| Transport::from_name(&name));
        named.unwrap_or(Transport::WebSockets)
    }

    /// The first value of a header, private or not.
    pub(crate) fn header(&self, wanted: &str) -> Option<ByteString> {
        let headers = self.message().headers;
        let (_, values) = headers.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
        values.into_iter().next()
    }

    fn message(&self) -> OpenConnection {
        decode(&Bytes::copy_from_slice(&self.body))
    }
}

/// What an opening frame says: it was read before.
fn decode(body: &Bytes) -> OpenConnection {
    match ServiceMessage::decode(body) {
        Ok(Some(ServiceMessage::OpenConnection(message))) => message,
        _ => OpenConnection::default(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use trunkline_protocol::service::FrameBuffer;

    use super::*;

    /// An opening as it would come off a link.
    pub(crate) fn opening(message: OpenConnection) -> Opening {
        let mut frames = FrameBuffer::default();
        frames.push(ServiceMessage::OpenConnection(message).to_frame());
        let body = frames.next_body().unwrap().unwrap();
        Opening::new(&body, &decode(&body))
    }

    fn text(text: &str) -> ByteString {
        text.into()
    }

    #[test]
    fn an_empty_user_is_one_and_none_is_none() {
        let claims = |claims| OpenConnection { claims, connection_id: text("c1"), ..OpenConnection::default() };
        assert_eq!(opening(claims(vec![(text(USER_ID_CLAIM), text(""))])).user_id(), Some(""));
        assert_eq!(opening(claims(Vec::new())).user_id(), None);
    }

    #[test]
    fn what_is_between_proxy_and_sdk_is_taken_out() {
        let opening = opening(OpenConnection {
            connection_id: text("c1"),
            claims: vec![
                (text("asrs.s.uid"), text("ann")),
                (text("role"), text("cook")),
                (text("role"), text("admin")),
                (text("asrs.s.aut"), text("x")),
            ],
            headers: vec![
                (text("X-Trunkline-Remote"), vec![text("10.1.2.3:456")]),
                (text("User-Agent"), vec![text("me")]),
                (text("X-Trunkline-Transport"), vec![text("LongPolling")]),
            ],
            query: Some(text("?a=1&b=2")),
            protocol: Some(text("MessagePack")),
        });
        assert_eq!(opening.id(), "c1");
        assert_eq!(opening.user_id(), Some("ann"));
        let claims: Vec<_> = opening.claims().collect();
        assert_eq!(claims, [(text("role"), text("cook")), (text("role"), text("admin"))]);
        let headers: Vec<_> = opening.headers().collect();
        assert_eq!(headers, [(text("User-Agent"), vec![text("me")])]);
        assert_eq!(opening.query(), "a=1&b=2");
        assert_eq!(opening.transport(), Transport::LongPolling);
        assert_eq!(opening.remote_addr(), Some("10.1.2.3:456".parse().unwrap()));
    }
}
