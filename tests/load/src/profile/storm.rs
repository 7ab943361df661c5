//! *storm*: all clients repeatedly lose their connections simultaneously and reconnect, to measure how fast they
//! return.
//!
//! A failed connect is counted by cause and retried after a while, like real clients do.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::connection::{Connection, Receiver};
use crate::engine::{Harvest, Part, Profile, admit};
use crate::run::Run;
use crate::tally::StormTally;

/// Time between a failed connect and the next attempt.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// Maximum attempts of one client per storm, after which it stays disconnected.
const TRIES_MAX: usize = 20;

#[derive(Debug)]
pub(crate) struct Storm(Rc<Run>);

impl Storm {
    pub(crate) fn new(run: Rc<Run>) -> Rc<Self> {
        Rc::new(Self(run))
    }

    async fn storm(self: &Rc<Self>) {
        let dropped = self.0.connected();
        let begun_us = self.0.clock.now_us();
        let curve = Rc::new(RefCell::new(StormTally { clients: dropped.len() as u64, ..StormTally::default() }));
        let mut returning = JoinSet::new();
        for (client, connection) in dropped {
            connection.cut();
            self.0.set_connection(client, None);
            drop(connection);
            let (storm, curve) = (Rc::clone(self), Rc::clone(&curve));
            returning.spawn_local(async move {
                for _ in 0..TRIES_MAX {
                    if admit(&storm, client).await {
                        curve.borrow_mut().back.record(storm.0.clock.now_us() - begun_us);
                        return;
                    }
                    sleep(TRY_AGAIN).await;
                }
            });
        }
        returning.join_all().await;
        let curve = curve.borrow().clone();
        self.0.tally().storms.push(curve);
    }
}

impl Receiver for Storm {
    fn invoked(&self, _: usize, _: &Rc<Connection>, _: &[u8]) {}
}

impl Profile for Storm {
    fn run(&self) -> &Rc<Run> {
        &self.0
    }

    async fn join(&self, _: usize, _: &Rc<Connection>) -> bool {
        true
    }

    fn left(&self, _: usize) {}

    async fn work(self: Rc<Self>, until_us: u64) {
        let pause = Duration::from_millis(self.0.arguments.interval);
        while self.0.clock.now_us() < until_us {
            sleep(pause).await;
            self.storm().await;
        }
    }

    fn is_complete(&self) -> bool {
        true
    }

    async fn close_books(&self, _: Part) {}

    fn harvest(&self) -> Harvest {
        Harvest::default()
    }
}
