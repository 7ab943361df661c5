//! Language-independent back end: plain requests to a node's REST data plane, with a token.

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use trunkline_protocol::dial_in::sign_rest_token;
use trunkline_protocol::key::AccessKey;

use crate::harness::http_client::{Answer, exchange};
use crate::harness::token::in_seconds;

/// Lifetime of the token, longer than any test.
const LIFETIME_S: u64 = 3600;

/// Back end for one hub.
#[derive(Debug, Clone)]
pub struct BackEnd {
    address: String,
    hub: String,
    bearer: String,
}

impl BackEnd {
    /// Creates a back end with a token for the whole data plane, signed by this key.
    pub fn trusted(address: &str, hub: &str, access_key: &str) -> Result<Self> {
        let token = sign_rest_token(&AccessKey::new(access_key)?, None, in_seconds(LIFETIME_S)?);
        Ok(Self::with_token(address, hub, &token))
    }

    /// Creates a back end that sends this token to a node or load balancer at `host:port`.
    #[must_use]
    pub fn with_token(address: &str, hub: &str, token: &str) -> Self {
        Self { address: address.into(), hub: hub.into(), bearer: format!("Bearer {token}") }
    }

    /// Value of the `Authorization` header.
    #[must_use]
    pub fn authorization(&self) -> &str {
        &self.bearer
    }

    /// Path in the data plane: absolute, or relative to the hub.
    #[must_use]
    pub fn path(&self, path: &str) -> String {
        if path.starts_with("/api/") { path.into() } else { format!("/api/hubs/{}{path}", self.hub) }
    }

    /// Sends a request with a JSON body, or without a body for null.
    pub async fn ask(&self, method: Method, path: &str, body: &Value) -> Result<Answer> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.ask_with(method, path, "application/json", body.into()).await
    }

    /// Sends a request with a body of this media type.
    pub async fn ask_with(&self, method: Method, path: &str, media_type: &str, body: Bytes) -> Result<Answer> {
        let headers = [("authorization", self.bearer.as_str()), ("content-type", media_type)];
        exchange(&self.address, method, &self.path(path), &headers, body).await
    }

    /// Sends a request without a body and returns the status.
    pub async fn status(&self, method: Method, path: &str) -> Result<u16> {
        Ok(self.ask(method, path, &Value::Null).await?.status.as_u16())
    }

    /// Sends `target(argument)` to the clients of a path, such as `/groups/red/:send`. Returns the answer.
    pub async fn send(&self, path: &str, target: &str, argument: &Value) -> Result<Value> {
        let answer = self.ask(Method::POST, path, &json!({ "target": target, "arguments": [argument] })).await?;
        ensure!(answer.status == 202, "{path} is answered with {answer:?}");
        answer.json()
    }
}
