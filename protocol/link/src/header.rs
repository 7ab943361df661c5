//! Offer and answer of an upgrade as HTTP headers.

use http::{HeaderMap, HeaderName, HeaderValue};
use trunkline_protocol::service::{Answer, Capabilities, HeaderError, Offer, parse_received};
use trunkline_protocol::wire::{CAPABILITIES_HEADER, RECEIVED_HEADER, SESSION_HEADER};

/// Missing or malformed header of an upgrade.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct MalformedHeader {
    /// Name of the header.
    pub name: &'static str,
    /// Problem with its value.
    error: HeaderError,
}

/// Writes the proxy's offer.
pub fn write_offer(offer: &Offer, headers: &mut HeaderMap) {
    insert(headers, SESSION_HEADER, &offer.session.to_string());
    insert(headers, CAPABILITIES_HEADER, &offer.capabilities.to_string());
    if let Some(received) = offer.received {
        headers.insert(HeaderName::from_static(RECEIVED_HEADER), HeaderValue::from(received));
    }
}

/// Reads the proxy's offer; `None` if the proxy does not resume sessions. Fails if a header is missing or malformed.
pub fn read_offer(headers: &HeaderMap) -> Result<Option<Offer>, MalformedHeader> {
    let capabilities = read_capabilities(headers)?;
    if capabilities.resume_ring_bytes.is_none() {
        return Ok(None);
    }
    // A missing header is treated as empty, which is not a number either.
    let session = text(headers, SESSION_HEADER).unwrap_or_default().parse().map_err(malformed(SESSION_HEADER))?;
    Ok(Some(Offer { session, received: read_received(headers)?, capabilities }))
}

/// Writes the app server's answer.
pub fn write_answer(answer: &Answer, headers: &mut HeaderMap) {
    headers.insert(HeaderName::from_static(RECEIVED_HEADER), HeaderValue::from(answer.received));
    insert(headers, CAPABILITIES_HEADER, &answer.capabilities.to_string());
}

/// Reads the app server's answer to an offer. Resuming requires support at both ends. Fails if a header is malformed.
pub fn read_answer(headers: &HeaderMap, offer: &Offer) -> Result<Answer, MalformedHeader> {
    let received = read_received(headers)?.unwrap_or_default();
    let capabilities = read_capabilities(headers)?;
    let capabilities = match offer.capabilities.resume_ring_bytes {
        Some(_) => capabilities,
        None => capabilities.without_resuming(),
    };
    Ok(Answer { received, capabilities })
}

/// Reads the peer's capabilities; empty without the header. Fails if the header is malformed.
pub fn read_capabilities(headers: &HeaderMap) -> Result<Capabilities, MalformedHeader> {
    let capabilities = text(headers, CAPABILITIES_HEADER).map(str::parse).transpose();
    capabilities.map(Option::unwrap_or_default).map_err(malformed(CAPABILITIES_HEADER))
}

fn read_received(headers: &HeaderMap) -> Result<Option<u64>, MalformedHeader> {
    text(headers, RECEIVED_HEADER).map(parse_received).transpose().map_err(malformed(RECEIVED_HEADER))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default())
}

fn malformed(name: &'static str) -> impl FnOnce(HeaderError) -> MalformedHeader {
    move |error| MalformedHeader { name, error }
}

fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    // Digits, letters and equals signs are valid in any header.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::service::SessionId;

    use super::*;

    fn offer(resume_ring_bytes: Option<usize>) -> Offer {
        let capabilities = Capabilities { resume_ring_bytes, ..Capabilities::plain() };
        Offer { session: SessionId::FIRST, received: Some(7), capabilities }
    }

    #[test]
    fn an_offer_is_read_as_it_was_written() {
        let mut headers = HeaderMap::new();
        write_offer(&offer(Some(1000)), &mut headers);
        assert_eq!(read_offer(&headers), Ok(Some(offer(Some(1000)))));
        headers.remove(SESSION_HEADER);
        assert_eq!(read_offer(&headers).unwrap_err().name, SESSION_HEADER);
        headers.insert(RECEIVED_HEADER, HeaderValue::from_static("+1"));
        write_offer(&Offer { received: None, ..offer(Some(1000)) }, &mut headers);
        assert_eq!(read_offer(&headers).unwrap_err().name, RECEIVED_HEADER);
    }

    #[test]
    fn without_resuming_there_is_no_offer() {
        let mut headers = HeaderMap::new();
        write_offer(&offer(None), &mut headers);
        assert_eq!(read_offer(&headers), Ok(None));
        assert!(read_capabilities(&headers).unwrap().supports_causes);
    }

    #[test]
    fn an_answer_resumes_only_an_offered_session() {
        let mut headers = HeaderMap::new();
        let answer = Answer { received: 3, capabilities: offer(Some(1000)).capabilities };
        write_answer(&answer, &mut headers);
        assert_eq!(read_answer(&headers, &offer(Some(1))), Ok(answer.clone()));
        let plain = read_answer(&headers, &offer(None)).unwrap();
        assert_eq!(plain.capabilities.resume_ring_bytes, None);
        assert!(plain.capabilities.supports_causes);
    }
}
