//! What is left to do after frames were given out: write what waits, and close who reads too slowly.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::{Ending, Shard};
use crate::shard::directory::{Serial, Slot};
use crate::shard::outbox::Outbox;

impl Shard {
    /// Ends a turn: whatever was gathered leaves, in one system call per recipient.
    pub(crate) fn finish_turn(self: &Rc<Self>) {
        let (dirty, blocked, slow) = {
            let mut aftermath = self.aftermath.borrow_mut();
            (
                std::mem::take(&mut aftermath.dirty),
                std::mem::take(&mut aftermath.blocked),
                std::mem::take(&mut aftermath.slow),
            )
        };
        dirty.iter().for_each(|&slot| self.flush(slot));
        blocked.iter().for_each(|&slot| self.flush_later(slot));
        slow.iter().for_each(|&slot| self.end(slot, &Ending::slow_client()));
        self.hold_outbox_total();
        let mut aftermath = self.aftermath.borrow_mut();
        // A slow client's farewell may have left something meanwhile: its own flush has seen to it.
        *aftermath =
            crate::shard::delivery::Aftermath { dirty: emptied(dirty), blocked: emptied(blocked), slow: emptied(slow) };
    }

    /// Writes what waits for one client, as far as its socket takes it.
    pub(super) fn flush(self: &Rc<Self>, slot: Slot) {
        let is_blocked = self.directory.borrow_mut().get_mut(slot).is_some_and(|client| {
            client.is_dirty = false;
            match self.with_outbox(client, |outbox, socket| outbox.try_flush(socket)) {
                Ok(()) => false,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
                Err(_) => {
                    client.socket.cut();
                    false
                }
            }
        });
        if is_blocked {
            self.flush_later(slot);
        }
    }

    /// Starts a task that writes as the socket takes it; it ends when nothing waits any more.
    fn flush_later(self: &Rc<Self>, slot: Slot) {
        let serial = self.directory.borrow_mut().get_mut(slot).and_then(|client| {
            let is_new = !std::mem::replace(&mut client.is_flushing, true);
            is_new.then(|| {
                self.counters.outbox_bytes.follow(0, client.outbox.bytes());
                client.serial
            })
        });
        let Some(serial) = serial else { return };
        let shard = self.clone();
        tokio::task::spawn_local(async move { poll_fn(|cx| shard.poll_flush(cx, slot, serial)).await });
    }

    fn poll_flush(&self, cx: &mut Context<'_>, slot: Slot, serial: Serial) -> Poll<()> {
        let mut directory = self.directory.borrow_mut();
        let Some(client) = directory.get_same(slot, serial) else { return Poll::Ready(()) };
        let written = ready!(self.with_outbox(client, |outbox, socket| outbox.poll_flush(cx, socket)));
        if written.is_err() {
            self.with_outbox(client, |outbox, socket| {
                *outbox = Outbox::Empty;
                socket.cut();
            });
        }
        client.is_flushing = false;
        Poll::Ready(())
    }
}

fn emptied(mut list: Vec<Slot>) -> Vec<Slot> {
    list.clear();
    list
}
