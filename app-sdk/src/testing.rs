//! Test kit for hubs: real dispatch and protocol encoding, without sockets, proxies or keys.
//!
//! ```
//! use trunkline::testing::TestServer;
//! use trunkline::{Context, Hub, HubError};
//!
//! async fn enter(ctx: Context, room: String) -> Result<String, HubError> {
//!     let Some(user) = ctx.user_id() else { return Err(HubError::new("who are you?")) };
//!     ctx.join(&room).await?;
//!     ctx.clients().others_in_group(&room).send("Entered", (user,)).await?;
//!     Ok(format!("welcome, {user}"))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = TestServer::new(Hub::new("/rooms").method("Enter", enter))?;
//! let mut ann = server.connect("/rooms").user("ann").await?;
//! let mut bob = server.connect("/rooms").user("bob").messagepack().await?;
//! let mut eve = server.connect("/rooms").await?;
//!
//! assert_eq!(ann.invoke::<String>("Enter", ("kitchen",)).await?, "welcome, ann");
//! bob.invoke::<String>("Enter", ("kitchen",)).await?;
//! assert_eq!(ann.expect::<(String,)>("Entered").await, ("bob".to_owned(),));
//! assert_eq!(eve.invoke::<String>("Enter", ("kitchen",)).await.unwrap_err().message(), Some("who are you?"));
//! assert!(eve.try_next().is_none()); // nothing was sent to her before that answer
//! # Ok(()) }
//! ```
//!
//! A client receives messages in the order sent by the hub, so after a result it has received everything
//! that the call sent before. Clients use the [naming of the hub](crate::Hub::naming).
//!
//! | to test | use |
//! |---|---|
//! | admission of clients | [`Connect::negotiate`], [`Connect::access_token`], [`ConnectError`]; [`require_authentication`](Hub::require_authentication) and the hub's [policies](Hub::require) always apply |
//! | messages to a client | [`TestClient::expect`]; among other messages [`expect_among`](TestClient::expect_among) and [`until`](TestClient::until); [`try_next`](TestClient::try_next) to check that there is none |
//! | errors for clients | [`CallError`] |
//! | streams and uploads | [`TestClient::stream`]; [`TestClient::invoke_uploading`] for a method with an [`UploadStream`](crate::UploadStream) |
//! | a method that invokes its own caller | [`TestClient::begin`] or [`TestClient::on`] |
//! | app servers that stop or crash, and client results across app servers | [`TestServer::fleet`], [`TestServer::rehome`] |
//! | presence hooks | clients that connect, join and leave; `#[tokio::test(start_paused = true)]` skips the grace period |
//! | timeouts | `#[tokio::test(start_paused = true)]`; [`Connect::answer_timeout`] for timeouts above 10 s |
//! | HTTP routes that send or use a [`User`](crate::User) | [`TestServer::handle`] and `tower::ServiceExt::oneshot` |
//!
//! The kit omits what proxies do: pausing of fast senders, message size limits, slow clients, keep-alive and
//! timeouts, origins, transports, tokens of other issuers and token expiry. It also omits raw endpoints, and
//! following of records.
//! `on_negotiate` runs only for clients that [negotiate](Connect::negotiate), so that other tests need no sessions.

mod admission;
mod call_error;
mod client_inbox;
mod client_wire;
mod fake_proxy;
mod fake_records;
#[cfg(test)]
mod from_outside;
mod leaving;
mod loopback_clients;
mod received;
mod test_client;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use trunkline_protocol::access_token;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::id::random_id;
use trunkline_protocol::manifest::Authentication;
use trunkline_protocol::service::OpenConnection;
use trunkline_protocol::wire::{PRIVATE_CLAIM_PREFIX, REMOTE_HEADER, USER_ID_CLAIM};

use crate::brief_debug::brief_debug;
use crate::error::BuildError;
use crate::hub::Hub;
use crate::server::{Server, ServerHandle};

pub use call_error::{CallError, ConnectError, RehomeError};
pub use client_wire::{TestCall, TestStream};
pub use leaving::Leaving;
pub use received::{Expected, FromArguments, Received};
pub use test_client::TestClient;

use admission::{Admitted, Credentials, Gate, admit};
use client_wire::ANSWER_TIMEOUT;
use fake_proxy::{FakeProxy, TestHub};
use test_client::Opening;

/// Server without a network for tests, or a fleet of servers.
#[derive(Debug)]
pub struct TestServer {
    handles: Vec<ServerHandle>,
    /// Hubs by lower-case path.
    hubs: BTreeMap<String, Arc<TestHub>>,
    answer_timeout: Duration,
}

/// Builder of a test client. Awaiting it connects the client.
#[must_use = "the client connects only when this is awaited"]
pub struct Connect {
    hub: Option<Arc<TestHub>>,
    handle: Option<ServerHandle>,
    server: usize,
    protocol: HubProtocol,
    negotiates: bool,
    credentials: Credentials,
    answer_timeout: Duration,
}

impl TestServer {
    /// Starts a server or a single hub. Access keys are used only for tokens; without any, a random key is created.
    /// Link settings are ignored.
    ///
    /// # Errors
    /// If a hub or a method is invalid; returns the first problem.
    ///
    /// # Panics
    /// If called outside a Tokio runtime.
    pub fn new(server: impl Into<Server>) -> Result<Self, BuildError> {
        let mut server = Some(server.into());
        Self::fleet(|| server.take().unwrap_or_default(), 1)
    }

    /// Starts several app servers behind one proxy. The closure creates each with its own hubs and state. Clients
    /// connect to the first one, unless [`Connect::at`] selects another, and can be [moved](Self::rehome).
    ///
    /// ```
    /// use trunkline::testing::{Leaving, TestServer};
    /// use trunkline::{Context, Hub, HubError, Rehomed};
    ///
    /// async fn rename(ctx: Context, name: String) {
    ///     ctx.items().insert(name);
    /// }
    ///
    /// async fn name(ctx: Context) -> Option<String> {
    ///     ctx.items().get()
    /// }
    ///
    /// async fn rehomed(ctx: Context, moved: Rehomed) -> Result<(), HubError> {
    ///     if let Some(name) = moved.items::<Option<String>>()?.flatten() {
    ///         ctx.items().insert(name);
    ///     }
    ///     Ok(())
    /// }
    ///
    /// fn hub() -> Hub {
    ///     Hub::new("/chat").method("Rename", rename).method("Name", name).on_leaving(name).on_rehomed(rehomed)
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = TestServer::fleet(hub, 2)?;
    /// let mut ann = server.connect("/chat").await?;
    /// ann.invoke::<()>("Rename", ("ann",)).await?;
    /// server.rehome(&mut ann, Leaving::Gracefully).await?;
    /// assert_eq!(ann.invoke::<Option<String>>("Name", ()).await?.as_deref(), Some("ann"));
    /// server.rehome(&mut ann, Leaving::Crash).await?; // `on_leaving` does not run
    /// assert_eq!(ann.invoke::<Option<String>>("Name", ()).await?, None);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The errors of [`new`](Self::new).
    ///
    /// # Panics
    /// If called outside a Tokio runtime.
    pub fn fleet<T: Into<Server>>(mut make: impl FnMut() -> T, servers: usize) -> Result<Self, BuildError> {
        let mut handles = Vec::new();
        let mut hubs: BTreeMap<String, TestHub> = BTreeMap::new();
        for _ in 0..servers.max(1) {
            let server = make().into();
            handles.push(server.handle());
            server.into_links(|manifest, linked| {
                let hub = hubs.entry(manifest.path.to_lowercase()).or_insert_with(|| TestHub {
                    path: manifest.path.clone(),
                    requires_user: manifest.authentication == Authentication::Required,
                    fake_proxy: Arc::new(FakeProxy::new(linked.dispatcher.core.naming, manifest.presence)),
                    servers: Vec::new(),
                });
                let socket = hub.fake_proxy.add_link(&linked.instance);
                hub.servers.push(linked);
                socket
            })?;
        }
        let hubs = hubs.into_iter().map(|(path, hub)| (path, Arc::new(hub))).collect();
        Ok(Self { handles, hubs, answer_timeout: ANSWER_TIMEOUT })
    }

    /// Sets the [timeout of answers](Connect::answer_timeout) for all clients created afterwards.
    #[must_use]
    pub fn answer_timeout(self, timeout: Duration) -> Self {
        Self { answer_timeout: timeout, ..self }
    }

    /// Creates a client for the hub at this path; by default a JSON client without a user.
    pub fn connect(&self, path: &str) -> Connect {
        Connect {
            hub: self.hubs.get(&path.to_lowercase()).map(Arc::clone),
            handle: self.handles.first().cloned(),
            server: 0,
            protocol: HubProtocol::Json,
            negotiates: false,
            credentials: Credentials::default(),
            answer_timeout: self.answer_timeout,
        }
    }

    /// Handle for sends from outside the hubs; in a fleet, that of the first app server.
    #[must_use]
    #[expect(clippy::missing_panics_doc, clippy::expect_used, reason = "a fleet has one app server at least")]
    pub fn handle(&self) -> &ServerHandle {
        self.handles.first().expect("a fleet has one app server at least")
    }

    /// Handles of all app servers, in order.
    #[must_use]
    pub fn handles(&self) -> &[ServerHandle] {
        &self.handles
    }

    /// Moves a client to the next app server of the fleet, as when its own app server stops or crashes. Returns when
    /// `on_rehomed` has run.
    ///
    /// # Errors
    /// If there is no other app server, `on_rehomed` fails, or the client's calls do not end.
    pub async fn rehome(&self, client: &mut TestClient, leaving: Leaving) -> Result<(), RehomeError> {
        let is_its = |hub: &&Arc<TestHub>| Arc::ptr_eq(&hub.fake_proxy, &client.wire.fake_proxy);
        let hub = self.hubs.values().find(is_its).ok_or(RehomeError::NoOther)?;
        leaving::reassign(hub, client, leaving).await
    }

    /// Closes all connections, and waits until `on_disconnected` has run for each.
    pub async fn shutdown(self) {
        for handle in &self.handles {
            handle.shutdown().await;
        }
    }
}

impl Connect {
    /// Sets the user ID of the client, as if a proxy had verified an access token for it.
    pub fn user(mut self, user_id: impl Into<String>) -> Self {
        self.credentials.user_id = Some(user_id.into());
        self
    }

    /// Adds a claim of the user. Names may repeat.
    pub fn claim(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.credentials.claims.push((name.into(), value.into()));
        self
    }

    /// Sets the access token of the client, for example from [`ServerHandle::token`]. It is verified with the
    /// server's keys.
    pub fn access_token(mut self, token: impl Into<String>) -> Self {
        self.credentials.access_token = Some(token.into());
        self
    }

    /// Lets the client negotiate first: the hub's [`on_negotiate`](crate::Hub::on_negotiate) decides on its headers,
    /// query and address. The user set here counts as verified by the proxy.
    ///
    /// ```
    /// use axum::http::{HeaderMap, StatusCode};
    /// use trunkline::testing::{ConnectError, TestServer};
    /// use trunkline::{Context, Hub, Negotiation};
    ///
    /// async fn members_only(headers: HeaderMap) -> Result<Negotiation, (StatusCode, &'static str)> {
    ///     match headers.get("cookie").and_then(|cookie| cookie.to_str().ok()) {
    ///         Some("session=1") => Ok(Negotiation::user("ann")),
    ///         _ => Err((StatusCode::UNAUTHORIZED, "log in first")),
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let hub = Hub::new("/club").on_negotiate(members_only).method("Who", async |ctx: Context| ctx.user_id().map(str::to_owned));
    /// let server = TestServer::new(hub)?;
    /// let mut ann = server.connect("/club").negotiate().header("cookie", "session=1").await?;
    /// assert_eq!(ann.invoke::<String>("Who", ()).await?, "ann");
    /// let refused = server.connect("/club").negotiate().await.unwrap_err();
    /// assert_eq!(refused, ConnectError::Denied { status: StatusCode::UNAUTHORIZED, body: "log in first".into() });
    /// # Ok(()) }
    /// ```
    pub fn negotiate(mut self) -> Self {
        self.negotiates = true;
        self
    }

    /// Sets the app server of a fleet for the client, counted from 0; by default the first.
    pub fn at(mut self, server: usize) -> Self {
        self.server = server;
        self
    }

    /// Adds a header to the connect request. Names may repeat.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.credentials.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the query of the connect request, such as `room=kitchen&lang=en`.
    pub fn query(mut self, query: impl Into<String>) -> Self {
        self.credentials.query = Some(query.into());
        self
    }

    /// Sets the address of the client.
    pub fn remote_addr(mut self, address: SocketAddr) -> Self {
        self.credentials.remote = Some(address);
        self
    }

    /// Sets the timeout for results, for calls that a test [expects](TestClient::expect), and for
    /// [reassignments](TestServer::rehome); 10 s by default. To test a longer timeout of the hub, set a longer one
    /// with a paused clock:
    ///
    /// ```
    /// use std::time::Duration;
    /// use trunkline::testing::TestServer;
    /// use trunkline::{Context, Hub};
    ///
    /// async fn ask(ctx: Context) -> String {
    ///     ctx.clients().caller().invoke::<bool>("Confirm", ()).await.unwrap_err().to_string()
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = TestServer::new(Hub::new("/notes").method("Ask", ask))?;
    /// let mut ann = server.connect("/notes").answer_timeout(Duration::from_secs(60)).await?;
    /// // She does not answer, and the hub waits for 30 s.
    /// assert_eq!(ann.invoke::<String>("Ask", ()).await?, "the client gave no result within 30s");
    /// # Ok(()) }
    /// ```
    pub fn answer_timeout(mut self, timeout: Duration) -> Self {
        self.answer_timeout = timeout;
        self
    }

    /// Uses MessagePack for the client.
    pub fn messagepack(mut self) -> Self {
        self.protocol = HubProtocol::MessagePack;
        self
    }

    async fn connect(self) -> Result<TestClient, ConnectError> {
        let Self { hub, handle, server, protocol, negotiates, credentials, answer_timeout: timeout } = self;
        let hub = hub.ok_or(ConnectError::NoHub)?;
        let linked = hub.servers.get(server).ok_or(ConnectError::NoServer(server))?;
        let gate = Gate {
            path: &hub.path,
            keys: handle.as_ref().and_then(ServerHandle::keys),
            requires_user: hub.requires_user,
            negotiator: linked.negotiator.clone().filter(|_| negotiates),
        };
        let Admitted { user, headers: negotiate_headers } = admit(gate, &credentials).await?;
        let open = open_connection(credentials, user);
        if let Some(body) = linked.dispatcher.refuse(open.clone()) {
            return Err(ConnectError::Denied { status: StatusCode::FORBIDDEN, body });
        }
        let fake_proxy = Arc::clone(&hub.fake_proxy);
        TestClient::connect(Opening { fake_proxy, protocol, open, server, negotiate_headers, timeout }).await
    }
}

fn open_connection(credentials: Credentials, user: access_token::User) -> OpenConnection {
    let Credentials { headers, query, remote, .. } = credentials;
    let id = user.id.map(|id| (USER_ID_CLAIM.to_owned(), id));
    let claims = user.claims.into_iter().filter(|(name, _)| !name.starts_with(PRIVATE_CLAIM_PREFIX));
    let remote = remote.map(|address| (REMOTE_HEADER.to_owned(), address.to_string()));
    OpenConnection {
        connection_id: random_id().into(),
        claims: id.into_iter().chain(claims).map(|(name, value)| (name.into(), value.into())).collect(),
        headers: headers.into_iter().chain(remote).map(|(name, value)| (name.into(), vec![value.into()])).collect(),
        query: query.map(Into::into),
        ..OpenConnection::default()
    }
}

impl IntoFuture for Connect {
    type Output = Result<TestClient, ConnectError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.connect())
    }
}

impl From<Hub> for Server {
    fn from(hub: Hub) -> Self {
        Server::new().hub(hub)
    }
}

brief_debug!(Connect, |it| { protocol: it.protocol, hub: it.hub });

#[cfg(test)]
mod scenario;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use trunkline_protocol::limits::LINK_TIMEOUT_MS;

    use super::*;
    use crate::{CloseReason, Context, HubError, UploadStream};

    async fn send(ctx: Context, kind: String) -> Result<(), HubError> {
        let clients = ctx.clients();
        let receivers = match kind.as_str() {
            "all" => clients.all(),
            "caller" => clients.caller().into(),
            "others" => clients.others(),
            "group" => clients.group("g"),
            "groups" => clients.groups(["g", "h"]),
            "others_in_group" => clients.others_in_group("g"),
            "user" => clients.user("ann"),
            "users" => clients.users(["ann", "bob"]),
            other => clients.client(other).into(),
        };
        receivers.send("M", (kind,)).await?;
        Ok(())
    }

    async fn join(ctx: Context) -> Result<(), HubError> {
        Ok(ctx.join("g").await?)
    }

    async fn leave(ctx: Context) -> Result<(), HubError> {
        Ok(ctx.leave("g").await?)
    }

    async fn refuse(ctx: Context) -> Result<(), HubError> {
        if ctx.query().get("refuse").is_some() { Err(HubError::new("not you")) } else { Ok(()) }
    }

    async fn tell(ctx: Context, CloseReason(reason): CloseReason) -> Result<(), HubError> {
        ctx.clients().all().send("Left", (ctx.user_id(), reason)).await?;
        Ok(())
    }

    async fn who(ctx: Context) -> (Option<String>, String, Option<String>) {
        let claims = ctx.claims().get_all("role").collect::<Vec<_>>().join("+");
        let agent = ctx.headers().get("user-agent").and_then(|value| value.to_str().ok()).map(str::to_owned);
        (ctx.remote_addr().map(|address| address.to_string()), claims, agent)
    }

    fn server() -> TestServer {
        let hub = Hub::new("/Test")
            .on_connected(refuse)
            .on_disconnected(tell)
            .method("Send", send)
            .method("Join", join)
            .method("Leave", leave)
            .method("Who", who)
            .method("Add", async |a: u32, b: u32| a + b)
            .method("Abort", async |ctx: Context| ctx.abort());
        TestServer::new(hub).unwrap()
    }

    /// Counts the received calls of each client, which must all be of this kind.
    fn received(clients: &mut [TestClient], kind: &str) -> Vec<usize> {
        let count = |client: &mut TestClient| {
            let all: Vec<_> = std::iter::from_fn(|| client.try_next()).collect();
            assert!(all.iter().all(|received| received.arguments::<(String,)>() == Ok((kind.into(),))), "{all:?}");
            all.len()
        };
        clients.iter_mut().map(count).collect()
    }

    #[tokio::test]
    async fn all_kinds_of_sends_reach_their_receivers() {
        let server = server();
        let mut clients = [
            server.connect("/test").user("ann").await.unwrap(),
            server.connect("/test").user("bob").messagepack().await.unwrap(),
            server.connect("/test").user("ann").await.unwrap(),
        ];
        for client in &mut clients[..2] {
            client.invoke::<()>("Join", ()).await.unwrap();
        }
        let last = clients[2].connection_id().to_owned();
        for (kind, counts) in [
            ("all", [1, 1, 1]),
            ("caller", [1, 0, 0]),
            ("others", [0, 1, 1]),
            ("group", [1, 1, 0]),
            ("groups", [1, 1, 0]),
            ("others_in_group", [0, 1, 0]),
            ("user", [1, 0, 1]),
            ("users", [1, 1, 1]),
            (last.as_str(), [0, 0, 1]),
        ] {
            clients[0].invoke::<()>("Send", (kind,)).await.unwrap();
            assert_eq!(received(&mut clients, kind), counts, "{kind}");
        }
        clients[1].invoke::<()>("Leave", ()).await.unwrap();
        clients[0].invoke::<()>("Send", ("group",)).await.unwrap();
        assert_eq!(received(&mut clients, "group"), [1, 0, 0]);
        let hub = server.handle().hub("Test").unwrap();
        hub.clients().all().send("M", ("outside",)).await.unwrap();
        assert_eq!(clients[1].expect::<(String,)>("M").await, ("outside".to_owned(),));
    }

    #[tokio::test]
    async fn the_hub_sees_claims_headers_and_address() {
        let connect = server().connect("/test").claim("role", "cook").claim("role", "admin");
        let mut client = connect.header("user-agent", "me").remote_addr(([1, 2, 3, 4], 5).into()).await.unwrap();
        let seen: (String, String, String) = client.invoke("Who", ()).await.unwrap();
        assert_eq!(seen, ("1.2.3.4:5".into(), "cook+admin".into(), "me".into()));
    }

    #[tokio::test]
    async fn errors_and_closes_reach_the_client() {
        let server = server();
        let mut ann = server.connect("/test").user("ann").await.unwrap();
        let unbound = ann.invoke::<u32>("Add", (1,)).await.unwrap_err();
        assert_eq!(unbound, CallError::Unbound("Failed to invoke 'Add' due to an error on the server.".into()));
        assert!(matches!(ann.invoke::<String>("Add", (1, 2)).await, Err(CallError::Type(_))), "the result is no text");
        let mut bob = server.connect("/test").user("bob").await.unwrap();
        bob.disconnect().await;
        assert_eq!(ann.expect::<(String, Option<String>)>("Left").await, ("bob".into(), None));
        assert_eq!(ann.invoke::<()>("Abort", ()).await, Err(CallError::Closed(None)));
        assert_eq!(ann.closed().await, None);
        assert!(ann.next().await.is_none());
        let mut refused = server.connect("/test").query("refuse=1").await.unwrap();
        let text = refused.closed().await.unwrap();
        assert!(text.ends_with("not you"), "{text}");
        assert_eq!(server.connect("/other").await.unwrap_err(), ConnectError::NoHub);
        let json_only = TestServer::new(Hub::new("/json").protocols([HubProtocol::Json])).unwrap();
        let refused = json_only.connect("/json").messagepack().await.unwrap_err();
        assert!(matches!(refused, ConnectError::Refused(text) if text.contains("messagepack")));
    }

    #[tokio::test]
    async fn streams_go_down_and_up() {
        let hub = Hub::new("/test")
            .method("Count", async |to: u32| futures_util::stream::iter(1..=to))
            .method("Endless", async || futures_util::stream::pending::<u32>())
            .method("Fail", async || futures_util::stream::iter([Ok(1), Err(HubError::new("no more"))]))
            .method("Sum", async |mut numbers: UploadStream<u32>, start: u32| {
                let mut sum = start;
                while let Some(number) = numbers.next().await {
                    sum += number?;
                }
                Ok::<_, HubError>(sum)
            });
        let server = TestServer::new(hub).unwrap();
        for connect in [server.connect("/test"), server.connect("/test").messagepack()] {
            let mut ann = connect.await.unwrap();
            let mut count = ann.stream::<u32>("Count", (2,)).await.unwrap();
            assert_eq!([count.next().await, count.next().await, count.next().await], [Some(Ok(1)), Some(Ok(2)), None]);
            let mut failing = ann.stream::<u32>("Fail", ()).await.unwrap();
            assert_eq!(failing.next().await, Some(Ok(1)));
            assert_eq!(failing.next().await.unwrap().unwrap_err().message(), Some("no more"));
            assert_eq!(failing.next().await, None);
            let mut endless = ann.stream::<u32>("Endless", ()).await.unwrap();
            endless.cancel().await;
            assert_eq!(endless.next().await, None);
            assert_eq!(ann.invoke_uploading::<u32>("Sum", (1,), [2, 3]).await, Ok(6));
            assert!(ann.stream::<u32>("Nope", ()).await.unwrap().next().await.unwrap().is_err());
        }
    }

    #[tokio::test]
    async fn clients_answer_requests_for_results() {
        let server = server();
        let mut ann = server.connect("/test").await.unwrap();
        let clients = server.handle().hub("Test").unwrap().clients();
        let (asked, stranger) = (clients.client(ann.connection_id()), clients.client("stranger"));
        let (answer, ()) = tokio::join!(asked.invoke::<u32>("Ask", (1,)), async {
            let question = ann.next().await.unwrap();
            assert!(question.wants_result());
            ann.answer(&question, 2).await.unwrap();
        });
        assert_eq!(answer.unwrap(), 2);
        let (refusal, ()) = tokio::join!(asked.invoke::<u32>("Ask", (1,)), async {
            let question = ann.next().await.unwrap();
            ann.refuse(&question, "never").await.unwrap();
        });
        assert!(refusal.unwrap_err().to_string().contains("never"));
        assert!(stranger.invoke::<u32>("Ask", ()).await.unwrap_err().to_string().contains("does not exist"));
    }

    #[tokio::test]
    async fn a_shutdown_waits_for_the_last_hook() {
        let (sender, mut left) = tokio::sync::mpsc::unbounded_channel();
        let hub = Hub::new("/test").on_disconnected(move |ctx: Context| {
            let sender = sender.clone();
            async move {
                tokio::task::yield_now().await;
                let _ = sender.send(ctx.user_id().map(str::to_owned));
            }
        });
        let server = TestServer::new(hub).unwrap();
        let mut ann = server.connect("/test").user("ann").await.unwrap();
        let connect = server.connect("/test");
        server.shutdown().await;
        assert_eq!(left.try_recv().unwrap().as_deref(), Some("ann"));
        assert!(ann.next().await.is_none());
        assert_eq!(connect.await.unwrap_err(), ConnectError::Gone);
    }

    /// Location and text of a task's panic.
    async fn failure(task: impl Future<Output = ()> + Send + 'static) -> (String, String) {
        static PLACE: Mutex<Option<String>> = Mutex::new(None);
        let others = std::panic::take_hook();
        let test = std::thread::current().id();
        std::panic::set_hook(Box::new(move |panic| {
            let place = panic.location().map(|at| format!("{}:{}", at.file(), at.line()));
            match std::thread::current().id() == test {
                true => *PLACE.lock().unwrap() = place,
                false => others(panic),
            }
        }));
        let panic = tokio::spawn(task).await.unwrap_err().into_panic();
        drop(std::panic::take_hook());
        let text = panic.downcast_ref::<String>().unwrap().clone();
        (PLACE.lock().unwrap().take().unwrap(), text)
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_call_fails_at_the_line_of_the_test() {
        let server = server();
        let mut ann = server.connect("/test").user("ann").messagepack().await.unwrap();
        ann.invoke::<()>("Send", ("all",)).await.unwrap();
        let (place, text) = failure(async move {
            ann.expect::<(u32,)>("N").await;
        })
        .await;
        assert_eq!(place, format!("{}:{}", file!(), line!() - 3), "{text}");
        assert_eq!(text, "N expected, M(\"all\") received: `expect_among` skips other calls");

        let mut bob = server.connect("/test").answer_timeout(Duration::from_secs(3)).await.unwrap();
        let line = line!() + 2;
        let (_, text) = failure(async move {
            tokio::join!(bob.expect::<()>("N"));
        })
        .await;
        let expected_at = format!(" (expected at {}:{line}:", file!());
        assert!(text.starts_with("N expected, but not received within 3s"), "{text}");
        assert!(text.contains(&expected_at), "{text}");
    }

    #[tokio::test]
    async fn a_call_is_found_among_others_which_stay() {
        let server = server();
        let mut ann = server.connect("/test").user("ann").await.unwrap();
        let id = ann.connection_id().to_owned();
        for kind in ["all", "caller", "group", id.as_str()] {
            ann.invoke::<()>("Join", ()).await.unwrap();
            ann.invoke::<()>("Send", (kind,)).await.unwrap();
        }
        server.connect("/test").user("bob").await.unwrap().disconnect().await;
        assert_eq!(ann.expect_among::<(String, Option<String>)>("Left").await.0, "bob");
        assert_eq!(ann.until("M", |(kind,): &(String,)| kind == "group").await, ("group".to_owned(),));
        assert_eq!(ann.expect::<(String,)>("M").await, (id,));
        assert!(ann.try_next().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_waits_for_its_configured_timeout() {
        let hub = Hub::new("/test")
            .client_result_timeout(Duration::from_secs(20))
            .method("Ask", async |ctx: Context| ctx.clients().caller().invoke::<u32>("Ask", ()).await.is_err());
        let server = TestServer::new(hub).unwrap();
        let mut hasty = server.connect("/test").await.unwrap();
        assert_eq!(hasty.invoke::<bool>("Ask", ()).await, Err(CallError::Timeout));
        let server = server.answer_timeout(Duration::from_secs(30));
        let mut patient = server.connect("/test").await.unwrap();
        assert_eq!(patient.invoke::<bool>("Ask", ()).await, Ok(true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_jump_of_the_paused_clock_does_not_end_the_link() {
        let mut ann = server().connect("/test").await.unwrap();
        // sleep: the clock is paused, so no time passes
        tokio::time::sleep(Duration::from_millis(10 * LINK_TIMEOUT_MS)).await;
        assert_eq!(ann.invoke::<u32>("Add", (1, 2)).await, Ok(3));
    }
}
