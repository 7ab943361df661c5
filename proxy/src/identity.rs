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
mod jwks;
mod key;
mod policy;
mod sign;
mod token_error;
mod user;
mod verifier;

pub use dial::{Dial, Wire};
pub use jwks::{JwksError, JwksSource};
pub use key::{KeyError, VerifyingKey};
pub use policy::TokenPolicy;
pub use sign::sign_user_token;
pub use token_error::TokenError;
pub use user::User;
pub use verifier::Verifier;
