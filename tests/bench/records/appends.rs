//! Median time of a send to a group by REST, one after the other: unrecorded, recorded in memory and in NATS.

use std::fs;
use std::net::SocketAddr;
use std::slice;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::runtime::Runtime;
use trunkline_bench::product::{Product, Wanted};
use trunkline_bench::rounds::in_turn;
use trunkline_generator::receivers::numbered_text;
use trunkline_protocol::dial_in::sign_rest_token;
use trunkline_protocol::key::AccessKey;
use trunkline_tests::harness::fleet::ACCESS_KEY;
use trunkline_tests::harness::nats::Nats;
use trunkline_tests::harness::scenario::Fixture;
use trunkline_tests::harness::token::in_seconds;

use crate::deliveries::{PAYLOAD, RECORDS};
use crate::requester::Requester;
use crate::table::{self, Row};

/// Validity of the token, longer than a run.
const TOKEN_LIFETIME_S: u64 = 24 * 3600;

const NAMES: [&str; 5] = [
    "unrecorded group",
    "unrecorded group again",
    "recorded in memory",
    "recorded, one NATS server",
    "recorded, three NATS servers",
];

fn node(more: &[&str]) -> Result<Product> {
    let more = &[&["--rest"], more].concat();
    Product::start_with(Wanted { more, app_more: RECORDS, ..Wanted::default() })
}

fn requester(address: SocketAddr) -> Result<Requester> {
    let token = sign_rest_token(&AccessKey::new(ACCESS_KEY)?, None, in_seconds(TOKEN_LIFETIME_S)?);
    Requester::connect(address, &format!("Authorization: Bearer {token}\r\n"))
}

/// Sends for this long. Returns the median in milliseconds.
fn window(requester: &mut Requester, group: &str, length: Duration) -> Result<f64> {
    let (path, text) = (format!("/api/hubs/bench/groups/{group}/:send"), numbered_text(1, PAYLOAD));
    let body = format!("{{\"target\":\"Message\",\"arguments\":[\"{text}\"]}}");
    let (started, mut took) = (Instant::now(), Vec::new());
    while started.elapsed() < length {
        let asked = Instant::now();
        let answer = requester.post(&path, &body)?;
        took.push(asked.elapsed());
        ensure!(answer.contains("\"position\"") == group.starts_with("kept-"), "{path} is answered with {answer}");
    }
    took.sort_unstable();
    Ok(took.get(took.len() / 2).context("no send")?.as_secs_f64() * 1000.0)
}

pub(crate) fn measure(rounds: u32, length: Duration) -> Result<()> {
    let (fixture, runtime) = (Fixture::new()?, Runtime::new()?);
    let (alone, cluster) = (runtime.block_on(Nats::alone(&fixture))?, runtime.block_on(Nats::cluster(&fixture))?);
    let [one, three] = [slice::from_ref(&alone), &cluster].map(Nats::urls);
    let nodes = [node(&[])?, node(&["--nats", &one])?, node(&["--nats", &three])?];
    let mut rows = NAMES.map(Row::new);
    let mut requesters = nodes.iter().map(|node| requester(node.address())).collect::<Result<Vec<_>>>()?;
    for round in 1..=rounds {
        for part in in_turn([0_usize, 1, 2, 3, 4], round) {
            let group = if part < 2 { "all" } else { "kept-all" };
            let requester = requesters.get_mut(part.saturating_sub(2)).context("a node")?;
            let row = rows.get_mut(part).context("a row")?;
            row.figures.push(window(requester, group, length).with_context(|| row.name)?);
        }
    }
    fs::remove_dir_all(fixture.folder())?;
    let more = |row, base| row - base;
    table::print("milliseconds of a send by REST, p50", &rows, "minus the unrecorded group", more)?;
    let [base, _, memory, ..] = &rows;
    table::judge("a record in memory costs at most 0.3 ms", memory.against(base, more)?, |it| it <= 0.3);
    Ok(())
}
