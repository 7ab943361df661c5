//! Server-Sent Events: a GET with a response that streams events for the lifetime of the connection. Text only.

use std::cell::RefCell;
use std::pin::pin;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use trunkline_protocol::hub::HubProtocol;

use super::taker::{Taker, deliver_whole};
use super::upward::Upward;
use crate::dial::ConnectError;
use crate::ended::Ended;
use crate::exchange::{Ask, EVENT_STREAM, Exchange, ExchangeError};
use crate::greeting;
use crate::wire::event_parser::EventParser;

/// The only text protocol.
const PROTOCOL: HubProtocol = HubProtocol::Json;

#[derive(Debug)]
pub(crate) struct EventStream {
    pub(super) upward: Upward,
    /// State after the handshake, until the connection is served.
    begun: RefCell<Option<Box<BegunStream>>>,
}

#[derive(Debug)]
struct BegunStream {
    body: Incoming,
    events: EventParser,
    /// Hub messages after the handshake response.
    rest: Vec<u8>,
    /// HTTP connection of the stream, kept open while this exists.
    _down: Exchange,
    up: Exchange,
}

impl EventStream {
    /// Opens the stream of a negotiated connection and performs the handshake.
    pub(crate) async fn open(mut down: Exchange, path: String) -> Result<Self, ConnectError> {
        let answer = down.begin(Ask::events(&path)).await?;
        if answer.status() != StatusCode::OK {
            return Err(ConnectError::Request("GET", answer.status().as_u16().to_string()));
        }
        if !is_event_stream(answer.headers()) {
            return Err(ConnectError::Request("GET", "what is no event stream".into()));
        }
        let mut up = down.another();
        let upward = Upward::new(path, PROTOCOL, down.scissors());
        upward.post(&mut up, greeting::request(PROTOCOL)).await?;
        let (mut body, mut events) = (answer.into_body(), EventParser::default());
        let mut rest = first(&mut body, &mut events).await?;
        rest.drain(..greeting::welcome(&rest)?);
        let begun = BegunStream { body, events, rest, _down: down, up };
        Ok(Self { upward, begun: RefCell::new(Some(begun.into())) })
    }

    pub(super) async fn serve(&self, taker: &impl Taker) -> Ended {
        let Some(begun) = self.begun.take() else { return Ended::Closed };
        let BegunStream { body, events, rest, _down, mut up } = *begun;
        if let Err(ended) = deliver_whole(PROTOCOL, &rest, taker) {
            return ended;
        }
        drop(rest);
        let ended = self.upward.serve(&mut up, pin!(read(body, events, taker))).await;
        // After the client's close message, the server is not responsible for the end.
        if self.upward.is_closing() { Ended::Closed } else { ended }
    }
}

async fn read(mut body: Incoming, mut events: EventParser, taker: &impl Taker) -> Ended {
    loop {
        let bytes = match next(&mut body).await {
            Ok(bytes) => bytes,
            Err(error) => return error.into(),
        };
        taker.note_received();
        let mut outcome = Ok(());
        let taken = events.take(&bytes, |data| {
            if outcome.is_ok() {
                outcome = deliver_whole(PROTOCOL, data, taker);
            }
        });
        match (outcome, taken) {
            (Err(ended), _) => return ended,
            (Ok(()), Err(error)) => return Ended::Protocol(error.to_string()),
            (Ok(()), Ok(())) => {}
        }
    }
}

async fn first(body: &mut Incoming, events: &mut EventParser) -> Result<Vec<u8>, ConnectError> {
    let mut first = Vec::new();
    while first.is_empty() {
        let bytes = next(body).await?;
        let taken = events.take(&bytes, |data| first.extend_from_slice(data));
        taken.map_err(|error| ConnectError::Request("GET", error.to_string()))?;
    }
    Ok(first)
}

async fn next(body: &mut Incoming) -> Result<Bytes, ExchangeError> {
    loop {
        let frame = body.frame().await.ok_or(ExchangeError::Closed)??;
        if let Ok(bytes) = frame.into_data() {
            return Ok(bytes);
        }
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    media_type.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case(EVENT_STREAM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_stream_is_known_by_its_media_type() {
        let is_one = |value: &'static str| {
            is_event_stream(&HeaderMap::from_iter([(header::CONTENT_TYPE, http::HeaderValue::from_static(value))]))
        };
        assert!(is_one("text/event-stream") && is_one("Text/Event-Stream; charset=utf-8"));
        assert!(!is_one("text/plain") && !is_event_stream(&HeaderMap::new()));
    }
}
