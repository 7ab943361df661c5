//! Contents of sealed tokens. [`key`](crate::key) seals them.
//!
//! Tokens leave no state where they were created: any holder of the fleet's key can read them. The current time is an
//! input, in seconds since 1970.

use std::net::SocketAddr;

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::key::{AccessKeys, Purpose};
use crate::limits::{CARRIED_CONNECTION_MAX_AGE_S, CLOCK_SKEW_S, CONNECT_TIMEOUT_S, TOKEN_CLAIMS_MAX_BYTES};
use crate::wire::TRACE_CLAIM;

/// Name and value of a user's claim. Names may repeat.
pub type Claim = (String, String);

/// Reason for rejecting a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Not sealed by this fleet, or corrupted.
    #[error("the token was not made by this fleet")]
    Forged,
    /// The token has expired.
    #[error("the token has expired")]
    Expired,
}

/// User of a request, from the claims of a verified token or from the app's decision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    /// User id; `None` for an anonymous user.
    pub id: Option<String>,
    /// All claims of the token. Names may repeat.
    pub claims: Vec<Claim>,
    /// Expiry of the token, in seconds since 1970.
    pub expires_s: Option<u64>,
}

/// Binding of a connection to its user: what later requests present in addition to the connection token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum UserBinding {
    /// Nothing: there is no user, or the app identified the user by other means.
    #[default]
    ConnectionToken,
    /// A valid access token of the user, because negotiate was authenticated by an access token.
    AccessToken,
}

/// Connection token: the user that may connect, and the node that owns the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionToken {
    /// Connection id, as known to client, proxy and hub; `None` in negotiate version 0, where the sealed token itself
    /// is the id.
    pub connection_id: Option<String>,
    /// Boot id of the node that issued the token and owns the connection.
    pub boot: String,
    /// URL at which other nodes reach the owner; empty if they can't.
    pub address: String,
    /// Path of the hub in lower case.
    pub hub: String,
    /// User id, if negotiate was authenticated.
    pub user: Option<String>,
    /// Claims decided at negotiate, at most 2 KiB, without claims that later requests present again.
    pub claims: Vec<Claim>,
    /// Expiry of the access token presented at negotiate, in seconds since 1970.
    pub expires_s: Option<u64>,
    /// Deadline of the first connect request, in seconds since 1970.
    pub connect_before: u64,
    /// Proof that requests must present with this token.
    pub binding: UserBinding,
    /// Whether the client requested stateful reconnect and its hub allows it.
    pub is_stateful: bool,
}

impl ConnectionToken {
    /// Seals the token. The caller rejects claims over the limit: see [`claims_fit`].
    #[must_use]
    pub fn seal(&self, keys: &AccessKeys) -> String {
        seal(self, keys, Purpose::ConnectionToken)
    }

    /// Opens a token of any age: `connect_before` limits only the first attach. Fails if it was not sealed by this
    /// fleet.
    pub fn open(sealed: &str, keys: &AccessKeys) -> Result<Self, TokenError> {
        open_sealed(sealed, keys, Purpose::ConnectionToken)
    }

    /// Claims of the user, without those for nodes only.
    #[must_use]
    pub fn user_claims(&self) -> Vec<Claim> {
        self.claims.iter().filter(|(name, _)| name != TRACE_CLAIM).cloned().collect()
    }

    /// Creation time, in seconds since 1970.
    #[must_use]
    pub fn made_s(&self) -> u64 {
        self.connect_before.saturating_sub(CONNECT_TIMEOUT_S)
    }

    /// Whether the token is too old for its requests to be forwarded to the owner.
    #[must_use]
    pub fn is_too_old_to_carry(&self, now_s: u64) -> bool {
        now_s > self.connect_before.saturating_add(CARRIED_CONNECTION_MAX_AGE_S)
    }

    /// Whether the first connect request is too late.
    #[must_use]
    pub fn is_expired(&self, now_s: u64) -> bool {
        now_s > self.connect_before.saturating_add(CLOCK_SKEW_S)
    }
}

/// Whether these claims fit into a connection token.
#[must_use]
pub fn claims_fit(claims: &[Claim]) -> bool {
    claims.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() <= TOKEN_CLAIMS_MAX_BYTES
}

/// Mark on a request that a node forwards to the owner of its connection.
///
/// It carries information about the client, because the owner does not see its socket. Valid only for this request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardMark {
    /// Name of the forwarding node.
    pub node: String,
    /// Client address and port, if known.
    pub client: Option<SocketAddr>,
    /// Scheme of the client's request, `http` or `https`, if a load balancer reported it.
    pub scheme: Option<String>,
    /// Latest arrival of the request, in seconds since 1970.
    pub expires: u64,
    request: RequestDigest,
    /// User authenticated by the forwarding node, if the connection requires one. The owner trusts it.
    pub user: Option<User>,
}

/// Digest of a request's method, path and query.
type RequestDigest = [u8; 32];

impl ForwardMark {
    /// Creates a mark for one request. `target` is the path and query as sent.
    #[must_use]
    pub fn new(
        node: &str,
        client: Option<SocketAddr>,
        scheme: Option<&str>,
        method: &str,
        target: &str,
        expires: u64,
    ) -> Self {
        let (scheme, request) = (scheme.map(str::to_owned), digest(method, target));
        Self { node: node.into(), client, scheme, expires, request, user: None }
    }

    /// Seals the mark for its request.
    #[must_use]
    pub fn seal(&self, keys: &AccessKeys) -> String {
        seal(self, keys, Purpose::ForwardMark)
    }

    /// Opens the mark of a request and checks that it was made for this request recently. Fails if it was not sealed by
    /// this fleet, is for another request, or is too old.
    pub fn open(sealed: &str, keys: &AccessKeys, method: &str, target: &str, now_s: u64) -> Result<Self, TokenError> {
        let mark: Self = open_sealed(sealed, keys, Purpose::ForwardMark)?;
        if mark.request != digest(method, target) {
            return Err(TokenError::Forged);
        }
        if now_s > mark.expires.saturating_add(CLOCK_SKEW_S) {
            return Err(TokenError::Expired);
        }
        Ok(mark)
    }
}

/// Methods contain no line feed, so the digest input is unambiguous.
#[expect(clippy::expect_used, reason = "SHA-256 always gives 32 bytes")]
fn digest(method: &str, target: &str) -> RequestDigest {
    let mut digest = Context::new(&SHA256);
    [method, "\n", target].iter().for_each(|part| digest.update(part.as_bytes()));
    digest.finish().as_ref().try_into().expect("a digest has 32 bytes")
}

#[expect(clippy::expect_used, reason = "structs of texts and numbers can always be written")]
fn seal<T: Serialize>(value: &T, keys: &AccessKeys, purpose: Purpose) -> String {
    keys.seal(purpose, &rmp_serde::to_vec(value).expect("plain structs can be written"))
}

fn open_sealed<T: for<'de> Deserialize<'de>>(
    sealed: &str,
    keys: &AccessKeys,
    purpose: Purpose,
) -> Result<T, TokenError> {
    let plain = keys.open(purpose, sealed).map_err(|_| TokenError::Forged)?;
    rmp_serde::from_slice(&plain).map_err(|_| TokenError::Forged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::AccessKey;

    fn keys() -> AccessKeys {
        AccessKeys::new(vec![AccessKey::random()]).unwrap()
    }

    fn token() -> ConnectionToken {
        ConnectionToken {
            connection_id: Some(crate::id::random_id()),
            boot: crate::id::random_id(),
            address: "http://10.0.0.1:8080".into(),
            hub: "/chat".into(),
            user: Some("ann".into()),
            claims: vec![("role".into(), "admin".into()), ("role".into(), "cook".into())],
            expires_s: Some(2_000),
            connect_before: 1_000,
            binding: UserBinding::AccessToken,
            is_stateful: false,
        }
    }

    #[test]
    fn a_token_with_repeated_claims_round_trips() {
        let keys = keys();
        let token = token();
        assert_eq!(ConnectionToken::open(&token.seal(&keys), &keys), Ok(token));
    }

    #[test]
    fn requests_of_a_connection_are_carried_for_thirty_days() {
        assert!(!token().is_too_old_to_carry(1_000 + CARRIED_CONNECTION_MAX_AGE_S));
        assert!(token().is_too_old_to_carry(1_001 + CARRIED_CONNECTION_MAX_AGE_S));
    }

    #[test]
    fn a_token_of_another_fleet_is_forged() {
        assert_eq!(ConnectionToken::open(&token().seal(&keys()), &keys()), Err(TokenError::Forged));
    }

    #[test]
    fn a_token_outlives_its_time_by_the_clock_skew_only() {
        assert!(!token().is_expired(1_000 + CLOCK_SKEW_S));
        assert!(token().is_expired(1_001 + CLOCK_SKEW_S));
    }

    #[test]
    fn a_forward_mark_is_valid_for_its_own_request_and_for_a_short_time() {
        let keys = keys();
        let client = Some("10.1.2.3:4567".parse().unwrap());
        let user = User { id: Some("ann".into()), ..User::default() };
        let mut mark = ForwardMark::new("proxy-1", client, Some("https"), "POST", "/chat?id=a", 1_000);
        mark.user = Some(user);
        let sealed = mark.seal(&keys);
        let open = |method, target, now_s| ForwardMark::open(&sealed, &keys, method, target, now_s);
        assert_eq!(open("POST", "/chat?id=a", 1_005), Ok(mark));
        assert_eq!(open("GET", "/chat?id=a", 1_000), Err(TokenError::Forged));
        assert_eq!(open("POST", "/chat?id=b", 1_000), Err(TokenError::Forged));
        assert_eq!(open("POST", "/chat?id=a", 1_006), Err(TokenError::Expired));
        assert_eq!(ConnectionToken::open(&sealed, &keys), Err(TokenError::Forged));
    }
}
