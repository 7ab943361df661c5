//! *idle*: all clients stay connected without activity, to measure the cost of idle connections in the server
//! processes.

use std::rc::Rc;

use crate::connection::{Connection, Receiver};
use crate::engine::{Harvest, Part, Profile};
use crate::run::Run;

#[derive(Debug)]
pub(crate) struct Idle(Rc<Run>);

impl Idle {
    pub(crate) fn new(run: Rc<Run>) -> Rc<Self> {
        Rc::new(Self(run))
    }
}

impl Receiver for Idle {
    fn invoked(&self, _: usize, _: &Rc<Connection>, _: &[u8]) {}
}

impl Profile for Idle {
    fn run(&self) -> &Rc<Run> {
        &self.0
    }

    async fn join(&self, _: usize, _: &Rc<Connection>) -> bool {
        true
    }

    fn left(&self, _: usize) {}

    async fn work(self: Rc<Self>, until_us: u64) {
        self.0.clock.wait_until(until_us).await;
    }

    fn is_complete(&self) -> bool {
        true
    }

    async fn close_books(&self, _: Part) {}

    fn harvest(&self) -> Harvest {
        Harvest::default()
    }
}
