//! Stream of an admin port, read as fast as possible.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};

/// Stream of an admin port, closed on drop.
#[derive(Debug)]
pub(crate) struct AdminStream {
    stream: TcpStream,
    counted: Arc<AtomicU64>,
}

impl AdminStream {
    /// Requests the stream at this path, and counts the lines that contain `mark`.
    pub(crate) fn open(admin: SocketAddr, path: &str, mark: &'static str) -> Result<Self> {
        let stream = ask(admin, path, "keep-alive")?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut status = String::new();
        reader.read_line(&mut status)?;
        ensure!(status.starts_with("HTTP/1.1 200"), "{path} is answered with {status}");
        let counted = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&counted);
        thread::spawn(move || {
            for _ in reader.lines().map_while(Result::ok).filter(|line| line.contains(mark)) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Self { stream, counted })
    }

    pub(crate) fn counted(&self) -> u64 {
        self.counted.load(Ordering::Relaxed)
    }
}

impl Drop for AdminStream {
    fn drop(&mut self) {
        // Fails only if the stream has already ended.
        drop(self.stream.shutdown(Shutdown::Both));
    }
}

pub(crate) fn ask(admin: SocketAddr, path: &str, connection: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(admin).with_context(|| format!("connecting to {admin}"))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: {connection}\r\n\r\n")?;
    Ok(stream)
}
