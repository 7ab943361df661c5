//! Sends to many sockets by one system call.
//!
//! A broadcast is one short frame for each of thousands of sockets, and most of its cost is the way into the kernel
//! and back, once per socket. [`SendRing::send_many`] hands the kernel all sends at once, by an `io_uring`: in and out
//! once per some hundred sockets. It is no second runtime: a call is over when each of its sends is, none of them
//! waits, and buffers are borrowed for the call alone.
//!
//! ```text
//!  (socket, slices)   ┐                                    ┌ bytes that it took
//!  (socket, slices)   ├─► entries ─► io_uring_enter, once ─┤ or why not: full, closed …
//!  (socket, slices) … ┘                                    └ in the order of the sends
//! ```
//!
//! | module | contents |
//! |---|---|
//! | `ring` | the sends, on Linux: the only unsafe code of the workspace |
//! | `unsupported` | the same face elsewhere, where no ring can be made |

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
