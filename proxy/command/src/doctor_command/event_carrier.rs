//! Client transport over server-sent events, with POSTs for its messages.

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use memchr::memchr;

use super::probe_client::{ANSWER_MAX_BYTES, ProbeClient, ProbeError};

#[derive(Debug)]
pub(super) struct EventCarrier {
    client: ProbeClient,
    id: String,
    body: Incoming,
    parser: EventParser,
}

impl EventCarrier {
    /// Opens an event stream for a connection. Fails if the answer is not an event stream.
    pub(super) async fn open(client: &ProbeClient, id: &str) -> Result<Self, ProbeError> {
        let headers = [("accept", "text/event-stream".to_owned()), ("cache-control", "no-cache".to_owned())];
        let answer = client.open(id, headers).await?;
        if answer.status() != StatusCode::OK {
            return Err(client.refusal(answer).await);
        }
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.starts_with("text/event-stream") {
            return Err(ProbeError::ContentType(kind.to_owned()));
        }
        let (client, id) = (client.clone(), id.to_owned());
        Ok(Self { client, id, body: answer.into_body(), parser: EventParser::default() })
    }

    pub(super) async fn send(&mut self, messages: &Bytes) -> Result<(), ProbeError> {
        self.client.post(&self.id, messages.clone()).await?.successful().map(drop)
    }

    pub(super) async fn receive(&mut self) -> Result<Bytes, ProbeError> {
        loop {
            if let Some(event) = self.parser.next_event()? {
                return Ok(event);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.parser.extend(frame.data_ref().map(Bytes::as_ref).unwrap_or_default()),
                Some(Err(error)) => return Err(ProbeError::Closed(error.to_string())),
                None => return Err(ProbeError::Closed("the stream was ended".into())),
            }
        }
    }
}

#[derive(Debug, Default)]
struct EventParser {
    rest: BytesMut,
    data: BytesMut,
}

impl EventParser {
    fn extend(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
    }

    fn next_event(&mut self) -> Result<Option<Bytes>, ProbeError> {
        while let Some(end) = memchr(b'\n', &self.rest) {
            let line = self.rest.split_to(end + 1);
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() && !self.data.is_empty() {
                return Ok(Some(self.data.split().freeze()));
            }
            if let Some(data) = line.strip_prefix(b"data:") {
                if !self.data.is_empty() {
                    self.data.extend_from_slice(b"\n");
                }
                self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
            }
        }
        match self.rest.len() + self.data.len() > ANSWER_MAX_BYTES {
            true => Err(ProbeError::Large),
            false => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_wherever_the_stream_is_cut() {
        let all = b":\r\ndata: {\"type\":6}\x1e\r\n\r\nevent: x\ndata: a\ndata:b\n\n";
        for cut in 0..all.len() {
            let mut parser = EventParser::default();
            let mut events = Vec::new();
            for piece in [&all[..cut], &all[cut..]] {
                parser.extend(piece);
                while let Some(event) = parser.next_event().unwrap() {
                    events.push(event);
                }
            }
            assert_eq!(events, [&b"{\"type\":6}\x1e"[..], b"a\nb"], "cut at {cut}");
        }
    }

    #[test]
    fn a_stream_without_an_end_of_line_is_given_up() {
        let mut parser = EventParser::default();
        parser.extend(&vec![b'x'; ANSWER_MAX_BYTES + 1]);
        assert!(matches!(parser.next_event(), Err(ProbeError::Large)));
    }
}
