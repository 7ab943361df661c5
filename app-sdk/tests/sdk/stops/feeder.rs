//! Clients of a raw endpoint that send numbers continuously, whole and in fragments, and check the echoes.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinSet, yield_now};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Messages that a client sends ahead of their echoes.
const AHEAD: usize = 8;

/// Feeding clients that run until they are stopped.
pub(crate) struct Feeders {
    tasks: JoinSet<Result<u64, String>>,
    echoed: watch::Receiver<usize>,
    is_stopping: watch::Sender<bool>,
}

impl Feeders {
    pub(crate) async fn start(address: SocketAddr, clients: usize) -> Self {
        let (count, echoed) = watch::channel(0);
        let (is_stopping, stopping) = watch::channel(false);
        let (count, mut tasks) = (Arc::new(count), JoinSet::new());
        for _ in 0..clients {
            let (socket, _) = tokio_tungstenite::connect_async(format!("ws://{address}/feed")).await.unwrap();
            let (writing, reading) = socket.split();
            let (sent, room) = (watch::channel(0).0, Arc::new(Semaphore::new(AHEAD)));
            let last = sent.subscribe();
            tasks.spawn(write(writing, sent, Arc::clone(&room), stopping.clone()));
            tasks.spawn(read(reading, last, room, Arc::clone(&count)));
        }
        Self { tasks, echoed, is_stopping }
    }

    /// Waits for this number of further echoes, unless a client has failed.
    pub(crate) async fn echoed(&self, more: usize) {
        let mut echoed = self.echoed.clone();
        let until = *echoed.borrow() + more;
        // Fails if no client is left; `stop` returns the reason.
        let _ = echoed.wait_for(|echoed| *echoed >= until).await;
    }

    /// Waits for the last echoes. Returns their total number, and the failures.
    pub(crate) async fn stop(self) -> (usize, Vec<String>) {
        self.is_stopping.send(true).unwrap();
        let ends = self.tasks.join_all().await;
        let echoed = *self.echoed.borrow();
        (echoed, ends.into_iter().filter_map(Result::err).collect())
    }
}

/// Messages for a number: text or binary, and every third one in two frames.
fn frames(number: u64) -> Vec<Message> {
    let text = format!("up {number}");
    let code = if number.is_multiple_of(2) { Data::Text } else { Data::Binary };
    let frame = |bytes: &str, code, is_final| {
        Message::Frame(Frame::message(Bytes::copy_from_slice(bytes.as_bytes()), OpCode::Data(code), is_final))
    };
    match number.is_multiple_of(3) {
        true => vec![frame(&text[..2], code, false), frame(&text[2..], Data::Continue, true)],
        false => vec![frame(&text, code, true)],
    }
}

async fn write(
    mut socket: SplitSink<Socket, Message>,
    sent: watch::Sender<u64>,
    room: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
) -> Result<u64, String> {
    let mut number = 0;
    while !*stopping.borrow() {
        let Ok(permit) = room.acquire().await else { return Ok(number) };
        permit.forget();
        number += 1;
        sent.send_replace(number);
        for frame in frames(number) {
            socket.send(frame).await.map_err(|error| error.to_string())?;
            yield_now().await;
        }
    }
    // Notifies the reader that nothing more is sent.
    drop(sent);
    Ok(number)
}

async fn read(
    mut socket: SplitStream<Socket>,
    mut last: watch::Receiver<u64>,
    room: Arc<Semaphore>,
    count: Arc<watch::Sender<usize>>,
) -> Result<u64, String> {
    let (mut echoed, mut heard) = (0, 0);
    let failed = |expected: String, found: &dyn std::fmt::Debug| {
        room.close();
        Err(format!("{found:?} instead of {expected}"))
    };
    loop {
        let is_over = last.has_changed().is_err() && echoed == *last.borrow_and_update();
        if is_over {
            return Ok(echoed);
        }
        let message = socket.next().await;
        let Some(Ok(message)) = message else { return failed(format!("echo {}", echoed + 1), &message) };
        let text = message.clone().into_data();
        match (message.is_text(), text.starts_with(b"down")) {
            (true, true) => {
                heard += 1;
                if text != format!("down {heard}") {
                    return failed(format!("message {heard}"), &message);
                }
            }
            (is_text, false) if message.is_text() || message.is_binary() => {
                echoed += 1;
                if is_text != echoed.is_multiple_of(2) || text != format!("up {echoed}") {
                    return failed(format!("echo {echoed}"), &message);
                }
                room.add_permits(1);
                count.send_modify(|count| *count += 1);
            }
            _ if message.is_ping() => {}
            _ => return failed(format!("echo {}", echoed + 1), &message),
        }
    }
}
