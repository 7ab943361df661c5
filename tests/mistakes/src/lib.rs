#![forbid(unsafe_code)]
//! Nothing: this crate is its tests, which hold compiler messages. Its dependencies are those of an app.
