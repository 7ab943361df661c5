//! Clients that call continuously, each in its own way, and record failures.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Callers that run until they are stopped.
pub(crate) struct Callers {
    tasks: JoinSet<()>,
    answered: watch::Receiver<usize>,
    is_stopping: watch::Sender<bool>,
    failures: Arc<Mutex<Vec<String>>>,
}

/// Kind of call that a client repeats.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Habit {
    Echo,
    /// A call that takes this number of milliseconds.
    Work(u64),
    /// A stream from the app server.
    Download,
    /// A stream to the app server.
    Upload,
    /// A call that requests a result from the client.
    Answer,
    /// An immediate call on a new connection.
    Visit,
}

/// A JSON client over a WebSocket.
pub(crate) struct CallingClient(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Callers {
    pub(crate) fn start(address: SocketAddr, clients: usize, habits: &[Habit]) -> Self {
        let (count, answered) = watch::channel(0);
        let (is_stopping, stopping) = watch::channel(false);
        let (count, failures) = (Arc::new(count), Arc::new(Mutex::new(Vec::new())));
        let mut tasks = JoinSet::new();
        for &habit in habits.iter().cycle().take(clients) {
            let (count, stopping, failures) = (Arc::clone(&count), stopping.clone(), Arc::clone(&failures));
            tasks.spawn(async move {
                let mut client = CallingClient::open(address).await;
                let mut number = 0;
                while !*stopping.borrow() {
                    if matches!(habit, Habit::Visit) {
                        client = CallingClient::open(address).await;
                    }
                    number += 1;
                    match client.call(habit, number).await {
                        Ok(()) => count.send_modify(|count| *count += 1),
                        Err(failure) => {
                            failures.lock().unwrap().push(format!("{habit:?}: {failure}"));
                            client = CallingClient::open(address).await;
                        }
                    }
                }
            });
        }
        Self { tasks, answered, is_stopping, failures }
    }

    /// Waits for this number of further results.
    pub(crate) async fn answered(&self, more: usize) {
        let mut answered = self.answered.clone();
        let until = *answered.borrow() + more;
        answered.wait_for(|answered| *answered >= until).await.unwrap();
    }

    /// Waits for the running calls. Returns the number of successful ones, and the failures.
    pub(crate) async fn stop(self) -> (usize, Vec<String>) {
        let Self { tasks, answered, is_stopping, failures } = self;
        is_stopping.send(true).unwrap();
        tasks.join_all().await;
        let failures = std::mem::take(&mut *failures.lock().unwrap());
        (*answered.borrow(), failures)
    }
}

impl CallingClient {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let (socket, _) = tokio_tungstenite::connect_async(format!("ws://{address}/calls")).await.unwrap();
        let mut client = Self(socket);
        client.send(&json!({"protocol": "json", "version": 1})).await.unwrap();
        client
    }

    async fn send(&mut self, message: &Value) -> Result<(), String> {
        self.0.send(Message::text(format!("{message}\u{1e}"))).await.map_err(|error| error.to_string())
    }

    /// Makes one call, and checks its result.
    pub(crate) async fn call(&mut self, habit: Habit, number: u64) -> Result<(), String> {
        let call = |kind: u64, target: &str, arguments: Value| json!({"type": kind, "invocationId": number.to_string(), "target": target, "arguments": arguments});
        let (message, expected) = match habit {
            Habit::Echo | Habit::Visit => (call(1, "Echo", json!([number])), json!(number)),
            Habit::Work(milliseconds) => (call(1, "Work", json!([milliseconds])), json!(milliseconds)),
            Habit::Download => (call(4, "Count", json!([20, 10])), Value::Null),
            Habit::Upload => {
                let mut message = call(1, "Sum", json!([]));
                message["streamIds"] = json!(["u"]);
                (message, json!(190))
            }
            Habit::Answer => (call(1, "Ask", json!([])), json!(7)),
        };
        self.send(&message).await?;
        if matches!(habit, Habit::Upload) {
            for number in 0..20 {
                self.send(&json!({"type": 2, "invocationId": "u", "item": number})).await?;
                tokio::task::yield_now().await;
            }
            self.send(&json!({"type": 3, "invocationId": "u"})).await?;
        }
        let mut items = 0;
        loop {
            let Some(received) = self.0.next().await else { return Err("the socket has ended".into()) };
            let received = received.map_err(|error| error.to_string())?;
            if let Message::Close(close) = received {
                return Err(format!("closed: {close:?}"));
            }
            let Message::Text(text) = received else { continue };
            for message in text.split('\u{1e}').filter(|message| !message.is_empty()) {
                let message: Value = serde_json::from_str(message).unwrap();
                match message["type"].as_u64() {
                    Some(1) => {
                        let answer = json!({"type": 3, "invocationId": message["invocationId"], "result": 7});
                        self.send(&answer).await?;
                    }
                    Some(2) if message["item"] != json!(items) => {
                        return Err(format!("{message} instead of item {items}"));
                    }
                    Some(2) => items += 1,
                    Some(3) if message["result"] == expected && message["error"].is_null() => return Ok(()),
                    Some(3 | 7) => return Err(message.to_string()),
                    _ => {}
                }
            }
        }
    }
}
