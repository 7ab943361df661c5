//! Open observer page: reads the event stream, and requests the first page of the client list each second.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use anyhow::{Result, ensure};
use trunkline_bench::product::Product;

use crate::admin_stream::{AdminStream, ask};
use crate::companion::Companion;

const LIST_PERIOD: Duration = Duration::from_millis(1000);

#[derive(Debug, Default)]
pub(crate) struct Page(Option<OpenPage>);

#[derive(Debug)]
struct OpenPage {
    events: AdminStream,
    is_closed: Arc<AtomicBool>,
}

impl Companion for Page {
    fn come(&mut self, product: &mut Product) -> Result<()> {
        self.0 = Some(OpenPage::open(product.admin())?);
        Ok(())
    }

    fn events(&self, _product: &Product) -> Result<u64> {
        Ok(self.0.as_ref().map_or(0, |page| page.events.counted()))
    }

    fn go(&mut self, _product: &mut Product) -> Result<()> {
        self.0 = None;
        Ok(())
    }
}

impl OpenPage {
    fn open(admin: SocketAddr) -> Result<Self> {
        let events = AdminStream::open(admin, "/api/events", "event: fleet")?;
        let is_closed = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&is_closed);
        thread::spawn(move || {
            while !until.load(Ordering::Relaxed) && list(admin).is_ok() {
                sleep(LIST_PERIOD);
            }
        });
        Ok(Self { events, is_closed })
    }
}

impl Drop for OpenPage {
    fn drop(&mut self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }
}

fn list(admin: SocketAddr) -> Result<()> {
    let mut answer = String::new();
    ask(admin, "/api/clients?limit=50", "close")?.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "the list of clients: {}", answer.lines().next().unwrap_or_default());
    Ok(())
}
