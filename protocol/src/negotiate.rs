//! Negotiate: the requested version and the response body.
//!
//! Source: the SignalR transport protocol, *POST endpoint-base/negotiate*. Texts match the official server.

use serde::{Deserialize, Serialize};

use crate::manifest::Transport;
use crate::token::Claim;

/// Highest supported negotiate version.
pub const VERSION_MAX: u32 = 1;

/// Negotiate version of a response. In version 0 the connection id is also its secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NegotiateVersion {
    /// Only a `connectionId`, later used as `id`.
    Zero,
    /// A public `connectionId` and a secret `connectionToken`.
    One,
}

impl NegotiateVersion {
    /// Parses the `negotiateVersion` query parameter. The default is 0, and higher versions are reduced to the
    /// supported one. Fails with the text for [`NegotiateAnswer::error`] if it is not an integer or is negative.
    pub fn from_query(value: Option<&str>) -> Result<Self, String> {
        let Some(text) = value else { return Ok(Self::Zero) };
        match text.trim().parse::<i32>() {
            Ok(0) => Ok(Self::Zero),
            Ok(1..) => Ok(Self::One),
            Ok(low) => {
                Err(format!("The client requested version '{low}', but the server does not support this version."))
            }
            Err(_) => Err("The client requested a non-integer protocol version.".into()),
        }
    }
}

/// JSON body of a negotiate response. The status is always 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", untagged)]
pub enum NegotiateAnswer {
    /// Ids and transports to connect with.
    Connect(Connect),
    /// Redirects the client to negotiate at another URL.
    #[serde(rename_all = "camelCase")]
    Redirect {
        /// URL of a hub, without `/negotiate`.
        url: String,
        /// Access token to present there.
        #[serde(skip_serializing_if = "Option::is_none")]
        access_token: Option<String>,
    },
    /// Makes the client's start fail with this text.
    Error {
        /// Error text shown by the client.
        error: String,
    },
}

/// Header with the kind of an app's answer about a negotiating client. Without it, the answer is not from the app's
/// handler.
pub const ANSWER_HEADER: &str = "x-trunkline-answer";
/// Kind of an answer that contains a [`Decision`].
pub const DECISION: &str = "decision";
/// Kind of an answer that is passed to the client unchanged.
pub const REFUSAL: &str = "refusal";

/// Decision of an app about a negotiating client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Decision {
    /// User id; by default the user of the access token.
    pub user: Option<String>,
    /// Claims, added to the token's claims unless `user` is set.
    pub claims: Vec<Claim>,
    /// Expiry of the authorization, in seconds since 1970.
    pub expires_s: Option<u64>,
    /// URL at which the client should negotiate instead.
    pub url: Option<String>,
    /// Access token to present there.
    pub access_token: Option<String>,
}

/// Ids and transports of a future connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Connect {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    use_stateful_reconnect: bool,
    negotiate_version: u32,
    connection_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_lifetime_seconds: Option<u64>,
    available_transports: Vec<AvailableTransport>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct AvailableTransport {
    transport: Transport,
    transfer_formats: &'static [&'static str],
}

impl NegotiateAnswer {
    /// Creates a response that lets a client connect. In version 0 the token replaces the id.
    #[must_use]
    pub fn connect(version: NegotiateVersion, id: String, token: String, transports: &[Transport]) -> Self {
        let available_transports = transports.iter().copied().map(AvailableTransport::from).collect();
        let (negotiate_version, connection_id, connection_token) = match version {
            NegotiateVersion::Zero => (0, token, None),
            NegotiateVersion::One => (1, id, Some(token)),
        };
        let (use_stateful_reconnect, token_lifetime_seconds) = (false, None);
        Self::Connect(Connect {
            use_stateful_reconnect,
            negotiate_version,
            connection_id,
            connection_token,
            token_lifetime_seconds,
            available_transports,
        })
    }

    /// Adds the access token's remaining seconds, so that the client presents a newer one in time.
    #[must_use]
    pub fn with_token_lifetime(mut self, seconds: Option<u64>) -> Self {
        if let Self::Connect(connect) = &mut self {
            connect.token_lifetime_seconds = seconds;
        }
        self
    }

    /// Offers stateful reconnect if `wanted`.
    #[must_use]
    pub fn with_stateful_reconnect(mut self, wanted: bool) -> Self {
        if let Self::Connect(connect) = &mut self {
            connect.use_stateful_reconnect = wanted;
        }
        self
    }

    /// Creates a response that makes the client's start fail with this text.
    #[must_use]
    pub fn error(text: impl Into<String>) -> Self {
        Self::Error { error: text.into() }
    }
}

impl From<Transport> for AvailableTransport {
    fn from(transport: Transport) -> Self {
        let transfer_formats: &[&str] = match transport {
            Transport::WebSockets | Transport::LongPolling => &["Text", "Binary"],
            // Event streams are text, so a MessagePack client never tries them.
            Transport::ServerSentEvents => &["Text"],
        };
        Self { transport, transfer_formats }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(answer: &NegotiateAnswer) -> String {
        serde_json::to_string(answer).unwrap()
    }

    #[test]
    fn version_1_has_a_public_id_and_a_secret_token() {
        let answer = NegotiateAnswer::connect(
            NegotiateVersion::One,
            "id".into(),
            "token".into(),
            &[Transport::WebSockets, Transport::ServerSentEvents],
        );
        assert_eq!(
            json(&answer),
            r#"{"negotiateVersion":1,"connectionId":"id","connectionToken":"token","availableTransports":[{"transport":"WebSockets","transferFormats":["Text","Binary"]},{"transport":"ServerSentEvents","transferFormats":["Text"]}]}"#
        );
    }

    #[test]
    fn stateful_reconnect_is_written_first_and_only_if_offered() {
        let answer = NegotiateAnswer::connect(NegotiateVersion::Zero, "id".into(), "token".into(), &[]);
        assert_eq!(
            json(&answer.with_stateful_reconnect(true)),
            r#"{"useStatefulReconnect":true,"negotiateVersion":0,"connectionId":"token","availableTransports":[]}"#
        );
    }

    #[test]
    fn the_lifetime_of_the_token_is_written_if_known() {
        let answer = NegotiateAnswer::connect(NegotiateVersion::Zero, "id".into(), "token".into(), &[]);
        assert_eq!(
            json(&answer.with_token_lifetime(Some(20))),
            r#"{"negotiateVersion":0,"connectionId":"token","tokenLifetimeSeconds":20,"availableTransports":[]}"#
        );
    }

    #[test]
    fn in_version_0_the_token_is_the_id() {
        let answer = NegotiateAnswer::connect(NegotiateVersion::Zero, "id".into(), "token".into(), &[]);
        assert_eq!(json(&answer), r#"{"negotiateVersion":0,"connectionId":"token","availableTransports":[]}"#);
    }

    #[test]
    fn an_error_or_redirect_has_no_other_members() {
        assert_eq!(json(&NegotiateAnswer::error("no")), r#"{"error":"no"}"#);
        let elsewhere = NegotiateAnswer::Redirect { url: "http://x/chat".into(), access_token: Some("t".into()) };
        assert_eq!(json(&elsewhere), r#"{"url":"http://x/chat","accessToken":"t"}"#);
    }

    #[test]
    fn versions_are_chosen_as_the_official_server_does() {
        assert_eq!(NegotiateVersion::from_query(None), Ok(NegotiateVersion::Zero));
        assert_eq!(NegotiateVersion::from_query(Some("0")), Ok(NegotiateVersion::Zero));
        assert_eq!(NegotiateVersion::from_query(Some("1")), Ok(NegotiateVersion::One));
        assert_eq!(NegotiateVersion::from_query(Some("7")), Ok(NegotiateVersion::One));
        assert_eq!(
            NegotiateVersion::from_query(Some("-1")),
            Err("The client requested version '-1', but the server does not support this version.".into())
        );
        assert_eq!(
            NegotiateVersion::from_query(Some("one")),
            Err("The client requested a non-integer protocol version.".into())
        );
    }
}
