//! Opening frames of client connections, kept to open them at another app server, with interned common headers.
//!
//! Clients of one kind send mostly the same headers, a browser about a kilobyte. Common headers are therefore stored
//! once per shard; a client stores only its id, claims, query, cookies and addresses.

use std::collections::HashSet;
use std::rc::Rc;

use bytes::Bytes;
use trunkline_protocol::service::{FrameBuffer, OpenConnection, ServiceMessage};

use crate::ground::limits::HeadWeight;

/// Headers with individual values, such as the ids and addresses that balancers add. Other headers are interned.
const OWN_HEADERS: [&str; 16] = [
    "authorization",
    "cf-connecting-ip",
    "cf-ray",
    "content-length",
    "cookie",
    "forwarded",
    "traceparent",
    "tracestate",
    "true-client-ip",
    "x-amzn-trace-id",
    "x-client-ip",
    "x-cloud-trace-context",
    "x-forwarded-for",
    "x-real-ip",
    "x-request-id",
    "x-trunkline-remote",
];

/// Number of interned texts at which unused ones are first removed.
const SWEEP_FROM: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct OpeningInterner {
    known: HashSet<Rc<[u8]>>,
    sweep_at: usize,
}

/// Opening frame of one connection: individual and interned parts.
#[derive(Debug, Clone)]
pub(crate) struct Opening {
    own: Box<[u8]>,
    shared: Rc<[u8]>,
    /// Weight of a large frame, shared by its copies.
    _weight: Option<Rc<HeadWeight>>,
}

impl OpeningInterner {
    /// Interns an opening frame. The weight of its head is kept as long as any copy.
    pub(crate) fn intern_opening(&mut self, open: &OpenConnection, weight: Option<Rc<HeadWeight>>) -> Opening {
        let is_own = |name: &str| OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name));
        let (own, shared) = open.headers.iter().cloned().partition(|(name, _)| is_own(name));
        // Not `..open.clone()`, which would copy all headers again for each new client.
        let own = encode(OpenConnection {
            connection_id: open.connection_id.clone(),
            claims: open.claims.clone(),
            headers: own,
            query: open.query.clone(),
            protocol: open.protocol.clone(),
        });
        let shared = encode(OpenConnection { headers: shared, ..OpenConnection::default() });
        Opening { own: Box::from(&*own), shared: self.intern(&shared), _weight: weight }
    }

    fn intern(&mut self, bytes: &[u8]) -> Rc<[u8]> {
        if let Some(known) = self.known.get(bytes) {
            return Rc::clone(known);
        }
        if self.known.len() >= self.sweep_at.max(SWEEP_FROM) {
            self.known.retain(|known| Rc::strong_count(known) > 1);
            self.known.shrink_to_fit();
            self.sweep_at = 2 * self.known.len();
        }
        let text = Rc::from(bytes);
        self.known.insert(Rc::clone(&text));
        text
    }
}

impl Opening {
    /// Bytes of its individual part.
    pub(crate) fn own_bytes(&self) -> usize {
        self.own.len()
    }

    /// Complete opening frame; the order of headers may differ.
    pub(crate) fn unpack(&self) -> Option<OpenConnection> {
        let (mut open, shared) = (decode(&self.own)?, decode(&self.shared)?);
        open.headers.extend(shared.headers);
        Some(open)
    }
}

fn encode(open: OpenConnection) -> Bytes {
    let mut frames = FrameBuffer::default();
    frames.push(ServiceMessage::OpenConnection(open).to_frame());
    // A newly encoded frame is complete.
    frames.next_body().ok().flatten().unwrap_or_default()
}

fn decode(body: &[u8]) -> Option<OpenConnection> {
    match ServiceMessage::decode(&Bytes::copy_from_slice(body)) {
        Ok(Some(ServiceMessage::OpenConnection(open))) => Some(open),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn open_connection(id: &str, agent: &str) -> OpenConnection {
        OpenConnection {
            connection_id: id.into(),
            claims: vec![("role".into(), "cook".into())],
            headers: vec![("Cookie".into(), vec![id.into()]), ("User-Agent".into(), vec![agent.into()])],
            query: Some("?a=1".into()),
            protocol: Some("json".into()),
        }
    }

    #[test]
    fn an_opening_is_read_back_whole_and_common_headers_are_kept_once() {
        let mut interner = OpeningInterner::default();
        let openings = [
            interner.intern_opening(&open_connection("1", "me"), None),
            interner.intern_opening(&open_connection("2", "me"), None),
            interner.intern_opening(&open_connection("3", "you"), None),
        ];
        assert_eq!(openings[0].unpack(), Some(open_connection("1", "me")));
        assert_eq!(openings[2].unpack(), Some(open_connection("3", "you")));
        assert!(Rc::ptr_eq(&openings[0].shared, &openings[1].shared));
        let mut behind_balancer = open_connection("4", "me");
        behind_balancer.headers.push(("CF-Connecting-IP".into(), vec!["192.0.2.7".into()]));
        assert!(Rc::ptr_eq(&openings[0].shared, &interner.intern_opening(&behind_balancer, None).shared));
        assert_eq!(interner.known.len(), 2);
    }

    #[test]
    fn unused_headers_are_swept_out() {
        let mut interner = OpeningInterner::default();
        let stays = interner.intern_opening(&open_connection("1", "stays"), None);
        for number in 0..10 * SWEEP_FROM {
            drop(interner.intern_opening(&open_connection("1", &number.to_string()), None));
        }
        assert!(interner.known.len() <= SWEEP_FROM);
        assert!(Rc::ptr_eq(&stays.shared, &interner.intern_opening(&open_connection("2", "stays"), None).shared));
    }
}
