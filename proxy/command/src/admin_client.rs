//! Client of admin ports, for subcommands that query running nodes: flags, requests, and the meaning of answers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Error, anyhow, bail};
use axum::body::Body;
use bytes::Bytes;
use clap::Args;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::request::Builder;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;
use trunkline_protocol::key::without_mark;
use trunkline_proxy::AdminToken;
use trunkline_proxy::parts::{Address, ClientTls, Connector, HttpClient, HttpError, LineStream, shown_url};

/// Time limit for a node's whole answer; a healthy node answers immediately.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Time limit for an action at all nodes: the node waits several seconds for each.
const ACT_TIMEOUT: Duration = Duration::from_secs(15);

/// Admin port of a local node with default settings.
pub(super) const ADMIN_DEFAULT: &str = "http://127.0.0.1:8090";

/// Flags that name the admin port of a node.
#[derive(Debug, Args)]
pub(super) struct AdminAddressArgs {
    /// Admin port of the node: a URL, or an address as for `trunkline serve --admin`.
    #[arg(long, env = "TRUNKLINE_ADMIN", value_name = "URL", default_value = ADMIN_DEFAULT)]
    pub admin: String,

    /// Configuration file of the node, with its admin port and token.
    #[arg(long, env = "TRUNKLINE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Flags of the admin token that is shown to nodes.
#[derive(Debug, Args)]
pub(super) struct AdminTokenArgs {
    /// Admin token, if the nodes require one.
    #[arg(long, env = "TRUNKLINE_ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub admin_token: Option<String>,

    /// File with the admin token.
    #[arg(long, env = "TRUNKLINE_ADMIN_TOKEN_FILE", value_name = "FILE", conflicts_with = "admin_token")]
    pub admin_token_file: Option<PathBuf>,
}

impl AdminTokenArgs {
    /// Returns the token, if one is given. Fails if it can't be read or is invalid.
    pub(super) fn token(&self) -> anyhow::Result<Option<AdminToken>> {
        let text = token_text("admin-token", self.admin_token.as_deref(), self.admin_token_file.as_deref())?;
        let token = text.map(|text| AdminToken::new(without_mark(&text))).transpose();
        token.map_err(|problem| anyhow!("--admin-token {problem}"))
    }
}

/// Text of a token from its flag, or else from the file of the flag that ends with `-file`.
pub(super) fn token_text(flag: &str, text: Option<&str>, file: Option<&Path>) -> anyhow::Result<Option<String>> {
    let Some(path) = file.filter(|_| text.is_none()) else { return Ok(text.map(str::to_owned)) };
    let read = std::fs::read_to_string(path).map(Some);
    read.map_err(|error| anyhow!("--{flag}-file {} can't be read ({error})", path.display()))
}

/// Parses an admin URL, with or without scheme. Loopback replaces a wildcard. The error text continues the URL.
pub(super) fn admin_address(url: &str) -> Result<Address, &'static str> {
    let (scheme, authority) = url.split_once("://").unwrap_or(("http", url));
    let authority =
        match authority.strip_prefix(':').map(|port| format!("0.0.0.0:{port}")).as_deref().unwrap_or(authority).parse()
        {
            Ok(SocketAddr::V4(address)) if address.ip().is_unspecified() => format!("127.0.0.1:{}", address.port()),
            Ok(SocketAddr::V6(address)) if address.ip().is_unspecified() => format!("[::1]:{}", address.port()),
            _ => authority.to_owned(),
        };
    format!("{scheme}://{authority}").parse()
}

pub(super) struct AdminClient {
    client: HttpClient,
    token: Option<AdminToken>,
}

impl AdminClient {
    pub(super) fn new(connector: Connector, token: Option<AdminToken>) -> Self {
        Self { client: HttpClient::new(connector, ANSWER_TIMEOUT), token }
    }

    /// Client for these admin ports. Fails if the token can't be read or is invalid, or TLS can't be set up.
    pub(super) fn to(addresses: &[Address], token: &AdminTokenArgs) -> anyhow::Result<Self> {
        let connector = match addresses.iter().any(Address::is_tls) {
            true => Connector::with_tls(ClientTls::default())?,
            false => Connector::default(),
        };
        Ok(Self::new(connector, token.token()?))
    }

    /// Problem of an answer that is not OK.
    pub(super) fn problem(&self, answer: &Response<Bytes>) -> String {
        match answer.status() {
            StatusCode::UNAUTHORIZED if self.token.is_none() => "--admin-token is required".into(),
            StatusCode::UNAUTHORIZED => "wrong --admin-token".into(),
            status => error_text(answer.body()).unwrap_or_else(|| match status {
                StatusCode::NOT_FOUND => {
                    "it serves no API: --admin-token is not set, or the address is not an admin port".into()
                }
                other => format!("it answers {other}"),
            }),
        }
    }

    /// Gets `path` from a node. Fails, with the reason, without a whole answer of at most `max_bytes` in time.
    pub(super) async fn get(&self, address: &Address, path: &str, max_bytes: usize) -> Result<Response<Bytes>, String> {
        self.send(address, Request::get(path), Body::empty(), max_bytes, ANSWER_TIMEOUT).await
    }

    /// Gets `path` from the node at `address` as a streamed response. Fails, with the reason, if none begins in time.
    pub(super) async fn open(&self, address: &Address, path: &str) -> Result<Response<Incoming>, String> {
        let request = self.with_token(Request::get(path)).body(Body::empty()).map_err(|error| error.to_string())?;
        let answer = timeout(ANSWER_TIMEOUT, self.client.send(address, request)).await;
        answer.map_err(|_| HttpError::Timeout(ANSWER_TIMEOUT)).flatten().map_err(told)
    }

    fn with_token(&self, request: Builder) -> Builder {
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {}", token.expose())),
            None => request,
        }
    }

    async fn send(
        &self,
        address: &Address,
        request: Builder,
        body: Body,
        max_bytes: usize,
        deadline: Duration,
    ) -> Result<Response<Bytes>, String> {
        let request = self.with_token(request).body(body).map_err(|error| error.to_string())?;
        let answer = self.client.fetch(address, request, max_bytes, deadline).await;
        answer.map_err(told)
    }
}

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

/// Summary of an act. Fails if nodes gave no answer, with what that means and their names.
pub(super) fn complete(summary: String, risk: &str, missing: &[String]) -> anyhow::Result<String> {
    if !missing.is_empty() {
        bail!("{summary}; {risk}: {}", missing.join(", "));
    }
    Ok(summary)
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

    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        let request = Request::post(path).header(CONTENT_TYPE, "application/json");
        self.act(request, Body::from(serde_json::to_string(body)?)).await
    }

    pub(super) async fn delete<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.act(Request::delete(path), Body::empty()).await
    }

    async fn act<T: DeserializeOwned>(&self, request: Builder, body: Body) -> anyhow::Result<T> {
        self.read(self.client.send(&self.address, request, body, self.answer_max_bytes, ACT_TIMEOUT).await)
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

fn error_text(body: &[u8]) -> Option<String> {
    Some(serde_json::from_slice::<Value>(body).ok()?.get("error")?.as_str()?.to_owned())
}

fn told(error: HttpError) -> String {
    match error {
        HttpError::Timeout(deadline) => format!("no data within {} s", deadline.as_secs()),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use http::{HeaderMap, StatusCode};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_token_is_shown_and_a_large_answer_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: Address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let shown = |headers: HeaderMap| async move { headers[AUTHORIZATION].to_str().unwrap().to_owned() };
        let router = Router::new().route("/token", get(shown));
        tokio::spawn(async { axum::serve(listener, router).await });
        let token = AdminToken::new("0123456789abcdef").unwrap();
        let client = AdminClient::new(Connector::default(), Some(token));
        let answer = client.get(&address, "/token", 100).await.unwrap();
        assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::OK, &b"Bearer 0123456789abcdef"[..]));
        assert_eq!(client.get(&address, "/token", 10).await.unwrap_err(), "length limit exceeded");
    }

    #[test]
    fn a_token_file_with_a_byte_order_mark_holds_the_token() {
        let file = std::env::temp_dir().join(format!("trunkline-marked-token-{}", std::process::id()));
        std::fs::write(&file, "\u{feff}0123456789abcdef\r\n").unwrap();
        let args = AdminTokenArgs { admin_token: None, admin_token_file: Some(file.clone()) };
        assert_eq!(args.token().unwrap(), Some(AdminToken::new("0123456789abcdef").unwrap()));
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn a_listen_address_is_asked_on_this_machine() {
        for (given, asked) in [
            (":8090", "http://127.0.0.1:8090"),
            ("0.0.0.0:8090", "http://127.0.0.1:8090"),
            ("http://[::]:8090", "http://[::1]:8090"),
            ("10.0.0.7:8090", "http://10.0.0.7:8090"),
            ("https://node-1:8090", "https://node-1:8090"),
        ] {
            assert_eq!(admin_address(given).map(|address| address.to_string()).as_deref(), Ok(asked), "{given}");
        }
        assert!(admin_address(":x").is_err() && admin_address("ftp://x").is_err());
    }

    #[tokio::test]
    async fn a_node_that_is_not_there_is_an_error_with_the_reason() {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let address: Address = format!("http://{address}").parse().unwrap();
        let problem = AdminClient::new(Connector::default(), None).get(&address, "/", 1).await.unwrap_err();
        assert!(problem.contains("refused"), "{problem}");
    }
}
