//! Client of any library: options and operations.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use trunkline_protocol::manifest::Transport;

use crate::harness::message::Message;

use super::agents::Agents;
use super::answer::ClientAnswer;
use super::kind::{Host, Kind};
use super::remote::Remote;

/// Description of a client to open.
#[derive(Debug)]
#[must_use]
pub struct ClientBuilder<'a> {
    agents: &'a Agents<'a>,
    kind: Kind,
    options: Value,
}

impl Agents<'_> {
    /// Describes a client to open.
    pub fn client(&self, kind: Kind, url: &str) -> ClientBuilder<'_> {
        let options = json!({ "url": url, "protocol": kind.protocol() });
        ClientBuilder { agents: self, kind, options }
    }
}

impl ClientBuilder<'_> {
    /// Reports messages to these targets individually.
    pub fn subscribe(self, targets: &[&str]) -> Self {
        self.option("subscribe", json!(targets))
    }

    /// Only counts and checks messages to these targets, which carry sequence numbers: see [`Client::sequence`].
    pub fn count(self, targets: &[&str]) -> Self {
        self.option("count", json!(targets))
    }

    /// Headers of the client's requests.
    pub fn headers(self, headers: Value) -> Self {
        self.option("headers", headers)
    }

    /// Access token of the user.
    pub fn access_token(self, token: &str) -> Self {
        self.option("accessToken", json!(token))
    }

    /// Access token of the user, provided asynchronously (JavaScript only).
    pub fn async_access_token(self, token: &str) -> Self {
        self.access_token(token).option("asyncAccessToken", json!(true))
    }

    /// Access token for automatic reconnects (JavaScript only).
    pub fn next_access_token(self, token: &str) -> Self {
        self.option("nextAccessToken", json!(token))
    }

    /// Enables automatic reconnect, with these delays if supported (JavaScript, Go, .NET).
    pub fn reconnect_after_ms(self, delays: &[u64]) -> Self {
        self.option("reconnectDelays", json!(delays))
    }

    /// Restricts the transport; the default is WebSockets.
    pub fn transport(self, transport: Transport) -> Self {
        self.option("transport", json!(transport.name()))
    }

    /// Lets the library choose the transport (JavaScript only).
    pub fn any_transport(self) -> Self {
        self.option("transport", json!("any"))
    }

    /// Opens the WebSocket without negotiating.
    pub fn skip_negotiation(self) -> Self {
        self.option("skipNegotiation", json!(true))
    }

    /// Sets the answer to client results of `target`. Each request is also recorded as a message.
    pub fn answer(mut self, target: &str, answer: &ClientAnswer) -> Self {
        if let Some(answers) = self.options.get_mut("answers").and_then(Value::as_object_mut) {
            answers.insert(target.into(), answer.order());
            return self;
        }
        self.option("answers", json!({ target: answer.order() }))
    }

    /// Sets the library's server timeout (JavaScript only).
    pub fn server_timeout_ms(self, timeout: u64) -> Self {
        self.option("serverTimeoutMs", json!(timeout))
    }

    /// Sets the library's ping interval (JavaScript only).
    pub fn keep_alive_ms(self, interval: u64) -> Self {
        self.option("keepAliveMs", json!(interval))
    }

    /// URL for automatic reconnects (JavaScript only).
    pub fn reconnect_to(self, url: &str) -> Self {
        self.option("reconnectTo", json!(url))
    }

    /// Reports headers of received messages as messages to `$headers`: kind, target and headers (JavaScript only).
    pub fn show_headers(self) -> Self {
        self.option("showHeaders", json!(true))
    }

    /// Requests stateful reconnect when negotiating.
    pub fn stateful(self) -> Self {
        self.option("stateful", json!(true))
    }

    /// Opens the client.
    ///
    /// # Errors
    /// If the connection fails.
    pub async fn open(self) -> Result<Client> {
        let (agents, kind, mut options) = (self.agents, self.kind, self.options);
        if let (Some(library), Some(options)) = (kind.library(), options.as_object_mut()) {
            options.insert("library".into(), json!(library));
        }
        let opened = match kind.host() {
            Host::DotNet => Remote::open_net(agents.fixture, &options).await,
            _ => Remote::open(agents.driver(kind).await?, agents.next_name(), options).await,
        };
        let (remote, connection_id) = opened.with_context(|| format!("opening a {kind:?}"))?;
        Ok(Client { kind, remote, connection_id })
    }

    fn option(mut self, name: &str, value: Value) -> Self {
        if let Some(options) = self.options.as_object_mut() {
            options.insert(name.into(), value);
        }
        self
    }
}

/// Open client of a library.
#[derive(Debug)]
pub struct Client {
    pub(super) kind: Kind,
    pub(super) remote: Remote,
    pub(super) connection_id: Option<String>,
}

/// Received sequence numbers of a target.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Sequence {
    /// Number of messages so far.
    pub received: u64,
    /// Number of the first message.
    pub first: Option<i64>,
    /// Number of the last message.
    pub last: Option<i64>,
    /// First gap or repetition.
    pub broken: Option<Value>,
}

impl Client {
    /// Calls a hub method. Returns its result or error text.
    pub async fn call(&self, target: &str, arguments: Value) -> Result<std::result::Result<Value, String>> {
        self.command("invoke", json!({ "target": target, "arguments": arguments })).await
    }

    /// Calls a hub method that has to succeed.
    pub async fn invoke(&self, target: &str, arguments: Value) -> Result<Value> {
        let outcome = self.call(target, arguments).await?;
        outcome.map_err(anyhow::Error::msg).with_context(|| format!("{target} by {:?}", self.kind))
    }

    /// Calls a hub method that has to fail, and returns the server's error text.
    pub async fn invoke_failing(&self, target: &str, arguments: Value) -> Result<String> {
        match self.call(target, arguments).await? {
            Ok(result) => bail!("{target} should fail, but gives {result}"),
            Err(text) => Ok(text),
        }
    }

    /// Calls a hub method without waiting for an answer.
    pub async fn send(&self, target: &str, arguments: Value) -> Result<()> {
        self.done("send", json!({ "target": target, "arguments": arguments })).await
    }

    /// Calls `target(n)` for `count` numbers without waiting for answers, as fast as possible.
    pub async fn flood(&self, target: &str, from: u64, count: u64) -> Result<()> {
        self.done("flood", json!({ "target": target, "from": from, "count": count })).await
    }

    /// Calls `target(n, padding)` for each number, for calls of a certain size.
    pub async fn flood_padded(&self, target: &str, count: u64, padding_bytes: usize) -> Result<()> {
        self.done("flood", json!({ "target": target, "from": 0, "count": count, "padding": padding_bytes })).await
    }

    /// Checks that the app saw no interruption and that the connection id is unchanged.
    pub async fn is_undisturbed(&self) -> Result<()> {
        let reply = self.command("interruptions", json!({})).await?.map_err(anyhow::Error::msg)?;
        let expected = json!({ "interruptions": [], "connectionId": self.connection_id });
        ensure!(reply == expected, "{:?}: {reply} instead of {expected}", self.kind);
        Ok(())
    }

    /// Number of reconnects. Fails during a reconnect.
    pub async fn reconnections(&self) -> Result<usize> {
        let reply = self.command("interruptions", json!({})).await?.map_err(anyhow::Error::msg)?;
        let interruptions = reply.get("interruptions").and_then(Value::as_array).context("interruptions")?;
        let is_reconnecting =
            |one: &Value| one.as_str().is_some_and(|interruption| interruption.starts_with("reconnecting"));
        ensure!(
            reply.get("connectionId").is_some_and(Value::is_string) && interruptions.iter().all(is_reconnecting),
            "{reply}"
        );
        Ok(interruptions.len())
    }

    /// Waits until a counted target has received `count` messages, or a gap.
    pub async fn sequence(&self, target: &str, count: u64) -> Result<Sequence> {
        let reply = self.command("verify", json!({ "target": target, "count": count })).await?;
        Ok(serde_json::from_value(reply.map_err(anyhow::Error::msg)?)?)
    }

    /// Waits for the next message to any subscribed target.
    pub async fn next(&mut self) -> Result<Message> {
        let event = self.event().await?;
        let text = |name: &str| event.get(name).and_then(Value::as_str).map(str::to_owned);
        ensure!(text("event").as_deref() == Some("message"), "a message should come, but {event} did");
        let arguments = event.get("arguments").and_then(Value::as_array).cloned();
        Ok(Message { target: text("target").context("a target")?, arguments: arguments.context("arguments")? })
    }

    /// Waits for the next message, which must be for `target`, and returns its arguments.
    pub async fn expect(&mut self, target: &str) -> Result<Vec<Value>> {
        let message = self.next().await?;
        ensure!(message.target == target, "{target} should come, but {message:?} did");
        Ok(message.arguments)
    }

    /// Returns all messages before the next `fence`. The same app server sent the fence after the expected messages, so
    /// all of them have arrived.
    pub async fn before(&mut self, fence: &Message) -> Result<Vec<Message>> {
        let mut seen = Vec::new();
        loop {
            let message = self.next().await?;
            if message == *fence {
                return Ok(seen);
            }
            seen.push(message);
        }
    }

    /// Waits until the client closes. Returns the error's text, if any.
    pub async fn closed(&mut self) -> Result<Option<String>> {
        let event = self.event().await?;
        ensure!(event.get("event").is_some_and(|name| name == "closed"), "the end should come, but {event} did");
        Ok(event.get("error").and_then(Value::as_str).map(str::to_owned))
    }

    /// Waits for a reconnect and updates the connection id.
    pub async fn reconnected(&mut self) -> Result<()> {
        for expected in ["reconnecting", "reconnected"] {
            let event = self.event().await?;
            ensure!(event.get("event").is_some_and(|name| name == expected), "{expected} should come, but {event} did");
            self.connection_id = event.get("connectionId").and_then(Value::as_str).map(str::to_owned);
        }
        Ok(())
    }

    /// Answers a held request, by index from zero (JavaScript only).
    pub async fn answer_held(&self, target: &str, question: usize, value: Value) -> Result<()> {
        self.done("answerHeld", json!({ "target": target, "question": question, "value": value })).await
    }

    /// Simulates a silent server for the library (JavaScript only).
    pub async fn sever(&self) -> Result<()> {
        self.done("sever", json!({})).await
    }

    /// Starts closing the connection. [`closed`](Self::closed) reports the end.
    pub async fn begin_close(&self) -> Result<()> {
        self.done("close", json!({})).await
    }

    /// Connects again after [`close`](Self::close), with the same setup (JavaScript and Java).
    pub async fn start_again(&mut self) -> Result<()> {
        let started = self.command("start", json!({})).await?.map_err(anyhow::Error::msg)?;
        self.connection_id = started.get("connectionId").and_then(Value::as_str).map(str::to_owned);
        Ok(())
    }

    /// Closes the client through its library.
    pub async fn close(&mut self) -> Result<()> {
        self.done("close", json!({})).await?;
        self.closed().await?;
        Ok(())
    }

    /// Connection id as known to the client. Unknown without negotiation, or with some libraries.
    pub fn connection_id(&self) -> Result<&str> {
        self.connection_id.as_deref().context("the client knows its connection id")
    }

    /// Library of the client.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    async fn event(&mut self) -> Result<Value> {
        self.remote.event().await
    }

    pub(super) async fn done(&self, op: &str, options: Value) -> Result<()> {
        self.command(op, options).await?.map_err(anyhow::Error::msg)?;
        Ok(())
    }

    pub(super) async fn command(&self, op: &str, options: Value) -> Result<std::result::Result<Value, String>> {
        self.remote.command(op, options).await
    }
}
