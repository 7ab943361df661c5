//! Verification of access tokens: key, signature, then claims.

use std::collections::HashSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, AlgorithmFamily, Header, Validation, decode, decode_header};
use serde_json::{Map, Value};
use trunkline_protocol::access_token::Claims;
use trunkline_protocol::json_text::JsonText;

use super::key_set::KeySets;
use super::revocation::Revocations;
use super::signed_token::SignedToken;
use super::signing_key::SigningKeys;
use super::token_error::TokenError;
use crate::ground::auth::{Issuer, JwksSource, TokenPolicy, User, VerifyingKey};
use crate::ground::clock::unix_seconds;
use crate::ground::metrics::Counter;
use crate::ground::net::connector::Connector;

/// Maximum number of keys tried per token. Without this limit, a token without a key id would cost a signature check
/// for each key of a large set. Issuers with that many keys use key ids.
const KEYS_TRIED_MAX: usize = 16;

#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) policy: TokenPolicy,
    own: Arc<SigningKeys>,
    /// Keys from flags. A reload replaces them.
    keys: ArcSwap<Vec<VerifyingKey>>,
    /// Issuers from `[issuers.NAME]` tables.
    issuers: ArcSwap<Vec<Issuer>>,
    sets: Arc<KeySets>,
    revocations: Arc<Revocations>,
    refused: [Counter; TokenError::LABELS.len()],
}

impl Verifier {
    /// `connector` fetches key sets from URLs.
    pub(crate) fn new(
        policy: TokenPolicy,
        own: Arc<SigningKeys>,
        revocations: Arc<Revocations>,
        connector: Connector,
    ) -> Self {
        let keys = ArcSwap::from_pointee(policy.keys.clone());
        let sets = Arc::new(KeySets::new(&policy.jwks, policy.jwks_refetch, connector));
        let issuers = ArcSwap::default();
        Self { policy, own, keys, issuers, sets, revocations, refused: Default::default() }
    }

    /// Replaces the keys from flags, except published keys.
    pub(crate) fn set_keys(&self, keys: Vec<VerifyingKey>) {
        self.keys.store(Arc::new(keys));
    }

    /// Replaces the issuers from tables. Published keys of unchanged sources are kept.
    pub(crate) fn set_issuers(&self, issuers: &[Issuer]) {
        let sources = self.policy.jwks.iter().chain(issuers.iter().flat_map(|issuer| &issuer.jwks));
        self.sets.set_sources(sources);
        self.issuers.store(Arc::new(issuers.to_vec()));
    }

    /// Reads all key sets soon.
    pub(crate) fn read_sets(&self) {
        self.sets.read_soon();
    }

    pub(crate) fn is_required(&self) -> bool {
        self.policy.is_required
    }

    pub(crate) async fn keep_fresh(&self) {
        self.sets.keep_fresh(self.policy.jwks_refresh).await;
    }

    /// Verifies a token for a hub and returns its user. If no key fits, published keys may be refetched once: an issuer
    /// may have added or replaced a key. Fails if the token is invalid. The caller [counts](Self::count_refused) the
    /// error if it refuses the client; an app may still accept the token.
    pub(crate) async fn verify(&self, token: &str, hub: &str) -> Result<User, TokenError> {
        let misses_key = |outcome: &_| matches!(outcome, Err(TokenError::UnknownKey | TokenError::Signature));
        // Subscribe before the first try, so that no stored set is missed.
        let mut stored = self.sets.stored();
        let mut outcome = self.verify_now(token, hub);
        let sources = self.sources_of(token);
        if !misses_key(&outcome) || sources.is_empty() {
            return outcome;
        }
        let mut reading = self.sets.read_early(sources);
        loop {
            let is_over = tokio::select! { _ = stored.changed() => false, _ = &mut reading => true };
            if is_over && !stored.has_changed().unwrap_or_default() {
                return outcome;
            }
            outcome = self.verify_now(token, hub);
            if is_over || !misses_key(&outcome) {
                return outcome;
            }
        }
    }

    /// Describes a refusal at a hub for operators: the failed check, the value of the token and the allowed ones.
    pub(crate) fn describe(&self, error: &TokenError, token: &str, hub: &str) -> String {
        let issuers = self.issuers.load();
        let of_hub = issuers.iter().filter(|issuer| issuer.is_for(hub)).flat_map(|issuer| &*issuer.issuers);
        let issuers = alternatives(of_hub.chain(&self.policy.issuer), "an issuer without a table");
        error.describe(token, (&alternatives(&self.policy.audiences, "one of this hub"), &issuers))
    }

    pub(crate) fn count_refused(&self, error: &TokenError) {
        if let Some(count) = self.refused.get(error.index()) {
            count.increment();
        }
    }

    pub(crate) fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        TokenError::LABELS.into_iter().zip(self.refused.iter().map(Counter::get))
    }

    pub(crate) fn key_set_failures(&self) -> Vec<(String, String)> {
        self.sets.failures()
    }

    /// Returns the number of reads of key sets by outcome.
    pub(crate) fn reads(&self) -> [(&'static str, u64); 2] {
        [("read", self.sets.read.get()), ("failed", self.sets.failed.get())]
    }

    pub(crate) fn verify_now(&self, token: &str, hub: &str) -> Result<User, TokenError> {
        self.verify_by_keys(token, hub).map_err(|error| error.explained(token))
    }

    fn verify_by_keys(&self, token: &str, hub: &str) -> Result<User, TokenError> {
        if token.len() > self.policy.max_bytes {
            return Err(TokenError::TooLarge { bytes: token.len(), max: self.policy.max_bytes });
        }
        let header = decode_header(token)?;
        // No header extension is supported.
        if header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let (issuers, mut tries) = (self.issuers.load(), KEYS_TRIED_MAX);
        // The token names an issuer with a table: only that issuer's keys are tried, at its hubs only.
        let named = issuers_of(&issuers, token);
        if !named.is_empty() {
            let mut outcome = Err(TokenError::Issuer);
            for issuer in named.into_iter().filter(|issuer| issuer.is_for(hub)) {
                outcome = self.verify_for(token, &header, (&issuer.keys, &issuer.jwks), Some(issuer), &mut tries);
                if !matches!(outcome, Err(TokenError::Signature | TokenError::UnknownKey | TokenError::Audience)) {
                    return outcome;
                }
            }
            return outcome;
        }
        let mut outcome = Err(TokenError::UnknownKey);
        let own = self.own.load();
        let fits = |key: &VerifyingKey| key.fits(header.alg, header.kid.as_deref());
        for key in own.iter().filter(|key| key.is_for(Some(hub)) && fits(&key.of_users)).take(tries) {
            tries -= 1;
            outcome = self.verify_with((token, header.alg), &key.of_users, None, key.app.as_deref());
            if outcome != Err(TokenError::Signature) {
                return outcome.and_then(|user| self.ensure_for(hub, user));
            }
        }
        match self.verify_for(token, &header, (&self.keys.load(), &self.policy.jwks), None, &mut tries) {
            Err(TokenError::UnknownKey) => outcome,
            verified => verified,
        }
    }

    /// Verifies a token with the keys of one issuer, from a table or from flags.
    fn verify_for(
        &self,
        token: &str,
        header: &Header,
        (keys, jwks): (&[VerifyingKey], &[JwksSource]),
        issuer: Option<&Issuer>,
        tries: &mut usize,
    ) -> Result<User, TokenError> {
        let published = self.sets.keys(jwks);
        let mut outcome = Err(TokenError::UnknownKey);
        for keys in std::iter::once(keys).chain(published.iter().map(|set| &*set.keys)) {
            for key in keys.iter().filter(|key| key.fits(header.alg, header.kid.as_deref())).take(*tries) {
                *tries -= 1;
                outcome = self.verify_with((token, header.alg), key, issuer, None);
                if outcome != Err(TokenError::Signature) {
                    // After a valid signature, no other key can change the result.
                    return outcome;
                }
            }
        }
        outcome
    }

    /// Refuses a token for another part of the service, because these keys sign tokens for all hubs and for the data
    /// plane. Audiences listed in the policy are always accepted.
    fn ensure_for(&self, hub: &str, user: User) -> Result<User, TokenError> {
        if user.is_for_hub(Some(hub), &self.policy.audiences) { Ok(user) } else { Err(TokenError::Audience) }
    }

    /// Verifies a token with one key that fits its algorithm, of a table's issuer or of an app if given.
    fn verify_with(
        &self,
        (token, algorithm): (&str, Algorithm),
        key: &VerifyingKey,
        issuer: Option<&Issuer>,
        app: Option<&str>,
    ) -> Result<User, TokenError> {
        let data = decode::<Claims>(token, key.decoding_key(), &self.validation(algorithm, issuer))?;
        let claimed = data.claims.get("iss").map_or(&Value::Null, JsonText::value);
        if !claimed.is_null() && !claimed.is_string() {
            return Err(TokenError::Claim("its claim \"iss\" has to be a text".into()));
        }
        // Decide by the verified claims, not by the earlier unverified ones.
        let has_table = claimed.as_str().is_some_and(|iss| self.issuers.load().iter().any(|one| one.is_named(iss)));
        if has_table != issuer.is_some() {
            return Err(TokenError::Issuer);
        }
        let user = User::from_claims(&data.claims, &self.policy.user_claims);
        if user.is_server() {
            return Err(TokenError::Audience);
        }
        let signed = SignedToken { claims: &data.claims, user: user.id.as_deref(), app };
        self.revocations.check(signed, unix_seconds())?;
        Ok(user)
    }

    fn validation(&self, algorithm: Algorithm, issuer: Option<&Issuer>) -> Validation {
        let mut validation = Validation::new(algorithm);
        let mut required = HashSet::from(["exp".to_owned()]);
        validation.leeway = self.policy.clock_skew_s;
        validation.validate_nbf = true;
        let (issuers, audiences) = match issuer {
            Some(issuer) => (&*issuer.issuers, &issuer.audiences),
            None => (self.policy.issuer.as_slice(), &self.policy.audiences),
        };
        if !issuers.is_empty() {
            validation.set_issuer(issuers);
            required.insert("iss".into());
        }
        validation.validate_aud = !audiences.is_empty();
        if validation.validate_aud {
            validation.set_audience(audiences);
            required.insert("aud".into());
        }
        validation.required_spec_claims = required;
        validation
    }

    /// Sources of published keys that may have signed the token.
    fn sources_of(&self, token: &str) -> Vec<JwksSource> {
        let is_public = |header: Header| !AlgorithmFamily::Hmac.algorithms().contains(&header.alg);
        if !decode_header(token).is_ok_and(is_public) {
            return Vec::new();
        }
        let issuers = self.issuers.load();
        let named = issuers_of(&issuers, token);
        match named.is_empty() {
            true => self.policy.jwks.clone(),
            false => named.into_iter().flat_map(|issuer| issuer.jwks.iter().cloned()).collect(),
        }
    }
}

fn alternatives<'t>(texts: impl IntoIterator<Item = &'t String>, without: &str) -> String {
    let quoted: Vec<_> = texts.into_iter().map(|text| format!("{text:?}")).collect();
    if quoted.is_empty() { without.to_owned() } else { quoted.join(" or ") }
}

/// Issuers named by the claims of an unverified token.
fn issuers_of<'i>(issuers: &'i [Issuer], token: &str) -> Vec<&'i Issuer> {
    let claimed = if issuers.is_empty() { None } else { claimed_issuer(token) };
    let Some(claimed) = claimed else { return Vec::new() };
    issuers.iter().filter(|issuer| issuer.is_named(&claimed)).collect()
}

fn claimed_issuer(token: &str) -> Option<String> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let mut claims = serde_json::from_slice::<Map<String, Value>>(&claims).ok()?;
    claims.remove("iss").and_then(|issuer| issuer.as_str().map(str::to_owned))
}

#[cfg(test)]
mod tests {

    use std::time::Duration;

    use jsonwebtoken::jwk::Jwk;
    use jsonwebtoken::{EncodingKey, encode};
    use serde_json::json;
    use trunkline_protocol::access_token;
    use trunkline_protocol::key::{AccessKey, AccessKeys};

    use super::*;
    use crate::ground::auth::{AppKey, JwksSource};

    const HUB: &str = "chat";

    const SECRET: &str = "a secret of an issuer, long enough";

    fn fleet() -> AccessKeys {
        AccessKeys::new(vec![AccessKey::random(), AccessKey::new("a key of the fleet, long enough").unwrap()]).unwrap()
    }

    fn apps() -> [AppKey; 1] {
        ["shop=a key of one app, long enough;shop;orders".parse().unwrap()]
    }

    fn sign(secret: &str, claims: &Value) -> String {
        let mut all = json!({ "sub": "ann", "exp": unix_seconds() + 60 });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        encode(&Header::new(Algorithm::HS256), &all, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    }

    fn verifier(change: impl FnOnce(&mut TokenPolicy)) -> Verifier {
        let mut policy = TokenPolicy::default();
        policy.keys.push(VerifyingKey::from_secret(SECRET).unwrap());
        change(&mut policy);
        let revocations = Arc::new(Revocations::new(policy.clock_skew_s));
        Verifier::new(policy, SigningKeys::new(&fleet(), &apps()), revocations, Connector::default())
    }

    async fn problem(verifier: &Verifier, claims: Value) -> TokenError {
        verifier.verify(&sign(SECRET, &claims), HUB).await.unwrap_err()
    }

    #[tokio::test]
    async fn tokens_signed_with_any_key_of_the_fleet_or_of_flags_are_accepted() {
        let verifier = verifier(|_| {});
        for secret in ["a key of the fleet, long enough", SECRET] {
            assert_eq!(verifier.verify(&sign(secret, &json!({})), HUB).await.unwrap().id.as_deref(), Some("ann"));
        }
        let forged = sign("some other secret, long enough", &json!({}));
        let error = verifier.verify(&forged, HUB).await.unwrap_err();
        assert_eq!(error, TokenError::Signature);
        assert!(verifier.refused().all(|(_, count)| count == 0), "its bearer may be let in by the app");
        verifier.count_refused(&error);
        let refused: Vec<_> = verifier.refused().filter(|(_, count)| *count > 0).collect();
        assert_eq!(refused, [("signature", 1)]);
    }

    #[tokio::test]
    async fn tokens_of_the_fleet_s_own_writer_are_those_of_another_library() {
        let key = AccessKey::new("a key of the fleet, long enough").unwrap();
        let claims = [("role".to_owned(), "cook".to_owned())];
        let ours = access_token::sign(&key, "ann", &claims, unix_seconds() + 60);
        let user = verifier(|_| {}).verify(&ours, HUB).await.unwrap();
        assert_eq!(user.id.as_deref(), Some("ann"));
        let theirs = sign(key.expose(), &json!({ "role": "cook" }));
        let user = access_token::verify(&theirs, &fleet(), unix_seconds()).unwrap();
        assert_eq!(user.id.as_deref(), Some("ann"));
        assert!(user.claims.contains(&claims[0]));
    }

    #[tokio::test]
    async fn times_are_checked_with_the_allowed_skew_and_an_expiry_is_required() {
        let (strict, lax) = (verifier(|policy| policy.clock_skew_s = 0), verifier(|policy| policy.clock_skew_s = 900));
        let (past, future) = (unix_seconds() - 300, unix_seconds() + 300);
        assert_eq!(problem(&strict, json!({ "exp": past })).await, TokenError::Expired);
        assert_eq!(problem(&strict, json!({ "nbf": future })).await, TokenError::Immature);
        assert!(lax.verify(&sign(SECRET, &json!({ "exp": past, "nbf": future })), HUB).await.is_ok());
        assert_eq!(
            problem(&lax, json!({ "exp": null })).await,
            TokenError::Claim("its claim \"exp\" is missing".into())
        );
    }

    #[tokio::test]
    async fn a_claim_of_a_wrong_type_is_named() {
        let text = problem(&verifier(|_| {}), json!({ "sub": ["ann", "bob"] })).await.to_string();
        assert!(text.contains(r#"its claim "sub""#), "{text}");
    }

    #[tokio::test]
    async fn issuer_and_audience_are_checked_where_the_policy_names_them() {
        let verifier = verifier(|policy| {
            policy.issuer = Some("https://b".into());
            policy.audiences = vec!["chat".into()];
        });
        assert!(
            verifier.verify(&sign(SECRET, &json!({ "iss": "https://b", "aud": ["x", "chat"] })), HUB).await.is_ok()
        );
        assert_eq!(problem(&verifier, json!({ "iss": "https://c", "aud": "chat" })).await, TokenError::Issuer);
        assert_eq!(problem(&verifier, json!({ "iss": "https://b", "aud": "talk" })).await, TokenError::Audience);
        for missing in [json!({ "aud": "chat" }), json!({ "iss": "https://b" })] {
            assert!(matches!(problem(&verifier, missing).await, TokenError::Claim(_)));
        }
    }

    #[tokio::test]
    async fn a_header_that_must_be_understood_is_refused_and_one_that_leads_elsewhere_is_not_followed() {
        let stranger = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", stranger.local_addr().unwrap());
        let token = |change: &dyn Fn(&mut Header)| {
            let mut header = Header::new(Algorithm::HS256);
            change(&mut header);
            let claims = json!({ "sub": "ann", "exp": unix_seconds() + 60 });
            encode(&header, &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
        };
        let verifier = verifier(|_| {});
        let critical = token(&|header| header.crit = Some(vec!["b64".into()]));
        assert_eq!(verifier.verify(&critical, HUB).await, Err(TokenError::Critical));
        let leading = token(&|header| (header.jku, header.x5u) = (Some(url.clone()), Some(url.clone())));
        assert_eq!(verifier.verify(&leading, HUB).await.unwrap().id.as_deref(), Some("ann"));
        let unknown = verifier.verify(&leading.replace('.', ".A"), HUB).await.unwrap_err();
        assert!(matches!(unknown, TokenError::Malformed | TokenError::Signature), "{unknown}");
        assert!(futures_util::FutureExt::now_or_never(stranger.accept()).is_none(), "nobody was dialled");
    }

    #[tokio::test]
    async fn a_token_is_tried_with_few_keys() {
        let others = |count| std::iter::repeat_with(AccessKey::random).take(count);
        let secret = |key: AccessKey| VerifyingKey::from_secret(key.expose()).unwrap();
        // Two keys belong to the fleet.
        for (before, is_reached) in [(KEYS_TRIED_MAX - 3, true), (KEYS_TRIED_MAX - 2, false), (1_000, false)] {
            let verifier = verifier(|policy| drop(policy.keys.splice(0..0, others(before).map(secret))));
            let found = verifier.verify(&sign(SECRET, &json!({})), HUB).await;
            assert_eq!(found.is_ok(), is_reached, "{before} others before it");
        }
    }

    #[tokio::test]
    async fn a_token_for_links_a_large_one_and_an_unsigned_one_are_refused() {
        let verifier = verifier(|policy| policy.max_bytes = 300);
        assert_eq!(problem(&verifier, json!({ "aud": "http://x/server/?hub=c" })).await, TokenError::Audience);
        let text = problem(&verifier, json!({ "x": "y".repeat(300) })).await.to_string();
        assert!(text.contains("--jwt-max-bytes allows 300"), "{text}");
        for unsigned in ["eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.", "nonsense", ".."] {
            assert_eq!(verifier.verify(unsigned, HUB).await, Err(TokenError::Malformed));
        }
    }

    #[tokio::test]
    async fn a_token_for_another_part_of_the_service_is_no_log_in_at_a_hub() {
        let verifier = verifier(|_| {});
        let of_fleet = async |aud: Value| {
            let token = sign("a key of the fleet, long enough", &json!({ "aud": aud }));
            verifier.verify(&token, HUB).await.map(|user| user.id)
        };
        for good in
            [json!(null), json!("shop"), json!("http://a/client/?hub=Chat"), json!(["x", "http://a/client?hub=chat"])]
        {
            assert_eq!(of_fleet(good.clone()).await, Ok(Some("ann".into())), "{good}");
        }
        for bad in
            ["client/?hub=shop", "client/", "api/", "api/hubs/chat/", "live/api/hubs/chat/:send", "server?hub=chat"]
        {
            let (one, several) = (json!(format!("http://a/{bad}")), json!(["x", format!("http://a/{bad}")]));
            assert_eq!(of_fleet(one).await, Err(TokenError::Audience), "{bad}");
            assert_eq!(of_fleet(several).await, Err(TokenError::Audience), "{bad}");
        }
    }

    #[tokio::test]
    async fn audiences_that_the_policy_names_and_those_of_other_issuers_are_theirs() {
        let (api, fleet) = (json!({ "aud": "https://a.example/api/" }), "a key of the fleet, long enough");
        assert!(verifier(|_| {}).verify(&sign(SECRET, &api), HUB).await.is_ok(), "another issuer's API");
        let named = verifier(|policy| policy.audiences = vec!["https://a.example/api/".into()]);
        assert!(named.verify(&sign(fleet, &api), HUB).await.is_ok());
        let both = json!({ "aud": ["https://a.example/api/", "http://a/client/?hub=shop"] });
        assert_eq!(named.verify(&sign(fleet, &both), HUB).await, Err(TokenError::Audience));
    }

    #[tokio::test]
    async fn a_published_key_that_is_replaced_is_found_whether_or_not_tokens_name_it() {
        let file = std::env::temp_dir().join(format!("trunkline-replaced-key-{}.json", std::process::id()));
        for id in [Some("1"), None] {
            let keys = [(); 2].map(|()| rcgen::KeyPair::generate().unwrap().serialize_pem());
            let keys = keys.map(|pem| EncodingKey::from_ec_pem(pem.as_bytes()).unwrap());
            let publish = |key: &EncodingKey| {
                let mut jwk = Jwk::from_encoding_key(key, Algorithm::ES256).unwrap();
                jwk.common.key_id = id.map(Into::into);
                std::fs::write(&file, json!({ "keys": [jwk] }).to_string()).unwrap();
            };
            let token = |key: &EncodingKey| {
                let header = Header { kid: id.map(Into::into), ..Header::new(Algorithm::ES256) };
                encode(&header, &json!({ "sub": "ann", "exp": unix_seconds() + 60 }), key).unwrap()
            };
            publish(&keys[0]);
            let verifier = verifier(|policy| {
                policy.jwks = vec![JwksSource::File(file.clone())];
                policy.jwks_refetch = Duration::ZERO;
            });
            assert!(verifier.verify(&token(&keys[0]), HUB).await.is_ok());
            publish(&keys[1]);
            assert!(verifier.verify(&token(&keys[1]), HUB).await.is_ok(), "{id:?}");
            assert_eq!(verifier.verify(&token(&keys[0]), HUB).await, Err(TokenError::Signature), "{id:?}");
        }
        std::fs::remove_file(&file).unwrap();
    }

    #[tokio::test]
    async fn a_token_is_verified_with_each_algorithm_of_its_key_and_no_other() {
        let rsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let ed = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let ec = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let verifier = verifier(|policy| {
            let keys = [&rsa, &ed, &ec].map(|key| VerifyingKey::from_pem(&key.public_key_pem()).unwrap());
            policy.keys = keys.into();
        });
        let token = |algorithm, key: &EncodingKey| {
            encode(&Header::new(algorithm), &json!({ "sub": "ann", "exp": unix_seconds() + 60 }), key).unwrap()
        };
        let of_rsa = EncodingKey::from_rsa_pem(rsa.serialize_pem().as_bytes()).unwrap();
        for algorithm in AlgorithmFamily::Rsa.algorithms() {
            assert!(verifier.verify(&token(*algorithm, &of_rsa), HUB).await.is_ok(), "{algorithm:?}");
        }
        let of_ed = EncodingKey::from_ed_pem(ed.serialize_pem().as_bytes()).unwrap();
        assert!(verifier.verify(&token(Algorithm::EdDSA, &of_ed), HUB).await.is_ok());
        let of_ec = EncodingKey::from_ec_pem(ec.serialize_pem().as_bytes()).unwrap();
        assert!(verifier.verify(&token(Algorithm::ES384, &of_ec), HUB).await.is_ok());
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let forged = token(algorithm, &EncodingKey::from_secret(rsa.public_key_pem().as_bytes()));
            assert!(verifier.verify(&forged, HUB).await.is_err(), "{algorithm:?} with the public text");
        }
    }

    /// Issuer that publishes its key in a file.
    struct Publisher {
        file: std::path::PathBuf,
        key: EncodingKey,
    }

    impl Publisher {
        fn new(name: &str) -> Self {
            let file = std::env::temp_dir().join(format!("trunkline-issuer-{name}-{}.json", std::process::id()));
            std::fs::write(&file, json!({ "keys": [] }).to_string()).unwrap();
            let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
            Self { file, key: EncodingKey::from_ec_pem(pem.as_bytes()).unwrap() }
        }

        fn publish(&self) {
            let jwk = Jwk::from_encoding_key(&self.key, Algorithm::ES256).unwrap();
            std::fs::write(&self.file, json!({ "keys": [jwk] }).to_string()).unwrap();
        }

        fn source(&self) -> JwksSource {
            JwksSource::File(self.file.clone())
        }

        fn table(&self, iss: &str) -> Issuer {
            Issuer { issuers: vec![iss.into()], jwks: vec![self.source()], ..Issuer::default() }
        }

        fn token(&self, iss: &Value) -> String {
            let claims = json!({ "sub": "ann", "exp": unix_seconds() + 60, "iss": iss });
            encode(&Header::new(Algorithm::ES256), &claims, &self.key).unwrap()
        }
    }

    impl Drop for Publisher {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.file);
        }
    }

    #[tokio::test]
    async fn keys_of_a_named_issuer_verify_its_tokens_and_no_other_keys_do() {
        let [staff, guests, anybody] = ["staff", "guests", "anybody"].map(Publisher::new);
        [&staff, &guests, &anybody].iter().for_each(|issuer| issuer.publish());
        let verifier = verifier(|policy| policy.jwks = vec![anybody.source()]);
        let named = [staff.table("https://staff"), guests.table("https://guests"), staff.table("https://night")];
        verifier.set_issuers(&named);
        let signed = |secret: &str, iss: &str| sign(secret, &json!({ "iss": iss }));
        let fleet = "a key of the fleet, long enough";
        for token in [
            staff.token(&json!("https://staff")),
            staff.token(&json!("https://night")),
            guests.token(&json!("https://guests")),
            anybody.token(&json!("https://else")),
            anybody.token(&json!(null)),
            signed(fleet, "https://else"),
            signed(SECRET, "https://else"),
        ] {
            assert!(verifier.verify(&token, HUB).await.is_ok(), "{token}");
        }
        for token in [
            guests.token(&json!("https://staff")),
            anybody.token(&json!("https://staff")),
            staff.token(&json!("https://guests")),
            staff.token(&json!("https://else")),
            staff.token(&json!(null)),
            staff.token(&json!(["https://staff"])),
            signed(fleet, "https://staff"),
            signed(SECRET, "https://night"),
        ] {
            assert!(verifier.verify(&token, HUB).await.is_err(), "{token}");
        }
    }

    #[tokio::test]
    async fn an_issuer_with_a_table_is_beside_the_one_of_the_flags() {
        let staff = Publisher::new("unlisted");
        staff.publish();
        let verifier = verifier(|policy| policy.issuer = Some("https://a".into()));
        verifier.set_issuers(&[staff.table("https://staff")]);
        assert!(verifier.verify(&staff.token(&json!("https://staff")), HUB).await.is_ok());
        assert!(verifier.verify(&staff.token(&json!("https://a")), HUB).await.is_err());
        assert!(verifier.verify(&sign(SECRET, &json!({ "iss": "https://a" })), HUB).await.is_ok());
        verifier.set_issuers(&[]);
        assert!(verifier.verify(&staff.token(&json!("https://staff")), HUB).await.is_err(), "it was taken away");
    }

    #[tokio::test]
    async fn the_secret_of_one_team_opens_no_hub_of_another() {
        let table = |name: &str, iss: &str| {
            let (key, hub) = (VerifyingKey::from_secret(&format!("the secret of team {name}, long")).unwrap(), name);
            let (issuers, audiences) = (vec![iss.into()], vec![name.to_owned()]);
            let mut issuer = Issuer { name: name.into(), issuers, audiences, keys: vec![key], ..Issuer::default() };
            issuer.set_hubs([hub]).unwrap();
            issuer
        };
        let verifier = verifier(|_| {});
        // The last two share an identity provider.
        let all = [("a", "https://a"), ("b", "https://b"), ("c", "https://both"), ("d", "https://both")];
        verifier.set_issuers(&all.map(|(name, iss)| table(name, iss)));
        for (team, _) in all {
            for (hub, iss) in all {
                for (aud, _) in all {
                    let secret = format!("the secret of team {team}, long");
                    let token = sign(&secret, &json!({ "iss": iss, "aud": [aud], "role": "admin" }));
                    let is_own = team == hub && team == aud;
                    assert_eq!(verifier.verify(&token, hub).await.is_ok(), is_own, "{team} at {hub} for {aud}");
                    assert!(verifier.verify(&token, HUB).await.is_err(), "{team} at a hub of nobody");
                }
            }
        }
        let own = sign("a key of the fleet, long enough", &json!({ "iss": "https://a", "aud": "a" }));
        assert!(verifier.verify(&own, "a").await.is_err(), "a key of the fleet does not vouch for an issuer");
    }

    #[tokio::test]
    async fn an_issuer_that_is_no_text_is_refused() {
        for issuer in [None, Some("https://a".to_owned())] {
            let verifier = verifier(|policy| policy.issuer = issuer);
            for iss in [json!(["https://a"]), json!(7), json!({})] {
                assert!(matches!(problem(&verifier, json!({ "iss": iss })).await, TokenError::Claim(_)), "{iss}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_hangs_holds_up_no_token_whose_key_another_one_publishes() {
        let hanging = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = || JwksSource::Url(format!("http://{}/keys", hanging.local_addr().unwrap()).parse().unwrap());
        let good = Publisher::new("beside-one-that-hangs");
        for jwks in [vec![url(), good.source()], vec![good.source(), url()]] {
            std::fs::write(&good.file, json!({ "keys": [] }).to_string()).unwrap();
            let verifier = Arc::new(verifier(|policy| policy.jwks = jwks));
            let token = good.token(&json!("https://a"));
            let kept_fresh = Arc::clone(&verifier);
            tokio::spawn(async move { kept_fresh.keep_fresh().await });
            let begun = tokio::time::Instant::now();
            assert_eq!(verifier.verify(&token, HUB).await, Err(TokenError::UnknownKey), "all sources were waited for");
            assert!(begun.elapsed() >= Duration::from_secs(4));
            good.publish();
            tokio::time::advance(Duration::from_secs(10)).await;
            let begun = tokio::time::Instant::now();
            assert!(verifier.verify(&token, HUB).await.is_ok());
            assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        }
    }

    #[tokio::test]
    async fn the_key_of_an_app_signs_users_of_its_hubs_alone() {
        let (verifier, token) = (verifier(|_| {}), sign("a key of one app, long enough", &json!({})));
        for (hub, expected) in [("shop", true), ("Orders", true), ("chat", false), ("shop_chat", false)] {
            assert_eq!(verifier.verify(&token, hub).await.is_ok(), expected, "{hub}");
        }
        assert_eq!(verifier.verify(&token, HUB).await, Err(TokenError::Signature));
        verifier.own.set_flags(&[]).unwrap();
        assert_eq!(verifier.verify(&token, "shop").await, Err(TokenError::Signature), "it was taken away");
    }
}
