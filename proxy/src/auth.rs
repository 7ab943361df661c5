//! Authentication: access tokens (JWT), the keys that verify them, and the users that they name; the admin token.
//!
//! ```text
//!  flags, `[issuers.NAME]` ──► Verifier ──► User
//!                                ▲
//!        file or URL ── JWKS ────┘   (read again at intervals, and early for an unknown key)
//! ```
//!
//! The kind of a key decides its algorithm. A token only names the key that may have signed it, and is never believed
//! about the algorithm: `none` names no key, and a public key is never taken for a secret. Secrets that sign tokens for
//! this node are `SigningKeys`: those of the fleet, and those of apps, which are good for some hubs alone. A token that
//! is verified may still be void: operators revoke tokens before their end.

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
