//! Gate for messages to one client: senders wait here for the client's [window](ClientWindow), and marks follow queued
//! messages. Senders of one client stand in a [line](WindowLine). Always open for a node without support for marks.

use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;
use trunkline_protocol::fleet::{self, SenderLine};

/// Maximum number of sends waiting for one client; further sends fail. Results and stream items always wait: the
/// client's own calls limit their number.
pub(crate) const WAITING_SENDS_MAX: usize = 1_024;

pub(crate) trait WindowedClient: Sync {
    fn with_window<R>(&self, step: impl FnOnce(&mut ClientWindow) -> R) -> R;

    /// Returns whether the node of the client confirms marks.
    fn has_reports(&self) -> bool;

    /// Queues a mark for the client's node without waiting. Returns `false` if the node does not confirm marks.
    fn send_mark(&self, number: i64) -> bool;

    fn closed(&self) -> &CancellationToken;

    /// Records that a sender starts or stops waiting for the client.
    fn note_wait(&self, _begins: bool) {}
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoom {
    Closed,
    TooManyWaiting,
}

/// Reserved space in a client's window, released if dropped before the message is queued.
#[must_use = "the room is free again when this is dropped"]
pub(crate) struct WindowRoom<'a, C: WindowedClient> {
    /// `None` if the gate is open.
    client: Option<&'a C>,
    bytes: u32,
}

/// Waiting sender of a window; ends its wait when dropped.
struct WindowWait<'a, C: WindowedClient>(&'a C);

/// Reserves space for a message if available immediately.
pub(crate) fn try_room<C: WindowedClient>(client: &C, bytes: usize) -> Option<WindowRoom<'_, C>> {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    let client = client.has_reports().then_some(client);
    let has_room = client.is_none_or(|client| client.with_window(|window| window.reserve(bytes)));
    has_room.then(|| WindowRoom { client, bytes })
}

/// Waits for space for a message, or for the connection to close. Cancel-safe.
pub(crate) async fn room<C: WindowedClient>(
    client: &C,
    bytes: usize,
    waiting_max: usize,
) -> Result<WindowRoom<'_, C>, NoRoom> {
    match try_room(client, bytes) {
        Some(room) => Ok(room),
        // Boxed to keep the future small for senders that need not wait.
        None => Box::pin(wait(client, u32::try_from(bytes).unwrap_or(u32::MAX), waiting_max)).await,
    }
}

/// Sends the last unconfirmed mark again: its frame may be lost, or the client may have moved to another node.
pub(crate) fn repeat_mark<C: WindowedClient>(client: &C) {
    client.with_window(|window| send_mark(client, window, window.last_mark()));
}

/// Call with the window locked, or a later mark could overtake an earlier one.
fn send_mark<C: WindowedClient>(client: &C, window: &mut ClientWindow, number: Option<i64>) {
    if number.is_some_and(|number| !client.send_mark(number)) {
        window.release();
    }
}

async fn wait<C: WindowedClient>(client: &C, bytes: u32, waiting_max: usize) -> Result<WindowRoom<'_, C>, NoRoom> {
    let line = client.with_window(|window| window.begin_wait(waiting_max)).ok_or(NoRoom::TooManyWaiting)?;
    let _wait = WindowWait::begin_wait(client);
    let waiting = async {
        let _turn = line.turn.lock().await;
        while !client.with_window(|window| reserve_first(client, window, bytes)) {
            line.freed.notified().await;
        }
    };
    let has_room = client.closed().run_until_cancelled(waiting).await;
    has_room.map(|()| WindowRoom { client: Some(client), bytes }).ok_or(NoRoom::Closed)
}

fn reserve_first<C: WindowedClient>(client: &C, window: &mut ClientWindow, bytes: u32) -> bool {
    let has_room = window.reserve_first(bytes);
    if !has_room {
        let rest = window.mark_rest();
        send_mark(client, window, rest);
    }
    has_room
}

impl<C: WindowedClient> WindowRoom<'_, C> {
    pub(crate) fn note_queued(mut self) {
        if let Some(client) = self.client.take() {
            client.with_window(|window| {
                let due = window.note_queued(self.bytes);
                send_mark(client, window, due);
            });
        }
    }
}

impl<C: WindowedClient> Drop for WindowRoom<'_, C> {
    fn drop(&mut self) {
        if let Some(client) = self.client {
            client.with_window(|window| window.give_up(self.bytes));
        }
    }
}

impl<'a, C: WindowedClient> WindowWait<'a, C> {
    fn begin_wait(client: &'a C) -> Self {
        client.note_wait(true);
        Self(client)
    }
}

impl<C: WindowedClient> Drop for WindowWait<'_, C> {
    fn drop(&mut self) {
        self.0.with_window(ClientWindow::end_wait);
        self.0.note_wait(false);
    }
}

pub(crate) type ClientWindow = fleet::ClientWindow<WindowLine>;

/// Line of senders waiting for the [window](trunkline_protocol::fleet::ClientWindow) of a client.
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
