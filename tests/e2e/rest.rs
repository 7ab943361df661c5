//! The REST data plane from outside: back ends send requests to nodes of a fleet, and official clients receive the
//! messages.

mod command_line;
mod description;
mod generated_clients;
mod interruption;
mod intruder;
mod ports;

use anyhow::{Context, Result};
use serde_json::json;
use trunkline_tests::harness::back_end::BackEnd;
use trunkline_tests::harness::client::{Client, Message};
use trunkline_tests::harness::fleet::ACCESS_KEY;

use crate::fleet::TARGET;

const HUB: &str = "bench";

fn back_end_at(address: &str) -> Result<BackEnd> {
    BackEnd::trusted(address, HUB, ACCESS_KEY)
}

async fn texts_before_fence(client: &mut Client) -> Result<Vec<String>> {
    let fence = Message { target: TARGET.into(), arguments: vec![json!("fence")] };
    let seen = client.before(&fence).await?;
    let text = |message: &Message| Some(message.arguments.first()?.as_str()?.to_owned());
    seen.iter().map(|message| text(message).with_context(|| format!("{message:?} holds no text"))).collect()
}
