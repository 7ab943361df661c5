//! A node that accepts dial-in, and tokens for app servers and clients.

use anyhow::{Context, Result};
use http::Method;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value as Json, json};
use trunkline_tests::harness::fleet::{Fleet, Proxy};
use trunkline_tests::harness::http_client::{Answer, ask};
use trunkline_tests::harness::raw::{RawClient, Refusal};
use trunkline_tests::harness::scenario::{Fixture, until};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::token::{in_seconds, with_expiry};

pub(crate) const KEY: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcdefgh";

/// Second access key, accepted during key rotation.
pub(crate) const SECOND_KEY: &str = "second-0123456789abcdefghABCDEFGHIJKLMNOPQRST";

pub(crate) const NODE: &str = "dial-in-1";

pub(crate) struct DialIn {
    pub(crate) node: Proxy,
}

impl DialIn {
    /// Starts a node with both keys.
    pub(crate) async fn open(fixture: &Fixture) -> Result<Self> {
        Self::open_with(fixture, &[]).await
    }

    pub(crate) async fn open_with(fixture: &Fixture, more: &[&str]) -> Result<Self> {
        let fleet = Fleet::with_keys(fixture, &format!("{KEY},{SECOND_KEY}"));
        Self::open_in(&fleet, &free_address()?, NODE, more).await
    }

    pub(crate) async fn open_as(fixture: &Fixture, name: &str) -> Result<Self> {
        let fleet = Fleet::with_keys(fixture, &format!("{KEY},{SECOND_KEY}"));
        Self::open_in(&fleet, &free_address()?, name, &[]).await
    }

    /// Starts a node of a fleet, with this admin address and name.
    pub(crate) async fn open_in(fleet: &Fleet<'_>, admin: &str, name: &str, more: &[&str]) -> Result<Self> {
        // Level `info` has only one line for links lost together.
        let mut arguments = vec!["--node-name", name, "--log", "info,trunkline_proxy::engine::link=debug"];
        arguments.extend(more);
        let node = fleet.proxy_of(&free_address()?, admin, &[], &arguments)?;
        until(async || Ok(tokio::net::TcpStream::connect(node.address()).await.ok())).await?;
        Ok(Self { node })
    }

    pub(crate) fn address(&self) -> &str {
        self.node.address()
    }

    pub(crate) fn connection_string(&self) -> String {
        connection_string(self.address(), KEY)
    }

    /// Waits until this many server connections are open, over all hubs.
    pub(crate) async fn linked(&self, count: usize) -> Result<()> {
        self.node.linked(count).await
    }

    /// Waits until exactly this many server connections are open, so the node has noticed all ends.
    pub(crate) async fn linked_exactly(&self, count: usize) -> Result<()> {
        until(async || {
            let open = self.node.metrics().await?.sum("trunkline_links", &[("state", "open")]);
            Ok((open == count as f64).then_some(()))
        })
        .await
    }

    pub(crate) async fn negotiate(&self, hub: &str, more: &str, token: &str) -> Result<Answer> {
        let path = format!("/client/negotiate?hub={hub}&negotiateVersion=1{more}");
        let bearer = format!("Bearer {token}");
        ask(self.address(), Method::POST, &path, &[("authorization", &bearer)]).await
    }

    pub(crate) async fn client(&self, path: &str, token: &str) -> Result<Result<RawClient, Refusal>> {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("user-agent", "scripted")];
        RawClient::try_open_with(self.address(), path, &headers).await
    }
}

/// Connection string for a node or load balancer at `host:port`.
pub(crate) fn connection_string(address: &str, key: &str) -> String {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "80"));
    format!("Endpoint=http://{host};Port={port};AccessKey={key};Version=1.0;")
}

/// Token of an app server as the SDK writes it: the audience has no port.
pub(crate) fn server_token(hub: &str, server: &str) -> Result<String> {
    signed(KEY, &json!({ "nameid": server, "aud": format!("http://127.0.0.1/server/?hub={hub}") }))
}

pub(crate) fn client_token(hub: &str, claims: &Json) -> Result<String> {
    let mut all = json!({ "aud": format!("http://127.0.0.1/client/?hub={hub}") });
    all.as_object_mut().context("just made")?.extend(claims.as_object().context("claims")?.clone());
    signed(KEY, &all)
}

/// Adds what every SDK token contains: times, issuer, and a meaningless key id.
pub(crate) fn signed(key: &str, claims: &Json) -> Result<String> {
    signed_by(Algorithm::HS256, key, claims)
}

pub(crate) fn signed_by(algorithm: Algorithm, key: &str, claims: &Json) -> Result<String> {
    let now = in_seconds(0)?;
    let mut all = json!({ "iat": now, "nbf": now, "iss": "azure-signalr" });
    all.as_object_mut().context("just made")?.extend(claims.as_object().context("claims")?.clone());
    let header = Header { kid: Some("-1126016580".into()), ..Header::new(algorithm) };
    let key = EncodingKey::from_secret(key.as_bytes());
    Ok(jsonwebtoken::encode(&header, &with_expiry(&all)?, &key)?)
}
