//! Admin port of one node, as used by subcommands, and interpretation of its answers.

use anyhow::{Error, anyhow};
use axum::body::Body;
use bytes::Bytes;
use clap::Args;
use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;
use trunkline_proxy::parts::{Address, LineStream, shown_url};

use super::admin_client::{AdminAddressArgs, AdminClient, AdminTokenArgs, admin_address};

/// Flags that name an admin port and its token.
#[derive(Debug, Args)]
pub(super) struct AdminPortArgs {
    #[command(flatten)]
    address: AdminAddressArgs,
    #[command(flatten)]
    token: AdminTokenArgs,
}

impl AdminPortArgs {
    pub(super) fn port(&self, answer_max_bytes: usize) -> anyhow::Result<AdminPort<'_>> {
        AdminPort::new(&self.address.admin, &self.token, answer_max_bytes)
    }
}

pub(super) struct AdminPort<'a> {
    url: &'a str,
    address: Address,
    client: AdminClient,
    answer_max_bytes: usize,
}

impl<'a> AdminPort<'a> {
    /// Fails if URL or token are invalid, or TLS can't be set up.
    pub(super) fn new(url: &'a str, token: &AdminTokenArgs, answer_max_bytes: usize) -> anyhow::Result<Self> {
        let address = admin_address(url).map_err(|problem| anyhow!("--admin {:?} {problem}", shown_url(url)))?;
        let client = AdminClient::to(std::slice::from_ref(&address), token)?;
        Ok(Self { url, address, client, answer_max_bytes })
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.read(self.client.get(&self.address, path, self.answer_max_bytes).await)
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &'static str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        let body = Body::from(serde_json::to_string(body)?);
        let request = Request::post(path).header(CONTENT_TYPE, "application/json");
        self.read(self.client.act(&self.address, request, body, self.answer_max_bytes).await)
    }

    pub(super) async fn delete<T: DeserializeOwned>(&self, path: &'static str) -> anyhow::Result<T> {
        let request = Request::delete(path);
        self.read(self.client.act(&self.address, request, Body::empty(), self.answer_max_bytes).await)
    }

    /// Gets a resource as a stream of lines, until either end closes it.
    pub(super) async fn stream(&self, path: &str) -> anyhow::Result<LineStream> {
        let answer = self.client.open(&self.address, path).await.map_err(|problem| self.silent(&problem))?;
        if answer.status() == StatusCode::OK {
            return Ok(LineStream::new(answer.into_body()));
        }
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, self.answer_max_bytes).collect().await;
        let body = body.map_err(|error| self.silent(&error.to_string()))?.to_bytes();
        Err(self.refused(&Response::from_parts(head, body)))
    }

    fn read<T: DeserializeOwned>(&self, answer: Result<Response<Bytes>, String>) -> anyhow::Result<T> {
        let answer = answer.map_err(|problem| self.silent(&problem))?;
        if answer.status() == StatusCode::OK {
            let read = serde_json::from_slice(answer.body());
            return read.map_err(|error| self.silent(&format!("cannot parse the answer: {error}")));
        }
        Err(self.refused(&answer))
    }

    fn silent(&self, problem: &str) -> Error {
        anyhow!("no answer from {}: {problem}", self.url)
    }

    fn refused(&self, answer: &Response<Bytes>) -> Error {
        anyhow!("{} refuses: {}", self.url, self.client.problem(answer))
    }
}
