//! App servers that misbehave, in the process of the test.
//!
//! | module | what it holds |
//! |---|---|
//! | `channel_host` | routes inside channels, for both |
//! | [`fake_app`] | an app server that breaks the service protocol |
//! | [`other_version`] | an app server of another version, as far as proxies can see |
//!
//! Beside them, a program each: `calls`, `ends`, `members`, `moves`, `roles`, `sends`, `web`.

mod channel_host;
pub mod fake_app;
pub mod other_version;
