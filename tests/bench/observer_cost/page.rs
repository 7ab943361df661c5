//! A page that is open: it reads the stream of events, and asks for the first page of the list of clients each second.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Interval at which the page polls.
const LIST_PERIOD: Duration = Duration::from_millis(1000);

/// A page that is open. It is closed when this value goes.
#[derive(Debug)]
pub(crate) struct Page {
    stream: TcpStream,
    events: Arc<AtomicU64>,
    is_closed: Arc<AtomicBool>,
}

impl Page {
    /// Opens a page of the node whose admin port is there.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) fn open(admin: SocketAddr) -> Result<Self> {
        let stream = ask(admin, "/api/events", "keep-alive")?;
        let (events, is_closed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (reader, counted) = (BufReader::new(stream.try_clone()?), events.clone());
        thread::spawn(move || {
            let lines = reader.lines().map_while(Result::ok);
            for _ in lines.filter(|line| line == "event: fleet") {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        let until = is_closed.clone();
        thread::spawn(move || {
            while !until.load(Ordering::Relaxed) && list(admin).is_ok() {
                sleep(LIST_PERIOD);
            }
        });
        Ok(Self { stream, events, is_closed })
    }

    /// Number of events so far.
    pub(crate) fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.is_closed.store(true, Ordering::Relaxed);
        // It fails only where the stream has ended already.
        drop(self.stream.shutdown(Shutdown::Both));
    }
}

fn list(admin: SocketAddr) -> Result<()> {
    let mut answer = String::new();
    ask(admin, "/api/clients?limit=50", "close")?.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "the list of clients: {}", answer.lines().next().unwrap_or_default());
    Ok(())
}

fn ask(admin: SocketAddr, path: &str, connection: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(admin).with_context(|| format!("connecting to {admin}"))?;
    write_request(&mut stream, admin, path, connection)?;
    Ok(stream)
}

fn write_request(stream: &mut TcpStream, admin: SocketAddr, path: &str, connection: &str) -> io::Result<()> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: {connection}\r\n\r\n")
}
