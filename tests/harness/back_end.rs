//! Back end in no language: plain requests to the REST data plane of a node, with a token.

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use trunkline_protocol::dial_in::sign_rest_token;
use trunkline_protocol::key::AccessKey;

use crate::harness::http_client::{Answer, exchange};
use crate::harness::token::in_seconds;

/// Lifetime of its token, longer than any test.
const LIFETIME_S: u64 = 3600;

/// Back end that asks about one hub.
#[derive(Debug, Clone)]
pub struct BackEnd {
    address: String,
    hub: String,
    bearer: String,
}

impl BackEnd {
    /// A back end with a token for the whole data plane, signed by this key.
    ///
    /// # Errors
    /// When the key is too short.
    pub fn trusted(address: &str, hub: &str, access_key: &str) -> Result<Self> {
        let token = sign_rest_token(&AccessKey::new(access_key)?, None, in_seconds(LIFETIME_S)?);
        Ok(Self::with_token(address, hub, &token))
    }

    /// A back end that shows this token to a node or a load balancer at `host:port`.
    #[must_use]
    pub fn with_token(address: &str, hub: &str, token: &str) -> Self {
        Self { address: address.into(), hub: hub.into(), bearer: format!("Bearer {token}") }
    }

    /// Value of its header `Authorization`.
    #[must_use]
    pub fn authorization(&self) -> &str {
        &self.bearer
    }

    /// A path of the data plane: as it is, or below that of the hub.
    #[must_use]
    pub fn path(&self, path: &str) -> String {
        if path.starts_with("/api/") { path.into() } else { format!("/api/hubs/{}{path}", self.hub) }
    }

    /// Asks, with JSON or nothing as the body.
    ///
    /// # Errors
    /// When no whole answer comes.
    pub async fn ask(&self, method: Method, path: &str, body: &Value) -> Result<Answer> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.ask_with(method, path, "application/json", body.into()).await
    }

    /// Asks, with a body of this media type.
    ///
    /// # Errors
    /// When no whole answer comes.
    pub async fn ask_with(&self, method: Method, path: &str, media_type: &str, body: Bytes) -> Result<Answer> {
        let headers = [("authorization", self.bearer.as_str()), ("content-type", media_type)];
        exchange(&self.address, method, &self.path(path), &headers, body).await
    }

    /// Asks without a body: the status.
    ///
    /// # Errors
    /// When no whole answer comes.
    pub async fn status(&self, method: Method, path: &str) -> Result<u16> {
        Ok(self.ask(method, path, &Value::Null).await?.status.as_u16())
    }

    /// Sends `target(argument)` to the clients of a path, such as `/groups/red/:send`: what it answers.
    ///
    /// # Errors
    /// When it is not done.
    pub async fn send(&self, path: &str, target: &str, argument: &Value) -> Result<Value> {
        let answer = self.ask(Method::POST, path, &json!({ "target": target, "arguments": [argument] })).await?;
        ensure!(answer.status == 202, "{path} is answered with {answer:?}");
        answer.json()
    }
}
