//! Real .NET client, controlled with JSON lines.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::Mutex as AsyncMutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use trunkline_protocol::manifest::Transport;

use crate::harness::message::Message;
use crate::harness::process::Process;
use crate::harness::scenario::Fixture;

use super::programs::DotNet;

/// Description of a .NET client to open.
#[derive(Debug)]
#[must_use]
pub struct NetClientBuilder<'a> {
    dotnet: &'a DotNet,
    fixture: &'a Fixture,
    arguments: Vec<String>,
    targets: Vec<String>,
}

impl DotNet {
    /// Describes a client to open.
    pub fn client<'a>(&'a self, fixture: &'a Fixture, url: &str) -> NetClientBuilder<'a> {
        NetClientBuilder { dotnet: self, fixture, arguments: vec![url.into()], targets: Vec::new() }
    }
}

impl NetClientBuilder<'_> {
    /// Sets the hub protocol.
    pub fn protocol(self, name: &str) -> Self {
        self.argument("--protocol", name)
    }

    /// Restricts the client to this transport.
    pub fn transport(self, transport: Transport) -> Self {
        self.transport_named(transport.name())
    }

    pub(crate) fn transport_named(self, name: &str) -> Self {
        let name = name.to_lowercase();
        self.argument("--transport", if name == "serversentevents" { "sse" } else { &name })
    }

    /// Sends this access token.
    pub fn access_token(self, token: &str) -> Self {
        self.argument("--token", token)
    }

    /// Enables the library's automatic reconnect.
    pub fn reconnect(mut self) -> Self {
        self.arguments.push("--reconnect".into());
        self
    }

    /// Reports messages to these targets through [`NetClient::next`].
    pub fn subscribe(mut self, targets: &[&str]) -> Self {
        self.targets.extend(targets.iter().map(ToString::to_string));
        self
    }

    /// Opens the client and waits until it is connected.
    pub async fn open(self) -> Result<NetClient> {
        let mut command = self.dotnet.command("client/signalr-client.dll");
        command.args(&self.arguments);
        let (process, stdin, stdout) = Process::start_driven(self.fixture, "net-client", command)?;
        let pending = Arc::new(Pending::default());
        let (tell, events) = unbounded_channel();
        tokio::spawn(read(stdout, Arc::clone(&pending), tell));
        let commands = AsyncMutex::new(stdin);
        let mut client =
            NetClient { process, commands, pending, events, calls: AtomicU64::new(1), connection_id: String::new() };
        client.connected().await?;
        for target in &self.targets {
            client.write(&json!({ "on": target })).await?;
        }
        Ok(client)
    }

    /// Requests stateful reconnect when negotiating.
    pub fn stateful(mut self) -> Self {
        self.arguments.push("--stateful".into());
        self
    }

    fn argument(mut self, name: &str, value: &str) -> Self {
        self.arguments.extend([name.into(), value.into()]);
        self
    }
}

/// Senders for output lines about calls, by call id.
#[derive(Debug, Default)]
struct Pending(Mutex<HashMap<u64, UnboundedSender<Value>>>);

/// Open .NET client in a separate process.
#[derive(Debug)]
pub struct NetClient {
    process: Process,
    commands: AsyncMutex<ChildStdin>,
    pending: Arc<Pending>,
    events: UnboundedReceiver<Value>,
    calls: AtomicU64,
    connection_id: String,
}

impl NetClient {
    /// Connection id as known to the client.
    #[must_use]
    pub fn connection_id(&self) -> &str {
        &self.connection_id
    }

    /// Calls a hub method. Returns its result or error text.
    pub async fn call(&self, target: &str, arguments: Value) -> Result<Result<Value, String>> {
        let mut lines = self.begin(json!({ "invoke": target, "args": arguments })).await?;
        let line = lines.recv().await.with_context(|| format!("the client ended during {target}"))?;
        outcome(&line)
    }

    /// Calls a hub method that has to succeed.
    pub async fn invoke(&self, target: &str, arguments: Value) -> Result<Value> {
        self.call(target, arguments).await?.map_err(anyhow::Error::msg).with_context(|| format!("{target} by .NET"))
    }

    /// Calls a hub method without waiting for an answer.
    pub async fn send(&self, target: &str, arguments: Value) -> Result<()> {
        self.write(&json!({ "send": target, "args": arguments })).await
    }

    /// Reads a stream to its end and returns the items.
    pub async fn stream(&self, target: &str, arguments: Value) -> Result<Vec<Value>> {
        let (items, error) = self.streamed(target, arguments).await?;
        ensure!(error.is_none(), "{target} after {} items: {error:?}", items.len());
        Ok(items)
    }

    /// Reads a stream to its end. Returns the items, and the error that ended it.
    pub(crate) async fn streamed(&self, target: &str, arguments: Value) -> Result<(Vec<Value>, Option<String>)> {
        let mut lines = self.begin(json!({ "stream": target, "args": arguments })).await?;
        let mut items = Vec::new();
        loop {
            let line = lines.recv().await.with_context(|| format!("the client ended during {target}"))?;
            match line.get("event").and_then(Value::as_str) {
                Some("item") => items.push(line.get("value").cloned().unwrap_or_default()),
                Some("end") => return Ok((items, None)),
                _ => {
                    return outcome(&line)?
                        .map_or_else(|error| Ok((items, Some(error))), |_| bail!("a result: {line}"));
                }
            }
        }
    }

    /// Uploads a stream and returns the result.
    pub async fn upload(&self, target: &str, items: Value) -> Result<Value> {
        let mut lines = self.begin(json!({ "upload": target, "items": items })).await?;
        let line = lines.recv().await.with_context(|| format!("the client ended during {target}"))?;
        outcome(&line)?.map_err(anyhow::Error::msg)
    }

    /// Sets the answer to client results of a target.
    pub async fn answer(&self, target: &str, with: Value) -> Result<()> {
        self.write(&json!({ "answer": target, "with": with })).await
    }

    /// Waits for the next message to a subscribed target.
    pub async fn next(&mut self) -> Result<Message> {
        let event = self.event().await?;
        ensure!(event.get("event").is_some_and(|name| name == "message"), "a message should come, but {event} did");
        let target = event.get("name").and_then(Value::as_str).context("a name")?.to_owned();
        let arguments = event.get("args").and_then(Value::as_array).cloned().context("arguments")?;
        Ok(Message { target, arguments })
    }

    /// Waits for the next message, which must be for `target`, and returns its arguments.
    pub async fn expect(&mut self, target: &str) -> Result<Vec<Value>> {
        let message = self.next().await?;
        ensure!(message.target == target, "{target} should come, but {message:?} did");
        Ok(message.arguments)
    }

    /// Waits until the client closes. Returns the error's text, if any.
    pub async fn closed(&mut self) -> Result<Option<String>> {
        let event = self.event().await?;
        ensure!(event.get("event").is_some_and(|name| name == "closed"), "the end should come, but {event} did");
        Ok(event.get("error").and_then(Value::as_str).map(str::to_owned))
    }

    /// Stops the client through its library.
    pub async fn close(&mut self) -> Result<()> {
        self.begin_close().await?;
        self.closed().await?;
        Ok(())
    }

    /// Starts stopping the client. Its end is reported later.
    pub(crate) async fn begin_close(&self) -> Result<()> {
        self.write(&json!({ "stop": true })).await
    }

    async fn connected(&mut self) -> Result<()> {
        let event = self.event().await.with_context(|| self.process.log())?;
        ensure!(event.get("event").is_some_and(|name| name == "connected"), "not connected: {event}");
        self.connection_id = event.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(())
    }

    async fn begin(&self, mut command: Value) -> Result<UnboundedReceiver<Value>> {
        let id = self.calls.fetch_add(1, Ordering::Relaxed);
        let (tell, lines) = unbounded_channel();
        self.pending.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, tell);
        if let Some(command) = command.as_object_mut() {
            command.insert("id".into(), json!(id));
        }
        self.write(&command).await?;
        Ok(lines)
    }

    async fn write(&self, command: &Value) -> Result<()> {
        let line = format!("{command}\n");
        self.commands.lock().await.write_all(line.as_bytes()).await.context("the .NET client is gone")
    }

    /// Waits for the next line that does not belong to a call.
    pub(crate) async fn event(&mut self) -> Result<Value> {
        self.events.recv().await.context("the .NET client has ended")
    }
}

fn outcome(line: &Value) -> Result<Result<Value, String>> {
    match line.get("event").and_then(Value::as_str) {
        Some("result") => Ok(Ok(line.get("value").cloned().unwrap_or_default())),
        Some("error") => Ok(Err(line.get("error").and_then(Value::as_str).unwrap_or_default().to_owned())),
        _ => bail!("a result should come, but {line} did"),
    }
}

/// Routes lines about calls to their waiting senders, and all others to the events.
async fn read(stdout: ChildStdout, pending: Arc<Pending>, tell: UnboundedSender<Value>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
        // The client answers on its own: see `answer`.
        if line.get("event").is_some_and(|event| event == "asked") {
            continue;
        }
        let call = line.get("id").and_then(Value::as_u64);
        let waiting = call.and_then(|id| pending.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned());
        drop(waiting.unwrap_or_else(|| tell.clone()).send(line));
    }
    pending.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
}
