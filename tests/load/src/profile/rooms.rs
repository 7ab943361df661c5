//! *broadcast* and *chat*: some clients send, all members of their room receive.
//!
//! A broadcast is a single room of all clients with one sender. The generator sends and receives all messages, so one
//! clock measures both, several generators can run in parallel, and the server needs no counters.

use std::cell::RefCell;
use std::rc::Rc;

use serde_json::json;
use tokio::task::JoinSet;

use crate::clock::counts_from;
use crate::connection::{Connection, Receiver};
use crate::engine::{Harvest, Part, Profile};
use crate::ledger::Ledger;
use crate::published::{Figure, Mean, Published};
use crate::run::Run;
use crate::schedule::{SendSchedule, send_schedule};
use crate::stamp::Stamp;
use trunkline_generator::histogram::micros;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RoomKind {
    Broadcast,
    Chat,
}

#[derive(Debug, Clone, Copy)]
struct Speaker {
    client: usize,
    room: u32,
    /// Number among the senders of its room.
    sender: u32,
    send_schedule: SendSchedule,
}

/// Received messages of one client.
#[derive(Debug, Clone, Copy, Default)]
struct Listener {
    latency: Mean,
    interval: Mean,
    last_us: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Rooms {
    run: Rc<Run>,
    kind: RoomKind,
    speakers: Vec<Speaker>,
    ledger: RefCell<Ledger>,
    listeners: RefCell<Vec<Listener>>,
}

impl Rooms {
    pub(crate) fn new(run: Rc<Run>, kind: RoomKind) -> Rc<Self> {
        let (mut speakers, mut senders) = (Vec::new(), vec![0; room_count(&run, kind)]);
        for client in 0..run.client_count() {
            let room = room_of(&run, kind, client);
            if let Some(send_schedule) = schedule_of(&run, kind, client)
                && let Some(count) = senders.get_mut(room as usize)
            {
                speakers.push(Speaker {
                    client,
                    room,
                    sender: u32::try_from(*count).unwrap_or(u32::MAX),
                    send_schedule,
                });
                *count += 1;
            }
        }
        let listeners = RefCell::new(vec![Listener::default(); run.client_count()]);
        Rc::new(Self { speakers, ledger: RefCell::new(Ledger::with_rooms(&senders)), listeners, kind, run })
    }

    async fn speak(self: Rc<Self>, speaker: Speaker, begun_us: u64, until_us: u64) {
        let mut due_us = begun_us + speaker.send_schedule.first_us;
        while due_us < until_us {
            self.run.clock.wait_until(due_us).await;
            // A client without a connection stops sending; the loss is counted elsewhere.
            let Some(connection) = self.run.connection(speaker.client) else { return };
            self.send(&speaker, &connection, due_us);
            due_us += speaker.send_schedule.every_us;
        }
    }

    fn send(&self, speaker: &Speaker, connection: &Connection, due_us: u64) {
        let Speaker { room, sender, .. } = *speaker;
        let mut ledger = self.ledger.borrow_mut();
        let Some(number) = ledger.next_number(room, sender) else { return };
        let now_us = self.run.clock.now_us();
        let stamp = Stamp { room, sender, number, from_us: counts_from(due_us, now_us) };
        let text = stamp.text(self.run.id, self.run.arguments.payload as usize);
        ledger.sent(room, sender);
        self.run.tally().sent(now_us, due_us);
        match self.kind {
            RoomKind::Broadcast => connection.send("Broadcast", &[json!(text)]),
            RoomKind::Chat => connection.send("SendToGroup", &[json!(self.room_name(room)), json!(text)]),
        }
    }

    /// Contains the run's id, so that generators use separate rooms.
    fn room_name(&self, room: u32) -> String {
        format!("{}-Room{}", self.run.id, room + 1)
    }
}

fn room_count(run: &Run, kind: RoomKind) -> usize {
    match kind {
        RoomKind::Broadcast => 1,
        RoomKind::Chat => run.arguments.groups as usize,
    }
}

fn room_of(run: &Run, kind: RoomKind, client: usize) -> u32 {
    u32::try_from(run.index(client) % room_count(run, kind)).unwrap_or(0)
}

fn schedule_of(run: &Run, kind: RoomKind, client: usize) -> Option<SendSchedule> {
    let interval = std::time::Duration::from_millis(run.arguments.interval);
    match kind {
        RoomKind::Broadcast => {
            (client == 0).then(|| SendSchedule { first_us: micros(interval), every_us: micros(interval) })
        }
        RoomKind::Chat => send_schedule(run.index(client), run.arguments.clients as usize, interval),
    }
}

impl Receiver for Rooms {
    fn invoked(&self, client: usize, _: &Rc<Connection>, body: &[u8]) {
        // Ignores messages of other runs.
        let Some(stamp) = self.run.stamps.find(body) else { return };
        if !self.ledger.borrow_mut().received(client, &stamp) {
            return;
        }
        let now_us = self.run.clock.now_us();
        let latency_us = now_us.saturating_sub(stamp.from_us);
        let mut tally = self.run.tally();
        tally.received(now_us, latency_us);
        let mut listeners = self.listeners.borrow_mut();
        let Some(listener) = listeners.get_mut(client) else { return };
        listener.latency.add(latency_us);
        if self.kind == RoomKind::Broadcast
            && let Some(last_us) = listener.last_us.replace(now_us)
        {
            tally.interval.record(now_us - last_us);
            listener.interval.add(now_us - last_us);
        }
    }
}

impl Profile for Rooms {
    fn run(&self) -> &Rc<Run> {
        &self.run
    }

    async fn join(&self, client: usize, connection: &Rc<Connection>) -> bool {
        let room = room_of(&self.run, self.kind, client);
        if self.kind == RoomKind::Chat
            && self.run.call(connection, "Join", &[json!(self.room_name(room))]).await.is_none()
        {
            return false;
        }
        self.ledger.borrow_mut().join(client, room);
        true
    }

    fn left(&self, client: usize) {
        self.ledger.borrow_mut().leave(client);
    }

    async fn work(self: Rc<Self>, until_us: u64) {
        let begun_us = self.run.clock.now_us();
        let mut speaking = JoinSet::new();
        for speaker in self.speakers.clone() {
            speaking.spawn_local(Rc::clone(&self).speak(speaker, begun_us, until_us));
        }
        speaking.join_all().await;
        self.run.clock.wait_until(until_us).await;
    }

    fn is_complete(&self) -> bool {
        self.ledger.borrow().is_complete()
    }

    async fn close_books(&self, _: Part) {}

    fn harvest(&self) -> Harvest {
        let (listeners, ledger) = (self.listeners.borrow(), self.ledger.borrow());
        let published = match self.kind {
            RoomKind::Broadcast => Published::of(Figure::Interval, listeners.iter().map(|listener| listener.interval)),
            RoomKind::Chat => Published::of(Figure::ChatLatency, listeners.iter().map(|listener| listener.latency)),
        };
        Harvest { counts: ledger.counts(), missing: ledger.missing(), published: Some(published), ..Harvest::default() }
    }
}
