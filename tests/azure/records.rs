//! Records of groups of a real ASP.NET Core app, which has no code for these.

use anyhow::ensure;
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value as Json, json};
use trunkline_tests::harness::back_end::BackEnd;
use trunkline_tests::harness::dotnet::run_dotnet_test;
use trunkline_tests::harness::http_client::post;

use crate::dial_in::{DialIn, KEY};
use crate::guest::{Host, LIBRARIES};

/// Messages by the hub. One more comes from outside any hub, one excludes its sender.
const SENDS: u64 = 200;

#[test]
fn clients_of_each_library_follow_what_the_hub_sends_in_the_order_of_the_record() {
    run_dotnet_test(async |fixture, dotnet| {
        let rules = fixture.folder().join("rules.toml");
        std::fs::write(&rules, "[[history]]\nhub = \"bench\"\ngroups = \"r*\"\n")?;
        let node = DialIn::open_with(fixture, &["--rest", "--config", &rules.display().to_string()]).await?;
        let host = Host::new(fixture, dotnet);
        let app = host.app(&node, "one", &[]).await?;
        node.linked(crate::aspnet::CONNECTIONS).await?;
        let back_end = BackEnd::trusted(node.address(), "bench", KEY)?;
        let (mut member, mut followers) = (host.invite(LIBRARIES[0], &app, "ann").await?, Vec::new());
        member.invoke("Join", json!(["red"])).await?;
        for library in LIBRARIES {
            for user in ["bob", "cid"] {
                let guest = host.invite(library, &app, user).await?;
                guest.invoke("Join", json!(["red"])).await?;
                followers.push(guest);
            }
        }
        let sending = async {
            for number in 0..SENDS {
                member.invoke("SendToGroup", json!(["red", number])).await?;
            }
            ensure!(post(app.address(), "/announce/red").await?.status.is_success());
            member.invoke("OthersInGroup", json!(["red", "others"])).await?;
            let mut seen = Vec::new();
            for _ in 0..=SENDS {
                seen.push(member.expect("Message").await?);
            }
            // The last one is for others only, so it is waited for by the record.
            loop {
                let page = back_end.ask(Method::GET, "/groups/red/history", &Json::Null).await?.json()?;
                let items = page["items"].as_array().cloned().unwrap_or_default();
                if items.len() as u64 == SENDS + 2 {
                    ensure!(back_end.status(Method::POST, "/groups/red/history/:finish").await? == 204);
                    let kept = items.iter().map(|item| item["arguments"][0].clone()).collect::<Vec<_>>();
                    return Ok((kept, seen));
                }
            }
        };
        let following =
            join_all(followers.iter().map(|guest| guest.stream("Follow", json!([{ "group": "red", "after": "0" }]))));
        let (followed, sent) = tokio::join!(following, sending);
        let (kept, seen) = sent?;
        let mut all: Vec<_> = kept.iter().map(ToString::to_string).collect();
        all.sort();
        all.dedup();
        ensure!(all.len() == kept.len(), "each once: {kept:?}");
        for (place, followed) in followed.into_iter().enumerate() {
            let items: Vec<_> = followed?.iter().map(|item| item["arguments"][0].clone()).collect();
            ensure!(items == kept, "follower {place} got {items:?} where the record has {kept:?}");
        }
        let plain: Vec<_> = kept.iter().filter(|value| **value != "others").cloned().collect();
        ensure!(seen == plain, "the member got {seen:?} where the record has {plain:?}");
        Ok(())
    });
}
