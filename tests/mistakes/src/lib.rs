#![forbid(unsafe_code)]
//! Empty: this crate is its tests, which check compiler messages. It has an app's dependencies.
