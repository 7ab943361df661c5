//! Reads that spare the one behind them.

use std::io;

use tokio::io::Interest;
use tokio::net::TcpStream;

/// Reads what is there. When less came than there was room for, the runtime learns that nothing is left.
pub(super) fn read_now(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let count = stream.try_read(buffer)?;
    if count > 0 && count < buffer.len() {
        note_drained(stream);
    }
    Ok(count)
}

/// Tells the runtime that a read left nothing behind, because less came than there was room for. That spares the read
/// that would find it out, one in two of a client that sends single messages. An end that was seen stays known.
///
/// The runtime of a shard polls for events on the shard's own thread, so none can come between the read and this, and
/// be lost.
fn note_drained(stream: &TcpStream) {
    // It returns the error that it was given.
    drop(stream.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into())));
}
