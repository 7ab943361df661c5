//! Tests of the SDK: hubs by the test kit, and app servers over real sockets. One program, so that it is linked once.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that fails may panic anywhere"
)]

mod dialled;
mod embedded;
mod harness;
mod hubs;
mod links;
mod stops;
