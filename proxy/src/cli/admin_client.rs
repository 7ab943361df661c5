//! Client of admin ports, for the subcommands that ask running nodes.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;

use crate::config::AdminToken;
use crate::net::Address;
use crate::net::connector::{Connector, HttpClient};

/// Time that a node has for its whole answer; a healthy one answers at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Client of the admin ports of some nodes.
pub(super) struct AdminClient {
    client: HttpClient,
    token: Option<AdminToken>,
}

impl AdminClient {
    /// Creates a client that connects by `connector` and shows `token` to each node.
    pub(super) fn new(connector: Connector, token: Option<AdminToken>) -> Self {
        Self { client: HttpClient::new(connector, ANSWER_TIMEOUT), token }
    }

    /// Tells whether the client shows a token.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Gets `path` from the node at `address`: the status and the body of its answer.
    ///
    /// # Errors
    /// When no whole answer of at most `max_bytes` comes in time; the text says why.
    pub(super) async fn get(
        &self,
        address: &Address,
        path: &'static str,
        max_bytes: usize,
    ) -> Result<(StatusCode, Bytes), String> {
        let late = |_| format!("nothing within {} s", ANSWER_TIMEOUT.as_secs());
        timeout(ANSWER_TIMEOUT, self.exchange(address, path, max_bytes)).await.map_err(late)?
    }

    async fn exchange(
        &self,
        address: &Address,
        path: &'static str,
        max_bytes: usize,
    ) -> Result<(StatusCode, Bytes), String> {
        let mut request = Request::get(path);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        let request = request.body(Body::empty()).map_err(|error| error.to_string())?;
        let answer = self.client.send(address, request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), max_bytes).collect().await;
        Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use http::HeaderMap;
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
        let (status, body) = client.get(&address, "/token", 100).await.unwrap();
        assert_eq!((status, &body[..]), (StatusCode::OK, &b"Bearer 0123456789abcdef"[..]));
        assert_eq!(client.get(&address, "/token", 10).await.unwrap_err(), "length limit exceeded");
    }

    #[tokio::test]
    async fn a_node_that_is_not_there_is_an_error_with_the_reason() {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let address: Address = format!("http://{address}").parse().unwrap();
        let problem = AdminClient::new(Connector::default(), None).get(&address, "/", 1).await.unwrap_err();
        assert!(problem.contains("refused"), "{problem}");
    }
}
