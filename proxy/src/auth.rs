//! Authentication: access tokens (JWT), the keys that verify them, the users that they identify, and the admin token.
//!
//! ```text
//!  flags, `[issuers.NAME]` ──► Verifier ──► User
//!                                ▲
//!         file or URL ── JWKS ────┘   (refreshed periodically, refetched early for an unknown key)
//! ```
//!
//! The type of a key determines its algorithm. A token selects only the key: `none` selects no key, and a public key is
//! never used as a secret. `SigningKeys` holds the fleet's keys, and the apps' keys, which cover only some hubs.
//! Operators can revoke a verified token early.

mod admin_token;
mod app_key;
mod channel_key;
mod fetch;
mod issuer;
pub(crate) mod jwks;
pub(crate) mod key;
mod policy;
mod revocation;
mod service_token;
mod signed_token;
mod signer;
mod signing_key;
mod token_error;
mod verifier;

pub(crate) use admin_token::ADMIN_COOKIE;
pub use admin_token::{AdminToken, AdminTokenInForce};
pub(crate) use app_key::APPS_MAX;
pub use app_key::{AppKey, AppKeyError, AppKeySetError};
pub(crate) use channel_key::ChannelKeys;
pub(crate) use issuer::ISSUERS_MAX;
pub use issuer::Issuer;
pub use jwks::JwksSource;
pub use key::VerifyingKey;
pub use policy::TokenPolicy;
pub(crate) use revocation::{REVOCATION_KEPT_MAX_S, RevocationMark, RevocationRefused, Revocations};
pub use service_token::host_of_url;
pub(crate) use service_token::{
    ClientTerms, RestAudience, ServiceAudience, ServiceVerifier, StickyServer, user_in_claims,
};
pub(crate) use signer::{Signer, TokenSigner};
pub(crate) use signing_key::SigningKeys;
pub(crate) use token_error::TokenError;
pub(crate) use trunkline_protocol::access_token::User;
pub(crate) use verifier::Verifier;
