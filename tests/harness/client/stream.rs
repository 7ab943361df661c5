//! Streams of a client: those it asks for, and those it uploads.

use std::sync::Arc;

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::harness::driver::Driver;

use super::library_client::Client;
use super::remote::Remote;

/// Items and outcome of a stream that a client asked for.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Streamed {
    /// Its items, in order.
    pub items: Vec<Value>,
    /// The error that ended it.
    pub error: Option<String>,
}

/// A stream that a client uploads. It goes along as an argument of a call; items are to be fed after the call was made.
#[derive(Debug)]
pub struct Upload {
    driver: Arc<Driver>,
    client: String,
    name: String,
}

impl Client {
    /// Asks for a stream and waits for its end.
    ///
    /// # Errors
    /// When the client is gone.
    pub async fn stream(&self, target: &str, arguments: Value) -> Result<Streamed> {
        self.streamed(json!({ "target": target, "arguments": arguments })).await
    }

    /// Asks for a stream and cancels it after so many items; at once after none.
    ///
    /// # Errors
    /// When the client is gone.
    pub async fn stream_first(&self, count: usize, target: &str, arguments: Value) -> Result<Streamed> {
        self.streamed(json!({ "target": target, "arguments": arguments, "atMost": count })).await
    }

    /// Asks for a stream that [`cancel`](Self::cancel) knows by this name, and waits for its end.
    ///
    /// # Errors
    /// When the client is gone.
    pub async fn stream_named(&self, name: &str, target: &str, arguments: Value) -> Result<Streamed> {
        self.streamed(json!({ "target": target, "arguments": arguments, "stream": name })).await
    }

    /// Cancels a stream.
    ///
    /// # Errors
    /// When there is none of this name.
    pub async fn cancel(&self, name: &str) -> Result<()> {
        self.done("cancel", json!({ "stream": name })).await
    }

    /// A stream to upload, under a name that this client has not used yet.
    ///
    /// # Errors
    /// When the client is gone.
    pub async fn upload(&self, name: &str) -> Result<Upload> {
        self.done("upload", json!({ "subject": name })).await?;
        let (driver, client) = self.remote.agent()?;
        Ok(Upload { driver: Arc::clone(driver), client: client.into(), name: name.into() })
    }

    /// Calls a method whose only argument is a stream of these items, and waits for its result.
    ///
    /// # Errors
    /// When the method fails.
    pub async fn invoke_with_items(&self, target: &str, items: Value) -> Result<Value> {
        if let Remote::Net(client) = &self.remote {
            return client.upload(target, items).await;
        }
        let upload = self.upload("items").await?;
        let feeding = async {
            upload.feed(items).await?;
            upload.complete().await
        };
        let (result, fed) = tokio::join!(self.invoke(target, json!([upload.argument()])), feeding);
        fed?;
        result
    }

    async fn streamed(&self, options: Value) -> Result<Streamed> {
        let reply = self.command("stream", options).await?;
        Ok(serde_json::from_value(reply.map_err(anyhow::Error::msg)?)?)
    }
}

impl Upload {
    /// Placeholder for it among the arguments of a call.
    #[must_use]
    pub fn argument(&self) -> Value {
        json!({ "$subject": self.name })
    }

    /// Sends items.
    ///
    /// # Errors
    /// When the client can't.
    pub async fn feed(&self, items: Value) -> Result<()> {
        self.command("feed", json!({ "items": items })).await
    }

    /// Ends it.
    ///
    /// # Errors
    /// When the client can't.
    pub async fn complete(&self) -> Result<()> {
        self.command("complete", json!({})).await
    }

    /// Ends it with an error.
    ///
    /// # Errors
    /// When the client can't.
    pub async fn fail(&self, text: &str) -> Result<()> {
        self.command("fail", json!({ "error": text })).await
    }

    async fn command(&self, op: &str, mut options: Value) -> Result<()> {
        if let Some(options) = options.as_object_mut() {
            options.insert("client".into(), json!(self.client));
            options.insert("subject".into(), json!(self.name));
        }
        self.driver.command(op, options).await?.map_err(anyhow::Error::msg)?;
        Ok(())
    }
}
