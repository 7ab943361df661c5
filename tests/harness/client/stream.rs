//! Streams of a client, downloaded and uploaded.

use std::sync::Arc;

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::harness::driver::Driver;

use super::library_client::Client;
use super::remote::Remote;

/// Items and outcome of a downloaded stream.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Streamed {
    /// Received items in order.
    pub items: Vec<Value>,
    /// Error that ended the stream.
    pub error: Option<String>,
}

/// Stream uploaded by a client as an argument of a call. Items are sent after the call.
#[derive(Debug)]
pub struct Upload {
    driver: Arc<Driver>,
    client: String,
    name: String,
}

impl Client {
    /// Requests a stream and waits for its end.
    pub async fn stream(&self, target: &str, arguments: Value) -> Result<Streamed> {
        self.streamed(json!({ "target": target, "arguments": arguments })).await
    }

    /// Requests a stream and cancels it after `count` items; immediately for zero.
    pub async fn stream_first(&self, count: usize, target: &str, arguments: Value) -> Result<Streamed> {
        self.streamed(json!({ "target": target, "arguments": arguments, "atMost": count })).await
    }

    /// Prepares a stream to upload, under an unused name.
    pub async fn upload(&self, name: &str) -> Result<Upload> {
        self.done("upload", json!({ "subject": name })).await?;
        let (driver, client) = self.remote.agent()?;
        Ok(Upload { driver: Arc::clone(driver), client: client.into(), name: name.into() })
    }

    /// Calls a method with a stream of these items as its only argument, and waits for the result.
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
    /// Placeholder in the arguments of a call.
    #[must_use]
    pub fn argument(&self) -> Value {
        json!({ "$subject": self.name })
    }

    /// Sends items of the stream.
    pub async fn feed(&self, items: Value) -> Result<()> {
        self.command("feed", json!({ "items": items })).await
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// If the client can't send.
    pub async fn complete(&self) -> Result<()> {
        self.command("complete", json!({})).await
    }

    /// Ends the stream with an error.
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
