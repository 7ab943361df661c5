//! A request for a connection of another node is forwarded there, in one hop that outsiders can't forge.

use anyhow::{Context, Result};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use trunkline_channel::Dialled;
use trunkline_protocol::key::{AccessKey, AccessKeys, PeerKind};
use trunkline_protocol::manifest::FORWARD_HEADER;
use trunkline_protocol::token::ForwardMark;
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, Fleet, Proxy};
use trunkline_tests::harness::http_client::{Answer, ask, post};
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::run_test;

const NODE: &str = "x-trunkline-node";
const HOPS: &str = "trunkline_owner_hops_total";
const MISSES: &str = "trunkline_owner_hop_misses_total";
const MARKS_REFUSED: &str = "trunkline_forward_marks_refused_total";
const UNKNOWN: (StatusCode, &str) = (StatusCode::NOT_FOUND, "No Connection with that ID");

async fn negotiate(proxy: &Proxy) -> Result<String> {
    let negotiated = post(proxy.address(), "/bench/negotiate?negotiateVersion=1").await?.json()?;
    let token = negotiated["connectionToken"].as_str().context("no token")?;
    Ok(format!("/bench?id={token}"))
}

async fn count(proxy: &Proxy, name: &str) -> Result<f64> {
    Ok(proxy.metrics().await?.sum(name, &[]))
}

fn said(answer: &Answer) -> (StatusCode, &str) {
    (answer.status, answer.body.as_str())
}

#[test]
fn a_request_goes_to_the_owner_of_its_connection_in_one_hop() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let owner = fleet.proxy_with(&[&app], &["--node-name", "owner"]).await?;
        let other = fleet.proxy_with(&[&app], &["--node-name", "other"]).await?;
        let connect = negotiate(&owner).await?;
        let mut client = RawClient::join(owner.address(), &connect).await?;

        // Clients can't forge the headers that a node adds for the owner.
        let origin = [("origin", format!("http://{}", other.address()))];
        let origin = origin.each_ref().map(|(name, value)| (*name, value.as_str()));
        for (method, status) in
            [(Method::POST, StatusCode::METHOD_NOT_ALLOWED), (Method::DELETE, StatusCode::BAD_REQUEST)]
        {
            let answer = ask(other.address(), method, &connect, &origin).await?;
            assert_eq!(answer.status, status, "{answer:?}");
            assert_eq!(answer.header(NODE), Some("owner"));
            assert_eq!(answer.headers.get_all("access-control-allow-origin").iter().count(), 1);
        }
        assert_eq!((count(&other, HOPS).await?, count(&other, MISSES).await?), (2.0, 0.0));
        assert_eq!((count(&owner, HOPS).await?, count(&owner, MARKS_REFUSED).await?), (0.0, 0.0));
        assert_eq!(client.call("Echo", json!([1])).await?["result"], 1, "the connection has not noticed");

        // The 404 of the owner is forwarded.
        let unused = negotiate(&owner).await?;
        let answer = ask(other.address(), Method::DELETE, &unused, &[]).await?;
        assert_eq!((said(&answer), answer.header(NODE)), (UNKNOWN, Some("owner")));
        assert_eq!((count(&other, HOPS).await?, count(&other, MISSES).await?), (3.0, 1.0));
        Ok(())
    });
}

#[test]
fn a_mark_is_believed_only_if_the_fleet_made_it_for_this_request() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let [owner, other] = fleet.two_proxies(&app).await?;
        let connect = negotiate(&owner).await?;
        let keys = |key: &str| Ok::<_, anyhow::Error>(AccessKeys::new(vec![AccessKey::new(key)?])?);
        let mark = |target: &str, keys: &AccessKeys| {
            ForwardMark::new("anyone", None, None, "DELETE", target, u64::MAX / 2).seal(keys)
        };
        let good = mark(&connect, &keys(ACCESS_KEY)?);
        let marks = [
            // A recorded mark is useless without a channel.
            good.clone(),
            "nonsense".to_owned(),
            mark("/bench?id=other", &keys(ACCESS_KEY)?),
            mark(&connect, &keys("the key of strangers")?),
        ];
        for (number, bad) in (1..).zip(&marks) {
            // The mark is ignored, so the request is forwarded to its owner like any other.
            let answer = ask(other.address(), Method::DELETE, &connect, &[(FORWARD_HEADER, bad)]).await?;
            assert_eq!(said(&answer), UNKNOWN);
            assert_eq!(
                (count(&other, MARKS_REFUSED).await?, count(&other, HOPS).await?),
                (f64::from(number), f64::from(number))
            );
        }
        // A forwarded request is not forwarded again, so there are no loops.
        let dial = async || TcpStream::connect(other.address()).await;
        let dialled = Dialled { peer_kind: PeerKind::NodeClients, name: other.address() };
        let mut channel = trunkline_channel::open_channel(dial, dialled, &keys(ACCESS_KEY)?).await?;
        let head =
            format!("DELETE {connect} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{FORWARD_HEADER}: {good}\r\n\r\n");
        channel.write_all(head.as_bytes()).await?;
        let mut answer = String::new();
        channel.read_to_string(&mut answer).await?;
        assert!(answer.starts_with("HTTP/1.1 404") && answer.ends_with(UNKNOWN.1), "{answer}");
        assert_eq!(count(&other, HOPS).await?, marks.len() as f64);
        assert_eq!(count(&owner, MARKS_REFUSED).await?, 0.0, "what strangers write reaches no owner");
        Ok(())
    });
}

#[test]
fn without_forwarding_only_web_sockets_are_offered() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let owner = fleet.proxy(&app).await?;
        let mut other = fleet.proxy_with(&[&app], &["--no-forward"]).await?;
        let offered = post(other.address(), "/bench/negotiate?negotiateVersion=1").await?.json()?;
        let names: Vec<&Value> =
            offered["availableTransports"].as_array().context("none")?.iter().map(|one| &one["transport"]).collect();
        assert_eq!(names, ["WebSockets"]);
        let connect = negotiate(&owner).await?;
        let _client = RawClient::join(owner.address(), &connect).await?;
        assert_eq!(said(&post(other.address(), &connect).await?), UNKNOWN);
        assert_eq!(count(&other, HOPS).await?, 0.0);
        other.process.wait_for_log("--no-forward").await?;
        assert!(other.process.is_running());
        Ok(())
    });
}
