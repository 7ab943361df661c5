//! Connect request of a client, from its `OpenConnection` frame.

use std::collections::HashSet;
use std::net::SocketAddr;

use bytes::Bytes;
use bytestring::ByteString;
use trunkline_protocol::dial_in::{app_claim, long_claims};
use trunkline_protocol::hub::Headers;
use trunkline_protocol::manifest::Transport;
use trunkline_protocol::service::{FrameBuffer, OpenConnection, ServiceMessage, header};
use trunkline_protocol::wire::{
    ENDED_ERROR_HEADER, ENDED_HEADER, FORWARDED_FOR_HEADER, ITEMS_HEADER, PRIVATE_CLAIM_PREFIX, REMOTE_HEADER,
    SERVICE_HEADER_PREFIX, TRANSPORT_HEADER, USER_ID_CLAIM,
};

use crate::telemetry::{READS_HEADERS, TRACEPARENT_HEADER, TRACESTATE_HEADER};

/// Headers exchanged only between proxy and SDK.
const PRIVATE_HEADERS: [&str; 5] = [REMOTE_HEADER, TRANSPORT_HEADER, ITEMS_HEADER, ENDED_HEADER, ENDED_ERROR_HEADER];

/// Connect request, stored encoded and parsed on demand: few methods read the headers, and a browser's take a kilobyte
/// encoded but several as a map. The frame is one allocation of exactly its size, and IDs are ranges in it.
#[derive(Debug)]
pub(crate) struct ConnectRequest {
    /// The connection existed before, on another app server or another link.
    pub(crate) is_reassigned: bool,
    /// It comes from a service, which uses different claim names.
    is_of_service: bool,
    /// It carries a trace context for the spans of calls.
    names_trace: bool,
    id: FrameRange,
    user_id: Option<FrameRange>,
    body: Box<[u8]>,
}

/// Byte range in a frame. Frames are far smaller than the limit of `u32`.
#[derive(Debug, Default, Clone, Copy)]
struct FrameRange {
    start: u32,
    length: u32,
}

impl FrameRange {
    /// Range of `part` in `whole`. `part` must be a slice of `whole`.
    fn within(part: &[u8], whole: &[u8]) -> Option<Self> {
        // An empty text may point anywhere.
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

impl ConnectRequest {
    /// Copies `body`, the frame that `message` was decoded from. Otherwise a large WebSocket message around it might
    /// stay in memory with the connection.
    pub(crate) fn new(body: &[u8], message: &OpenConnection) -> Self {
        let id = FrameRange::within(message.connection_id.as_bytes(), body);
        debug_assert!(id.is_some(), "the message was read from this frame");
        let origin = message.origin();
        let user_id = message.claims.iter().find(|(name, _)| name == USER_ID_CLAIM);
        Self {
            is_reassigned: origin.previous_home.is_some(),
            is_of_service: false,
            names_trace: READS_HEADERS && header(&message.headers, TRACEPARENT_HEADER).is_some(),
            id: id.unwrap_or_default(),
            user_id: user_id.and_then(|(_, value)| FrameRange::within(value.as_bytes(), body)),
            body: Box::from(body),
        }
    }

    /// Request of a client that is not connected yet; `None` if it cannot be encoded.
    pub(crate) fn of_message(message: OpenConnection) -> Option<Self> {
        let mut frames = FrameBuffer::default();
        frames.push(ServiceMessage::OpenConnection(message).to_frame());
        let body = frames.next_body().ok().flatten()?;
        Some(Self::new(&body, &decode(&body)))
    }

    pub(super) fn of_service(self) -> Self {
        Self { is_of_service: true, ..self }
    }

    pub(crate) fn id(&self) -> &str {
        self.id.text(&self.body).unwrap_or_default()
    }

    /// Connection ID, as used in messages to proxies.
    pub(crate) fn shared_id(&self) -> ByteString {
        ByteString::from(self.id())
    }

    pub(crate) fn user_id(&self) -> Option<&str> {
        self.user_id?.text(&self.body)
    }

    /// Headers with the trace context of calls, if their messages have none.
    pub(crate) fn trace_headers(&self) -> Headers {
        if !self.names_trace {
            return Headers::new();
        }
        let is_of_trace =
            |name: &str| [TRACEPARENT_HEADER, TRACESTATE_HEADER].iter().any(|of| name.eq_ignore_ascii_case(of));
        let headers = self.message().headers.into_iter().filter(|(name, _)| is_of_trace(name));
        headers.filter_map(|(name, values)| Some((name, values.into_iter().next()?))).collect()
    }

    pub(crate) fn claims(&self) -> Vec<(String, String)> {
        self.claims_of_user(&self.message().claims)
    }

    /// Claims of the user from an authentication, without private ones.
    pub(super) fn claims_of_user(&self, claims: &[(ByteString, ByteString)]) -> Vec<(String, String)> {
        let of_proxy = |name: &str| (!name.starts_with(PRIVATE_CLAIM_PREFIX)).then(|| name.to_owned());
        let of_service = |name: &str| app_claim(name).map(str::to_owned);
        // A service may send a claim under both its own name and its long one.
        let copies: HashSet<_> = long_claims(claims).filter(|_| self.is_of_service).collect();
        let is_copy = |(name, value): &(ByteString, ByteString)| copies.contains(&(name.to_string(), value.clone()));
        let named = claims.iter().filter(|claim| !is_copy(claim)).filter_map(|(name, value)| {
            let name = if self.is_of_service { of_service(name) } else { of_proxy(name) };
            Some((name?, value.to_string()))
        });
        named.collect()
    }

    pub(crate) fn headers(&self) -> impl Iterator<Item = (ByteString, Vec<ByteString>)> {
        self.message().headers.into_iter().filter(|(name, _)| !is_private_header(name))
    }

    /// Query of the connect request, without the `?`.
    pub(crate) fn query(&self) -> ByteString {
        let query = self.message().query.unwrap_or_default();
        match query.strip_prefix('?') {
            Some(rest) => query.slice_ref(rest),
            None => query,
        }
    }

    /// Address of the client, as seen by the proxy. Services send it without the port.
    pub(crate) fn remote_addr(&self) -> Option<SocketAddr> {
        if !self.is_of_service {
            return self.header(REMOTE_HEADER)?.parse().ok();
        }
        forwarded_for(&self.header(FORWARDED_FOR_HEADER)?)
    }

    /// Transport of the client, which services don't send.
    pub(crate) fn transport(&self) -> Transport {
        let named = self.header(TRANSPORT_HEADER).and_then(|name| Transport::from_name(&name));
        named.unwrap_or(Transport::WebSockets)
    }

    pub(crate) fn header(&self, wanted: &str) -> Option<ByteString> {
        header(&self.message().headers, wanted).cloned()
    }

    fn message(&self) -> OpenConnection {
        decode(&Bytes::copy_from_slice(&self.body))
    }
}

/// Client address from the first entry of an address list, with or without a port.
pub(crate) fn forwarded_for(list: &str) -> Option<SocketAddr> {
    let first = list.split(',').next()?.trim();
    first.parse().ok().or_else(|| Some(SocketAddr::new(first.parse().ok()?, 0)))
}

fn is_private_header(name: &str) -> bool {
    let beginning = name.get(..SERVICE_HEADER_PREFIX.len());
    beginning.is_some_and(|beginning| beginning.eq_ignore_ascii_case(SERVICE_HEADER_PREFIX))
        || PRIVATE_HEADERS.iter().any(|private| name.eq_ignore_ascii_case(private))
}

/// Decodes an opening frame that was decoded before.
fn decode(body: &Bytes) -> OpenConnection {
    match ServiceMessage::decode(body) {
        Ok(Some(ServiceMessage::OpenConnection(message))) => message,
        _ => OpenConnection::default(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A connect request as received from a link.
    pub(crate) fn connect_request_of(message: OpenConnection) -> ConnectRequest {
        ConnectRequest::of_message(message).unwrap()
    }

    fn text(text: &str) -> ByteString {
        text.into()
    }

    #[test]
    fn an_empty_user_id_is_a_user_id() {
        let claims = |claims| OpenConnection { claims, connection_id: text("c1"), ..OpenConnection::default() };
        assert_eq!(connect_request_of(claims(vec![(text(USER_ID_CLAIM), text(""))])).user_id(), Some(""));
        assert_eq!(connect_request_of(claims(Vec::new())).user_id(), None);
    }

    #[test]
    fn claims_that_a_service_sends_by_both_names_are_there_once() {
        const ROLE: &str = "http://schemas.microsoft.com/ws/2008/06/identity/claims/role";
        let claims_of = |pairs: &[(&str, &str)]| {
            let claims = pairs.iter().map(|(name, value)| (text(name), text(value))).collect();
            let request = connect_request_of(OpenConnection { claims, ..OpenConnection::default() }).of_service();
            request.claims().into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
        };
        let both = [("roles", "cook"), ("roles", "admin"), ("x", "1"), (ROLE, "cook"), (ROLE, "admin")];
        assert_eq!(claims_of(&both), ["roles=cook", "roles=admin", "x=1"]);
        assert_eq!(claims_of(&[(ROLE, "cook")]), ["role=cook"], "from a node of the last version");
    }

    #[test]
    fn private_claims_and_headers_are_hidden() {
        let request = connect_request_of(OpenConnection {
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
        assert_eq!(request.id(), "c1");
        assert_eq!(request.user_id(), Some("ann"));
        let role = |value: &str| ("role".to_owned(), value.to_owned());
        assert_eq!(request.claims(), [role("cook"), role("admin")]);
        let headers: Vec<_> = request.headers().collect();
        assert_eq!(headers, [(text("User-Agent"), vec![text("me")])]);
        assert_eq!(request.query(), "a=1&b=2");
        assert_eq!(request.transport(), Transport::LongPolling);
        assert_eq!(request.remote_addr(), Some("10.1.2.3:456".parse().unwrap()));
    }
}
