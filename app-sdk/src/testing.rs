//! Test kit for hubs: real dispatch, real clients' bytes, no sockets, no proxy, no key.
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
//! assert!(eve.invoke::<String>("Enter", ("kitchen",)).await.unwrap_err().ends_with("who are you?"));
//! assert!(eve.try_next().is_none()); // nothing was sent to her before that answer
//! # Ok(()) }
//! ```
//!
//! What a client receives keeps the order in which the hub sent it, so a client that has its answer has been sent
//! all that the call sent before. Fields and enums are named as [the hub names them](crate::Hub::naming). Pausing of clients that send too fast is what this kit does not do, and raw endpoints are
//! not served by it.

mod far_end;
mod received;
mod test_client;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::id::random_id;
use trunkline_protocol::service::OpenConnection;
use trunkline_protocol::wire::{REMOTE_HEADER, USER_ID_CLAIM};

use crate::error::BuildError;
use crate::hub::Hub;
use crate::server::{Server, ServerHandle};

pub use received::{FromArguments, Received};
pub use test_client::{ConnectError, TestClient, TestStream};

use far_end::FarEnd;

/// Server without a network, for tests.
#[derive(Debug)]
pub struct TestServer {
    handle: ServerHandle,
    /// Far ends of the links, by the path of the hub in lower case.
    hubs: BTreeMap<String, Arc<FarEnd>>,
}

/// Builder of a test client; awaiting it connects.
#[must_use = "nobody connects until this is awaited"]
pub struct Connect {
    far_end: Option<Arc<FarEnd>>,
    protocol: HubProtocol,
    open: OpenConnection,
}

impl TestServer {
    /// Starts a server, or one hub. Keys and settings of links are not used.
    ///
    /// # Errors
    /// When a hub or a method is no good; the first thing that is wrong.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn new(server: impl Into<Server>) -> Result<Self, BuildError> {
        let server = server.into();
        let handle = server.handle();
        let mut hubs = BTreeMap::new();
        server.into_links(|hub| {
            let naming = handle.hub(&hub.name).map(|hub| hub.naming()).unwrap_or_default();
            let (far_end, socket) = FarEnd::start(naming);
            hubs.insert(hub.path.to_lowercase(), far_end);
            socket
        })?;
        Ok(Self { handle, hubs })
    }

    /// Makes a client for the hub at this path; a JSON client without a user unless you say otherwise.
    pub fn connect(&self, path: &str) -> Connect {
        Connect {
            far_end: self.hubs.get(&path.to_lowercase()).map(Arc::clone),
            protocol: HubProtocol::Json,
            open: OpenConnection { connection_id: random_id().into(), ..OpenConnection::default() },
        }
    }

    /// Handle for sends from outside of the hubs.
    #[must_use]
    pub fn handle(&self) -> &ServerHandle {
        &self.handle
    }

    /// Ends all connections, and waits until `on_disconnected` has run for each.
    pub async fn shutdown(self) {
        self.handle.shutdown().await;
    }
}

impl Connect {
    /// Sets the user id of the client.
    pub fn user(self, user_id: impl Into<String>) -> Self {
        self.claim(USER_ID_CLAIM, user_id)
    }

    /// Adds a claim of the user; names may repeat.
    pub fn claim(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.open.claims.push((name.into().into(), value.into().into()));
        self
    }

    /// Adds a header to the connect request; names may repeat.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.open.headers.push((name.into().into(), vec![value.into().into()]));
        self
    }

    /// Sets the query of the connect request, such as `room=kitchen&lang=en`.
    pub fn query(mut self, query: impl Into<String>) -> Self {
        self.open.query = Some(query.into().into());
        self
    }

    /// Sets the address of the client.
    pub fn remote_addr(self, address: SocketAddr) -> Self {
        self.header(REMOTE_HEADER, address.to_string())
    }

    /// Makes the client speak MessagePack.
    pub fn messagepack(mut self) -> Self {
        self.protocol = HubProtocol::MessagePack;
        self
    }
}

impl IntoFuture for Connect {
    type Output = Result<TestClient, ConnectError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let far_end = self.far_end.ok_or(ConnectError::NoHub)?;
            TestClient::connect(far_end, self.protocol, self.open).await
        })
    }
}

impl From<Hub> for Server {
    fn from(hub: Hub) -> Self {
        Server::new().hub(hub)
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect").field("protocol", &self.protocol).field("open", &self.open).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use trunkline_protocol::limits::LINK_TIMEOUT_MS;

    use super::*;
    use crate::value::Value;
    use crate::{CloseReason, Context, HubCall, HubError, Naming, Next, UploadStream};

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

    /// Counts what each client has received, which must be nothing but this.
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
        assert!(ann.invoke::<u32>("Add", (1,)).await.unwrap_err().contains("Failed to invoke 'Add'"));
        assert!(ann.invoke::<String>("Add", (1, 2)).await.is_err(), "the result is no text");
        let mut bob = server.connect("/test").user("bob").await.unwrap();
        bob.disconnect().await;
        assert_eq!(ann.expect::<(String, Option<String>)>("Left").await, ("bob".into(), None));
        assert!(ann.invoke::<()>("Abort", ()).await.is_err());
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
            assert!(failing.next().await.unwrap().unwrap_err().ends_with("no more"));
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
    async fn the_naming_of_the_hub_holds_on_every_way() {
        #[derive(Clone, serde::Serialize, serde::Deserialize)]
        struct Seat {
            row_number: u8,
            side: Side,
        }
        #[derive(Clone, serde::Serialize, serde::Deserialize)]
        enum Side {
            Left,
            TopRight,
        }
        let hub = Hub::new("/test")
            .naming(Naming::DotNet)
            .filter(async |call: HubCall, next: Next| match call.method() {
                "Filtered" => call.reply(&Seat { row_number: 4, side: Side::TopRight }),
                _ => next.run(call).await,
            })
            .method("Filtered", async || ())
            .method("Echo", async |seat: Seat| seat)
            .method("Repeat", async |seat: Seat| futures_util::stream::iter([Ok::<_, HubError>(seat)]))
            .method("Upload", async |mut seats: UploadStream<Seat>| match seats.next().await {
                Some(seat) => seat,
                None => Err(HubError::new("no seat")),
            })
            .method("Send", async |ctx: Context, seat: Seat| {
                let clients = ctx.clients();
                clients.caller().send("Seat", (&seat,)).await?;
                clients.all().send("Seat", (&seat,)).await?;
                clients.client(ctx.connection_id()).send("Seat", (&seat,)).await?;
                Ok::<_, HubError>(())
            });
        let server = TestServer::new(hub).unwrap();
        for (connect, name, side) in [
            (server.connect("/test"), "rowNumber", Value::from(1)),
            (server.connect("/test").messagepack(), "RowNumber", Value::from("TopRight")),
        ] {
            // What is neither struct nor enum goes over the wire as it is.
            let (mut client, wire) = (connect.await.unwrap(), |row: i32, names: [&str; 2]| {
                Value::from_iter([(names[0], Value::from(row)), (names[1], side.clone())])
            });
            let names = if name == "rowNumber" { [name, "side"] } else { [name, "Side"] };
            let seat = wire(4, names);
            assert_eq!(client.invoke("Filtered", ()).await, Ok(seat.clone()));
            assert_eq!(client.invoke("Echo", (wire(4, ["ROWNUMBER", "side"]),)).await, Ok(seat.clone()));
            assert_eq!(client.stream("Repeat", (&seat,)).await.unwrap().next().await, Some(Ok(seat.clone())));
            assert_eq!(client.invoke_uploading("Upload", (), [&seat]).await, Ok(seat.clone()));
            client.invoke::<()>("Send", (&seat,)).await.unwrap();
            for _ in 0..3 {
                assert_eq!(client.expect::<(Value,)>("Seat").await, (seat.clone(),));
            }
            let asked = server.handle().hub("test").unwrap().clients().client(client.connection_id());
            let question = Seat { row_number: 4, side: Side::TopRight };
            let (answer, ()) = tokio::join!(asked.invoke::<Seat>("Ask", (question,)), async {
                let question = client.next().await.unwrap();
                assert_eq!(question.arguments(), Ok((seat.clone(),)));
                client.answer(&question, &seat).await.unwrap();
            });
            assert!(matches!(answer, Ok(Seat { row_number: 4, side: Side::TopRight })));
            // The test client speaks as the hub does.
            let echoed: Seat = client.invoke("Echo", (Seat { row_number: 1, side: Side::Left },)).await.unwrap();
            assert!(matches!(echoed, Seat { row_number: 1, side: Side::Left }));
        }
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

    #[tokio::test(start_paused = true)]
    async fn a_jump_of_the_paused_clock_does_not_end_the_link() {
        let mut ann = server().connect("/test").await.unwrap();
        // sleep: the clock is paused, so no time passes
        tokio::time::sleep(Duration::from_millis(10 * LINK_TIMEOUT_MS)).await;
        assert_eq!(ann.invoke::<u32>("Add", (1, 2)).await, Ok(3));
    }
}
