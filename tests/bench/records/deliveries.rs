//! Deliveries per CPU second of a node, to 1 000 clients of one group.
//!
//! A message is requested after all clients have received the previous one, by a call of a client that is no member.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use trunkline_bench::product::{Product, Wanted};
use trunkline_bench::rounds::in_turn;
use trunkline_generator::connect;
use trunkline_generator::cpu::CpuTime;
use trunkline_generator::frame::{self, Frame};
use trunkline_generator::frame_protocol::{FrameProtocol, Heard, Hub};
use trunkline_generator::receivers::{Burst, Publisher, Receivers, numbered_text};
use trunkline_generator::workload::{Workload, settle};

use crate::table::{self, Row};

pub(crate) const HUB: &str = "/bench";
/// Argument of the app server for a hub that records the groups `kept-*`.
pub(crate) const RECORDS: &[&str] = &["--records"];
/// Size of the text of each message.
pub(crate) const PAYLOAD: usize = 128;

/// Start of the part that is equal in all items of a message.
const TARGET: &str = "\"target\":";
const CLIENTS: usize = 1000;
const WARM_UP: Duration = Duration::from_millis(500);

/// Rows of the table: name, arguments of the app server, group, and receivers.
const PARTS: [(&str, &[&str], &str, Recipient); 5] = [
    ("unrecorded group", RECORDS, "all", Recipient::Member),
    ("unrecorded group again", RECORDS, "all", Recipient::Member),
    ("hub without records", &[], "all", Recipient::Member),
    ("recorded group, members", RECORDS, "kept-all", Recipient::Member),
    ("recorded group, followers", RECORDS, "kept-all", Recipient::Follower),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recipient {
    Member,
    Follower,
}

impl FrameProtocol for Recipient {
    /// Of the item of a follower, returns the part behind the position, which can't be predicted.
    fn receive<'a>(self, frame: &Frame<'a>) -> Result<Heard<'a>> {
        Ok(match (self, Hub::Json.receive(frame)?) {
            (Self::Follower, Heard::Message(item)) => {
                let at = item.windows(TARGET.len()).position(|part| part == TARGET.as_bytes());
                Heard::Message(at.and_then(|at| item.get(at..)).context("no item of a record")?)
            }
            (_, heard) => heard,
        })
    }

    /// Chooses the expected message.
    fn is_binary(self) -> bool {
        self == Self::Follower
    }
}

/// Requests sends to a group.
struct GroupPublisher {
    sender: TcpStream,
    group: &'static str,
}

impl Publisher for GroupPublisher {
    fn burst(&mut self, first: u64) -> Burst {
        let (group, text) = (self.group, numbered_text(first, PAYLOAD));
        let arguments = format!("{TARGET}\"Message\",\"arguments\":[\"{text}\"]");
        let asking = format!("{{\"type\":1,\"target\":\"SendToGroup\",\"arguments\":[\"{group}\",\"{text}\"]}}\x1e");
        Burst {
            asking: frame::from_client(asking.as_bytes()),
            messages: vec![format!("{{\"type\":1,{arguments}}}\x1e").into_bytes()],
            binary_messages: vec![format!("{arguments}}}}}\x1e").into_bytes()],
        }
    }

    fn ask(&mut self, asking: &[u8]) -> Result<Instant> {
        self.sender.write_all(asking).context("the server takes no more")?;
        Ok(Instant::now())
    }
}

/// A node with the clients of one row.
struct Scene {
    product: Product,
    crowd: Receivers<Recipient, GroupPublisher>,
}

impl Scene {
    fn start((_, app_more, group, recipient): (&str, &[&str], &'static str, Recipient)) -> Result<Self> {
        let product = Product::start_with(Wanted { app_more, ..Wanted::default() })?;
        let (mut sender, early) = connect::to_hub(product.address(), HUB, "")?;
        // Its item shows a follower that the follow has begun.
        call(&mut sender, early, 1, "SendToGroup", &format!("\"{group}\",\"first\""))?;
        let client = |_| {
            let (mut socket, early) = connect::to_hub(product.address(), HUB, "")?;
            let mut early = call(&mut socket, early, 1, "Join", &format!("\"{group}\""))?;
            if recipient == Recipient::Follower {
                early = call(&mut socket, early, 4, "Follow", &format!("{{\"group\":\"{group}\",\"last\":1}}"))?;
            }
            Ok((socket, recipient, early))
        };
        let recorded = product.proxy_metrics()?.sum("trunkline_history_appended_total", &[]);
        ensure!((recorded > 0.0) == group.starts_with("kept-"), "{recorded} messages to {group} are recorded");
        let crowd = Receivers::gather(CLIENTS, client, || Ok(GroupPublisher { sender, group }))?;
        Ok(Self { crowd, product })
    }

    /// Deliveries per CPU second.
    fn window(&mut self, length: Duration) -> Result<f64> {
        self.crowd.warm_up(WARM_UP)?;
        settle(&mut self.crowd)?;
        let before = CpuTime::of(self.product.proxy_pid())?;
        let done = self.crowd.run_for(length)?;
        settle(&mut self.crowd)?;
        Ok(done.units as f64
            / Duration::from_nanos(CpuTime::of(self.product.proxy_pid())?.since(&before)).as_secs_f64())
    }
}

/// Encodes a call with an answer.
pub(crate) fn invocation(kind: u8, target: &str, arguments: &str) -> String {
    format!("{{\"type\":{kind},\"invocationId\":\"{kind}\",{TARGET}\"{target}\",\"arguments\":[{arguments}]}}\x1e")
}

/// Calls a method and waits for the first answer. Returns the bytes after it.
pub(crate) fn call(socket: &mut TcpStream, early: Vec<u8>, kind: u8, target: &str, arguments: &str) -> Result<Vec<u8>> {
    socket.write_all(&frame::from_client(invocation(kind, target, arguments).as_bytes()))?;
    let (answer, rest) = connect::next_message(socket, early, Hub::Json)?;
    let answer = String::from_utf8(answer)?;
    ensure!(!answer.contains("\"error\""), "{target} is answered with {answer}");
    Ok(rest)
}

pub(crate) fn measure(rounds: u32, length: Duration) -> Result<()> {
    let mut scenes = PARTS.into_iter().map(Scene::start).collect::<Result<Vec<_>>>()?;
    let mut rows = PARTS.map(|(name, ..)| Row::new(name));
    for round in 1..=rounds {
        for part in in_turn([0, 1, 2, 3, 4], round) {
            let (scene, row) =
                scenes.get_mut(part).zip(rows.get_mut(part)).context("a scene and a row of each part")?;
            row.figures.push(scene.window(length).with_context(|| row.name)?);
        }
    }
    let ratio = |row, base| row / base;
    table::print("deliveries per CPU second of the node", &rows, "of the unrecorded group", ratio)?;
    let [base, _, _, members, followers] = &rows;
    table::judge("members, at least 0.9 of an unrecorded group", members.against(base, ratio)?, |it| it >= 0.9);
    table::judge("followers, at least 0.6 of an unrecorded group", followers.against(base, ratio)?, |it| it >= 0.6);
    Ok(())
}
