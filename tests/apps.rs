//! App servers that misbehave, in the process of the test.
//!
//! | module | contents |
//! |---|---|
//! | `channel_host` | routes inside channels |
//! | [`other_version`] | an app server that looks to proxies like one of another version |
//!
//! Each other folder is a program: `calls`, `ends`, `members`, `moves`, `roles`, `sends`, `web`.

mod channel_host;
pub mod other_version;
