//! Upgrade of one server connection: TCP, TLS or a channel, the WebSocket, and the handshake of the service protocol.

use std::time::Duration;

use http::HeaderValue;
use http::header::{AUTHORIZATION, HeaderName};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{client_async_with_config, tungstenite};
use trunkline_link::{LinkEnd, MigrationLevel, StatefulReconnects, request_handshake_for};
use trunkline_protocol::dial_in::{
    SDK_HEADER, SERVER_CONNECTION_PARAMETER, SERVER_ID_HEADER, SERVER_PATH, ServiceScheme, TARGET_PARAMETER,
};
use trunkline_protocol::id::random_bytes;
use trunkline_protocol::limits::LINK_FRAME_MAX_BYTES;
use trunkline_protocol::service::{LinkKind, Role};

use super::dial_error::DialError;
use super::dialled_service::{DialledService, encoded};
use crate::link::{AppSocket, DialledSocket, LinkSocket};

/// Timeout of the upgrade. The handshake after it has its own.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum size of a WebSocket message: one frame of maximum size after a chunk of small ones.
const MESSAGE_MAX_BYTES: usize = LINK_FRAME_MAX_BYTES + 1024 * 1024;

/// Size of a server connection's read buffer. There are a few connections per hub.
const READ_BUFFER_BYTES: usize = 32 * 1024;

#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted<'a> {
    /// A regular one, which carries clients while the app server runs.
    Default,
    /// A connection requested by this instance of the service.
    OnDemand(&'a str),
}

impl DialledService {
    /// Dials a server connection for a hub, given in lower case, including the handshake.
    pub(super) async fn dial(
        &self,
        hub: &str,
        wanted: Wanted<'_>,
        reconnects: StatefulReconnects,
    ) -> Result<LinkSocket, DialError> {
        let authority = self.place.server_endpoint().authority();
        let upgrading = tokio::time::timeout(UPGRADE_TIMEOUT, self.upgrade(hub, wanted));
        let socket = upgrading.await.map_err(|_| DialError::Timeout(authority))??;
        let mut socket = LinkSocket::network(AppSocket::Dialled(socket));
        let kind = match wanted {
            Wanted::Default => LinkKind::Default,
            Wanted::OnDemand(_) => LinkKind::OnDemand,
        };
        match request_handshake_for(&mut socket, kind, MigrationLevel::OnShutdown, reconnects).await {
            Ok(()) => Ok(socket),
            Err(LinkEnd::HandshakeRefused(text)) => Err(DialError::Refused(text)),
            Err(end) => Err(DialError::BrokenOff(end.reason(Role::AppServer))),
        }
    }

    async fn upgrade(&self, hub: &str, wanted: Wanted<'_>) -> Result<DialledSocket, DialError> {
        let url = self.place.server_endpoint();
        let authority = url.authority();
        let request = self.request(hub, wanted)?;
        let stream = self.protection.connect(url).await?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_MAX_BYTES))
            .max_frame_size(Some(MESSAGE_MAX_BYTES))
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0);
        let told_url = format!("{url}{SERVER_PATH}?hub={}", encoded(hub));
        match client_async_with_config(request, stream, Some(config)).await {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(answer)) => {
                Err(DialError::of_answer(answer.status(), &told_url, answer.body().as_deref()))
            }
            Err(error) => Err(DialError::NoWebSocket { authority, problem: error.to_string() }),
        }
    }

    fn request(&self, hub: &str, wanted: Wanted<'_>) -> Result<Request, DialError> {
        let url = self.place.server_endpoint();
        let scheme = match url.scheme() {
            ServiceScheme::Http => "ws",
            ServiceScheme::Https => "wss",
        };
        let (authority, path) = (url.authority(), url.path());
        let mut target = format!(
            "{scheme}://{authority}{path}{SERVER_PATH}?hub={}&{SERVER_CONNECTION_PARAMETER}={}",
            encoded(hub),
            random_guid()
        );
        if let Wanted::OnDemand(instance) = wanted {
            target = format!("{target}&{TARGET_PARAMETER}={}", encoded(instance));
        }
        let unfit = |problem: String| DialError::NoWebSocket { authority: authority.clone(), problem };
        let mut request = target.into_client_request().map_err(|error| unfit(error.to_string()))?;
        let sdk = format!(
            "trunkline/{} (Rust; {}; {})",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::OS,
            std::env::consts::ARCH
        );
        let headers = [
            (AUTHORIZATION, format!("Bearer {}", self.server_token(hub))),
            (HeaderName::from_static(SERVER_ID_HEADER), self.server_id.to_string()),
            (HeaderName::from_static(SDK_HEADER), sdk),
            (HeaderName::from_static("x-requested-with"), "XMLHttpRequest".to_owned()),
        ];
        for (name, value) in headers {
            let value = HeaderValue::from_str(&value).map_err(|error| unfit(error.to_string()))?;
            request.headers_mut().insert(name, value);
        }
        Ok(request)
    }
}

/// Random GUID, the format that services expect for the ID of a server connection.
fn random_guid() -> String {
    let digits = format!("{:032x}", u128::from_be_bytes(random_bytes()));
    let groups = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| digits.get(range).unwrap_or_default());
    groups.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dial::PlainHttp;

    fn request(place: &str, wanted: Wanted<'_>) -> Request {
        let service = DialledService::new(place.parse().unwrap(), PlainHttp::OnThisMachine, "server-1".into()).unwrap();
        service.request("chat", wanted).unwrap()
    }

    #[test]
    fn an_upgrade_has_the_headers_that_a_service_requires() {
        let asked = request("Endpoint=http://p;Port=8080;AccessKey=0123456789abcdef", Wanted::Default);
        assert_eq!((asked.uri().path(), asked.headers()["host"].to_str().unwrap()), ("/server/", "p:8080"));
        let query = asked.uri().query().unwrap();
        let cid = query.strip_prefix("hub=chat&cid=").unwrap();
        assert_eq!((cid.len(), cid.matches('-').count()), (36, 4));
        assert!(asked.headers()["authorization"].to_str().unwrap().starts_with("Bearer "));
        assert_eq!(asked.headers()["x-asrs-server-id"], "server-1");
        assert_eq!(asked.headers()["x-requested-with"], "XMLHttpRequest");
        assert!(!asked.headers().contains_key("sec-websocket-protocol"));
    }

    #[test]
    fn a_connection_on_demand_names_its_instance() {
        let place = "Endpoint=http://p;AccessKey=0123456789abcdef;ServerEndpoint=http://[::1]:81/x";
        let asked = request(place, Wanted::OnDemand("node 7&a"));
        assert_eq!((asked.uri().path(), asked.headers()["host"].to_str().unwrap()), ("/x/server/", "[::1]:81"));
        assert!(asked.uri().query().unwrap().ends_with("&target=node+7%26a"));
    }
}
