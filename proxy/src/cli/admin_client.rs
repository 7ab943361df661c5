//! Client of admin ports, for the subcommands that ask running nodes.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Request, Response};

use crate::auth::AdminToken;
use crate::net::address::Address;
use crate::net::connector::Connector;
use crate::net::http_client::{HttpClient, HttpError};

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

    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Gets `path` from the node at `address`.
    ///
    /// # Errors
    /// When no whole answer of at most `max_bytes` comes in time; the text says why.
    pub(super) async fn get(
        &self,
        address: &Address,
        path: &'static str,
        max_bytes: usize,
    ) -> Result<Response<Bytes>, String> {
        let mut request = Request::get(path);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        let request = request.body(Body::empty()).map_err(|error| error.to_string())?;
        let answer = self.client.fetch(address, request, max_bytes, ANSWER_TIMEOUT).await;
        answer.map_err(|error| match error {
            HttpError::Timeout(deadline) => format!("nothing within {} s", deadline.as_secs()),
            other => other.to_string(),
        })
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

    #[tokio::test]
    async fn a_node_that_is_not_there_is_an_error_with_the_reason() {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let address: Address = format!("http://{address}").parse().unwrap();
        let problem = AdminClient::new(Connector::default(), None).get(&address, "/", 1).await.unwrap_err();
        assert!(problem.contains("refused"), "{problem}");
    }
}
