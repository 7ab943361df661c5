//! Rules for a percentage of users: its size, and its members.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use axum::body::Body;
use futures_util::future::join_all;
use http::Method;
use http_body_util::BodyExt;
use serde_json::json;
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{ACCESS_KEY, Fleet, stop};
use trunkline_tests::harness::http_client::HttpConnection;
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::scenario::run_heavy_test;
use trunkline_tests::harness::token::of_user;

use super::ruled_fleet::{RuledNode, group, home, named, routes};

/// Users of whom shares are counted, and the most by which a share may differ.
const USERS: usize = 2000;
const DIFFERENCE_MAX: usize = USERS / 50;

/// Number of concurrent negotiating connections.
const CONNECTIONS: usize = 8;

fn user(number: usize) -> String {
    format!("user-{number}")
}

/// Users who are refused at negotiation.
async fn refused(address: &str, tokens: &[String]) -> Result<BTreeSet<usize>> {
    let parts = (0..CONNECTIONS).map(async |part| {
        let (mut connection, mut refused) = (HttpConnection::open(address).await?, BTreeSet::new());
        for (number, token) in tokens.iter().enumerate().skip(part).step_by(CONNECTIONS) {
            let headers = [("authorization", token.as_str())];
            let answer = connection.send(Method::POST, "/chat/negotiate", &headers, Body::empty()).await?;
            let status = answer.status().as_u16();
            answer.into_body().collect().await?;
            ensure!(status == 200 || status == 418, "{status} for {}", user(number));
            if status == 418 {
                refused.insert(number);
            }
        }
        Ok::<_, anyhow::Error>(refused)
    });
    let parts: Vec<_> = join_all(parts).await.into_iter().collect::<Result<_>>()?;
    Ok(parts.into_iter().flatten().collect())
}

#[test]
fn ten_percent_of_users_are_ten_percent_and_the_same_ones_after_a_restart_and_at_another_node() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let (stable, canary) = (named(&fleet, "stable").await?, named(&fleet, "canary").await?);
        let rules = routes(["name = \"ten\"\nhub = \"/chat\"\npercent = 10\nreject = 418"]);
        let mut node = RuledNode::with_apps(&fleet, &stable, &["stable"], &rules).await?;
        let tokens = (0..USERS).map(|number| Ok(format!("Bearer {}", of_user(ACCESS_KEY, &user(number))?)));
        let tokens: Vec<String> = tokens.collect::<Result<_>>()?;
        let first = refused(node.proxy.address(), &tokens).await?;
        assert!(first.len().abs_diff(USERS / 10) <= DIFFERENCE_MAX, "{}", first.len());
        assert_eq!(node.matches("ten").await?, first.len() as f64);
        stop(&mut node.proxy.process, Signal::Terminate).await?;
        node.proxy.start_again(fixture).await?;
        assert_eq!(refused(node.proxy.address(), &tokens).await?, first);
        // A larger percentage includes all earlier users. The remaining users are not affected.
        let wider = group("canary", &canary) + &routes(["name = \"ten\"\nhub = \"/chat\"\npercent = 20\nreject = 418"]);
        let other = RuledNode::with_apps(&fleet, &stable, &["stable"], &wider).await?;
        let second = refused(other.proxy.address(), &tokens).await?;
        assert!(second.len().abs_diff(USERS / 5) <= DIFFERENCE_MAX && second.is_superset(&first), "{}", second.len());
        Ok(())
    });
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
