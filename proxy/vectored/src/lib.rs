//! Sends to many sockets with one system call.
//!
//! A broadcast is one short frame for each of thousands of sockets, and most of its cost is entering and leaving the
//! kernel once per socket. [`SendRing::send_many`] needs one system call for several hundred sockets, through an
//! `io_uring`. It is not a second runtime: a call returns when all its sends have completed, no send waits, and buffers
//! are borrowed only for the call.
//!
//! ```text
//!  (socket, slices)   ┐                                    ┌ bytes sent
//!  (socket, slices)   ├─► entries ─► io_uring_enter, once ─┤ or an error: full, closed …
//!  (socket, slices) … ┘                                    └ in the order of the sends
//! ```
//!
//! | module | contents |
//! |---|---|
//! | `ring` | the sends, on Linux: the only unsafe code of the workspace |
//! | `unsupported` | an equivalent API elsewhere, where no ring can be created |

#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "the kernel is given buffers by their addresses; the head of the file says why that is sound"
)]
mod ring;
#[cfg(not(target_os = "linux"))]
mod unsupported;

#[cfg(target_os = "linux")]
pub use ring::{SendRing, Sent};
#[cfg(not(target_os = "linux"))]
pub use unsupported::{NoRing as SendRing, NothingSent as Sent};
