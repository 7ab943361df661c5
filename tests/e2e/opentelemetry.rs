//! One trace from a client through node and hub and back, as received by a collector; and a collector that does not
//! accept data.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use trunkline_tests::harness::client::{Agents, Client, Kind};
use trunkline_tests::harness::collector::{CollectedSpan, Collector, Mood};
use trunkline_tests::harness::fleet::{App, AppServer, Fleet, Proxy, stop};
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::raw::{RECORD_SEPARATOR, RawClient};
use trunkline_tests::harness::scenario::{Fixture, run_test, until};
use trunkline_tests::harness::tls::{Authority, TlsEnd, text};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENT_SPAN: &str = "b7ad6b7169203331";

/// Kinds of spans, by their numbers in OTLP.
const SERVER: i32 = 2;
const CLIENT: i32 = 3;

/// Calls of a client while the collector hangs, more than a batch and the queue hold.
const MANY_CALLS: usize = 6_000;

fn traceparent() -> String {
    format!("00-{TRACE}-{CLIENT_SPAN}-01")
}

/// A collector, an app that exports to it, and a node with these flags.
async fn scene(fixture: &Fixture, flags: &[&str]) -> Result<(Collector, AppServer, Proxy)> {
    let (fleet, collector) = (Fleet::new(fixture), Collector::start().await?);
    let url = collector.url();
    let app = fleet.app_with(App::Traced, &["--otlp", &url]).await?;
    let proxy = fleet.proxy_with(&[&app], &[&["--otlp", &url][..], flags].concat()).await?;
    Ok((collector, app, proxy))
}

/// Waits for the trace's span with this name, kind and service.
async fn span_of(collector: &Collector, service: &str, name: &str, kind: i32) -> Result<CollectedSpan> {
    let is_it = |span: &CollectedSpan| {
        span.trace_id == TRACE && span.service == service && span.name == name && span.kind == kind
    };
    collector.span(is_it).await.with_context(|| format!("{service} {name}: {:?}", collector.spans()))
}

/// Trace and span named in a message to the client.
async fn named_in(client: &mut Client, target: &str) -> Result<(String, String)> {
    loop {
        let [kind, of, headers] =
            client.expect("$headers").await?.try_into().map_err(|_| anyhow::anyhow!("headers"))?;
        if (kind == 1 && of == target) || (kind == 3 && target.is_empty()) {
            let context = headers["traceparent"].as_str().with_context(|| format!("{headers} names no trace"))?;
            let parts: Vec<_> = context.split('-').collect();
            ensure!(parts.len() == 4 && parts[3] == "01", "{context}");
            return Ok((parts[1].to_owned(), parts[2].to_owned()));
        }
    }
}

#[test]
fn a_trace_goes_from_the_client_through_node_and_hub_and_back() {
    run_test(async |fixture| {
        let (collector, _app, proxy) = scene(fixture, &["--otlp-sample", "1"]).await?;
        let agents = Agents::new(fixture);
        for kind in [Kind::JsJson, Kind::JsMessagePack] {
            let before = collector.spans().len();
            let client = agents.client(kind, &proxy.url("/traced")).headers(json!({ "traceparent": traceparent() }));
            let mut client = client.show_headers().open().await?;
            client.invoke("Broadcast", json!(["news"])).await?;
            let (trace, sent_by) = named_in(&mut client, "message").await?;
            let (answered_trace, answered_by) = named_in(&mut client, "").await?;
            assert_eq!((&*trace, &*answered_trace), (TRACE, TRACE));
            assert_eq!(sent_by, answered_by);
            client.close().await?;
            let hub = collector.span(|span| span.span_id == sent_by).await?;
            assert_eq!((&*hub.service, &*hub.name, hub.kind), ("traced", "traced/Broadcast", SERVER));
            assert_eq!(hub.attributes["rpc.system"], "signalr");
            let call = collector.span(|span| span.span_id == hub.parent_id).await?;
            assert_eq!((&*call.service, &*call.name, call.kind), ("trunkline", "traced/Broadcast", CLIENT));
            let connect = collector.span(|span| span.span_id == call.parent_id).await?;
            assert_eq!((&*connect.name, &*connect.parent_id), ("connect", CLIENT_SPAN));
            assert_eq!(connect.attributes["signalr.transport"], "WebSockets");
            let of_client = collector.spans().split_off(before);
            assert!(of_client.iter().all(|span| span.trace_id == TRACE), "{of_client:?}");
        }
        for name in ["negotiate", "handshake"] {
            span_of(&collector, "trunkline", name, SERVER).await?;
        }
        span_of(&collector, "traced", "traced/on_connected", SERVER).await?;
        Ok(())
    });
}

fn call(number: usize) -> String {
    let call =
        json!({"type": 1, "invocationId": number.to_string(), "target": "Echo", "arguments": [number.to_string()]});
    format!("{call}{RECORD_SEPARATOR}")
}

/// Makes this many calls, and waits for the answers.
async fn call_often(client: &mut RawClient, calls: usize) -> Result<()> {
    const AT_ONCE: usize = 100;
    for first in (0..calls).step_by(AT_ONCE) {
        let numbers = first..calls.min(first + AT_ONCE);
        client.send_text(numbers.clone().map(call).collect::<String>()).await?;
        for number in numbers {
            let answer = client.next_record().await?;
            ensure!(answer["result"].as_str() == Some(&*number.to_string()), "{number}: {answer}");
        }
    }
    Ok(())
}

/// Waits until the node has counted a span with this outcome.
async fn counted(proxy: &Proxy, outcome: &str) -> Result<f64> {
    until(async || {
        let count = proxy.metrics().await?.sum("trunkline_otlp_spans_total", &[("outcome", outcome)]);
        Ok((count > 0.0).then_some(count))
    })
    .await
}

#[test]
fn a_collector_that_refuses_or_hangs_costs_spans_and_nothing_else() {
    run_test(async |fixture| {
        let flags = ["--otlp-sample", "1", "--otlp-max-spans", "100000", "--otlp-metrics-interval", "0"];
        let (collector, _app, mut proxy) = scene(fixture, &flags).await?;
        let mut client = RawClient::join(proxy.address(), "/traced").await?;
        call_often(&mut client, 10).await?;
        collector.span(|span| span.service == "trunkline" && span.name == "traced/Echo").await?;
        collector.set_mood(Mood::Refuses(400));
        call_often(&mut client, 10).await?;
        let undelivered = counted(&proxy, "undelivered").await?;
        assert!((1.0..=23.0).contains(&undelivered), "{undelivered}");
        collector.set_mood(Mood::Hangs);
        call_often(&mut client, MANY_CALLS).await?;
        counted(&proxy, "queue_full").await?;
        proxy.process.wait_for_log("a receiver of telemetry does not accept it").await?;
        // An unavailable collector does not delay a stop.
        client.close().await?;
        stop(&mut proxy.process, Signal::Terminate).await
    });
}

#[test]
fn metrics_go_to_a_collector_behind_tls_with_the_headers_that_it_wants() {
    run_test(async |fixture| {
        let (fleet, collector) = (Fleet::new(fixture), Collector::start().await?);
        let authority = Authority::new(fixture, "collector")?;
        let end = TlsEnd::start(&authority.sign("collector", &["localhost"])?, &collector.address()).await?;
        let app = fleet.app(App::Bench).await?;
        let url = format!("https://localhost:{}", end.address().rsplit(':').next().unwrap_or_default());
        let flags = ["--otlp", &url, "--otlp-ca", text(&authority.file)?, "--otlp-metrics-interval", "1"];
        let flags = [&flags[..], &["--otlp-header", "api-key=secret"]].concat();
        let proxy = fleet.proxy_with(&[&app], &flags).await?;
        let clients =
            [RawClient::join(proxy.address(), "/bench").await?, RawClient::join(proxy.address(), "/bench").await?];
        let open = "trunkline_client_connections";
        until(async || Ok((collector.metric(open) == Some(2.0)).then_some(()))).await?;
        assert_eq!(proxy.metrics().await?.sum(open, &[]), 2.0);
        assert_eq!(collector.header("api-key").as_deref(), Some("secret"));
        assert!(!proxy.process.log().contains("secret"));
        drop(clients);
        Ok(())
    });
}
