//! Line of senders waiting for the [window](trunkline_protocol::fleet::ClientWindow) of a client.

use tokio::sync::{Mutex, Notify};
use trunkline_protocol::fleet::{self, SenderLine};

pub(crate) type ClientWindow = fleet::ClientWindow<WindowLine>;

#[derive(Debug, Default)]
pub(crate) struct WindowLine {
    pub(super) turn: Mutex<()>,
    pub(super) freed: Notify,
}

impl SenderLine for WindowLine {
    fn wake(&self) {
        self.freed.notify_one();
    }
}
