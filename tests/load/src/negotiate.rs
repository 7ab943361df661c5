//! Negotiation of a connection: returns the token used in all further requests.

use serde::Deserialize;

use crate::cli::Transport;
use crate::dial::ConnectError;
use crate::exchange::{Ask, Exchange};

/// Relevant fields of a negotiate response.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Negotiated {
    connection_token: Option<String>,
    connection_id: Option<String>,
    #[serde(default)]
    available_transports: Vec<Offer>,
    error: Option<String>,
    url: Option<String>,
}

/// Transport offered by the server.
#[derive(Deserialize)]
struct Offer {
    transport: String,
}

/// Returns the connection token, if the server offers the transport.
pub(crate) async fn negotiate(
    exchange: &mut Exchange,
    hub: &str,
    transport: Transport,
) -> Result<String, ConnectError> {
    let (status, body) = exchange.ask(Ask::empty_post(&negotiate_path(hub))).await?;
    if !status.is_success() {
        return Err(ConnectError::Negotiate(status.as_u16().to_string()));
    }
    token_of(&body, transport).map_err(ConnectError::Negotiate)
}

fn token_of(answer: &[u8], transport: Transport) -> Result<String, String> {
    let answer: Negotiated = serde_json::from_slice(answer).map_err(|_| "no JSON".to_owned())?;
    match answer {
        Negotiated { error: Some(error), .. } => Err(error),
        Negotiated { url: Some(_), .. } => Err("a redirect, which is not followed".into()),
        Negotiated { available_transports: offers, .. }
            if !offers.iter().any(|offer| offer.transport == transport.official_name()) =>
        {
            Err(format!("without {} among its transports", transport.official_name()))
        }
        Negotiated { connection_token, connection_id, .. } => {
            connection_token.or(connection_id).ok_or_else(|| "neither token nor id".into())
        }
    }
}

fn negotiate_path(hub: &str) -> String {
    let (path, query) = hub.split_once('?').unwrap_or((hub, ""));
    let join = if query.is_empty() { "" } else { "&" };
    format!("{}/negotiate?{query}{join}negotiateVersion=1", path.trim_end_matches('/'))
}

/// Path of a connection's requests. The token is not escaped, as in the official clients.
pub(crate) fn connection_path(hub: &str, token: &str) -> String {
    let join = if hub.contains('?') { '&' } else { '?' };
    format!("{hub}{join}id={token}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_of_the_hub_is_kept() {
        assert_eq!(negotiate_path("/chat"), "/chat/negotiate?negotiateVersion=1");
        assert_eq!(negotiate_path("/chat/?a=b"), "/chat/negotiate?a=b&negotiateVersion=1");
        assert_eq!(connection_path("/chat", "x"), "/chat?id=x");
        assert_eq!(connection_path("/chat?a=b", "x"), "/chat?a=b&id=x");
    }

    #[test]
    fn a_token_counts_only_where_the_transport_is_offered() {
        let answer =
            br#"{"connectionId":"i","connectionToken":"t","availableTransports":[{"transport":"LongPolling"}]}"#;
        assert_eq!(token_of(answer, Transport::LongPolling).as_deref(), Ok("t"));
        let refused = token_of(answer, Transport::ServerSentEvents).unwrap_err();
        assert_eq!(refused, "without ServerSentEvents among its transports");
        let redirected = token_of(br#"{"url":"http://elsewhere"}"#, Transport::LongPolling).unwrap_err();
        assert!(redirected.contains("redirect"));
        assert_eq!(token_of(br#"{"error":"no"}"#, Transport::LongPolling), Err("no".into()));
    }
}
