#![forbid(unsafe_code)]
//! Shared parts of the benchmarks: processes, rounds, reports.
//!
//! Clients and measuring tools are in `trunkline-generator`.
//!
//! | module | contents |
//! |---|---|
//! | [`child`] | child processes, which end when they are dropped |
//! | [`cores`] | the cores of this process, and binding processes to them |
//! | [`echo`] | the bytes of a call of `Echo` and its answer |
//! | [`single_caller`] | a client that makes sequential calls |
//! | [`mover`] | a client whose socket is cut and that resumes its connection |
//! | [`peak`] | peak memory of processes at work |
//! | [`product`] | proxies in front of the app server `bench` |
//! | [`rounds`] | the order of the parts of a round |
//! | [`spread`] | median, minimum and maximum of several figures |

pub mod child;
pub mod cores;
pub mod echo;
pub mod mover;
pub mod peak;
pub mod product;
pub mod rounds;
pub mod single_caller;
pub mod spread;
