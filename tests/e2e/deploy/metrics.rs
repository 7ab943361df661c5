//! Prometheus and Grafana: rules checked by promtool, and only exported names.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::process::Command;
use trunkline_protocol::manifest::Transport;
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{App, Fleet, POOL_SIZE};
use trunkline_tests::harness::http_client;
use trunkline_tests::harness::scenario::{run_heavy_test, run_test};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::tools::{read_yaml, run, shipped};

/// Series that Prometheus adds for each target.
const OF_PROMETHEUS: [&str; 1] = ["up"];

fn promtool() -> Command {
    let mut command = Command::new("promtool");
    command.current_dir(shipped("prometheus"));
    command
}

#[test]
fn each_alert_fires_where_it_should() {
    run_test(async |_stage| {
        run(promtool().args(["check", "rules", "trunkline.rules.yml"])).await?;
        let files = ["trunkline.rules.test.yml", "trunkline.versions.test.yml"];
        run(promtool().args(["test", "rules"]).args(files)).await?;
        let tests = files.map(|file| std::fs::read_to_string(shipped("prometheus").join(file)));
        let tests = tests.into_iter().collect::<Result<String, _>>()?;
        for rule in rules().await? {
            let Some(alert) = rule["alert"].as_str() else { continue };
            assert!(tests.contains(&format!("- alertname: {alert}\n")), "no test lets {alert} fire");
            for note in ["summary", "description"] {
                assert!(rule["annotations"][note].is_string(), "{alert} has no {note}");
            }
        }
        Ok(())
    });
}

#[test]
fn prometheus_takes_its_configurations() {
    run_test(async |fixture| {
        for folder in ["prometheus", "compose"] {
            // Stored beside its rules, as when deployed.
            let place = fixture.folder().join(folder);
            std::fs::create_dir(&place)?;
            std::fs::copy(shipped(folder).join("prometheus.yml"), place.join("prometheus.yml"))?;
            std::fs::copy(shipped("prometheus/trunkline.rules.yml"), place.join("trunkline.rules.yml"))?;
            run(Command::new("promtool").args(["check", "config"]).arg(place.join("prometheus.yml"))).await?;
        }
        Ok(())
    });
}

async fn rules() -> Result<Vec<Value>> {
    let file = read_yaml(&[shipped("prometheus/trunkline.rules.yml")]).await?.remove(0);
    let groups = file["groups"].as_array().context("groups")?;
    let rules: Vec<Value> = groups.iter().filter_map(|group| group["rules"].as_array()).flatten().cloned().collect();
    ensure!(rules.len() > 20, "only {} rules", rules.len());
    Ok(rules)
}

/// All values of a key, at any depth.
fn values_of<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(key).and_then(Value::as_str));
            fields.values().for_each(|value| values_of(value, key, found));
        }
        Value::Array(values) => values.iter().for_each(|value| values_of(value, key, found)),
        _ => {}
    }
}

/// Names of metrics in an expression: words other than labels, numbers and functions.
fn names(expression: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut rest = expression;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        let word = &rest[start..];
        let end = word.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':').unwrap_or(word.len());
        let (name, after) = word.split_at(end);
        if ["trunkline_", "trunkline:", "process_"].iter().any(|prefix| name.starts_with(prefix)) || name == "up" {
            names.insert(name.to_owned());
        }
        // Skips label names and values.
        rest = match after.strip_prefix('{') {
            Some(labels) => labels.split_once('}').map_or("", |(_, rest)| rest),
            None => after,
        };
    }
    names
}

/// Names that a process exports; for a histogram, the names of its parts.
async fn exported(address: &str) -> Result<BTreeSet<String>> {
    let text = http_client::get(address, "/metrics").await?.body;
    let mut names = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').context("a type")?;
        names.insert(name.to_owned());
        if kind == "histogram" {
            names.extend(["_bucket", "_sum", "_count"].map(|part| format!("{name}{part}")));
        }
    }
    Ok(names)
}

#[test]
fn rules_and_panels_name_only_what_nodes_and_app_servers_export() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        // Metrics of a node in a fleet, with a store that is away.
        let (address, admin, store) = (free_address()?, free_address()?, free_address()?);
        let (peers, store) = (format!("http://{admin}"), format!("nats://{store}"));
        let flags = ["--peers", &peers, "--nats", &store, "--nats-optional-at-start"];
        let mut proxy = fleet.proxy_of(&address, &admin, &[app.address()], &flags)?;
        proxy.ready().await?;
        proxy.linked(POOL_SIZE).await?;
        // Some metrics appear only after an event.
        let agents = Agents::new(fixture);
        let client = agents.client(Kind::JsJson, &proxy.url("/bench")).transport(Transport::WebSockets);
        let mut client = client.open().await?;
        assert_eq!(client.invoke("Echo", serde_json::json!([1])).await?, 1);
        let refused = http_client::get(proxy.address(), "/bench?id=nobody").await?;
        assert!(refused.status.is_client_error(), "{refused:?}");
        let mut known = exported(proxy.admin()).await?;
        known.extend(exported(app.address()).await?);
        client.close().await?;
        assert!(known.contains("trunkline_links"), "{known:?}");
        known.extend(OF_PROMETHEUS.map(str::to_owned));
        // Exported only while a condition is active; the test of outages sees it.
        known.insert("trunkline_condition_active".to_owned());

        let rules = rules().await?;
        known.extend(rules.iter().filter_map(|rule| rule["record"].as_str()).map(str::to_owned));
        let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(shipped("grafana/trunkline.json"))?)?;
        let mut expressions: Vec<&str> = rules.iter().filter_map(|rule| rule["expr"].as_str()).collect();
        values_of(&dashboard, "expr", &mut expressions);
        values_of(&dashboard, "definition", &mut expressions);
        let named: BTreeSet<String> = expressions.iter().flat_map(|expression| names(expression)).collect();
        assert!(named.len() > 40, "only {named:?}");
        let unknown: Vec<_> = named.difference(&known).collect();
        assert!(unknown.is_empty(), "nobody exports {unknown:?}");
        Ok(())
    });
}

#[test]
fn names_are_found_between_functions_and_labels() {
    let expression = r#"sum by (le, up_) (rate(trunkline_a_bucket{job="trunkline_no", up="x"}[5m])) > process_b / up"#;
    let found: Vec<_> = names(expression).into_iter().collect();
    assert_eq!(found, ["process_b", "trunkline_a_bucket", "up"]);
}

#[test]
fn grafana_finds_dashboard_and_prometheus_where_compose_puts_them() {
    run_test(async |_stage| {
        let files = ["grafana/datasource.yml", "grafana/provider.yml", "compose.yaml"];
        let files = read_yaml(&files.map(shipped)).await?;
        let [datasource, provider, compose] = &files[..] else { anyhow::bail!("{} documents", files.len()) };
        assert_eq!(datasource["datasources"][0]["url"], "http://prometheus:9090");
        assert!(compose["services"]["prometheus"].is_object());
        let folder = provider["providers"][0]["options"]["path"].as_str().context("a path")?;
        let volumes = compose["services"]["grafana"]["volumes"].as_array().context("volumes")?;
        let targets: Vec<&str> = volumes.iter().filter_map(|volume| volume.as_str()?.split(':').nth(1)).collect();
        assert!(targets.iter().any(|target| Path::new(target).parent() == Some(Path::new(folder))), "{targets:?}");
        for volume in volumes.iter().filter_map(Value::as_str) {
            let source = volume.split(':').next().unwrap_or_default();
            assert!(shipped(source).is_file(), "{volume}: there is no such file");
        }
        Ok(())
    });
}
