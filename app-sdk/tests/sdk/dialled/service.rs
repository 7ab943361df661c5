//! Scripted service that accepts the server connections of an app server and sends what the test wants.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderMap, StatusCode, Uri};
use trunkline_link::{LinkEnd, LinkSocket};
use trunkline_protocol::hub::{HandshakeRequest, HubProtocol};
use trunkline_protocol::service::*;

pub(crate) const KEY: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcdefgh";
const EVENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Response of the service to an upgrade.
#[derive(Debug, Clone)]
pub(crate) enum Welcome {
    Accept,
    Status(StatusCode, &'static str),
    Refuse(&'static str),
}

/// Service that accepts or refuses server connections.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    welcome: Arc<Mutex<Welcome>>,
    connections: mpsc::UnboundedReceiver<ServerConnection>,
    refused: mpsc::UnboundedReceiver<Uri>,
}

/// Service side of a server connection.
pub(crate) struct ServerConnection {
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) request: LinkHandshakeRequest,
    link: LinkSocket<WebSocketStream<TcpStream>>,
}

impl Service {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, connections) = mpsc::unbounded_channel();
        let (refusals, refused) = mpsc::unbounded_channel();
        let welcome = Arc::new(Mutex::new(Welcome::Accept));
        let shared = Arc::clone(&welcome);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let welcome = shared.lock().unwrap().clone();
                tokio::spawn(serve(tcp, welcome, sender.clone(), refusals.clone()));
            }
        });
        Self { address, welcome, connections, refused }
    }

    pub(crate) fn connection_string(&self) -> String {
        let SocketAddr::V4(address) = self.address else { panic!("bound to IPv4") };
        format!("Endpoint=http://{};Port={};AccessKey={KEY};Version=1.0;", address.ip(), address.port())
    }

    pub(crate) fn set_welcome(&self, welcome: Welcome) {
        *self.welcome.lock().unwrap() = welcome;
    }

    /// Waits for the next accepted server connection.
    pub(crate) async fn next(&mut self) -> ServerConnection {
        in_time(self.connections.recv()).await.unwrap()
    }

    pub(crate) async fn next_many<const N: usize>(&mut self) -> [ServerConnection; N] {
        let mut all = Vec::new();
        while all.len() < N {
            all.push(self.next().await);
        }
        all.try_into().ok().unwrap()
    }

    /// Waits for the next refused server connection.
    pub(crate) async fn next_refused(&mut self) -> Uri {
        in_time(self.refused.recv()).await.unwrap()
    }

    pub(crate) fn refused_now(&mut self) -> usize {
        std::iter::from_fn(|| self.refused.try_recv().ok()).count()
    }
}

async fn serve(
    tcp: TcpStream,
    welcome: Welcome,
    connections: mpsc::UnboundedSender<ServerConnection>,
    refused: mpsc::UnboundedSender<Uri>,
) {
    let mut seen = None;
    let upgrade = |request: &Request, response: Response| {
        seen = Some((request.uri().clone(), request.headers().clone()));
        let Welcome::Status(status, text) = welcome else { return Ok(response) };
        let mut answer = ErrorResponse::new(Some(text.to_owned()));
        *answer.status_mut() = status;
        Err(answer)
    };
    let accepted = tokio_tungstenite::accept_hdr_async(tcp, upgrade).await;
    let Some((uri, headers)) = seen else { return };
    let Ok(socket) = accepted else { return refused.send(uri).unwrap_or_default() };
    let mut link = LinkSocket::network(socket);
    let Ok(Some(ServiceMessage::HandshakeRequest(request))) = link.reader.next_message().await else { return };
    let error = if let Welcome::Refuse(text) = welcome { Some(text.into()) } else { None };
    let is_refused = error.is_some();
    let response = LinkHandshakeResponse { error, connection_id: Some("sc".into()) };
    link.writer.send_messages(&[ServiceMessage::HandshakeResponse(response)]).await.unwrap();
    if is_refused {
        return refused.send(uri).unwrap_or_default();
    }
    let _ = connections.send(ServerConnection { uri, headers, request, link });
}

impl ServerConnection {
    pub(crate) fn query(&self, name: &str) -> Option<String> {
        let pairs = form_urlencoded::parse(self.uri.query().unwrap_or_default().as_bytes()).into_owned();
        pairs.into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    pub(crate) async fn send(&mut self, message: ServiceMessage) {
        self.link.writer.send_messages(&[message]).await.unwrap();
    }

    /// Reads the next frame, skipping pings.
    pub(crate) async fn next(&mut self) -> ServiceMessage {
        loop {
            match self.next_of_any_kind().await.unwrap() {
                ServiceMessage::Ping(_) => {}
                other => return other,
            }
        }
    }

    pub(crate) async fn next_of_any_kind(&mut self) -> Result<ServiceMessage, LinkEnd> {
        in_time(self.link.reader.next_message()).await.map(|message| message.expect("a known message"))
    }

    /// Waits until the app server has read everything sent before. Fails if anything but pings arrives.
    pub(crate) async fn fence(&mut self) {
        let echo = Ping { pairs: vec![("echo".into(), "1".into())] };
        self.send(ServiceMessage::Ping(echo.clone())).await;
        loop {
            match self.next_of_any_kind().await.unwrap() {
                ServiceMessage::Ping(ping) if ping == echo => return,
                ServiceMessage::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Waits for a ping with this pair.
    pub(crate) async fn ping(&mut self, key: &str, value: &str) {
        loop {
            let message = self.next_of_any_kind().await.unwrap();
            if matches!(&message, ServiceMessage::Ping(ping) if ping.get(key).is_some_and(|found| found == value)) {
                return;
            }
        }
    }

    /// Opens a JSON client with these headers, and sends its handshake.
    pub(crate) async fn open(&mut self, id: &'static str, headers: &[(&'static str, &'static str)]) {
        let role = "http://schemas.microsoft.com/ws/2008/06/identity/claims/role";
        let claims = [("asrs.s.uid", "ann"), (role, "cook"), ("asrs.u.iss", "me"), ("aud", "x")];
        let headers = headers.iter().map(|&(name, value)| (name.into(), vec![value.into()])).collect();
        self.send(ServiceMessage::OpenConnection(OpenConnection {
            connection_id: id.into(),
            claims: claims.map(|(name, value)| (name.into(), value.into())).to_vec(),
            headers,
            query: Some("?hub=test&asrs.op=%2Ftest&room=7".into()),
            protocol: Some("json".into()),
        }))
        .await;
        let handshake = HandshakeRequest { protocol: HubProtocol::Json, version: 1 }.encode();
        self.data(id, handshake).await;
    }

    /// Opens a new client, and reads the response to its handshake.
    pub(crate) async fn open_new(&mut self, id: &'static str) {
        self.open(id, &[]).await;
        let answer = self.next_data(id).await;
        assert_eq!((answer.data_type, &answer.payload[..]), (1, &b"{}\x1e"[..]));
    }

    async fn data(&mut self, id: &'static str, payload: Bytes) {
        let data = ConnectionData { connection_id: id.into(), payload, ..ConnectionData::default() };
        self.send(ServiceMessage::ConnectionData(data)).await;
    }

    /// Sends a client's call.
    pub(crate) async fn call(&mut self, id: &'static str, invocation: &str, target: &str, arguments: &str) {
        let text = format!(
            "{{\"type\":1,\"invocationId\":\"{invocation}\",\"target\":\"{target}\",\"arguments\":{arguments}}}\x1e"
        );
        self.data(id, text.into()).await;
    }

    pub(crate) async fn next_data(&mut self, id: &str) -> ConnectionData {
        match self.next().await {
            ServiceMessage::ConnectionData(data) if data.connection_id == id => data,
            other => panic!("{other:?}"),
        }
    }

    /// Reads the completion of a client's call.
    pub(crate) async fn result(&mut self, id: &str, invocation: &str) -> Value {
        let data = self.next_data(id).await;
        assert_eq!(data.data_type, 2);
        let mut message: Value = serde_json::from_slice(data.payload.strip_suffix(b"\x1e").unwrap()).unwrap();
        assert_eq!((&message["type"], &message["invocationId"]), (&3.into(), &invocation.into()));
        message["result"].take()
    }

    pub(crate) async fn flow(&mut self, id: &str, operation: FlowOperation) {
        let (connection_id, subject) = (id.into(), FlowSubject::Client);
        self.send(ServiceMessage::ConnectionFlowControl(ConnectionFlowControl { connection_id, subject, operation }))
            .await;
    }
}

pub(crate) async fn in_time<T>(waiting: impl Future<Output = T>) -> T {
    tokio::time::timeout(EVENT_TIMEOUT, waiting).await.expect("it happens in time")
}
