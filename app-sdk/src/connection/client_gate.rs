//! Gate before messages to one client: senders wait here for the client's [window](ClientWindow), and marks follow what
//! was queued. At a node that reports no marks the gate is open.

use tokio_util::sync::CancellationToken;

use super::client_window::ClientWindow;

/// Maximum number of sends that wait for one client; further sends fail. Results and stream items always wait: they are
/// as many as the client has calls.
pub(crate) const WAITING_SENDS_MAX: usize = 1_024;

/// Client with a window.
pub(crate) trait WindowedClient: Sync {
    /// Takes a step of the window, under its lock.
    fn with_window<R>(&self, step: impl FnOnce(&mut ClientWindow) -> R) -> R;

    /// Whether the node of the client reports marks.
    fn has_reports(&self) -> bool;

    /// Queues a mark for the node of the client; never waits. Returns `false` if that node reports no marks.
    fn send_mark(&self, number: i64) -> bool;

    /// Token that fires when the connection closes.
    fn closed(&self) -> &CancellationToken;

    /// Notes that a sender waits for the client, or not any more.
    fn note_wait(&self, _begins: bool) {}
}

/// Reason why a message has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// The connection has closed.
    Closed,
    /// Too many sends wait already.
    TooManyWaiting,
}

/// Room for a message in the window of its client; free again when dropped before the message is queued.
#[must_use = "the room is free again when this is dropped"]
pub(crate) struct WindowRoom<'a, C: WindowedClient> {
    /// `None` where the gate is open.
    client: Option<&'a C>,
    bytes: u32,
}

/// Sender in the line of a window, until it is dropped.
struct WindowWait<'a, C: WindowedClient>(&'a C);

/// Takes room for a message if there is room at once.
pub(crate) fn try_room<C: WindowedClient>(client: &C, bytes: usize) -> Option<WindowRoom<'_, C>> {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    let client = client.has_reports().then_some(client);
    let has_room = client.is_none_or(|client| client.with_window(|window| window.reserve(bytes)));
    has_room.then(|| WindowRoom { client, bytes })
}

/// Waits until there is room for a message, or the connection closes. Cancel-safe.
pub(crate) async fn room<C: WindowedClient>(
    client: &C,
    bytes: usize,
    waiting_max: usize,
) -> Result<WindowRoom<'_, C>, NoRoom> {
    match try_room(client, bytes) {
        Some(room) => Ok(room),
        // Boxed, so that senders which need not wait stay small.
        None => Box::pin(wait(client, u32::try_from(bytes).unwrap_or(u32::MAX), waiting_max)).await,
    }
}

/// Sends the last mark again that is not confirmed: the frame before may be lost, or the client has another node.
pub(crate) fn repeat_mark<C: WindowedClient>(client: &C) {
    client.with_window(|window| send_mark(client, window, window.last_mark()));
}

/// Called with the window under its lock, or a later mark could overtake an earlier one.
fn send_mark<C: WindowedClient>(client: &C, window: &mut ClientWindow, number: Option<i64>) {
    if number.is_some_and(|number| !client.send_mark(number)) {
        window.release();
    }
}

async fn wait<C: WindowedClient>(client: &C, bytes: u32, waiting_max: usize) -> Result<WindowRoom<'_, C>, NoRoom> {
    let line = client.with_window(|window| window.begin_wait(waiting_max)).ok_or(NoRoom::TooManyWaiting)?;
    let _wait = WindowWait::begin(client);
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
    /// Notes that the message is queued; a mark follows if one is due.
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
    fn begin(client: &'a C) -> Self {
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
