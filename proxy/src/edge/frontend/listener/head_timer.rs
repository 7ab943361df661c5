//! Timer for hyper with separate timeouts for the rest of a started head, and for the next request.
//!
//! hyper's single timer starts when it begins to wait for a head: on a kept-alive socket, after the previous response.
//! This timer restarts at the first byte, and does not expire while the client is still reading.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant as StdInstant};

use hyper::rt::{Sleep, Timer};
use tokio::time::{Instant, sleep_until};

use crate::ground::net::socket::RequestProgress;

#[derive(Debug, Clone)]
pub(super) struct HeadTimer {
    progress: Arc<RequestProgress>,
    /// Timeout of a started head.
    head: Duration,
    /// Timeout without any request.
    idle: Duration,
}

struct HeadSleep {
    sleep: Pin<Box<tokio::time::Sleep>>,
    timer: HeadTimer,
    began: Instant,
    /// Bytes have arrived since the previous response.
    has_begun: bool,
}

impl HeadTimer {
    pub(super) fn new(progress: Arc<RequestProgress>, head: Duration, idle: Duration) -> Self {
        Self { progress, head, idle }
    }

    /// Time after which hyper returns a silent kept-alive socket.
    pub(super) fn idle_step(head: Duration, idle: Duration) -> Duration {
        head.min(idle)
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: StdInstant) -> Pin<Box<dyn Sleep>> {
        self.progress.begin_head();
        let (began, mut deadline) = (Instant::now(), Instant::from_std(deadline));
        if self.progress.has_served() {
            deadline = deadline.min(began + Self::idle_step(self.head, self.idle));
        }
        Box::pin(HeadSleep { sleep: Box::pin(sleep_until(deadline)), timer: self.clone(), began, has_begun: false })
    }

    fn now(&self) -> StdInstant {
        Instant::now().into_std()
    }
}

impl Future for HeadSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let HeadSleep { sleep, timer, began, has_begun } = &mut *self;
        let progress = &timer.progress;
        if progress.has_served() && !*has_begun && progress.has_read() {
            *has_begun = true;
            sleep.as_mut().reset(Instant::now() + timer.head);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            let (now, last) = (Instant::now(), *began + timer.idle);
            if *has_begun || !progress.is_stuck() || now >= last {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(last.min(now + timer.head));
        }
    }
}

impl Sleep for HeadSleep {}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::sleep;

    use super::*;
    use crate::ground::net::socket::RequestSocket;

    const SECOND: Duration = Duration::from_secs(1);

    fn timer<S>(socket: &RequestSocket<S>) -> HeadTimer {
        HeadTimer::new(socket.progress.clone(), 15 * SECOND, 130 * SECOND)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_head_has_its_time_from_the_beginning() {
        let (near, mut far) = duplex(64);
        let mut socket = RequestSocket::new(near);
        let began = Instant::now();
        // sleep: the sleep of the timer under test.
        let mut sleeping = timer(&socket).sleep(15 * SECOND);
        tokio::join!(sleeping.as_mut(), async {
            // sleep: time is paused, and passing it is what the test is about.
            sleep(14 * SECOND).await;
            far.write_all(b"G").await.unwrap();
            socket.read_u8().await.unwrap();
        });
        assert_eq!(began.elapsed(), 15 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_head_has_its_time_from_its_first_byte() {
        let (near, mut far) = duplex(64);
        let mut socket = RequestSocket::new(near);
        socket.progress.note_request();
        let began = Instant::now();
        // sleep: the sleep of the timer under test.
        let mut sleeping = timer(&socket).sleep(15 * SECOND);
        tokio::select! {
            () = sleeping.as_mut() => panic!("too early"),
            // sleep: time is paused, and passing it is what the test is about.
            () = sleep(14 * SECOND) => {}
        }
        far.write_all(b"G").await.unwrap();
        socket.read_u8().await.unwrap();
        sleeping.as_mut().await;
        assert_eq!(began.elapsed(), 29 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn while_an_answer_is_read_slowly_the_idle_time_counts() {
        let (near, _far) = duplex(1);
        let mut socket = RequestSocket::new(near);
        socket.progress.note_request();
        let began = Instant::now();
        // sleep: the sleep of the timer under test.
        let mut sleeping = timer(&socket).sleep(15 * SECOND);
        tokio::select! {
            () = sleeping.as_mut() => {}
            _ = socket.write_all(b"123") => panic!("nobody reads"),
        }
        assert_eq!(began.elapsed(), 130 * SECOND);
    }
}
