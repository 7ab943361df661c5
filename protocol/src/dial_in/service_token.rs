//! Tokens that an app server signs for a service: one per server connection and one per redirected client.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::claim_name::token_claim;
use super::service_url::ServiceUrl;
use super::{CLIENT_PATH, SERVER_PATH};
use crate::access_token::{TokenTimes, add_claim, sign_claims};
use crate::key::AccessKey;
use crate::manifest::Transport;
use crate::token::Claim;
use crate::wire::{PRIVATE_CLAIM_PREFIX, USER_ID_CLAIM};

/// Maximum length of a client token, in characters.
pub const CLIENT_TOKEN_MAX_CHARS: usize = 4096;

/// Bytes that need no escaping in paths and queries.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Issuer of the tokens, as in Azure's SDK.
const ISSUER: &str = "azure-signalr";

/// Minimum and maximum hub handshake timeout that a service accepts, in seconds, and the default.
const HANDSHAKE_TIMEOUT_S: (u64, u64) = (1, 30);
const HANDSHAKE_TIMEOUT_DEFAULT_S: u64 = 15;

/// Content of a client token: the client's identity and settings for the service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientTicket {
    /// User id, if the client is authenticated.
    pub user: Option<String>,
    /// Claims of the user. Names may repeat.
    pub claims: Vec<Claim>,
    /// Whether the client may see error details.
    pub detailed_errors: bool,
    /// Hub handshake timeout in seconds; `None` for the service's default.
    pub handshake_timeout_s: Option<u64>,
    /// Transports that the client may use; empty allows all.
    pub transports: Vec<Transport>,
    /// Time at which the client is closed, in seconds since 1970.
    pub closes_at_s: Option<u64>,
}

/// Audience of a server connection token for a hub.
#[must_use]
pub fn server_audience(endpoint: &ServiceUrl, hub: &str) -> String {
    format!("{}{SERVER_PATH}?hub={hub}", endpoint.audience_base())
}

/// Audience of a client token for a hub.
#[must_use]
pub fn client_audience(endpoint: &ServiceUrl, hub: &str) -> String {
    format!("{}{CLIENT_PATH}?hub={hub}", endpoint.audience_base())
}

/// Percent-encodes a path segment or query value.
#[must_use]
pub fn escaped(name: &str) -> String {
    utf8_percent_encode(name, PLAIN).to_string()
}

/// Signs a server connection token for an app server, valid from `now_s` to `expires_s`.
#[must_use]
pub fn sign_server_token(key: &AccessKey, audience: &str, server_id: &str, now_s: u64, expires_s: u64) -> String {
    let mut body = frame(audience, now_s, expires_s);
    body.insert("nameid".to_owned(), json!(server_id));
    sign_claims(key, body)
}

/// Signs a token for the REST data plane, or for one hub's part.
#[must_use]
pub fn sign_rest_token(key: &AccessKey, hub: Option<&str>, times: impl Into<TokenTimes>) -> String {
    // The audience's host is ignored, unless nodes require one.
    sign_rest_token_for(key, "trunkline", hub, times)
}

/// Signs a REST data plane token for this host in the audience, which nodes may require.
#[must_use]
pub fn sign_rest_token_for(key: &AccessKey, host: &str, hub: Option<&str>, times: impl Into<TokenTimes>) -> String {
    let audience = match hub {
        Some(hub) => format!("http://{host}/api/hubs/{}/", escaped(hub)),
        None => format!("http://{host}/api/"),
    };
    let mut body = Map::from_iter([("aud".to_owned(), json!(audience))]);
    times.into().add_to(&mut body);
    sign_claims(key, body)
}

/// Signs a client token, valid from `now_s` to `expires_s`.
#[must_use]
pub fn sign_client_token(key: &AccessKey, audience: &str, ticket: &ClientTicket, now_s: u64, expires_s: u64) -> String {
    let mut body = frame(audience, now_s, expires_s);
    let mut has_subject = false;
    for (name, value) in ticket.claims.iter().filter(|(name, _)| !name.starts_with(PRIVATE_CLAIM_PREFIX)) {
        // A token has one subject. Further ones become app claims.
        let is_second_subject = name == "sub" && std::mem::replace(&mut has_subject, true);
        let name = if is_second_subject { "asrs.u.sub".to_owned() } else { token_claim(name) };
        add_claim(&mut body, &name, value);
    }
    let private = |name: &str| format!("{PRIVATE_CLAIM_PREFIX}{name}");
    let (shortest, longest) = HANDSHAKE_TIMEOUT_S;
    let handshake = ticket.handshake_timeout_s.map(|seconds| seconds.clamp(shortest, longest));
    let flags = ticket.transports.iter().fold(0, |flags, &transport| flags | flag(transport));
    let all = Transport::ALL.into_iter().fold(0, |flags, transport| flags | flag(transport));
    let options = [
        ticket.user.clone().map(|user| (USER_ID_CLAIM.to_owned(), user)),
        ticket.detailed_errors.then(|| (private("derror"), "True".to_owned())),
        handshake.filter(|&time| time != HANDSHAKE_TIMEOUT_DEFAULT_S).map(|time| (private("cht"), time.to_string())),
        (flags != 0 && flags != all).then(|| (private("htt"), flags.to_string())),
        ticket.closes_at_s.map(|_| (private("coae"), "true".to_owned())),
        ticket.closes_at_s.map(|time| (private("aeo"), time.to_string())),
    ];
    options.into_iter().flatten().for_each(|(name, value)| add_claim(&mut body, &name, &value));
    sign_claims(key, body)
}

fn frame(audience: &str, now_s: u64, expires_s: u64) -> Map<String, Value> {
    let claims = [
        ("nbf", json!(now_s)),
        ("exp", json!(expires_s)),
        ("iat", json!(now_s)),
        ("iss", json!(ISSUER)),
        ("aud", json!(audience)),
    ];
    claims.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn flag(transport: Transport) -> u8 {
    match transport {
        Transport::WebSockets => 1,
        Transport::ServerSentEvents => 2,
        Transport::LongPolling => 4,
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::access_token::{AccessTokenError, verify};
    use crate::key::AccessKeys;

    const NOW_S: u64 = 1_000_000;

    fn key() -> AccessKey {
        AccessKey::new("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcdefgh").unwrap()
    }

    fn endpoint() -> ServiceUrl {
        "http://127.0.0.1:7900/x".parse().unwrap()
    }

    fn body(token: &str) -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
    }

    fn client(ticket: &ClientTicket) -> Value {
        body(&sign_client_token(&key(), &client_audience(&endpoint(), "bench"), ticket, NOW_S, NOW_S + 60))
    }

    #[test]
    fn a_server_token_has_the_claims_of_azures_sdk() {
        let token = sign_server_token(&key(), &server_audience(&endpoint(), "bench"), "vm_1", NOW_S, NOW_S + 3600);
        let expected = json!({
            "nameid": "vm_1", "nbf": NOW_S, "exp": NOW_S + 3600, "iat": NOW_S, "iss": "azure-signalr",
            "aud": "http://127.0.0.1/server/?hub=bench",
        });
        assert_eq!(body(&token), expected);
        let keys = AccessKeys::new(vec![key()]).unwrap();
        assert_eq!(verify(&token, &keys, NOW_S), Err(AccessTokenError::Audience), "it is signed, and no user's");
    }

    #[test]
    fn a_client_token_names_the_user_and_moves_reserved_claims() {
        let claims = [("role", "a"), ("role", "b"), ("iss", "me"), ("sub", "s"), ("sub", "t"), ("asrs.s.uid", "eve")];
        let claims = claims.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let body = client(&ClientTicket { user: Some("ann".into()), claims, ..ClientTicket::default() });
        let expected = json!({
            "asrs.s.uid": "ann", "role": ["a", "b"], "asrs.u.iss": "me", "sub": "s", "asrs.u.sub": "t",
            "nbf": NOW_S, "exp": NOW_S + 60, "iat": NOW_S, "iss": "azure-signalr",
            "aud": "http://127.0.0.1/client/?hub=bench",
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn the_hub_of_a_rest_token_is_one_segment_for_any_name() {
        let audience = |hub| body(&sign_rest_token(&key(), hub, NOW_S))["aud"].clone();
        assert_eq!(audience(None), "http://trunkline/api/");
        assert_eq!(audience(Some("shop_bench")), "http://trunkline/api/hubs/shop_bench/");
        assert_eq!(audience(Some("rooms/å?x")), "http://trunkline/api/hubs/rooms%2F%C3%A5%3Fx/");
    }

    #[test]
    fn a_client_token_has_only_settings_that_differ_from_defaults() {
        let usual = client(&ClientTicket {
            handshake_timeout_s: Some(15),
            transports: Transport::ALL.to_vec(),
            ..ClientTicket::default()
        });
        assert!(!usual.to_string().contains("asrs.s."), "{usual}");
        let other = client(&ClientTicket {
            detailed_errors: true,
            handshake_timeout_s: Some(99),
            transports: vec![Transport::WebSockets, Transport::LongPolling],
            closes_at_s: Some(7),
            ..ClientTicket::default()
        });
        for (name, value) in [("derror", "True"), ("cht", "30"), ("htt", "5"), ("coae", "true"), ("aeo", "7")] {
            assert_eq!(other[format!("asrs.s.{name}")], value);
        }
    }
}
