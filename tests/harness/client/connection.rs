//! Connection of the official client without a hub: text and binary messages at raw endpoints.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::harness::driver::Driver;

use super::agents::Agents;
use super::kind::Kind;

/// Description of a connection to open.
#[derive(Debug)]
#[must_use]
pub struct ConnectionBuilder<'a> {
    agents: &'a Agents<'a>,
    options: Value,
}

impl Agents<'_> {
    /// Describes a connection of the official client without a hub.
    pub fn connection(&self, url: &str) -> ConnectionBuilder<'_> {
        ConnectionBuilder { agents: self, options: json!({ "url": url }) }
    }
}

impl ConnectionBuilder<'_> {
    /// Restricts the transport; otherwise the library chooses.
    pub fn transport(self, name: &str) -> Self {
        self.option("transport", json!(name))
    }

    /// Sends bytes instead of text.
    pub fn binary(self) -> Self {
        self.option("binary", json!(true))
    }

    /// Makes the library log message contents.
    pub fn log_content(self) -> Self {
        self.option("logContent", json!(true))
    }

    /// Opens the connection.
    ///
    /// # Errors
    /// If the connection fails.
    pub async fn open(mut self) -> Result<Connection> {
        let driver = Arc::clone(self.agents.driver(Kind::JsJson).await?);
        let name = self.agents.next_name();
        let events = driver.events_of(&name);
        if let Some(options) = self.options.as_object_mut() {
            options.insert("client".into(), json!(name));
        }
        let opened = driver.command("rawOpen", self.options).await?;
        opened.map_err(anyhow::Error::msg).context("opening a raw connection")?;
        Ok(Connection { driver, name, events })
    }

    fn option(mut self, name: &str, value: Value) -> Self {
        if let Some(options) = self.options.as_object_mut() {
            options.insert(name.into(), value);
        }
        self
    }
}

/// Open connection of the official client.
#[derive(Debug)]
pub struct Connection {
    driver: Arc<Driver>,
    name: String,
    events: UnboundedReceiver<Value>,
}

impl Connection {
    /// Sends `{"text": …}` or `{"base64": …}`.
    pub async fn send(&self, message: Value) -> Result<()> {
        self.command("rawSend", message).await.map(drop)
    }

    /// Receives the next message, in the format of [`send`](Self::send).
    pub async fn receive(&mut self) -> Result<Value> {
        let event = self.events.recv().await.context("the agent is gone")?;
        match (event.get("text"), event.get("base64")) {
            (Some(text), _) => Ok(json!({ "text": text })),
            (_, Some(base64)) => Ok(json!({ "base64": base64 })),
            _ => bail!("it closes instead: {event}"),
        }
    }

    /// Closes the connection. Returns its error and the library's log.
    pub async fn stop(mut self) -> Result<(Option<String>, Vec<String>)> {
        self.command("rawStop", json!({})).await?;
        let closed = self.events.recv().await.context("the agent is gone")?;
        anyhow::ensure!(closed.get("event") == Some(&json!("closed")), "it should close, but {closed}");
        let lines = serde_json::from_value(self.command("rawLog", json!({})).await?)?;
        Ok((closed.get("error").and_then(Value::as_str).map(str::to_owned), lines))
    }

    async fn command(&self, op: &str, mut options: Value) -> Result<Value> {
        if let Some(options) = options.as_object_mut() {
            options.insert("client".into(), json!(self.name));
        }
        let reply = self.driver.command(op, options).await?;
        reply.map_err(anyhow::Error::msg).with_context(|| format!("a raw connection's {op}"))
    }
}
