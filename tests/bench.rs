//! Policy that the benchmarks share: their processes, their rounds, how they report.
//!
//! The clients and what they are measured with are `trunkline-generator`'s.
//!
//! | module | what it holds |
//! |---|---|
//! | [`command`] | the end of a benchmark's command: report, error, exit status |
//! | [`child`] | child processes, which end with their value |
//! | [`cores`] | the cores of this process, and which of them a process runs on |
//! | [`echo`] | the bytes of a call of `Echo` and of its answer |
//! | [`single_caller`] | a client that makes one call after the other |
//! | [`mover`] | a client that is cut and comes back to its connection |
//! | [`product`] | proxies before the app server `bench` |
//! | [`rounds`] | the order of the parts of a round |
//! | [`spread`] | median, smallest and largest of several figures |

pub mod child;
pub mod command;
pub mod cores;
pub mod echo;
pub mod mover;
pub mod product;
pub mod rounds;
pub mod single_caller;
pub mod spread;
