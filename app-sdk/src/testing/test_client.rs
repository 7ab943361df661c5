//! Test client that uses a hub protocol like real clients.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use http::HeaderMap;
use serde::Serialize;
use serde::de::DeserializeOwned;
use trunkline_protocol::hub::{HubMessage, HubProtocol, Invocation, Outcome, StreamItem};
use trunkline_protocol::service::{CloseConnection, ConnectionClaims, OpenConnection, ServiceMessage};
use trunkline_protocol::wire::USER_ID_CLAIM;

use super::call_error::{CallError, ConnectError};
use super::client_inbox::ClientInbox;
use super::client_wire::{ClientWire, TestCall, TestStream, send_replies};
use super::fake_proxy::{FakeProxy, NewMember};
use super::received::{Expected, FromArguments, Received};
use crate::encode::Arguments;

/// Client connected to a hub under test.
pub struct TestClient {
    pub(super) wire: Arc<ClientWire>,
    /// Message that opened the connection, sent again to another app server.
    pub(super) open: OpenConnection,
    negotiate_headers: HeaderMap,
    latest_invocation: u64,
}

pub(super) struct Opening {
    pub(super) fake_proxy: Arc<FakeProxy>,
    pub(super) protocol: HubProtocol,
    pub(super) open: OpenConnection,
    pub(super) server: usize,
    pub(super) negotiate_headers: HeaderMap,
    pub(super) timeout: Duration,
}

impl TestClient {
    pub(super) async fn connect(opening: Opening) -> Result<Self, ConnectError> {
        let Opening { fake_proxy, protocol, mut open, server, negotiate_headers, timeout } = opening;
        open.protocol = Some(ByteString::from_static(protocol.name()));
        let id = open.connection_id.clone();
        let user = open.claims.iter().find(|(name, _)| name == USER_ID_CLAIM).map(|(_, value)| value.clone());
        let (inbox, replies) = ClientInbox::new(fake_proxy.codec(protocol));
        let new = NewMember { id: id.clone(), protocol, user, home: server, inbox: Arc::clone(&inbox) };
        fake_proxy.join(new).await;
        let wire = Arc::new(ClientWire { codec: fake_proxy.codec(protocol), fake_proxy, inbox, id, timeout });
        tokio::spawn(send_replies(Arc::clone(&wire), replies));
        let client = Self { wire, open, negotiate_headers, latest_invocation: 0 };
        client.wire.open_at(server, client.open.clone()).await;
        match client.wire.inbox.handshake().await {
            Some(Ok(())) => Ok(client),
            Some(Err(text)) => Err(ConnectError::Refused(text)),
            None => Err(ConnectError::Gone),
        }
    }

    /// Connection ID of the client.
    #[must_use]
    pub fn connection_id(&self) -> &str {
        &self.wire.id
    }

    /// Headers of its [negotiate](super::Connect::negotiate) response, including cookies.
    #[must_use]
    pub fn negotiate_headers(&self) -> &HeaderMap {
        &self.negotiate_headers
    }

    /// Calls a method and waits for its result. Calls from the hub meanwhile are stored for [`next`](Self::next). For
    /// a method that invokes this client, see [`begin`](Self::begin) and [`on`](Self::on).
    ///
    /// # Errors
    /// The error that a client receives, no answer within the [timeout](super::Connect::answer_timeout), or a result
    /// of a different type.
    pub async fn invoke<T: DeserializeOwned>(
        &mut self,
        method: &str,
        arguments: impl Arguments,
    ) -> Result<T, CallError> {
        self.begin(method, arguments).await?.result().await
    }

    /// Calls a method without waiting for its result yet: for methods that invoke their own caller or run
    /// concurrently with other actions of the client.
    ///
    /// ```
    /// use trunkline::testing::TestServer;
    /// use trunkline::{Context, Hub, HubError};
    ///
    /// async fn delete(ctx: Context, note: u32) -> Result<bool, HubError> {
    ///     Ok(ctx.clients().caller().invoke("Confirm", (note,)).await?)
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = TestServer::new(Hub::new("/notes").method("Delete", delete))?;
    /// let mut ann = server.connect("/notes").await?;
    /// let call = ann.begin("Delete", (7,)).await?;
    /// let question = ann.next().await.expect("a question");
    /// ann.answer(&question, true).await?;
    /// assert!(call.result::<bool>().await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If an argument cannot be encoded. Other errors come from the call.
    pub async fn begin(&mut self, method: &str, arguments: impl Arguments) -> Result<TestCall, CallError> {
        let call = self.call(method, &arguments)?;
        let invocation_id = self.next_id();
        self.wire.inbox.expect(invocation_id.clone());
        let call = Invocation { invocation_id: Some(invocation_id.clone()), ..call };
        self.wire.write(&HubMessage::Invocation(call)).await;
        Ok(TestCall::new(Arc::clone(&self.wire), invocation_id))
    }

    /// Answers all further calls of the hub to a client method. [`next`](Self::next) and [`expect`](Self::expect) do
    /// not see these calls. The result is sent if the hub expects one; `()` means no result. Arguments that do not
    /// fit are an error for the hub.
    ///
    /// ```
    /// # use trunkline::testing::TestServer;
    /// # use trunkline::{Context, Hub, HubError};
    /// # async fn delete(ctx: Context, note: u32) -> Result<bool, HubError> {
    /// #     Ok(ctx.clients().caller().invoke("Confirm", (note,)).await?)
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = TestServer::new(Hub::new("/notes").method("Delete", delete))?;
    /// # let mut ann = server.connect("/notes").await?;
    /// ann.on("Confirm", |(note,): (u32,)| note != 8);
    /// assert!(ann.invoke::<bool>("Delete", (7,)).await?);
    /// assert!(!ann.invoke::<bool>("Delete", (8,)).await?);
    /// # Ok(()) }
    /// ```
    pub fn on<A: FromArguments, R: Serialize>(
        &mut self,
        method: &str,
        answer: impl Fn(A) -> R + Send + Sync + 'static,
    ) {
        let codec = self.wire.codec;
        let answer = move |call: &Received| match call.arguments::<A>() {
            Ok(arguments) => match codec.payload(&answer(arguments)) {
                Ok(result) => Outcome::Value(result),
                Err(error) => Outcome::Error(error.to_string().into()),
            },
            Err(problem) => Outcome::Error(problem.into()),
        };
        self.wire.inbox.prepare(method, Arc::new(answer));
    }

    /// Calls a method that takes one stream, like [`invoke`](Self::invoke): sends all items, then the end.
    ///
    /// # Errors
    /// The errors of `invoke`.
    pub async fn invoke_uploading<T: DeserializeOwned>(
        &mut self,
        method: &str,
        arguments: impl Arguments,
        items: impl IntoIterator<Item = impl Serialize>,
    ) -> Result<T, CallError> {
        let call = self.call(method, &arguments)?;
        let (invocation_id, stream_id) = (self.next_id(), self.next_id());
        let stream_ids = vec![stream_id.clone()];
        self.wire.inbox.expect(invocation_id.clone());
        let call = Invocation { invocation_id: Some(invocation_id.clone()), stream_ids, ..call };
        self.wire.write(&HubMessage::Invocation(call)).await;
        for item in items {
            let item = self.wire.payload(&item)?;
            let item = StreamItem { headers: Vec::new(), invocation_id: stream_id.clone(), item };
            self.wire.write(&HubMessage::StreamItem(item)).await;
        }
        self.wire.complete(stream_id, Outcome::Void).await;
        TestCall::new(Arc::clone(&self.wire), invocation_id).result().await
    }

    /// Calls a method without requesting a result.
    ///
    /// # Errors
    /// If an argument cannot be encoded.
    pub async fn send(&mut self, method: &str, arguments: impl Arguments) -> Result<(), CallError> {
        let call = self.call(method, &arguments)?;
        self.wire.write(&HubMessage::Invocation(call)).await;
        Ok(())
    }

    /// Calls a streaming method.
    ///
    /// # Errors
    /// If an argument cannot be encoded. Other errors come from the stream.
    pub async fn stream<T: DeserializeOwned>(
        &mut self,
        method: &str,
        arguments: impl Arguments,
    ) -> Result<TestStream<T>, CallError> {
        let call = self.call(method, &arguments)?;
        let invocation_id = self.next_id();
        self.wire.inbox.expect(invocation_id.clone());
        let call = Invocation { invocation_id: Some(invocation_id.clone()), ..call };
        self.wire.write(&HubMessage::StreamInvocation(call)).await;
        Ok(TestStream::new(Arc::clone(&self.wire), invocation_id))
    }

    /// Waits for the next call from the hub; `None` when the connection has closed.
    pub async fn next(&mut self) -> Option<Received> {
        let message = self.wire.inbox.wait_for(|message| matches!(message, HubMessage::Invocation(_))).await?;
        self.received(message)
    }

    /// Returns the next call like [`next`](Self::next), or `None` if none has arrived.
    pub fn try_next(&mut self) -> Option<Received> {
        let message = self.wire.inbox.take_message(|message| matches!(message, HubMessage::Invocation(_)))?;
        self.received(message)
    }

    /// Waits for the next call from the hub, which must be to this method, and returns its arguments. If other calls
    /// may come first, use [`expect_among`](Self::expect_among), which skips them.
    ///
    /// # Panics
    /// At the `.await`, if another call or other arguments arrive, or nothing within the
    /// [timeout](super::Connect::answer_timeout).
    #[track_caller]
    pub fn expect<'a, T: FromArguments + 'a>(&'a mut self, method: &str) -> Expected<'a, T> {
        let (client, method) = (&*self, method.to_owned());
        Expected::new(async move {
            match client.next_in_time(&method, |_| true).await? {
                received if received.target() == method => received.read(),
                other => Err(format!("{method} expected, {other:?} received: `expect_among` skips other calls")),
            }
        })
    }

    /// Waits for the next call to this method and returns its arguments. Earlier calls to other methods stay queued
    /// for [`next`](Self::next) and [`expect`](Self::expect).
    ///
    /// ```
    /// # use trunkline::testing::TestServer;
    /// # use trunkline::{Context, Hub, HubError};
    /// async fn bid(ctx: Context, amount: u32) -> Result<(), HubError> {
    ///     ctx.clients().all().send("Tick", ()).await?;
    ///     ctx.clients().all().send("BidPlaced", (amount,)).await?;
    ///     Ok(())
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = TestServer::new(Hub::new("/auction").method("Bid", bid))?;
    /// # let mut ann = server.connect("/auction").await?;
    /// ann.invoke::<()>("Bid", (5,)).await?;
    /// assert_eq!(ann.expect_among::<(u32,)>("BidPlaced").await, (5,));
    /// ann.expect::<()>("Tick").await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Panics
    /// At the `.await`, if other arguments arrive, or no call within the [timeout](super::Connect::answer_timeout).
    #[track_caller]
    pub fn expect_among<'a, T: FromArguments + 'a>(&'a mut self, method: &str) -> Expected<'a, T> {
        self.until(method, |_| true)
    }

    /// Waits for the first call to this method that meets a condition and returns its arguments. Drops calls to this
    /// method that do not meet it; calls to other methods stay queued.
    ///
    /// ```
    /// # use trunkline::testing::TestServer;
    /// # use trunkline::{Context, Hub, HubError};
    /// # async fn count(ctx: Context, to: u32) -> Result<(), HubError> {
    /// #     for number in 0..=to {
    /// #         ctx.clients().caller().send("Count", (number,)).await?;
    /// #     }
    /// #     Ok(())
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = TestServer::new(Hub::new("/count").method("CountTo", count))?;
    /// # let mut ann = server.connect("/count").await?;
    /// ann.send("CountTo", (10,)).await?;
    /// ann.until("Count", |(number,): &(u32,)| *number == 7).await;
    /// assert_eq!(ann.expect::<(u32,)>("Count").await, (8,));
    /// # Ok(()) }
    /// ```
    ///
    /// # Panics
    /// At the `.await`, if other arguments arrive, or no such call within the
    /// [timeout](super::Connect::answer_timeout), which restarts with each call.
    #[track_caller]
    pub fn until<'a, T: FromArguments + 'a>(
        &'a mut self,
        method: &str,
        mut is_wanted: impl FnMut(&T) -> bool + Send + 'a,
    ) -> Expected<'a, T> {
        let (client, method) = (&*self, method.to_owned());
        Expected::new(async move {
            loop {
                let arguments = client.next_in_time(&method, |target| target == method).await?.read()?;
                if is_wanted(&arguments) {
                    return Ok(arguments);
                }
            }
        })
    }

    /// Answers a call with a result.
    ///
    /// # Errors
    /// If the result cannot be encoded, or the call expects none.
    pub async fn answer(&mut self, call: &Received, result: impl Serialize) -> Result<(), CallError> {
        let id = call.invocation.invocation_id.clone().ok_or(CallError::NoQuestion)?;
        let result = self.wire.payload(&result)?;
        self.wire.complete(id, Outcome::Value(result)).await;
        Ok(())
    }

    /// Answers a call with an error.
    ///
    /// # Errors
    /// If the call expects no result.
    pub async fn refuse(&mut self, call: &Received, error: &str) -> Result<(), CallError> {
        let id = call.invocation.invocation_id.clone().ok_or(CallError::NoQuestion)?;
        self.wire.complete(id, Outcome::Error(error.into())).await;
        Ok(())
    }

    /// Refreshes the client's authentication, as reported by a proxy: replaces its claims, and
    /// [`on_refreshed`](crate::Hub::on_refreshed) runs.
    pub async fn refresh<N: Into<String>, V: Into<String>>(&mut self, claims: impl IntoIterator<Item = (N, V)>) {
        let user = self.open.claims.iter().find(|(name, _)| name == USER_ID_CLAIM).cloned();
        let claims = claims.into_iter().map(|(name, value)| (name.into().into(), value.into().into()));
        self.open.claims = user.into_iter().chain(claims).collect();
        let update = ConnectionClaims { connection_id: self.wire.id.clone(), claims: self.open.claims.clone() };
        if let Some(home) = self.wire.fake_proxy.home(&self.wire.id) {
            self.wire.fake_proxy.send(home, ServiceMessage::UpdateConnectionClaims(update)).await;
        }
    }

    /// Closes the connection from this side, as if the client had closed its socket. The hub's `on_disconnected` runs
    /// soon after; wait for a message that it sends, or for [`TestServer::shutdown`](super::TestServer::shutdown).
    pub async fn disconnect(&mut self) {
        let home = self.wire.fake_proxy.home(&self.wire.id);
        self.wire.fake_proxy.leave(&self.wire.id);
        let close = CloseConnection { connection_id: self.wire.id.clone(), ..CloseConnection::default() };
        if let Some(home) = home {
            self.wire.fake_proxy.send(home, ServiceMessage::CloseConnection(close)).await;
        }
    }

    /// Waits until the hub has closed the connection. Returns the hub's error, if any.
    pub async fn closed(&mut self) -> Option<String> {
        self.wire.inbox.closed().await
    }

    /// Waits for the next call to a matching method. On failure, the text names the expected method.
    async fn next_in_time(&self, method: &str, is_wanted: impl Fn(&str) -> bool) -> Result<Received, String> {
        let is_wanted =
            |message: &HubMessage| matches!(message, HubMessage::Invocation(call) if is_wanted(&call.target));
        let next = tokio::time::timeout(self.wire.timeout, self.wire.inbox.wait_for(is_wanted)).await;
        match next.map(|message| message.and_then(|message| self.received(message))) {
            Ok(Some(received)) => Ok(received),
            Ok(None) => match self.wire.inbox.close_error() {
                Some(error) => Err(format!("{method} expected, but the connection has ended: {error}")),
                None => Err(format!("{method} expected, but the connection has ended")),
            },
            Err(_) => Err(format!("{method} expected, but not received within {:?}", self.wire.timeout)),
        }
    }

    fn call(&self, method: &str, arguments: &impl Arguments) -> Result<Invocation, CallError> {
        let arguments = arguments.payloads(self.wire.codec);
        let arguments = arguments.map_err(|error| CallError::Encode(error.to_string()))?;
        Ok(Invocation { target: method.into(), arguments, ..Invocation::default() })
    }

    fn next_id(&mut self) -> ByteString {
        self.latest_invocation += 1;
        self.latest_invocation.to_string().into()
    }

    fn received(&self, message: HubMessage) -> Option<Received> {
        match message {
            HubMessage::Invocation(invocation) => Some(Received::new(self.wire.codec, invocation)),
            _ => None,
        }
    }
}

impl fmt::Debug for TestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, protocol) = (&self.wire.id, self.wire.codec.protocol);
        f.debug_struct("TestClient").field("id", id).field("protocol", &protocol).finish_non_exhaustive()
    }
}
