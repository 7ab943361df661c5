//! Socket timeouts: incomplete head, first request, and idle time between two requests.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, sleep};

use super::fixture::{Fixture, paused};

const REQUEST: &str = "GET /chat HTTP/1.1\r\nHost: node.example\r\n\r\n";
const HALF: &str = "GET /chat HTTP/1.1\r\nHost: node.exa";
const REST: &str = "mple\r\n\r\n";

const SECOND: Duration = Duration::from_secs(1);

struct RawSocket {
    pipe: DuplexStream,
    began: Instant,
}

impl RawSocket {
    fn dial(fixture: &Fixture) -> Self {
        Self { pipe: fixture.dial(), began: Instant::now() }
    }

    async fn write(&mut self, text: &str) {
        self.pipe.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads one response. A hub without an app server responds with 503.
    async fn answer(&mut self) -> String {
        let mut read = Vec::new();
        while !read.ends_with(b"yet") {
            read.push(self.pipe.read_u8().await.unwrap());
        }
        String::from_utf8(read).unwrap()
    }

    async fn exchange(&mut self) -> String {
        self.write(REQUEST).await;
        self.answer().await
    }

    /// Waits for the end of the socket without receiving data; returns the time in seconds.
    async fn end_s(&mut self) -> u64 {
        assert_eq!(self.pipe.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        self.began.elapsed().as_secs()
    }

    async fn pass_until_s(&self, at_s: u64) {
        // sleep: the test advances paused time
        sleep((self.began + Duration::from_secs(at_s)).saturating_duration_since(Instant::now())).await;
    }
}

/// Starts a node without app servers, with timeouts of 15 s and 130 s, and opens a socket to it.
fn start() -> (Fixture, RawSocket) {
    let fixture = Fixture::start();
    let socket = RawSocket::dial(&fixture);
    (fixture, socket)
}

fn timed_out(fixture: &Fixture) -> u64 {
    fixture.shared.counters_of(0).limit(crate::ground::metrics::Limit::HeadTime).get()
}

#[tokio::test(crate = "paused")]
async fn a_socket_without_a_first_request_is_cut_after_the_header_time_out() {
    let (fixture, mut socket) = start();
    assert_eq!(socket.end_s().await, 15);
    assert_eq!(timed_out(&fixture), 1);
}

#[tokio::test(crate = "paused")]
async fn half_a_first_head_is_cut_when_its_time_is_over_from_the_beginning() {
    let (fixture, mut socket) = start();
    socket.pass_until_s(10).await;
    socket.write(HALF).await;
    assert_eq!(socket.end_s().await, 15);
    assert_eq!(timed_out(&fixture), 1);
}

#[tokio::test(crate = "paused")]
async fn an_idle_socket_serves_requests_until_the_keep_alive_time_out_and_is_then_closed() {
    let (fixture, mut socket) = start();
    for _ in 0..3 {
        socket.exchange().await;
        let at_s = socket.began.elapsed().as_secs() + 129;
        socket.pass_until_s(at_s).await;
    }
    socket.exchange().await;
    assert_eq!(socket.end_s().await, 3 * 129 + 130);
    assert_eq!(timed_out(&fixture), 0, "nothing was wrong with it");
}

#[tokio::test(crate = "paused")]
async fn a_head_that_begins_soon_after_an_answer_has_its_whole_time() {
    let (fixture, mut socket) = start();
    socket.exchange().await;
    socket.pass_until_s(14).await;
    socket.write(HALF).await;
    socket.pass_until_s(28).await;
    socket.write(REST).await;
    socket.answer().await;
    socket.pass_until_s(40).await;
    socket.write(HALF).await;
    assert_eq!(socket.end_s().await, 55);
    assert_eq!(timed_out(&fixture), 1);
}

#[tokio::test(crate = "paused")]
async fn a_head_on_a_long_idle_socket_has_the_usual_timeout() {
    let (fixture, mut socket) = start();
    socket.exchange().await;
    socket.pass_until_s(100).await;
    socket.write(HALF).await;
    socket.pass_until_s(114).await;
    socket.write(REST).await;
    socket.answer().await;
    socket.pass_until_s(200).await;
    socket.write("G").await;
    for at_s in [204, 208, 212] {
        socket.pass_until_s(at_s).await;
        socket.write("E").await;
    }
    assert_eq!(socket.end_s().await, 215);
    assert_eq!(timed_out(&fixture), 1);
}

#[tokio::test(crate = "paused")]
async fn half_a_head_that_came_with_the_request_before_it_is_cut_too() {
    let (fixture, mut socket) = start();
    socket.write(&format!("{REQUEST}{HALF}")).await;
    socket.answer().await;
    assert_eq!(socket.end_s().await, 15);
    assert_eq!(timed_out(&fixture), 1);
}

#[tokio::test(crate = "paused")]
async fn line_ends_behind_a_request_are_no_head() {
    let (fixture, mut socket) = start();
    socket.write(&format!("{REQUEST}\r\n")).await;
    socket.answer().await;
    socket.pass_until_s(100).await;
    socket.exchange().await;
    assert_eq!(timed_out(&fixture), 0);
}

#[tokio::test(crate = "paused")]
async fn a_keep_alive_time_out_below_that_of_a_head_cuts_no_head() {
    let fixture = Fixture::set(|settings| settings.limits.keep_alive_timeout = 5 * SECOND);
    let mut socket = RawSocket::dial(&fixture);
    socket.write(&format!("{REQUEST}{HALF}")).await;
    socket.answer().await;
    socket.pass_until_s(12).await;
    socket.write(REST).await;
    socket.answer().await;
    assert_eq!(socket.end_s().await, 17);
    assert_eq!(timed_out(&fixture), 0);
    let mut half = RawSocket::dial(&fixture);
    half.write(&format!("{REQUEST}{HALF}")).await;
    half.answer().await;
    assert_eq!(half.end_s().await, 15);
    assert_eq!(timed_out(&fixture), 1);
}

#[tokio::test(crate = "paused")]
async fn a_client_that_reads_its_answer_slowly_gets_all_of_it() {
    let fixture = Fixture::start();
    let mut socket = RawSocket { pipe: fixture.dial_with(64), began: Instant::now() };
    socket.write(REQUEST).await;
    socket.pass_until_s(60).await;
    socket.answer().await;
    socket.pass_until_s(100).await;
    socket.exchange().await;
    assert_eq!(socket.end_s().await, 230);
}

#[tokio::test(crate = "paused")]
async fn a_response_states_how_long_its_connection_is_kept_unless_it_is_the_last() {
    let (fixture, mut socket) = start();
    let answer = socket.exchange().await.to_ascii_lowercase();
    assert!(answer.contains("\r\nkeep-alive: timeout=130\r\n"), "{answer}");
    assert!(answer.contains("\r\nconnection: keep-alive\r\n"), "{answer}");
    let mut last = RawSocket::dial(&fixture);
    last.write(&REQUEST.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
    let answer = last.answer().await.to_ascii_lowercase();
    assert!(answer.contains("\r\nconnection: close\r\n") && !answer.contains("keep-alive"), "{answer}");
    assert_eq!(last.end_s().await, 0);
}

#[tokio::test(crate = "paused")]
async fn a_load_balancer_gets_no_keep_alive_header() {
    let fixture = Fixture::set(|settings| {
        settings.trusted = crate::ground::config::TrustedNetworks::parse(["192.0.2.1"]).unwrap()
    });
    let answer = RawSocket::dial(&fixture).exchange().await.to_ascii_lowercase();
    assert!(!answer.contains("keep-alive"), "{answer}");
}

#[tokio::test(crate = "paused")]
async fn a_node_that_stops_announces_that_it_closes() {
    let (fixture, mut socket) = start();
    socket.exchange().await;
    fixture.shared.refuse_clients();
    socket.write(REQUEST).await;
    let mut answer = String::new();
    socket.pipe.read_to_string(&mut answer).await.unwrap();
    assert!(answer.to_ascii_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
}
