//! Actions of a slot's ends: write, read, lose a socket, end a session.

use super::World;
use crate::ledger::{Check, broken};
use crate::slot::{PROXY, Reason, Slot};

/// Limit above the sessions of any schedule.
const SESSIONS_MAX: usize = 500;

impl World {
    pub(crate) fn transmit(&mut self, index: usize, end: usize) -> Check {
        let (slot, around) = self.parts(index, end);
        let Slot { held, sockets, .. } = slot;
        held[end].as_mut().map_or(Ok(()), |held| held.transmit(sockets, &around))
    }

    /// Reads some bytes, and notices the end of a socket.
    pub(crate) fn read(&mut self, index: usize, end: usize) -> Check {
        let Some(held) = &self.slots[index].held[end] else { return Ok(()) };
        let sockets = [held.leaked(), held.link.as_ref().map(|link| link.socket)];
        for socket in sockets.into_iter().flatten() {
            let bytes = self.slots[index].sockets[socket].read(end, self.now_ms, &mut self.random);
            let (slot, mut around) = self.parts(index, end);
            if let (false, Some(held)) = (bytes.is_empty(), slot.held[end].as_mut()) {
                held.receive(socket, bytes, &mut around)?;
                held.check_ring(around.now_ms);
            }
        }
        match sockets[1] {
            Some(socket) if self.slots[index].sockets[socket].is_at_end(end, self.now_ms) => {
                self.lose_socket(index, end)
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn lose_socket(&mut self, index: usize, end: usize) -> Check {
        let (now_ms, mutant) = (self.now_ms, self.mutant);
        let Slot { held, sockets, dial_at_ms, backoff, .. } = &mut self.slots[index];
        let Some((held, socket, attachment)) = held[end].as_mut().and_then(|held| {
            let link = held.link.as_ref()?;
            let (socket, attachment) = (link.socket, link.attachment);
            Some((held, socket, attachment))
        }) else {
            return Ok(());
        };
        if !held.session.is_attached() {
            return Ok(());
        }
        let verdict = held.session.detach(attachment, now_ms);
        held.detached(mutant, now_ms);
        sockets[socket].close(end, now_ms, &mut self.random);
        if end == PROXY {
            *dial_at_ms = now_ms + backoff.next_wait_ms(self.random.chance());
        }
        self.note(|| format!("slot {index}: end {end} loses socket {socket}"));
        if verdict.is_some() { broken(format!("{verdict:?} though the peer can resume")) } else { Ok(()) }
    }

    /// Ends the session at an end; the proxy starts the next one.
    pub(crate) fn end_session(&mut self, index: usize, end: usize, reason: Reason) -> Check {
        self.lose_socket(index, end)?;
        self.note(|| format!("slot {index}: end {end} ends its session: {reason:?}"));
        self.ended.push(reason);
        let now_ms = self.now_ms;
        let (slot, mut around) = self.parts(index, end);
        if around.ledgers.len() > SESSIONS_MAX {
            return broken("sessions are begun and ended without end");
        }
        let id = slot.end(&mut around)?;
        if let (PROXY, Some(id)) = (end, id) {
            slot.begin(id.next(), &mut around);
            (slot.pending, slot.dial_at_ms) = (None, now_ms);
        }
        Ok(())
    }
}
