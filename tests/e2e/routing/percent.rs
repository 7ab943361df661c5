//! Rules for a percentage of users.

use std::collections::BTreeSet;

use anyhow::Result;
use futures_util::future::join_all;
use serde_json::json;
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{ACCESS_KEY, Fleet};
use trunkline_tests::harness::scenario::run_heavy_test;
use trunkline_tests::harness::token::of_user;

use super::ruled_fleet::{RuledNode, group, home, named, routes};

fn user(number: usize) -> String {
    format!("user-{number}")
}

#[test]
fn a_part_of_the_users_comes_to_the_canary_again_and_again() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let (stable, canary) = (named(&fleet, "stable").await?, named(&fleet, "canary").await?);
        let rules = group("canary", &canary) + &routes(["hub = \"/chat\"\npercent = 30\ngroup = \"canary\""]);
        let node = RuledNode::with_apps(&fleet, &stable, &["stable", "canary"], &rules).await?;
        let agents = Agents::new(fixture);
        let mut homes = Vec::new();
        for _ in 0..2 {
            let seen = join_all((0..40).map(async |number| {
                let token = of_user(ACCESS_KEY, &user(number))?;
                let mut client = agents.client(Kind::JsJson, &node.chat()).access_token(&token).open().await?;
                let home = home(&client).await?;
                client.close().await?;
                Ok::<_, anyhow::Error>(home)
            }));
            homes.push(seen.await.into_iter().collect::<Result<Vec<_>>>()?);
        }
        assert_eq!(homes[0], homes[1]);
        let names: BTreeSet<_> = homes.concat().into_iter().collect();
        assert_eq!(json!(names), json!(["canary", "stable"]));
        Ok(())
    });
}
