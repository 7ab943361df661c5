//! Tokens of app servers that dial in, and of their clients.
//!
//! JWTs signed with an access key, or an app key, which covers only some hubs. Of the audience, only path and hub are
//! checked: a node behind a load balancer does not know the host that clients use, and the port is always missing. The
//! key id, a hash made by another process, is ignored.

use std::sync::Arc;

use http::Uri;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use percent_encoding::percent_decode_str;
use trunkline_protocol::access_token::{Claims, User};
use trunkline_protocol::dial_in::long_claims;

use super::revocation::Revocations;
use super::signed_token::{SignedToken, audiences};
use super::signing_key::{SigningKey, SigningKeys};
use super::token_error::TokenError;
use crate::ground::auth::{SERVICE_USER_CLAIMS, Signer, TokenSigner};
use crate::ground::clock::unix_seconds;

/// Maximum number of keys of other hubs that an invalid signature is compared with, to name the app.
const EXPLAINED_KEYS_MAX: usize = 16;

/// Path of a token's audience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServiceAudience {
    /// Links of app servers.
    Server,
    /// Connections of the apps' clients.
    Client,
}

impl ServiceAudience {
    fn path(self) -> &'static str {
        match self {
            Self::Server => "/server/",
            Self::Client => "/client/",
        }
    }

    /// Wanted audience of a token, for a refusal.
    #[must_use]
    pub(crate) fn describe(self, hub: &str) -> String {
        format!("a URL like https://HOST{}?hub={hub}", self.path())
    }

    fn is(self, audience: &str, hub: &str) -> bool {
        let Some((_, rest)) = audience.split_once("://") else { return false };
        let target = rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let is_path = path.trim_end_matches('/').eq_ignore_ascii_case(self.path().trim_end_matches('/'));
        let mut hubs = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "hub");
        // A second `hub` parameter could be part of an unescaped name.
        is_path && matches!((hubs.next(), hubs.next()), (Some((_, one)), None) if one.eq_ignore_ascii_case(hub))
    }
}

/// Function that strips a prefix from a path, or returns `None` if the path lacks the prefix.
type PrefixStrip<'a> = &'a dyn for<'path> Fn(&'path str) -> Option<&'path str>;

/// Checks of a data plane audience, in addition to the request path.
#[derive(Clone, Copy)]
pub(crate) struct RestAudience<'a> {
    /// Accepted hosts. Empty accepts any host.
    pub hosts: &'a [String],
    /// Strips the path prefix that the load balancer adds; `None` for a path without the prefix.
    pub without_prefix: PrefixStrip<'a>,
}

#[derive(Debug)]
pub(crate) struct ServiceVerifier {
    keys: Arc<SigningKeys>,
    revocations: Arc<Revocations>,
    clock_skew_s: u64,
    pub(crate) max_bytes: usize,
}

struct OpenedToken {
    claims: Claims,
    by: TokenSigner,
}

impl ServiceVerifier {
    pub(crate) fn new(
        keys: Arc<SigningKeys>,
        revocations: Arc<Revocations>,
        clock_skew_s: u64,
        max_bytes: usize,
    ) -> Self {
        Self { keys, revocations, clock_skew_s, max_bytes }
    }

    /// Verifies a token for a hub. Returns its user (id, claims, expiry) and the key that signed the token. A claim
    /// with a long name in .NET is returned under both names.
    pub(crate) fn verify(
        &self,
        token: &str,
        audience: ServiceAudience,
        hub: &str,
    ) -> Result<(User, TokenSigner), TokenError> {
        self.verify_at(token, audience, hub, true)
    }

    /// Verifies a token that may have expired since its connection was opened.
    pub(crate) fn verify_old(
        &self,
        token: &str,
        audience: ServiceAudience,
        hub: &str,
    ) -> Result<(User, TokenSigner), TokenError> {
        self.verify_at(token, audience, hub, false)
    }

    /// Verifies a token of the REST data plane and returns the key that signed it. The audience is the request's path,
    /// or a prefix of the path that ends with a slash, with or without this node's path prefix. Its host must be one of
    /// the configured hosts, if any. The hub name includes the request's application.
    pub(crate) fn verify_rest(
        &self,
        token: &str,
        (path, application): (&str, Option<&str>),
        audience: RestAudience<'_>,
    ) -> Result<TokenSigner, TokenError> {
        let target = rest_segments(path, application);
        let hub = hub_place(&target).and_then(|at| target.get(at)).and_then(|name| std::str::from_utf8(name).ok());
        let opened = self.checked(token, hub, true)?;
        self.ensure_in_force(&opened, User::from_claims(&opened.claims, &SERVICE_USER_CLAIMS).id.as_deref())?;
        let RestAudience { hosts, without_prefix } = audience;
        let is_host = |one: &str| hosts.is_empty() || host_of_url(one).is_some_and(|host| hosts.contains(&host));
        let is_own = |one: &str| is_rest_audience(one, &target, without_prefix) && is_host(one);
        if audiences(&opened.claims).any(is_own) { Ok(opened.by) } else { Err(TokenError::Audience) }
    }

    fn verify_at(
        &self,
        token: &str,
        audience: ServiceAudience,
        hub: &str,
        expires: bool,
    ) -> Result<(User, TokenSigner), TokenError> {
        let opened = self.checked(token, Some(hub), expires)?;
        if !audiences(&opened.claims).any(|one| audience.is(one, hub)) {
            return Err(TokenError::Audience);
        }
        let mut user = User::from_claims(&opened.claims, &SERVICE_USER_CLAIMS);
        // The id in a token of an app server is not a user id.
        let is_user = audience == ServiceAudience::Client;
        self.ensure_in_force(&opened, user.id.as_deref().filter(|_| is_user))?;
        let long: Vec<_> = long_claims(&user.claims).collect();
        user.claims.extend(long);
        Ok((user, opened.by))
    }

    fn ensure_in_force(&self, opened: &OpenedToken, user: Option<&str>) -> Result<(), TokenError> {
        let app = match &opened.by.signer {
            Signer::Fleet => None,
            Signer::App(name) => Some(&**name),
        };
        let token = SignedToken { claims: &opened.claims, user, app };
        self.revocations.check(token, unix_seconds())
    }

    /// Opens a token after checking its signature for a hub, and its times.
    fn checked(&self, token: &str, hub: Option<&str>, expires: bool) -> Result<OpenedToken, TokenError> {
        if token.len() > self.max_bytes {
            return Err(TokenError::TooLarge { bytes: token.len(), max: self.max_bytes });
        }
        let explained = |error: TokenError| error.explained(token);
        if decode_header(token).map_err(|error| explained(error.into()))?.crit.is_some() {
            return Err(TokenError::Critical);
        }
        self.verify_token(token, hub, expires).map_err(explained)
    }

    fn verify_token(&self, token: &str, hub: Option<&str>, expires: bool) -> Result<OpenedToken, TokenError> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.algorithms = vec![Algorithm::HS256, Algorithm::HS512];
        validation.leeway = self.clock_skew_s;
        validation.validate_exp = expires;
        validation.validate_nbf = true;
        validation.validate_aud = false;
        let keys = self.keys.load();
        let opened = |key: &SigningKey| {
            let outcome = decode(token, &key.of_service, &validation).map(|data| data.claims);
            outcome.map_err(TokenError::from)
        };
        for key in keys.iter().filter(|key| key.is_for(hub)) {
            match opened(key) {
                Err(TokenError::Signature) => {}
                // After a valid signature, no other key can change the result.
                outcome => return outcome.map(|claims| OpenedToken { claims, by: key.as_signer() }),
            }
        }
        let others = keys.iter().filter(|key| !key.is_for(hub)).take(EXPLAINED_KEYS_MAX);
        let mut signers = others.filter(|key| !matches!(opened(key), Err(TokenError::Signature)));
        let app = signers.next().and_then(|key| key.app.as_deref());
        Err(app.map_or(TokenError::Signature, |app| TokenError::OtherApp(app.to_owned())))
    }
}

/// Returns the host of a URL in lower case, without its port; `None` if the text is not a URL.
#[must_use]
pub fn host_of_url(url: &str) -> Option<String> {
    let url: Uri = url.parse().ok()?;
    url.scheme()?;
    url.host().map(str::to_ascii_lowercase)
}

const REST_PREFIX: &str = "/api/";

/// Returns whether an audience is the URL of a request with these segments, or a path prefix of it ending with a slash.
/// Ignores host and port, as for dial-in.
fn is_rest_audience(audience: &str, target: &[Vec<u8>], without_prefix: PrefixStrip<'_>) -> bool {
    let Some((_, rest)) = audience.split_once("://") else { return false };
    let wanted = rest.find(['/', '?']).and_then(|at| rest.get(at..)).unwrap_or_default();
    let (path, query) = wanted.split_once('?').unwrap_or((wanted, ""));
    let path = without_prefix(path).unwrap_or(path);
    if !path.starts_with(REST_PREFIX) {
        return false;
    }
    let mut parameters = form_urlencoded::parse(query.as_bytes());
    let application = parameters.find(|(name, _)| name.eq_ignore_ascii_case("application")).map(|(_, value)| value);
    let wanted = rest_segments(path, application.as_deref().filter(|name| !name.is_empty()));
    if path.ends_with('/') { target.starts_with(&wanted) } else { target == wanted }
}

/// Segments of a data plane path, decoded after splitting, so that an encoded slash does not split a name. The hub
/// segment includes the application.
fn rest_segments(path: &str, application: Option<&str>) -> Vec<Vec<u8>> {
    let path = path.strip_prefix(REST_PREFIX).unwrap_or(path).trim_end_matches('/');
    let mut segments: Vec<Vec<u8>> = path.split('/').map(|segment| percent_decode_str(segment).collect()).collect();
    segments.pop_if(|last| last.is_empty());
    let hub = hub_place(&segments).and_then(|at| segments.get_mut(at));
    if let (Some(hub), Some(application)) = (hub, application) {
        hub.splice(..0, format!("{application}_").into_bytes());
    }
    segments
}

/// Index of the hub segment: after `hubs/` or `v1/hubs/`.
fn hub_place(segments: &[Vec<u8>]) -> Option<usize> {
    segments.iter().take(2).position(|segment| segment == b"hubs").map(|at| at + 1)
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::{Value, json};
    use trunkline_protocol::key::{AccessKey, AccessKeys};

    use super::*;

    const SECRET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcdefgh";

    const APP: &str = "0123456789abcdefghABCDEFGHIJKLMNOPQRSTUVWXYZ";

    fn verifier() -> ServiceVerifier {
        let keys = [AccessKey::random(), AccessKey::new(SECRET).unwrap()].to_vec();
        let apps = [format!("shop={APP};shop;shop_*").parse().unwrap()];
        let keys = SigningKeys::new(&AccessKeys::new(keys).unwrap(), &apps);
        ServiceVerifier::new(keys, Arc::new(Revocations::new(60)), 60, 8192)
    }

    fn signed(algorithm: Algorithm, secret: &str, claims: &Value) -> String {
        let header = Header { kid: Some("-1126016580".into()), ..Header::new(algorithm) };
        encode(&header, claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    }

    fn claims(aud: &str) -> Value {
        json!({ "nameid": "vm_1", "aud": aud, "exp": unix_seconds() + 60 })
    }

    /// Matches audiences below `/live`, or without a prefix, on these hosts.
    fn below_live(hosts: &[String]) -> RestAudience<'_> {
        RestAudience { hosts, without_prefix: &|path| path.strip_prefix("/live") }
    }

    fn verify(claims: &Value, hub: &str) -> Result<User, TokenError> {
        let token = signed(Algorithm::HS256, SECRET, claims);
        verifier().verify(&token, ServiceAudience::Client, hub).map(|(user, _)| user)
    }

    #[test]
    fn any_key_with_either_algorithm_signs_whatever_the_key_id() {
        let token = |algorithm| signed(algorithm, SECRET, &claims("http://10.0.0.1/server/?hub=bench"));
        for algorithm in [Algorithm::HS256, Algorithm::HS512] {
            let (user, by) = verifier().verify(&token(algorithm), ServiceAudience::Server, "bench").unwrap();
            assert_eq!((user.id.as_deref(), by.signer), (Some("vm_1"), Signer::Fleet));
        }
        let forged = signed(Algorithm::HS256, "some other secret, long enough", &claims("http://a/server/?hub=bench"));
        let refused = verifier().verify(&forged, ServiceAudience::Server, "bench");
        assert_eq!(refused, Err(TokenError::Signature));
    }

    #[test]
    fn of_the_audience_path_and_hub_count_alone() {
        for audience in
            ["http://a/client/?hub=bench", "https://b.example:81/client/?hub=Bench", "http://c/client?hub=bench"]
        {
            assert!(verify(&claims(audience), "bench").is_ok(), "{audience}");
        }
        for audience in [
            "http://a/server/?hub=bench",
            "http://a/client/?hub=other",
            "http://a/client/?hub=other&hub=bench",
            "http://a/client/",
            "bench",
            "",
        ] {
            assert_eq!(verify(&claims(audience), "bench"), Err(TokenError::Audience), "{audience}");
        }
        let several = json!({ "aud": ["x", "http://a/client/?hub=bench"], "exp": unix_seconds() + 60 });
        assert!(verify(&several, "bench").is_ok());
    }

    #[test]
    fn a_host_can_be_demanded_of_a_token_for_the_data_plane() {
        let hosts = ["signalr.example".to_owned(), "[::1]".to_owned()];
        let verify = |aud: &str| {
            let token = signed(Algorithm::HS256, SECRET, &claims(aud));
            verifier().verify_rest(&token, ("/api/hubs/bench/:send", None), below_live(&hosts)).map(drop)
        };
        for good in
            ["https://SignalR.example/api/", "http://signalr.example:8080/api/hubs/bench/:send", "http://[::1]:80/api/"]
        {
            assert_eq!(verify(good), Ok(()), "{good}");
        }
        for bad in [
            "https://other.example/api/",
            "https://signalr.example.evil/api/",
            "https://signalr.example@evil/api/",
            "/api/",
        ] {
            assert_eq!(verify(bad), Err(TokenError::Audience), "{bad}");
        }
        let several = json!({ "aud": ["http://other/api/", "http://[::1]/x"], "exp": unix_seconds() + 60 });
        let token = signed(Algorithm::HS256, SECRET, &several);
        let refused = verifier().verify_rest(&token, ("/api/hubs/bench/:send", None), below_live(&hosts));
        assert_eq!(refused, Err(TokenError::Audience), "host and path are of one audience");
    }

    #[test]
    fn a_token_for_the_data_plane_names_a_path_or_the_part_that_holds_it() {
        let verify = |aud: &str, path: &str| {
            let token = signed(Algorithm::HS256, SECRET, &claims(aud));
            verifier().verify_rest(&token, (path, None), below_live(&[])).map(drop)
        };
        let path = "/api/hubs/bench/groups/red%20%26%20blue%2F%C3%A5/:send";
        for good in [
            "http://127.0.0.1/api/hubs/bench/groups/red%20%26%20blue%2F%C3%A5/:send?api-version=2022-06-01",
            "https://proxy.example/live/api/hubs/bench/groups/red & blue%2Få/:send",
            "https://proxy.example/api/hubs/bench/",
            "https://proxy.example/api/",
        ] {
            assert!(verify(good, path).is_ok(), "{good}");
        }
        for bad in [
            "http://a/api/hubs/bench/groups/red/:send",
            "http://a/api/hubs/bench/groups/red & blue/å/:send",
            "http://a/api/hubs/bench/groups/red & blue/",
            "http://a/api/hubs/other/",
            "http://a/api/hubs/ben",
            "http://a/api/hubs/ben/",
            "http://a/api",
            "http://a/client/?hub=bench",
            "http://a/client/api/?hub=bench",
            "http://a/other/api/",
            "http://a/live/live/api/",
            "http://a/server/api/hubs/bench/",
            "http://a?/api/",
            "http://a/",
            "/api/",
            "",
        ] {
            assert_eq!(verify(bad, path), Err(TokenError::Audience), "{bad}");
        }
        let expired = json!({ "aud": "http://a/api/", "exp": unix_seconds() - 3600 });
        let refused =
            verifier().verify_rest(&signed(Algorithm::HS256, SECRET, &expired), (path, None), below_live(&[]));
        assert_eq!(refused, Err(TokenError::Expired));
    }

    #[test]
    fn a_token_for_one_hub_is_for_no_hub_whose_name_begins_with_it() {
        let of_chat = signed(Algorithm::HS256, SECRET, &claims("http://a/api/hubs/chat/"));
        let verify =
            |path: &str, application| verifier().verify_rest(&of_chat, (path, application), below_live(&[])).map(drop);
        assert_eq!(verify("/api/hubs/chat/:send", None), Ok(()));
        assert_eq!(verify("/api/hubs/ch%61t/:send", None), Ok(()), "the same name, written in another way");
        for path in ["/api/hubs/chat%2Fadmin/:send", "/api/hubs/chat%2F%26hub=admin/:generateToken", "/api/hubs%2Fchat"]
        {
            assert_eq!(verify(path, None), Err(TokenError::Audience), "{path}");
        }
        assert_eq!(verify("/api/hubs/chat/:send", Some("admin")), Err(TokenError::Audience));
    }

    #[test]
    fn an_application_is_a_part_of_the_name_of_the_hub() {
        let verify = |aud: &str, path: &str, application| {
            let token = signed(Algorithm::HS256, SECRET, &claims(aud));
            verifier().verify_rest(&token, (path, application), below_live(&[])).map(drop)
        };
        let path = "/api/hubs/chat/:send";
        for good in [
            "http://a/api/",
            "http://a/api/hubs/",
            "http://a/api/hubs/shop_chat/",
            "http://a/api/hubs/chat/?application=shop",
            "http://a/api/hubs/chat/:send?application=shop&api-version=2022-06-01",
        ] {
            assert_eq!(verify(good, path, Some("shop")), Ok(()), "{good}");
        }
        assert_eq!(
            verify("http://a/api/hubs/shop_chat/", "/api/v1/hubs/chat", Some("shop")),
            Err(TokenError::Audience)
        );
        assert_eq!(verify("http://a/api/v1/hubs/shop_chat/", "/api/v1/hubs/chat", Some("shop")), Ok(()));
        for bad in ["http://a/api/hubs/chat/:send", "http://a/api/hubs/chat/:send?application=other"] {
            assert_eq!(verify(bad, path, Some("shop")), Err(TokenError::Audience), "{bad}");
        }
        let of_other = "http://a/api/hubs/chat/:send?application=shop";
        assert_eq!(verify(of_other, path, None), Err(TokenError::Audience));
    }

    #[test]
    fn a_token_that_has_expired_or_has_no_end_is_refused() {
        let aud = "http://a/client/?hub=bench";
        let expired = json!({ "aud": aud, "exp": unix_seconds() - 3600 });
        assert_eq!(verify(&expired, "bench"), Err(TokenError::Expired));
        let old = verifier().verify_old(&signed(Algorithm::HS256, SECRET, &expired), ServiceAudience::Client, "bench");
        assert!(old.is_ok(), "{old:?}");
        assert!(matches!(verify(&json!({ "aud": aud }), "bench"), Err(TokenError::Claim(_))));
    }

    #[test]
    fn the_user_is_the_claim_of_the_system_and_claims_come_by_both_names() {
        let all = json!({
            "asrs.s.uid": "ann", "nameid": "1", "role": ["cook", "guest"],
            "aud": "http://a/client/?hub=bench", "exp": unix_seconds() + 60
        });
        let user = verify(&all, "bench").unwrap();
        assert_eq!(user.id.as_deref(), Some("ann"));
        for name in ["role", "http://schemas.microsoft.com/ws/2008/06/identity/claims/role"] {
            let roles = user.claims.iter().filter(|(of, _)| of == name);
            assert_eq!(roles.map(|(_, role)| role.as_str()).collect::<Vec<_>>(), ["cook", "guest"], "{name}");
        }
        assert!(user.claims.iter().any(|(name, _)| name == "aud"));
    }

    #[test]
    fn the_key_of_an_app_opens_its_hubs_alone() {
        let (verifier, token) = (verifier(), |aud: &str| signed(Algorithm::HS256, APP, &claims(aud)));
        for part in [ServiceAudience::Server, ServiceAudience::Client] {
            let verify = |hub: &str| {
                let token = token(&format!("http://a{}?hub={hub}", part.path()));
                verifier.verify(&token, part, hub).map(|(user, by)| (user.id.unwrap(), by.signer))
            };
            let good = || Ok(("vm_1".to_owned(), Signer::App("shop".into())));
            assert_eq!((verify("shop"), verify("shop_chat")), (good(), good()));
            let other = || Err(TokenError::OtherApp("shop".into()));
            assert_eq!((verify("bench"), verify("shops")), (other(), other()));
        }
        let rest = |path: &str, application| {
            let signer = verifier.verify_rest(&token("http://a/api/"), (path, application), below_live(&[]));
            signer.map(|signer| signer.key.expose().to_owned())
        };
        assert_eq!(rest("/api/hubs/shop/:send", None), Ok(APP.to_owned()));
        assert_eq!(rest("/api/v1/hubs/Shop", None), Ok(APP.to_owned()));
        assert_eq!(rest("/api/hubs/chat/:send", Some("shop")), Ok(APP.to_owned()));
        for (path, application) in [
            ("/api/hubs/bench/:send", None),
            ("/api/hubs/shop/:send", Some("bench")),
            ("/api/", None),
            ("/api/hubs", None),
        ] {
            assert_eq!(rest(path, application), Err(TokenError::OtherApp("shop".into())), "{path} {application:?}");
        }
    }
}
