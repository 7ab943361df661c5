//! Admission of clients and callers: checks before a request becomes a connection.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tracing::warn;

use crate::auth::{Revocations, ServiceVerifier, Signer, SigningKeys, Verifier};
use crate::config::Settings;
use crate::limits::SignerShare;
use crate::net::connector::Connector;
use crate::transport::http_transport::{CarriedGets, HttpTransports};
use crate::upstream::{ReplyTo, RestoreQueries};

#[derive(Debug)]
pub(crate) struct Admission {
    pub signing_keys: Arc<SigningKeys>,
    pub verifier: Verifier,
    pub service_verifier: ServiceVerifier,
    /// Revoked tokens, for both verifiers.
    pub revocations: Arc<Revocations>,
    /// Set after the warning about an app server that dials in over plain HTTP.
    pub has_warned_of_plain: AtomicBool,
    pub http_transports: HttpTransports,
    pub carried_gets: CarriedGets,
    pub restore_queries: RestoreQueries,
}

impl Admission {
    #[must_use]
    pub(crate) fn share_of(&self, signer: &Signer) -> SignerShare {
        SignerShare::new(signer.clone(), self.signing_keys.has_apps())
    }

    /// Permit share of the caller that invokes a client of this hub. Calls relayed by other nodes, or without a token,
    /// count for the app that owns the hub.
    #[must_use]
    pub(crate) fn share_of_asker(&self, reply_to: &dyn ReplyTo, hub: &str) -> SignerShare {
        let signer = reply_to.signer().cloned().unwrap_or_else(|| self.signing_keys.owner_of(hub));
        self.share_of(&signer)
    }

    pub(super) fn new(settings: &Settings, issuers: Connector) -> Self {
        let (keys, tokens) = (SigningKeys::new(&settings.keys, &settings.app_keys), &settings.tokens);
        // Applied again at node startup, where a failure is fatal.
        if let Err(error) = keys.set_rules(&settings.rules.app_keys) {
            warn!(%error, "keys of apps can't be used");
        }
        let revocations = Arc::new(Revocations::new(tokens.clock_skew_s));
        let (skew_s, max_bytes) = (tokens.clock_skew_s, tokens.max_bytes);
        let verifier = Verifier::new(tokens.clone(), keys.clone(), revocations.clone(), issuers);
        verifier.set_issuers(settings.rules.issuers());
        Self {
            verifier,
            service_verifier: ServiceVerifier::new(keys.clone(), revocations.clone(), skew_s, max_bytes),
            revocations,
            signing_keys: keys,
            has_warned_of_plain: AtomicBool::new(false),
            http_transports: HttpTransports::default(),
            carried_gets: CarriedGets::default(),
            restore_queries: RestoreQueries::default(),
        }
    }
}
