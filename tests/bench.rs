//! Policy that the benchmarks share: their processes, their rounds, how they report.
//!
//! The clients and what they are measured with are `trunkline-generator`'s.
//!
//! | module | what it holds |
//! |---|---|
//! | [`command`] | the end of a benchmark's command: report, error, exit status |
//! | [`child`] | child processes, which end with their value |
//! | [`cores`] | the cores of this process, and which of them a process runs on |
//! | [`product`] | proxies before the app server `bench` |
//! | [`rounds`] | the order of the parts of a round |
//! | [`spread`] | median, smallest and largest of several figures |

pub mod child;
pub mod command;
pub mod cores;
pub mod product;
pub mod rounds;
pub mod spread;
