//! A node that dies or stalls during a stream of sends: each answer reports it, and no client receives a message twice.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use http::Method;
use serde_json::{Value, json};
use trunkline_tests::harness::back_end::BackEnd;
use trunkline_tests::harness::client::{Agents, Client};
use trunkline_tests::harness::http_client::Answer;
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::scenario::{Fixture, run_heavy_test};

use super::{back_end_at, texts_before_fence};
use crate::fleet::{FleetScene, NAMES, TARGET};

/// Sends before the interruption, and minimum number after it.
const SENDS: usize = 50;

const PER_NODE: usize = 2;

/// Time limit for a send that waits for an unresponsive node.
const ANSWERED: Duration = Duration::from_secs(90);

/// Answers to the sends of a stream.
#[derive(Debug, Default)]
struct Stream {
    texts: Vec<String>,
    /// Number of sends that all nodes answered, and of those without an answer of the interrupted node.
    whole: usize,
    partly: usize,
    /// Number of sends after the other nodes have removed the dead one.
    without: usize,
}

impl Stream {
    /// Sends one more text, and checks that its answer is allowed.
    async fn send(&mut self, back_end: &BackEnd) -> Result<()> {
        let text = self.texts.len().to_string();
        let answer = ask_for(back_end, &text).await?;
        self.texts.push(text);
        self.note(&answer)
    }

    async fn send_together(&mut self, back_end: &BackEnd, count: usize) -> Result<()> {
        let begun = self.texts.len();
        let texts: Vec<String> = (begun..begun + count).map(|number| number.to_string()).collect();
        for answer in try_join_all(texts.iter().map(|text| ask_for(back_end, text))).await? {
            self.note(&answer)?;
        }
        self.texts.extend(texts);
        Ok(())
    }

    /// Counts an answer, and checks that it is allowed.
    fn note(&mut self, answer: &Answer) -> Result<()> {
        let told = answer.json()?;
        let missing = answer.header("x-trunkline-missing-nodes").unwrap_or_default();
        let of_living = 2 * PER_NODE;
        match (missing, &told) {
            ("", told) if *told == outcome(3, of_living + PER_NODE, &[]) => self.whole += 1,
            ("", told) if *told == outcome(2, of_living, &[]) => self.without += 1,
            (NODE_C, told) if *told == outcome(2, of_living, &[NODE_C]) => self.partly += 1,
            _ => anyhow::bail!("{missing:?} and {told}"),
        }
        Ok(())
    }
}

async fn ask_for(back_end: &BackEnd, text: &str) -> Result<Answer> {
    let (started, body) = (Instant::now(), json!({ "target": TARGET, "arguments": [text] }));
    let answer = back_end.ask(Method::POST, "/:send", &body).await?;
    ensure!(started.elapsed() < ANSWERED, "{text} took {:?}", started.elapsed());
    ensure!(answer.status == 202, "{answer:?}");
    Ok(answer)
}

const NODE_C: &str = NAMES[2];

fn outcome(nodes: usize, clients: usize, missing: &[&str]) -> Value {
    json!({ "nodes": nodes, "clients": clients, "missing": missing })
}

async fn open<'a>(fixture: &'a Fixture, agents: &Agents<'_>) -> Result<(FleetScene<'a>, Vec<Client>, BackEnd)> {
    let scene = FleetScene::open(fixture, &["--rest"]).await?;
    let clients = scene.crowd(agents, &scene.nodes).await?;
    ensure!(clients.len() == 3 * PER_NODE);
    let back_end = back_end_at(scene.nodes[0].address())?;
    Ok((scene, clients, back_end))
}

/// Checks that each client has received all texts, in order and once.
async fn have_all(clients: &mut [Client], texts: &[String]) -> Result<()> {
    for client in clients {
        let seen = texts_before_fence(client).await?;
        ensure!(seen == texts, "a client got {} of {}: {seen:?}", seen.len(), texts.len());
    }
    Ok(())
}

#[test]
fn a_node_that_is_killed_is_named_by_each_answer_until_it_is_forgotten() {
    run_heavy_test(async |fixture| {
        let agents = Agents::new(fixture);
        let (mut scene, mut clients, back_end) = open(fixture, &agents).await?;
        let mut stream = Stream::default();
        for _ in 0..SENDS {
            stream.send(&back_end).await?;
        }
        ensure!(stream.whole == SENDS, "{stream:?}");
        // The kill occurs between two sends or during one.
        let (killed, sent) = tokio::join!(scene.nodes[2].process.kill(), async {
            for _ in 0..SENDS {
                stream.send(&back_end).await?;
            }
            anyhow::Ok(())
        });
        killed.and(sent)?;
        while stream.without < SENDS {
            stream.send(&back_end).await?;
        }
        back_end.send("/:send", TARGET, &json!("fence")).await?;
        have_all(&mut clients[..2 * PER_NODE], &stream.texts).await
    });
}

#[test]
fn a_node_that_stands_still_is_named_and_its_clients_get_nothing_twice() {
    run_heavy_test(async |fixture| {
        let agents = Agents::new(fixture);
        let (scene, mut clients, back_end) = open(fixture, &agents).await?;
        let mut stream = Stream::default();
        for _ in 0..SENDS {
            stream.send(&back_end).await?;
        }
        scene.nodes[2].process.signal(Signal::Freeze).await?;
        let together = stream.texts.len()..stream.texts.len() + SENDS;
        stream.send_together(&back_end, SENDS).await?;
        ensure!(stream.partly == SENDS && stream.without == 0, "{stream:?}");
        scene.nodes[2].process.signal(Signal::Thaw).await?;
        scene.agrees(&NAMES).await?;
        scene.settles(&json!({}), 3 * PER_NODE).await?;
        for _ in 0..SENDS {
            stream.send(&back_end).await?;
        }
        ensure!(stream.whole == 2 * SENDS, "{stream:?}");
        back_end.send("/:send", TARGET, &json!("fence")).await?;
        let (living, frozen) = clients.split_at_mut(2 * PER_NODE);
        for client in living {
            let (alone, others) = numbers(client, &together).await?;
            ensure!(others.len() == SENDS && alone.len() == 2 * SENDS, "{alone:?} {others:?}");
        }
        for client in frozen {
            let (alone, others) = numbers(client, &together).await?;
            ensure!(others.len() <= SENDS && alone.len() == 2 * SENDS, "{alone:?} {others:?}");
        }
        Ok(())
    });
}

/// Numbers that a client received before the fence: sequential sends in order, and the set of concurrent sends. Checks
/// that no number repeats.
async fn numbers(client: &mut Client, together: &Range<usize>) -> Result<(Vec<usize>, BTreeSet<usize>)> {
    let (mut alone, mut others) = (Vec::new(), BTreeSet::new());
    for text in texts_before_fence(client).await? {
        let number = text.parse().context("a number")?;
        if together.contains(&number) {
            ensure!(others.insert(number), "{number} came twice");
        } else {
            ensure!(alone.last().is_none_or(|last| *last < number), "{number} came after {alone:?}");
            alone.push(number);
        }
    }
    Ok((alone, others))
}
