//! One dialled service: its address, tokens for it, and its current problems.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use form_urlencoded::byte_serialize;
use trunkline_protocol::dial_in::{
    CLIENT_PATH, ClientTicket, ConnectionString, ORIGINAL_PATH_PARAMETER, REQUEST_ID_PARAMETER, client_audience,
    server_audience, sign_client_token, sign_server_token,
};
use trunkline_protocol::unix_time::unix_seconds;

use super::dial_error::{DialError, TlsError};
use super::protection::{PlainHttp, Protection};
use crate::brief_debug::brief_debug;
use crate::sync::lock;

/// Lifetime of a token, as in Azure's SDK. Clients use it immediately, so this only has to cover clock differences.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

pub(crate) struct DialledService {
    /// Name of the service for logs: host, port and path.
    pub(crate) name: Arc<str>,
    pub(super) place: ConnectionString,
    pub(super) protection: Protection,
    /// ID of this app server, the same for all its server connections.
    pub(super) server_id: Arc<str>,
    /// Current problem of each hub, so that each problem is logged once.
    problems: Mutex<BTreeMap<Arc<str>, String>>,
}

impl DialledService {
    /// Prepares the encryption. Fails if the service requires TLS and TLS is not available.
    pub(crate) fn new(place: ConnectionString, plain_http: PlainHttp, server_id: Arc<str>) -> Result<Self, TlsError> {
        let url = place.server_endpoint();
        let protection = Protection::new(url, place.access_key(), plain_http)?;
        let name = format!("{}{}", url.authority(), url.path()).into();
        Ok(Self { name, place, protection, server_id, problems: Mutex::default() })
    }

    pub(super) fn server_token(&self, hub: &str) -> String {
        let (now_s, expires_s) = lifetime();
        let audience = server_audience(self.place.endpoint(), hub);
        sign_server_token(self.place.access_key(), &audience, &self.server_id, now_s, expires_s)
    }

    pub(crate) fn client_token(&self, hub: &str, ticket: &ClientTicket) -> String {
        let (now_s, expires_s) = lifetime();
        let audience = client_audience(self.place.endpoint(), hub);
        sign_client_token(self.place.access_key(), &audience, ticket, now_s, expires_s)
    }

    /// URL of the service for a client, including the query of its negotiate request.
    pub(crate) fn client_url(&self, hub: &str, path: &str, query: &str, request_id: &str) -> String {
        let (hub, path, id) = (encoded(hub), encoded(path), encoded(request_id));
        let query = if query.is_empty() { String::new() } else { format!("&{query}") };
        let endpoint = self.place.client_endpoint();
        format!("{endpoint}{CLIENT_PATH}?hub={hub}&{ORIGINAL_PATH_PARAMETER}={path}{query}&{REQUEST_ID_PARAMETER}={id}")
    }

    /// Records that a hub could not reach the service. A new problem is logged once for all hubs that have it.
    pub(super) fn note_problem(&self, hub: &Arc<str>, error: &DialError) {
        let text = error.to_string();
        let is_new = {
            let mut problems = lock(&self.problems);
            let is_known = problems.values().any(|known| *known == text);
            problems.insert(Arc::clone(hub), text.clone());
            !is_known
        };
        if is_new {
            tracing::warn!(service = %self.name, %hub, "cannot reach the service, retrying: {text}");
        }
    }

    pub(super) fn note_reached(&self, hub: &Arc<str>) {
        let had_problem = lock(&self.problems).remove(hub).is_some();
        if had_problem {
            tracing::info!(service = %self.name, %hub, "service reached again");
        }
    }
}

brief_debug!(DialledService, |it| { name: it.name });

fn lifetime() -> (u64, u64) {
    let now_s = unix_seconds(SystemTime::now());
    (now_s, now_s.saturating_add(TOKEN_LIFETIME.as_secs()))
}

pub(super) fn encoded(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(text: &str) -> DialledService {
        DialledService::new(text.parse().unwrap(), PlainHttp::OnThisMachine, "server".into()).unwrap()
    }

    #[test]
    fn a_client_is_led_to_the_client_endpoint_with_its_own_query() {
        let place = "Endpoint=http://p;Port=8080;AccessKey=0123456789abcdef;ClientEndpoint=https://cdn.example/x";
        let url = service(place).client_url("chat", "/a/Chat", "negotiateVersion=1&room=%C3%A4", "r/1");
        let expected = "https://cdn.example/x/client/?hub=chat&asrs.op=%2Fa%2FChat&negotiateVersion=1&room=%C3%A4&asrs_request_id=r%2F1";
        assert_eq!(url, expected);
        let bare =
            service("Endpoint=http://p;Port=8080;AccessKey=0123456789abcdef").client_url("chat", "/chat", "", "1");
        assert_eq!(bare, "http://p:8080/client/?hub=chat&asrs.op=%2Fchat&asrs_request_id=1");
    }
}
