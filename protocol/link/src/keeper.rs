//! Keeper of a session: dials one socket after another, with a back-off, until the session ends.
//!
//! ```text
//!  offer ─► dial ─┬─ socket ─► carry ─► socket lost ─┐      while no socket is carried, also:
//!    ▲            └─ failed ─────────────────────────┤      given up, or window passed ──► over
//!    └────────────── wait, with back-off ◄───────────┘
//! ```
//!
//! The driver dials, carries frames over a socket and judges failures. It neither waits between dials nor loops.

use std::ops::ControlFlow;
use std::time::Duration;

use tokio::time::sleep;
use trunkline_protocol::service::{Backoff, Offer};

/// Dialling end of one session.
pub trait SessionDriver {
    /// Open socket, with the answer of the peer.
    type Socket;
    /// Reason why a dial opened no socket.
    type Error;
    /// End of the session.
    type Over;

    /// Returns the offer for the next dial. Fails if the session has ended.
    fn offer(&self) -> Result<Offer, Self::Over>;

    /// Dials once, with a timeout. Cancelled when the session is over.
    fn dial(&self, offer: &Offer) -> impl Future<Output = Result<Self::Socket, Self::Error>>;

    /// Decides whether the session continues after a failed dial.
    fn handle_failure(&mut self, error: Self::Error) -> ControlFlow<Self::Over>;

    /// Carries frames over a socket until it is lost, which the session may survive.
    fn carry(&mut self, socket: Self::Socket, offer: Offer) -> impl Future<Output = ControlFlow<Self::Over>>;

    /// Waits until a session without a socket ends.
    fn over(&self) -> impl Future<Output = Self::Over>;

    /// Maximum wait before the next dial.
    fn wait_max(&self) -> Duration {
        Duration::MAX
    }
}

/// Keeper of one link's sessions, one after another. Failed dials of a session also delay the next one.
#[derive(Debug, Default)]
pub struct Keeper {
    backoff: Backoff,
}

impl Keeper {
    /// Keeps a session dialled until it ends. After a session without any socket, waits first: the next session would
    /// fail the same way.
    pub async fn keep<D: SessionDriver>(&mut self, driver: &mut D) -> D::Over {
        let mut was_open = false;
        loop {
            let offer = match driver.offer() {
                Ok(offer) => offer,
                Err(over) => return over,
            };
            let dialled = tokio::select! {
                biased;
                over = driver.over() => return over,
                dialled = driver.dial(&offer) => dialled,
            };
            let step = match dialled {
                Ok(socket) => {
                    was_open = true;
                    self.backoff.reset();
                    driver.carry(socket, offer).await
                }
                Err(error) => driver.handle_failure(error),
            };
            let ended = match step {
                ControlFlow::Break(over) if was_open => return over,
                step => step.break_value(),
            };
            tokio::select! {
                over = driver.over() => return over,
                () = sleep(self.backoff.next_wait().min(driver.wait_max())) => {}
            }
            if let Some(over) = ended {
                return over;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::time::{Instant, sleep_until};
    use trunkline_protocol::limits::LINK_BACKOFF_MS;
    use trunkline_protocol::service::{Role, Session, SessionId, SessionSettings};

    use super::*;

    /// Outcome of a dial.
    #[derive(Debug, Clone, Copy)]
    enum Dial {
        Fails,
        /// The peer does not know the session.
        Ends,
        /// The socket is lost after this many milliseconds.
        Lost(u64),
        /// The session ends after this many milliseconds.
        Closed(u64),
        Hangs,
    }

    /// Driver with prepared outcomes; further dials fail.
    struct Script {
        dials: RefCell<Vec<Dial>>,
        /// Milliseconds at which each dial began.
        at_ms: RefCell<Vec<u64>>,
        begun: Instant,
        given_up_ms: u64,
        wait_max: Duration,
        is_over: Cell<bool>,
    }

    impl Script {
        fn new(dials: &[Dial], given_up_ms: u64) -> Self {
            let dials = RefCell::new(dials.iter().rev().copied().collect());
            let (at_ms, begun, wait_max) = (RefCell::default(), Instant::now(), Duration::MAX);
            Self { dials, at_ms, begun, given_up_ms, wait_max, is_over: Cell::new(false) }
        }

        fn now_ms(&self) -> u64 {
            u64::try_from(self.begun.elapsed().as_millis()).unwrap()
        }

        /// Milliseconds from each dial to the next.
        fn waits(&self) -> Vec<u64> {
            self.at_ms.borrow().windows(2).map(|pair| pair[1] - pair[0]).collect()
        }
    }

    impl SessionDriver for Script {
        type Socket = Dial;
        type Error = Dial;
        type Over = &'static str;

        fn offer(&self) -> Result<Offer, &'static str> {
            let session = Session::new(SessionId::FIRST, Role::Proxy, SessionSettings::default(), 0);
            if self.is_over.get() { Err("no offer") } else { Ok(session.offer()) }
        }

        async fn dial(&self, _offer: &Offer) -> Result<Dial, Dial> {
            self.at_ms.borrow_mut().push(self.now_ms());
            let dial = self.dials.borrow_mut().pop().unwrap_or(Dial::Fails);
            match dial {
                Dial::Fails | Dial::Ends => Err(dial),
                Dial::Lost(_) | Dial::Closed(_) => Ok(dial),
                Dial::Hangs => std::future::pending().await,
            }
        }

        fn handle_failure(&mut self, error: Dial) -> ControlFlow<&'static str> {
            if matches!(error, Dial::Ends) { ControlFlow::Break("unknown") } else { ControlFlow::Continue(()) }
        }

        async fn carry(&mut self, socket: Dial, _offer: Offer) -> ControlFlow<&'static str> {
            let (Dial::Lost(ms) | Dial::Closed(ms)) = socket else { panic!("no socket: {socket:?}") };
            // sleep: with paused time, the life of a socket
            sleep(Duration::from_millis(ms)).await;
            if matches!(socket, Dial::Closed(_)) { ControlFlow::Break("closed") } else { ControlFlow::Continue(()) }
        }

        async fn over(&self) -> &'static str {
            // sleep: with paused time, the life of a session
            sleep_until(self.begun + Duration::from_millis(self.given_up_ms)).await;
            "given up"
        }

        fn wait_max(&self) -> Duration {
            self.wait_max
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failed_dials_are_repeated_with_growing_waits_until_the_session_is_given_up() {
        let mut script = Script::new(&[], 60_000);
        assert_eq!(Keeper::default().keep(&mut script).await, "given up");
        assert_eq!(script.now_ms(), 60_000);
        let (first, last) = LINK_BACKOFF_MS;
        let waits = script.waits();
        assert!((first / 2..=first).contains(&waits[0]), "{waits:?}");
        assert!(waits.iter().skip(8).all(|wait| (last / 2..=last + 1).contains(wait)), "{waits:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_socket_is_replaced_soon_and_a_session_that_ends_is_over_immediately() {
        let dials = [vec![Dial::Fails; 9], vec![Dial::Lost(500), Dial::Closed(70)]].concat();
        let mut script = Script::new(&dials, 60_000);
        let mut keeper = Keeper::default();
        assert_eq!(keeper.keep(&mut script).await, "closed");
        let (first, at_ms) = (LINK_BACKOFF_MS.0, script.at_ms.borrow().clone());
        assert_eq!(at_ms.len(), 11);
        let pause = at_ms[10] - at_ms[9] - 500;
        assert!((first / 2..=first + 1).contains(&pause), "the open socket has reset the back-off: {pause}");
        assert_eq!(script.now_ms(), at_ms[10] + 70);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_was_never_open_ends_after_a_wait_and_an_open_one_immediately() {
        let mut keeper = Keeper::default();
        let mut waits = Vec::new();
        for _ in 0..10 {
            let mut script = Script::new(&[Dial::Ends], 60_000);
            assert_eq!(keeper.keep(&mut script).await, "unknown");
            waits.push(script.now_ms());
        }
        assert!(waits[0] > 0 && waits[9] >= LINK_BACKOFF_MS.1 / 2, "the waits grow from session to session: {waits:?}");
        let mut script = Script::new(&[Dial::Lost(0), Dial::Ends], 60_000);
        assert_eq!(keeper.keep(&mut script).await, "unknown");
        assert_eq!(script.now_ms(), script.at_ms.borrow()[1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dial_that_hangs_and_a_long_wait_end_with_the_session() {
        for dials in [vec![Dial::Hangs], vec![Dial::Fails; 20], vec![Dial::Lost(10), Dial::Hangs]] {
            let mut script = Script::new(&dials, 9_999);
            assert_eq!(Keeper::default().keep(&mut script).await, "given up");
            assert_eq!(script.now_ms(), 9_999);
        }
        let mut script = Script::new(&[], 60_000);
        script.is_over.set(true);
        assert_eq!(Keeper::default().keep(&mut script).await, "no offer");
        assert_eq!(script.now_ms(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_driver_may_shorten_the_waits() {
        let mut script = Script { wait_max: Duration::from_millis(20), ..Script::new(&[], 1_000) };
        Keeper::default().keep(&mut script).await;
        assert!(script.waits().iter().all(|wait| *wait == 20), "{:?}", script.waits());
    }
}
