//! Process of a client: an agent with many clients, or a .NET program for one.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::harness::dotnet::{DotNet, NetClient};
use crate::harness::driver::{Driver, Reply};
use crate::harness::scenario::Fixture;

/// Process of a client, with commands and events in the agents' format.
#[derive(Debug)]
pub(super) enum Remote {
    /// Agent that hosts the client under a name.
    Agent { driver: Arc<Driver>, name: String, events: UnboundedReceiver<Value> },
    /// .NET program with this single client.
    Net(Box<NetClient>),
}

impl Remote {
    /// Opens a client in an agent. Also returns its connection id, if available.
    pub(super) async fn open(driver: &Arc<Driver>, name: String, mut options: Value) -> Result<(Self, Option<String>)> {
        let events = driver.events_of(&name);
        if let Some(options) = options.as_object_mut() {
            options.insert("client".into(), json!(name));
        }
        let opened = driver.command("open", options).await?.map_err(anyhow::Error::msg)?;
        let id = opened.get("connectionId").and_then(Value::as_str).map(str::to_owned);
        Ok((Self::Agent { driver: Arc::clone(driver), name, events }, id))
    }

    /// Opens a .NET client with the agents' options.
    pub(super) async fn open_net(fixture: &Fixture, options: &Value) -> Result<(Self, Option<String>)> {
        let dotnet = DotNet::find()?.context("there are .NET programs")?;
        let text = |name| options.get(name).and_then(Value::as_str);
        let url = text("url").context("a URL")?;
        let mut builder = dotnet.client(fixture, url).protocol(text("protocol").context("a protocol")?);
        builder = builder.transport_named(text("transport").unwrap_or("WebSockets"));
        if let Some(token) = text("accessToken") {
            builder = builder.access_token(token);
        }
        if options.get("reconnectDelays").is_some() {
            builder = builder.reconnect();
        }
        let targets: Vec<&str> = options
            .get("subscribe")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let client = builder.subscribe(&targets).open().await?;
        for (target, order) in options.get("answers").and_then(Value::as_object).into_iter().flatten() {
            client.answer(target, order.get("value").cloned().context("the program answers with values")?).await?;
        }
        if options.get("answers").is_some() {
            // Setting answers has no reply, but lines are processed in order, so a refused call confirms them.
            let _ = client.call("NoSuchMethod", json!([])).await?;
        }
        let id = client.connection_id().to_owned();
        Ok((Self::Net(Box::new(client)), Some(id)))
    }

    /// Sends a command and waits for its reply.
    pub(super) async fn command(&self, op: &str, mut options: Value) -> Result<Reply> {
        match self {
            Self::Agent { driver, name, .. } => {
                if let Some(options) = options.as_object_mut() {
                    options.insert("client".into(), json!(name));
                }
                driver.command(op, options).await
            }
            Self::Net(client) => command_net(client, op, options).await,
        }
    }

    /// Waits for the next event, in the agents' format.
    pub(super) async fn event(&mut self) -> Result<Value> {
        match self {
            Self::Agent { name, events, .. } => {
                events.recv().await.with_context(|| format!("{name} ended with its process"))
            }
            Self::Net(client) => {
                let event = client.event().await?;
                let [name, args, id, error] = ["name", "args", "id", "error"].map(|field| event.get(field));
                let kind = event.get("event");
                Ok(json!({ "event": kind, "target": name, "arguments": args, "connectionId": id, "error": error }))
            }
        }
    }

    /// Agent and the client's name there.
    pub(super) fn agent(&self) -> Result<(&Arc<Driver>, &str)> {
        match self {
            Self::Agent { driver, name, .. } => Ok((driver, name)),
            Self::Net(_) => bail!("the .NET program takes streams whole only"),
        }
    }
}

async fn command_net(client: &NetClient, op: &str, options: Value) -> Result<Reply> {
    let target = options.get("target").and_then(Value::as_str).unwrap_or_default();
    let arguments = options.get("arguments").cloned().unwrap_or_default();
    match op {
        "invoke" => client.call(target, arguments).await,
        "send" => client.send(target, arguments).await.map(|()| Ok(Value::Null)),
        "stream" => {
            let (items, error) = client.streamed(target, arguments).await?;
            Ok(Ok(json!({ "items": items, "error": error })))
        }
        "close" => client.begin_close().await.map(|()| Ok(Value::Null)),
        _ => bail!("the .NET program knows no `{op}`"),
    }
}
