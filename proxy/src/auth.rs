//! Authentication as plain values: keys and policies of access tokens, the users that they identify, and the admin
//! token.
//!
//! The type of a key determines its algorithm. A token selects only the key: `none` selects no key, and a public key is
//! never used as a secret. Module `admission` verifies tokens with these values.

mod access_settings;
mod admin_token;
mod app_key;
mod client_terms;
mod issuer;
pub(crate) mod jwks;
pub(crate) mod key;
mod policy;
mod signer;

pub use access_settings::{AccessSettings, AccessTables};
pub(crate) use admin_token::ADMIN_COOKIE;
pub use admin_token::{AdminToken, AdminTokenInForce};
pub(crate) use app_key::{APPS_MAX, HubScope};
pub use app_key::{AppKey, AppKeyError, AppKeySetError};
pub(crate) use client_terms::{ClientTerms, SERVICE_USER_CLAIMS, StickyServer, user_in_claims};
pub(crate) use issuer::ISSUERS_MAX;
pub use issuer::Issuer;
pub use jwks::JwksSource;
pub use key::VerifyingKey;
pub use policy::TokenPolicy;
pub(crate) use signer::{Signer, TokenSigner};
pub(crate) use trunkline_protocol::access_token::User;
