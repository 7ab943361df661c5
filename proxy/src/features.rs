//! Features beside the engine, each behind a seam of it.
//!
//! Modules, lowest first; a module never imports a higher one:
//!
//! | module | contents |
//! |---|---|
//! | `inspection` | reading of clients and sets of shards, in short steps |
//! | `admission` | verification of tokens, their keys, revocations |
//! | `user_group` | time-limited memberships of users in groups, for later connections too |
//! | `message_log` | records of the messages to groups and users |
//! | `store` | revocations and memberships in an engine that outlives the nodes |
//! | `dialled_in` | links dialled by app servers with Azure's SDK |
//! | `presence_feed` | presence of users and group members, reported to subscribed app servers |
//! | `mirror` | copies of client connections for other app servers |
//! | `watch` | live copies of client messages for the observer: taps, traces |
//! | `webhook` | webhooks in place of app servers: client events as requests, responses as completions |

pub(crate) mod admission;
pub(crate) mod dialled_in;
pub(crate) mod inspection;
pub(crate) mod message_log;
pub(crate) mod mirror;
pub(crate) mod presence_feed;
#[cfg_attr(not(feature = "nats"), expect(dead_code, reason = "there is a store only with an engine"))]
pub(crate) mod store;
pub(crate) mod user_group;
pub(crate) mod watch;
pub(crate) mod webhook;
