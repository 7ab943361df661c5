//! The frame that opened a client connection, kept for the case that another app server has to be told of it.
//!
//! Clients of one kind send the same headers but for a few, and a browser's weigh a kilobyte. So what is alike is kept
//! once per shard, and of each client only its own: id, claims, query, cookies, addresses.

use std::collections::HashSet;
use std::rc::Rc;

use bytes::Bytes;
use trunkline_protocol::service::{FrameBuffer, OpenConnection, ServiceMessage};

/// Headers whose values are a client's own; all others are taken for alike.
const OWN_HEADERS: [&str; 8] = [
    "authorization",
    "content-length",
    "cookie",
    "x-forwarded-for",
    "x-request-id",
    "traceparent",
    "x-real-ip",
    "x-trunkline-remote",
];

/// So many texts are kept before it is looked which of them are still needed.
const SWEEP_FROM: usize = 64;

/// What is alike among the clients of a shard.
#[derive(Debug, Default)]
pub(crate) struct Alike {
    known: HashSet<Rc<[u8]>>,
    sweep_at: usize,
}

/// What is kept of one opening.
#[derive(Debug)]
pub(crate) struct Opening {
    own: Box<[u8]>,
    alike: Rc<[u8]>,
}

impl Alike {
    pub(crate) fn keep(&mut self, open: &OpenConnection) -> Opening {
        let is_own = |name: &str| OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name));
        let (own, alike) = open.headers.iter().cloned().partition(|(name, _)| is_own(name));
        let own = encode(OpenConnection { headers: own, ..open.clone() });
        let alike = encode(OpenConnection { headers: alike, ..OpenConnection::default() });
        Opening { own: Box::from(&*own), alike: self.shared(&alike) }
    }

    fn shared(&mut self, bytes: &[u8]) -> Rc<[u8]> {
        if let Some(known) = self.known.get(bytes) {
            return Rc::clone(known);
        }
        if self.known.len() >= self.sweep_at.max(SWEEP_FROM) {
            self.known.retain(|known| Rc::strong_count(known) > 1);
            self.known.shrink_to_fit();
            self.sweep_at = 2 * self.known.len();
        }
        let shared = Rc::from(bytes);
        self.known.insert(Rc::clone(&shared));
        shared
    }
}

impl Opening {
    /// The whole of it; headers may stand in another order.
    #[must_use]
    pub(crate) fn read(&self) -> Option<OpenConnection> {
        let (mut open, alike) = (decode(&self.own)?, decode(&self.alike)?);
        open.headers.extend(alike.headers);
        Some(open)
    }
}

fn encode(open: OpenConnection) -> Bytes {
    let mut frames = FrameBuffer::default();
    frames.push(ServiceMessage::OpenConnection(open).to_frame());
    // What was just encoded is whole.
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

    pub(in crate::shard::directory) fn open(id: &str, agent: &str) -> OpenConnection {
        OpenConnection {
            connection_id: id.into(),
            claims: vec![("role".into(), "cook".into())],
            headers: vec![("Cookie".into(), vec![id.into()]), ("User-Agent".into(), vec![agent.into()])],
            query: Some("?a=1".into()),
            protocol: Some("json".into()),
        }
    }

    #[test]
    fn what_is_kept_is_what_was_told_and_what_is_alike_is_kept_once() {
        let mut alike = Alike::default();
        let kept = [alike.keep(&open("1", "me")), alike.keep(&open("2", "me")), alike.keep(&open("3", "you"))];
        assert_eq!(kept[0].read(), Some(open("1", "me")));
        assert_eq!(kept[2].read(), Some(open("3", "you")));
        assert!(Rc::ptr_eq(&kept[0].alike, &kept[1].alike));
        assert_eq!(alike.known.len(), 2);
    }

    #[test]
    fn what_nobody_has_any_more_is_forgotten() {
        let mut alike = Alike::default();
        let stays = alike.keep(&open("1", "stays"));
        for number in 0..10 * SWEEP_FROM {
            drop(alike.keep(&open("1", &number.to_string())));
        }
        assert!(alike.known.len() <= SWEEP_FROM);
        assert!(Rc::ptr_eq(&stays.alike, &alike.keep(&open("2", "stays")).alike));
    }
}
