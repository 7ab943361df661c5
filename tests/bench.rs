//! What the benchmarks share: processes, their CPU time and memory, connections by hand, medians.
//!
//! Plain threads and blocking sockets: nothing of the product and no runtime takes part in the measuring.
//!
//! | module | what it holds |
//! |---|---|
//! | [`command`] | how a benchmark ends |
//! | [`product`] | proxies before their app server |
//! | [`process`] | child processes |
//! | [`cpu`] | CPU time of a process |
//! | [`memory`] | memory of a process |
//! | [`connect`] | one client connection, by hand |
//! | [`frame`] | WebSocket frames put together and taken apart |
//! | [`look`] | how a generator looks after its sockets |
//! | [`done`] | what was done in a window, and how long it took |
//! | [`rounds`] | which part comes when |
//! | [`spread`] | medians |

pub mod command;
pub mod connect;
pub mod cpu;
pub mod done;
pub mod frame;
pub mod look;
pub mod memory;
pub mod message_pack;
pub mod process;
pub mod product;
pub mod rounds;
pub mod spread;
