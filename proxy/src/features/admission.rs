//! Admission of clients and callers: verification of their tokens, the keys that sign tokens, and revocations.
//!
//! ```text
//!  flags, `[issuers.NAME]` ──► Verifier ──► User
//!                                ▲
//!         file or URL ── JWKS ────┘   (refreshed periodically, refetched early for an unknown key)
//! ```
//!
//! `SigningKeys` holds the fleet's keys, and the apps' keys, which cover only some hubs. Operators can revoke a
//! verified token early. The engine queries all this through `AccessRules`.

mod key_set;
mod revocation;
mod service_token;
mod signed_token;
mod signing_key;
mod token_error;
mod verifier;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytestring::ByteString;
use tracing::warn;
use trunkline_protocol::key::AccessKeys;

use crate::engine::shard::{AccessRules, RefreshRefused, RevocationMark};
use crate::ground::auth::{AccessSettings, Signer, user_in_claims};
use crate::ground::clock::unix_seconds;
use crate::ground::net::connector::Connector;
use crate::ground::net::dial_gate::DialGate;

pub(crate) use revocation::{REVOCATION_KEPT_MAX_S, Revocations};
pub use service_token::host_of_url;
pub(crate) use service_token::{RestAudience, ServiceAudience, ServiceVerifier};
pub(crate) use signing_key::{ChannelKeys, SigningKeys};
pub(crate) use token_error::TokenError;
pub(crate) use verifier::Verifier;

#[derive(Debug)]
pub(crate) struct Admission {
    pub signing_keys: Arc<SigningKeys>,
    pub verifier: Verifier,
    pub service_verifier: ServiceVerifier,
    /// Revoked tokens, for both verifiers.
    pub revocations: Arc<Revocations>,
    /// Set until the revocations of a store are known: this node serves no clients before.
    pub is_waiting: AtomicBool,
    /// Set after the warning about an app server that dials in over plain HTTP.
    pub has_warned_of_plain: AtomicBool,
    /// Gate of dials to nodes that tokens name.
    pub node_dials: Arc<DialGate>,
}

impl Admission {
    /// `issuers` fetches published keys.
    pub(crate) fn new(keys: &AccessKeys, settings: AccessSettings, issuers: Connector) -> Arc<Self> {
        let AccessSettings { app_keys, tokens, tables } = settings;
        let keys = SigningKeys::new(keys, &app_keys);
        // Applied again at node startup, where a failure is fatal.
        if let Err(error) = keys.set_rules(&tables.app_keys) {
            warn!(%error, "keys of apps can't be used");
        }
        let revocations = Arc::new(Revocations::new(tokens.clock_skew_s));
        let (skew_s, max_bytes) = (tokens.clock_skew_s, tokens.max_bytes);
        let verifier = Verifier::new(tokens, keys.clone(), revocations.clone(), issuers);
        verifier.set_issuers(&tables.issuers);
        Arc::new(Self {
            verifier,
            service_verifier: ServiceVerifier::new(keys.clone(), revocations.clone(), skew_s, max_bytes),
            revocations,
            signing_keys: keys,
            is_waiting: AtomicBool::new(false),
            has_warned_of_plain: AtomicBool::new(false),
            node_dials: Arc::default(),
        })
    }
}

impl AccessRules for Admission {
    fn has_apps(&self) -> bool {
        self.signing_keys.has_apps()
    }

    fn owner_of(&self, hub: &str) -> Signer {
        self.signing_keys.owner_of(hub)
    }

    fn has_revoked_since(&self, mark: RevocationMark, user: Option<&str>) -> bool {
        self.revocations.have_come_since(mark, user)
    }

    fn has_closed(&self, user: Option<&str>, opened_ms: u64) -> bool {
        self.revocations.have_closed(user, opened_ms)
    }

    fn check_refresh(&self, user: Option<&str>, claims: &[(ByteString, ByteString)]) -> Result<(), RefreshRefused> {
        let bytes = claims.iter().map(|(name, value)| name.len() + value.len()).sum();
        let max = self.service_verifier.max_bytes;
        if bytes > max {
            return Err(RefreshRefused::TooLarge { bytes, max });
        }
        if user != user_in_claims(claims) {
            return Err(RefreshRefused::OtherUser);
        }
        let is_void = self.revocations.void_refresh(user, claims, unix_seconds());
        if is_void { Err(RefreshRefused::Revoked) } else { Ok(()) }
    }
}
