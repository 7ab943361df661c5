//! Reads that need no second read to detect that a socket is empty.

use std::io;

use tokio::io::Interest;
use tokio::net::TcpStream;

/// Reads available data. A short read marks the socket as drained in the runtime.
pub(super) fn read_now(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let count = stream.try_read(buffer)?;
    if count > 0 && count < buffer.len() {
        note_drained(stream);
    }
    Ok(count)
}

/// Marks the socket as drained after a short read. This saves the read that would return nothing: half of all reads if
/// clients send single messages. A detected end of stream is kept.
///
/// The runtime polls for events on the shard's own thread, so no event between the read and this call is lost.
fn note_drained(stream: &TcpStream) {
    // Always returns the given error.
    drop(stream.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into())));
}
