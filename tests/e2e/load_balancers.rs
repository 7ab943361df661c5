//! Real load balancers with the configuration of `deploy/`, in front of three nodes.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use axum::body::Body;
use futures_util::future::{try_join, try_join_all};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::time::interval;
use trunkline_protocol::manifest::Transport;
use trunkline_tests::harness::back_end::BackEnd;
use trunkline_tests::harness::client::{Agents, Client, Kind};
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, AppServer, Fleet, POOL_SIZE, Proxy, stop};
use trunkline_tests::harness::http_client::{HttpConnection, get, post};
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::raw::{JSON_HANDSHAKE, RawClient};
use trunkline_tests::harness::scenario::{Fixture, is_full, run_heavy_test, run_waiting_test, until};
use trunkline_tests::harness::shipped::{BalancerProduct, LoadBalancer, Shipped};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::tls::{Authority, Identity};

use crate::fleet::FleetScene;
use crate::http_transports::libraries::WAYS;

const HOPS: &str = "trunkline_owner_hops_total";
const KEEP_ALIVES: &str = "trunkline_keep_alives_total";
const CLIENTS: &str = "trunkline_client_connections";
const CLOSED: &str = "trunkline_client_connections_closed_total";

/// Connects per transport, and echoes per client.
const CONNECTS: usize = 20;
const CONNECTS_FULL: usize = 200;
const ECHOES_FULL: u64 = 200;

/// Back ends that send during a rolling restart, their sends per second together, and the longest that one may take.
const BACK_ENDS: u32 = 12;
const SENDS: u32 = 120;
const SENDS_FULL: u32 = 600;
const LONGEST_SEND: Duration = Duration::from_millis(500);

/// Tolerance of a node's share of clients, because a balancer may still count an ended negotiation.
const SPREAD_TOLERANCE: f64 = 3.0;

/// Short timeouts of the balancers, in the syntax of both.
const TIMEOUT: &str = "3s";
/// Node.js reuses a connection up to 4 s after its last request; HAProxy must not close it earlier.
const HAPROXY_KEEP_ALIVE: &str = "timeout http-keep-alive 50s";
/// Pings that an idle client of `/lively` receives in more than three times that timeout: one per second.
const IDLE_PINGS: f64 = 11.0;

/// Ping interval of a client: HAProxy's client timeout depends on data from the client.
const CLIENT_PINGS_MS: u64 = 500;

/// Arguments that fit the timeouts of the shipped files.
const ARGUMENTS: [&str; 4] = ["--trust", "127.0.0.1/32", "--poll-timeout", "40"];

struct BalancerScene<'a> {
    agents: Agents<'a>,
    _app: AppServer,
    nodes: Vec<Proxy>,
    balancer: LoadBalancer,
}

impl<'a> BalancerScene<'a> {
    async fn start(fixture: &'a Fixture, app: App, more: &[&str], shipped: Shipped) -> Result<Self> {
        Self::start_of(3, fixture, app, more, shipped).await
    }

    async fn start_of(count: usize, fixture: &'a Fixture, app: App, more: &[&str], shipped: Shipped) -> Result<Self> {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(app).await?;
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(fleet.proxy_with(&[&app], more).await?);
        }
        let balancer = shipped.start(fixture, &nodes).await?;
        Ok(Self { agents: Agents::new(fixture), _app: app, nodes, balancer })
    }

    async fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let mut sum = 0.0;
        for node in &self.nodes {
            sum += node.metrics().await?.sum(name, labels);
        }
        Ok(sum)
    }

    /// Connects repeatedly; each connect must succeed at the first attempt. Returns the number of hops.
    async fn connect_all(&self, kind: Kind, transport: Transport) -> Result<(Vec<Client>, f64)> {
        let before = self.sum(HOPS, &[]).await?;
        let echoes = if is_full() { ECHOES_FULL } else { 1 };
        let mut clients = Vec::new();
        for _ in 0..connects() {
            let builder = self.agents.client(kind, &self.balancer.url("/bench")).transport(transport);
            let client = builder.open().await?;
            for number in 0..echoes {
                assert_eq!(client.invoke("Echo", json!([number])).await?, number);
            }
            clients.push(client);
        }
        Ok((clients, self.sum(HOPS, &[]).await? - before))
    }
}

fn connects() -> usize {
    if is_full() { CONNECTS_FULL } else { CONNECTS }
}

fn ways() -> impl Iterator<Item = (Kind, Transport)> {
    Kind::JS.map(|kind| (kind, Transport::WebSockets)).into_iter().chain(WAYS)
}

#[test]
fn every_client_connects_at_the_first_attempt_behind_haproxy_and_nginx() {
    run_heavy_test(async |fixture| {
        for product in BalancerProduct::ALL {
            let scene = BalancerScene::start(fixture, App::Bench, &ARGUMENTS, Shipped::read(product)?).await?;
            let mut all = Vec::new();
            for (kind, transport) in ways() {
                let (clients, hops) = scene.connect_all(kind, transport).await?;
                let is_hopping = transport != Transport::WebSockets;
                assert_eq!(hops > 0.0, is_hopping, "{product:?} {kind:?} {transport:?}: {hops} hops");
                all.extend(clients);
            }
            // Checked before the clients close, because close messages may arrive too late.
            if product == BalancerProduct::HaProxy {
                assert_eq!(scene.balancer.answers("1xx").await?, 2.0 * connects() as f64, "WebSockets");
                for class in ["4xx", "5xx"] {
                    assert_eq!(scene.balancer.answers(class).await?, 0.0, "{class}\n{}", scene.balancer.process.log());
                }
            }
            for client in &mut all {
                client.close().await?;
            }
        }
        Ok(())
    });
}

/// Activates the commented TLS lines of a shipped file, at this address.
fn with_tls(product: BalancerProduct, address: &str, identity: &Identity) -> Result<Shipped> {
    let (certificate, key) = identity.arguments()?;
    let shipped = Shipped::read(product)?;
    match product {
        BalancerProduct::HaProxy => {
            let pair = format!("{certificate}.pair");
            std::fs::write(&pair, std::fs::read_to_string(certificate)? + &std::fs::read_to_string(key)?)?;
            shipped
                .with("#bind :443 ssl crt /etc/haproxy/tls.pem", &format!("bind {address} ssl crt {pair}"))?
                .with("#http-request redirect", "http-request redirect")
        }
        BalancerProduct::Nginx => shipped
            .with("#listen 443 ssl", &format!("listen {address} ssl"))?
            .with("#ssl_certificate /etc/nginx/tls.pem", &format!("ssl_certificate {certificate}"))?
            .with("#ssl_certificate_key /etc/nginx/tls.key", &format!("ssl_certificate_key {key}"))?
            .with("#ssl_protocols", "ssl_protocols")?
            .with("#if ($scheme", "if ($scheme"),
    }
}

#[test]
fn the_lines_for_tls_serve_every_transport_and_redirect_plain_requests() {
    run_heavy_test(async |fixture| {
        let authority = Authority::new(fixture, "own")?;
        let identity = authority.sign("balancer", &["127.0.0.1"])?;
        for product in BalancerProduct::ALL {
            let address = free_address()?;
            let shipped = with_tls(product, &address, &identity)?;
            let scene = BalancerScene::start_of(2, fixture, App::Bench, &ARGUMENTS, shipped).await?;
            let url = format!("https://{address}/bench");
            let agents = Agents::trusting(fixture, &authority.file);
            for transport in [Transport::WebSockets, Transport::ServerSentEvents, Transport::LongPolling] {
                let client = agents.client(Kind::JsJson, &url).transport(transport).open().await?;
                assert_eq!(client.invoke("Echo", json!([7])).await?, 7, "{product:?} {transport:?}");
            }
            let plain = post(scene.balancer.address(), "/bench/negotiate").await?;
            assert_eq!(plain.status, StatusCode::PERMANENT_REDIRECT, "{product:?}");
            let place = plain.header("location").unwrap_or_default();
            ensure!(place.starts_with("https://"), "{product:?}: {place}");
        }
        Ok(())
    });
}

#[test]
fn clients_that_come_one_by_one_are_spread_evenly() {
    run_heavy_test(async |fixture| {
        for product in BalancerProduct::ALL {
            // Each client makes two requests, and there are two nodes: round robin would send all first requests to one
            // node.
            let scene = BalancerScene::start_of(2, fixture, App::Bench, &ARGUMENTS, Shipped::read(product)?).await?;
            let (_clients, _) = scene.connect_all(Kind::JsJson, Transport::WebSockets).await?;
            let mut shares = Vec::new();
            for node in &scene.nodes {
                shares.push(node.metrics().await?.sum(CLIENTS, &[]));
            }
            let half = connects() as f64 / 2.0;
            assert!(shares.iter().all(|share| (share - half).abs() <= SPREAD_TOLERANCE), "{product:?}: {shares:?}");
        }
        Ok(())
    });
}

#[test]
fn no_connect_fails_while_a_node_drains_that_the_balancer_still_asks() {
    run_heavy_test(async |fixture| {
        for product in BalancerProduct::ALL {
            let arguments = [&ARGUMENTS[..], &["--drain-timeout", "60"]].concat();
            let scene = BalancerScene::start_of(2, fixture, App::Bench, &arguments, Shipped::read(product)?).await?;
            let leaving = &scene.nodes[0];
            // Clients that bypass the balancer and never answer a close. They keep the node stopping for long, while
            // the balancer counts the fewest connections there.
            let mut deaf = Vec::new();
            for _ in 0..CONNECTS {
                let mut client = RawClient::open(leaving.address(), "/bench").await?;
                client.send_text(JSON_HANDSHAKE).await?;
                deaf.push(client);
            }
            leaving.process.signal(Signal::Terminate).await?;
            until(async || {
                let answer = post(leaving.address(), "/bench/negotiate?negotiateVersion=1").await?;
                Ok((answer.status == StatusCode::SERVICE_UNAVAILABLE).then_some(()))
            })
            .await?;
            for (kind, transport) in ways() {
                let builder = scene.agents.client(kind, &scene.balancer.url("/bench")).transport(transport);
                let client = builder.open().await?;
                assert_eq!(client.invoke("Echo", json!([1])).await?, 1, "{product:?} {kind:?} {transport:?}");
            }
            let refused = post(leaving.address(), "/bench/negotiate?negotiateVersion=1").await?;
            assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "it has stopped in the meantime");
        }
        Ok(())
    });
}

/// Back end that sends on a kept connection until the rollout is over. Returns its number of sends and the longest
/// time that a send took.
async fn send_until(over: &Cell<bool>, back_end: &BackEnd, balancer: &str, pause: Duration) -> Result<(u64, Duration)> {
    let (mut sent, mut longest, mut kept) = (0, Duration::ZERO, None);
    let headers = [("authorization", back_end.authorization()), ("content-type", "application/json")];
    let body = json!({ "target": "Echoed", "arguments": [1] }).to_string();
    let mut turns = interval(pause);
    while !over.get() {
        turns.tick().await;
        let begun = Instant::now();
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => HttpConnection::open(balancer).await?,
        };
        let path = back_end.path("/groups/group-0/:send");
        let answer = connection.send(Method::POST, &path, &headers, Body::from(body.clone())).await;
        let (head, answer) = answer.with_context(|| format!("send {sent} of a back end"))?.into_parts();
        let text = String::from_utf8_lossy(&answer.collect().await?.to_bytes()).into_owned();
        ensure!(head.status == StatusCode::ACCEPTED, "send {sent} of a back end: {} {text}", head.status);
        let closes = head.headers.get("connection").is_some_and(|value| value == "close");
        kept = (!closes).then_some(connection);
        (sent, longest) = (sent + 1, longest.max(begun.elapsed()));
    }
    Ok((sent, longest))
}

#[test]
fn back_ends_notice_nothing_of_a_rolling_restart_of_all_nodes() {
    run_heavy_test(async |fixture| {
        for product in BalancerProduct::ALL {
            let arguments = [&ARGUMENTS[..], &["--rest", "--drain-grace", "5"]].concat();
            let mut scene = FleetScene::open(fixture, &arguments).await?;
            let balancer = Shipped::read(product)?.start(fixture, &scene.nodes).await?;
            let agents = Agents::new(fixture);
            let _clients = scene.crowd(&agents, &scene.nodes).await?;
            let back_end = BackEnd::trusted(balancer.address(), "bench", ACCESS_KEY)?;
            let is_over = Cell::new(false);
            let per_second = if is_full() { SENDS_FULL } else { SENDS };
            let pause = Duration::from_secs(1) * BACK_ENDS / per_second;
            let sending = (0..BACK_ENDS).map(|_| send_until(&is_over, &back_end, balancer.address(), pause));
            let restart = async {
                for node in &mut scene.nodes {
                    stop(&mut node.process, Signal::Terminate).await?;
                    node.start_again(fixture).await?;
                    node.linked(POOL_SIZE).await?;
                }
                is_over.set(true);
                anyhow::Ok(())
            };
            let (sent, ()) = try_join(try_join_all(sending), restart).await?;
            let longest = sent.iter().map(|(_, longest)| *longest).max().unwrap_or_default();
            let sends: u64 = sent.iter().map(|(sends, _)| sends).sum();
            eprintln!("{product:?}: {sends} sends, the longest took {} ms", longest.as_millis());
            ensure!(!is_full() || longest <= LONGEST_SEND, "{product:?}: a send took {longest:?}");
        }
        Ok(())
    });
}

#[test]
fn no_token_stands_in_the_log_of_a_balancer() {
    run_heavy_test(async |fixture| {
        for product in BalancerProduct::ALL {
            let mut scene = BalancerScene::start(fixture, App::Bench, &ARGUMENTS, Shipped::read(product)?).await?;
            let address = scene.balancer.address().to_owned();
            let secrets = "id=SECRET-ID&access_token=SECRET-TOKEN";
            post(&address, &format!("/bench/negotiate?negotiateVersion=1&{secrets}")).await?;
            get(&address, &format!("/bench?{secrets}")).await?;
            // Log lines about failures also contain the request.
            for node in &mut scene.nodes {
                node.process.kill().await?;
            }
            let answer = get(&address, &format!("/late?{secrets}")).await?;
            assert!(answer.status.is_server_error(), "{answer:?}");
            let log = until(async || {
                let log = scene.balancer.log()?;
                Ok(["/bench/negotiate", "/late"].iter().all(|path| log.contains(path)).then_some(log))
            })
            .await?;
            assert!(!log.contains("SECRET"), "{product:?}: {log}");
        }
        Ok(())
    });
}

#[test]
fn twenty_nodes_are_as_good_as_three_and_a_lonely_client_among_twelve_is_served() {
    run_heavy_test(async |fixture| {
        // Without other clients all nodes have equally few connections, so the balancer uses all nodes before it
        // repeats one.
        for (count, connects) in [(20, 5), (12, 1)] {
            let shipped = Shipped::read(BalancerProduct::HaProxy)?;
            let scene = BalancerScene::start_of(count, fixture, App::Bench, &ARGUMENTS, shipped).await?;
            for (kind, transport) in ways() {
                for _ in 0..connects {
                    let builder = scene.agents.client(kind, &scene.balancer.url("/bench")).transport(transport);
                    let mut client = builder.open().await?;
                    for number in 0..10 {
                        assert_eq!(client.invoke("Echo", json!([number])).await?, number);
                    }
                    client.close().await?;
                }
            }
        }
        Ok(())
    });
}

#[test]
fn behind_a_balancer_that_strips_upgrades_the_client_falls_back_by_itself() {
    run_heavy_test(async |fixture| {
        let shipped = Shipped::read(BalancerProduct::Nginx)?
            .with("proxy_set_header Upgrade $http_upgrade;", "")?
            .with("proxy_set_header Connection $connection_upgrade;", "proxy_set_header Connection close;")?;
        let scene = BalancerScene::start(fixture, App::Bench, &ARGUMENTS, shipped).await?;
        for _ in 0..CONNECTS {
            let client = scene.agents.client(Kind::JsJson, &scene.balancer.url("/bench")).any_transport();
            let mut client = client.open().await?;
            assert_eq!(client.invoke("Echo", json!([1])).await?, 1);
            client.close().await?;
        }
        assert!(scene.sum(HOPS, &[]).await? > 0.0);
        Ok(())
    });
}

#[test]
fn with_a_cookie_of_the_balancer_no_request_has_to_hop() {
    run_heavy_test(async |fixture| {
        for product in BalancerProduct::ALL {
            let shipped = Shipped::read(product)?;
            let shipped = match product {
                BalancerProduct::HaProxy => shipped.with("#cookie TRUNKLINE", "cookie TRUNKLINE")?,
                BalancerProduct::Nginx => shipped
                    .with("least_conn;", "")?
                    .with("#hash $sticky", "hash $sticky")?
                    .with("#add_header", "add_header")?,
            };
            let scene = BalancerScene::start(fixture, App::Bench, &ARGUMENTS, shipped).await?;
            for (kind, transport) in ways() {
                let (_clients, hops) = scene.connect_all(kind, transport).await?;
                assert_eq!(hops, 0.0, "{product:?} {kind:?} {transport:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn haproxy_tells_client_addresses_by_the_proxy_protocol() {
    run_heavy_test(async |fixture| {
        // The balancer has a separate address, because connections between nodes have no PROXY header.
        let own = "127.0.0.9";
        let shipped = Shipped::read(BalancerProduct::HaProxy)?
            .with("default-server check", &format!("source {own}\n    default-server send-proxy-v2 check"))?;
        let scene = BalancerScene::start(fixture, App::Bench, &["--trust", own, "--proxy-protocol"], shipped).await?;
        for (kind, transport) in ways() {
            scene.connect_all(kind, transport).await?;
        }
        let headers = async |outcome: &str| scene.sum("trunkline_proxy_headers_total", &[("outcome", outcome)]).await;
        assert!(headers("ok").await? > 0.0);
        assert_eq!(headers("invalid").await?, 0.0);
        Ok(())
    });
}

#[test]
fn idle_clients_outlive_the_time_outs_of_their_balancer() {
    run_waiting_test(async |fixture| {
        for product in BalancerProduct::ALL {
            let shipped = Shipped::read(product)?;
            let shipped = match product {
                BalancerProduct::HaProxy => shipped
                    .with("timeout client 50s", &format!("timeout client {TIMEOUT}\n    {HAPROXY_KEEP_ALIVE}"))?
                    .with("timeout server 50s", &format!("timeout server {TIMEOUT}"))?,
                BalancerProduct::Nginx => shipped
                    .with("proxy_send_timeout 50s", &format!("proxy_send_timeout {TIMEOUT}"))?
                    .with("proxy_read_timeout 50s", &format!("proxy_read_timeout {TIMEOUT}"))?,
            };
            let scene =
                BalancerScene::start(fixture, App::Sends, &["--trust", "127.0.0.1/32", "--poll-timeout", "1"], shipped)
                    .await?;
            let mut clients: Vec<Client> = Vec::new();
            for (kind, transport) in ways() {
                let builder = scene.agents.client(kind, &scene.balancer.url("/lively")).transport(transport);
                clients.push(builder.keep_alive_ms(CLIENT_PINGS_MS).open().await?);
            }
            // Polling clients get no pings, but empty responses have the same effect.
            let pinged = ways().filter(|(_, transport)| *transport != Transport::LongPolling).count();
            let most = pinged as f64 * IDLE_PINGS;
            until(async || {
                let closed = scene.sum(CLOSED, &[]).await?;
                ensure!(closed == 0.0, "{product:?} has cut {closed} of them\n{}", scene.balancer.process.log());
                Ok((scene.sum(KEEP_ALIVES, &[]).await? >= most).then_some(()))
            })
            .await?;
            for client in &clients {
                assert_eq!(client.invoke("Add", json!([1, 2])).await?, 3, "{product:?} {:?}", client.kind());
            }
        }
        Ok(())
    });
}
