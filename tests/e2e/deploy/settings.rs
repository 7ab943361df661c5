//! Settings in shipped files: each exists, none is a secret, and nodes have enough time to drain.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use serde_json::Value;
use tokio::process::Command;
use trunkline_tests::harness::scenario::{profile_folder, run_test};
use trunkline_tests::harness::tools::{DEPLOY_FOLDER, files, read_yaml, run, shipped};

use super::kubernetes::SPARE_S;

/// Variables for deployment tools, app servers and the log.
const NOT_OF_SERVE: [&str; 3] = ["TRUNKLINE_IMAGE", "TRUNKLINE_STATUS_IMAGE", "TRUNKLINE_LOG"];

fn texts() -> Result<Vec<(String, String)>> {
    let mut texts = Vec::new();
    for ending in ["yaml", "yml", "service", "socket", "toml", "cfg", "conf"] {
        for path in files(Path::new(DEPLOY_FOLDER), ending)? {
            texts.push((path.display().to_string(), std::fs::read_to_string(&path)?));
        }
    }
    assert!(texts.len() > 20, "only {} files", texts.len());
    Ok(texts)
}

fn variables(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_uppercase() || c == '_';
    let words = text.split(|c: char| !is_part(c)).filter(|word| word.starts_with("TRUNKLINE_"));
    words.map(|word| word.trim_end_matches('_').to_owned()).filter(|word| word != "TRUNKLINE").collect()
}

#[test]
fn each_setting_is_one_of_serve() {
    run_test(async |_stage| {
        let help = run(Command::new(profile_folder()?.join("trunkline")).args(["serve", "--help"])).await?;
        let known = variables(&help);
        assert!(known.contains("TRUNKLINE_UPSTREAM"), "{known:?}");
        let mut seen = 0;
        for (path, text) in texts()? {
            for name in variables(&text).iter().filter(|name| !NOT_OF_SERVE.contains(&name.as_str())) {
                assert!(known.contains(name), "{path}: `trunkline serve` knows no {name}");
                seen += 1;
            }
        }
        assert!(seen > 20, "only {seen} settings were found");
        Ok(())
    });
}

#[test]
fn no_secret_stands_in_a_file_and_nothing_is_sticky() {
    for (path, text) in texts().unwrap() {
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            // Keys are given only by file.
            for key in ["TRUNKLINE_ACCESS_KEY", "TRUNKLINE_APP_KEY"] {
                for (place, _) in line.match_indices(key) {
                    assert!(line[place + key.len()..].starts_with("_FILE"), "{path}: {line}");
                }
            }
            for sticky in ["ClientIP", "ip_hash", "cookie TRUNKLINE", "hash $", "balance source", "stick on"] {
                assert!(!line.starts_with(sticky) && !line.contains("sessionAffinity: ClientIP"), "{path}: {line}");
            }
            for secret in ["password:", "PASSWORD", "access-key =", "secret-key"] {
                assert!(!line.contains(secret), "{path}: {line}");
            }
        }
    }
}

fn seconds(value: &Value) -> u64 {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no time"));
    text.strip_suffix('s').unwrap_or(text).parse().unwrap_or_else(|_| panic!("{text:?} is no number of seconds"))
}

#[test]
fn compose_swarm_and_systemd_let_a_node_drain() {
    run_test(async |_stage| {
        for file in ["compose.yaml", "swarm/stack.yml"] {
            let proxy = &read_yaml(&[shipped(file)]).await?[0]["services"]["proxy"];
            let setting = |name: &str| seconds(&proxy["environment"][name]);
            let drain = setting("TRUNKLINE_DRAIN_GRACE") + setting("TRUNKLINE_DRAIN_TIMEOUT");
            assert!(seconds(&proxy["stop_grace_period"]) >= drain + SPARE_S, "{file}: {drain} s");
        }
        let number = |path: &str, name: &str| -> u64 {
            let text = std::fs::read_to_string(shipped(path)).unwrap();
            let value =
                text.lines().find_map(|line| line.strip_prefix(name)?.trim_start_matches([' ', '=']).parse().ok());
            value.unwrap_or_else(|| panic!("{path} has no {name}"))
        };
        let settings = "systemd/trunkline.toml";
        let drain = number(settings, "drain-grace") + number(settings, "drain-timeout");
        assert!(number("systemd/trunkline.service", "TimeoutStopSec") >= drain + SPARE_S);
        Ok(())
    });
}

#[test]
fn compose_and_swarm_nodes_find_each_other_by_a_name_of_all_and_have_one_key() {
    run_test(async |_stage| {
        for (file, name) in [("compose.yaml", "proxy"), ("swarm/stack.yml", "tasks.proxy")] {
            let services = &read_yaml(&[shipped(file)]).await?[0]["services"];
            let [node, app] = ["proxy", "app"].map(|service| &services[service]["environment"]);
            assert_eq!(node["TRUNKLINE_PEERS"], format!("http://{name}:8090"), "{file}");
            // The image sets the admin port, which is open to the other containers.
            assert!(node.get("TRUNKLINE_ADMIN").is_none(), "{file}");
            assert!(node["TRUNKLINE_ACCESS_KEY_FILE"].is_string(), "{file}");
            assert_eq!(node["TRUNKLINE_ACCESS_KEY_FILE"], app["TRUNKLINE_ACCESS_KEY_FILE"], "{file}");
            let networks = |service: &str| services[service]["networks"].clone();
            assert_eq!(networks("proxy"), serde_json::json!(["mesh"]), "{file}");
        }
        let image = std::fs::read_to_string(shipped("image/Dockerfile"))?;
        assert!(image.contains("TRUNKLINE_ADMIN=:8090"));
        Ok(())
    });
}

#[test]
fn images_are_built_from_digests() -> Result<()> {
    let image = std::fs::read_to_string(shipped("image/Dockerfile"))?;
    let stages: Vec<_> = image.lines().filter_map(|line| line.strip_prefix("FROM ")).collect();
    let bases: Vec<_> = stages.iter().filter(|fixture| !fixture.starts_with("scratch ")).collect();
    assert!(!bases.is_empty() && bases.iter().all(|base| base.contains("@sha256:")), "{bases:?}");
    Ok(())
}

/// Log variables of HAProxy and nginx that contain the request, its target or query, or the referring page.
const WITH_QUERY: [&str; 10] =
    ["httplog", "%r", "%{+Q}r", "%HU", "%HQ", "$request", "$request_uri", "$args", "$query_string", "$http_referer"];

#[test]
fn load_balancers_log_no_query() -> Result<()> {
    let mut seen = 0;
    for (path, text) in texts()? {
        for line in text.lines().map(str::trim) {
            if !["option httplog", "log-format", "log_format", "access_log"].iter().any(|word| line.starts_with(word)) {
                continue;
            }
            let words: Vec<_> = line.split([' ', '"', '\'', ';']).filter(|word| !word.is_empty()).collect();
            assert!(!words.iter().any(|word| WITH_QUERY.contains(word)), "{path}: {line}");
            assert!(
                words.first() != Some(&"access_log") || words.len() == 3,
                "{path}: nginx's own format has it: {line}"
            );
            seen += 1;
        }
    }
    assert!(seen >= 4, "only {seen} lines about logs");
    Ok(())
}
