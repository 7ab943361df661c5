//! Who somebody is: access tokens (JWT), the keys that verify them, and the user that they name.
//!
//! ```text
//!  flags ──► TokenPolicy ──► Verifier ──► User
//!                               ▲
//!       file or URL ── JWKS ────┘   (read again in turn, and early for a key that is not known)
//! ```
//!
//! What a key is decides its algorithm. A token only says which key it may have been signed with, and is never believed
//! about how: `none` names no key, and a public key is never taken for a secret.

mod dial;
mod fetch;
pub(crate) mod jwks;
pub(crate) mod key;
mod policy;
#[cfg(feature = "cli")]
mod sign;
mod token_error;
mod user;
mod verifier;

pub(crate) use dial::{Dial, Wire};
pub(crate) use jwks::JwksSource;
pub(crate) use key::VerifyingKey;
pub(crate) use policy::TokenPolicy;
#[cfg(feature = "cli")]
pub(crate) use sign::sign_user_token;
pub(crate) use token_error::TokenError;
pub(crate) use user::User;
pub(crate) use verifier::Verifier;
