//! Admin port of one node, as used by subcommands, and interpretation of its answers.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use trunkline_proxy::parts::{Address, ClientTls, Connector, LineStream, TlsError, shown_url};

use super::admin_client::{AdminAddressArgs, AdminClient, AdminTokenArgs, AdminTokenError, admin_address};

pub(super) struct AdminPort<'a> {
    url: &'a str,
    address: Address,
    client: AdminClient,
    answer_max_bytes: usize,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminPortError {
    #[error("--admin {:?} {problem}", shown_url(value))]
    Url { value: String, problem: &'static str },
    #[error(transparent)]
    Token(#[from] AdminTokenError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("no answer from {url}: {problem}")]
    Silent { url: String, problem: String },
    #[error("{url} refuses: {problem}")]
    Refused { url: String, problem: String },
}

impl<'a> AdminPort<'a> {
    /// Fails if URL or token are invalid, or TLS can't be set up.
    pub(super) fn new(
        AdminAddressArgs { admin: url, .. }: &'a AdminAddressArgs,
        token: &AdminTokenArgs,
        answer_max_bytes: usize,
    ) -> Result<Self, AdminPortError> {
        let wrong = |problem| AdminPortError::Url { value: url.clone(), problem };
        let address = admin_address(url).map_err(wrong)?;
        let connector = match address.is_tls() {
            true => Connector::with_tls(ClientTls::default())?,
            false => Connector::default(),
        };
        Ok(Self { url, address, client: AdminClient::new(connector, token.token()?), answer_max_bytes })
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &'static str) -> Result<T, AdminPortError> {
        self.read(self.client.get(&self.address, path, self.answer_max_bytes).await)
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &'static str,
        body: &impl Serialize,
    ) -> Result<T, AdminPortError> {
        self.read(self.client.post(&self.address, path, body, self.answer_max_bytes).await)
    }

    pub(super) async fn delete<T: DeserializeOwned>(&self, path: &'static str) -> Result<T, AdminPortError> {
        self.read(self.client.delete(&self.address, path, self.answer_max_bytes).await)
    }

    /// Gets a resource as a stream of lines, until either end closes it.
    pub(super) async fn stream(&self, path: &str) -> Result<LineStream, AdminPortError> {
        let silent = |problem| AdminPortError::Silent { url: self.url.into(), problem };
        let answer = self.client.open(&self.address, path).await.map_err(silent)?;
        if answer.status() == StatusCode::OK {
            return Ok(LineStream::new(answer.into_body()));
        }
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, self.answer_max_bytes).collect().await;
        let body = body.map_err(|error| silent(error.to_string()))?.to_bytes();
        Err(self.refused(&Response::from_parts(head, body)))
    }

    fn read<T: DeserializeOwned>(&self, answer: Result<Response<Bytes>, String>) -> Result<T, AdminPortError> {
        let silent = |problem| AdminPortError::Silent { url: self.url.into(), problem };
        let answer = answer.map_err(silent)?;
        if answer.status() == StatusCode::OK {
            let read = serde_json::from_slice(answer.body());
            return read.map_err(|error| silent(format!("cannot parse the answer: {error}")));
        }
        Err(self.refused(&answer))
    }

    fn refused(&self, answer: &Response<Bytes>) -> AdminPortError {
        let problem = match answer.status() {
            StatusCode::UNAUTHORIZED if !self.client.has_token() => "--admin-token is required".into(),
            StatusCode::UNAUTHORIZED => "wrong --admin-token".into(),
            status => error_text(answer.body()).unwrap_or_else(|| format!("it answers {status}")),
        };
        AdminPortError::Refused { url: self.url.into(), problem }
    }
}

fn error_text(body: &[u8]) -> Option<String> {
    Some(serde_json::from_slice::<Value>(body).ok()?.get("error")?.as_str()?.to_owned())
}
