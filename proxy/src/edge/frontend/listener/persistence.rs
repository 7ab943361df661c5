//! Response headers that announce how long an idle connection is kept, or that it closes.
//!
//! With the idle timeout, .NET's and Node's clients stop using the connection earlier, so that no request races the
//! close. Neither repeats a POST that does.

use axum::response::Response;
use http::header::CONNECTION;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Version};

use super::listener_gate::ListenerGate;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Persistence of one HTTP/1 connection, as announced by its responses.
#[derive(Debug, Clone)]
pub(super) struct Persistence {
    gate: ListenerGate,
    /// Value of `Keep-Alive`; `None` for a load balancer, which might forward it to its clients.
    keep_alive: Option<HeaderValue>,
}

impl Persistence {
    pub(super) fn new(gate: ListenerGate, is_trusted: bool) -> Self {
        let seconds = gate.keep_alive_timeout().as_secs();
        let keep_alive = HeaderValue::from_str(&format!("timeout={seconds}")).ok().filter(|_| !is_trusted);
        Self { gate, keep_alive }
    }

    /// Whether the client keeps the connection after this request.
    pub(super) fn is_wanted<B>(request: &Request<B>) -> bool {
        request.version() == Version::HTTP_11 && !requests_close(request.headers())
    }

    /// Whether the connection ends after the next response in any case.
    pub(super) fn ends(&self) -> bool {
        self.gate.is_stopping()
    }

    /// Announces the future of the connection, unless the response already does.
    pub(super) fn declare(&self, answer: &mut Response) {
        let is_upgrade = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        if is_upgrade || headers.contains_key(CONNECTION) {
            return;
        }
        if self.ends() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        } else if let Some(keep_alive) = &self.keep_alive {
            headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
            headers.insert(KEEP_ALIVE, keep_alive.clone());
        }
    }
}

fn requests_close(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("close"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_http_1_1_request_without_close_keeps_the_connection() {
        let request = |version, connection: &'static str| {
            Request::builder().version(version).header(CONNECTION, connection).body(()).unwrap()
        };
        assert!(Persistence::is_wanted(&request(Version::HTTP_11, "keep-alive, te")));
        assert!(!Persistence::is_wanted(&request(Version::HTTP_11, "te, Close")));
        assert!(!Persistence::is_wanted(&request(Version::HTTP_10, "keep-alive")));
    }
}
