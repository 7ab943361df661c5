//! The Helm chart: rendered by Go's templates and Sprig, as in Helm, and then checked like manifests.

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::process::Command;
use trunkline_tests::harness::scenario::{run_test, target_folder};
use trunkline_tests::harness::tools::{python, read_yaml, run, shipped};

use super::kubernetes::Objects;

const APP: &str = r#"appServers.selector={"app":"mine"}"#;
const APP_KEYS: &str = r#"appKeys.secret="keys-of-apps""#;

const NATS: [&str; 4] = [
    r#"nats.servers=["nats://a:4222","tls://b:4222"]"#,
    r#"nats.secret="trunkline-nats""#,
    r#"nats.credentialsKey="node.creds""#,
    r#"nats.caKey="ca.pem""#,
];

/// Values that enable all optional parts.
const ALL: [&str; 19] = [
    APP,
    r#"appServers.upstreams=["https://elsewhere.example"]"#,
    "autoscaling.enabled=true",
    "serviceMonitor.enabled=true",
    r#"serviceMonitor.labels={"release":"prometheus"}"#,
    "ingress.enabled=true",
    r#"ingress.hosts=["a.example","b.example"]"#,
    r#"ingress.tls=[{"hosts":["a.example"],"secretName":"tls"}]"#,
    r#"networkPolicy.egress=[{"ports":[{"port":443}]}]"#,
    r#"nodeSelector={"disk":"fast"}"#,
    r#"tolerations=[{"key":"a","operator":"Exists"}]"#,
    r#"imagePullSecrets=[{"name":"registry"}]"#,
    r#"podAnnotations={"a":"b"}"#,
    "drain.timeout=120",
    APP_KEYS,
    NATS[0],
    NATS[1],
    NATS[2],
    NATS[3],
];

type Change = fn(&mut Value);

/// Renders the chart with the program of `tests/tools/chart`, which `tests/run` builds.
async fn render(changes: &[&str]) -> Result<String> {
    let program = target_folder()?.join("go/chart");
    run(Command::new(program).arg(shipped("helm/trunkline")).arg("fleet").args(changes)).await
}

fn environment(objects: &Objects) -> Result<Value> {
    Ok(objects.get("Deployment", "fleet-trunkline")?["spec"]["template"]["spec"]["containers"][0]["env"].clone())
}

fn variable<'a>(environment: &'a Value, name: &str) -> Option<&'a str> {
    environment.as_array()?.iter().find(|entry| entry["name"] == name)?["value"].as_str()
}

#[test]
fn the_chart_renders_what_clusters_take_with_its_own_values_and_with_all_that_there_are() {
    run_test(async |fixture| {
        for changes in [&[APP][..], &ALL] {
            let objects = Objects::read(fixture, "chart", &render(changes).await?).await?;
            objects.assert_whole();
            objects.assert_hardened();
            let environment = environment(&objects)?;
            objects.assert_drain_fits("fleet-trunkline", |name| variable(&environment, name)?.parse().ok());
            let is_all = changes.len() > 1;
            for kind in ["HorizontalPodAutoscaler", "ServiceMonitor", "Ingress"] {
                assert_eq!(objects.get(kind, "fleet-trunkline").is_ok(), is_all, "{kind}");
            }
            let upstreams = variable(&environment, "TRUNKLINE_UPSTREAM").context("no upstream")?;
            let app = objects.get("Service", "fleet-trunkline-app")?;
            assert_eq!(app["spec"]["clusterIP"], "None");
            assert_eq!(upstreams.split(',').next(), Some("http://fleet-trunkline-app:5000"));
            assert_eq!(upstreams.split(',').count(), if is_all { 2 } else { 1 });
            objects.assert_nodes_meet(variable(&environment, "TRUNKLINE_PEERS").context("no peers")?);
        }
        Ok(())
    });
}

#[test]
fn keys_of_apps_are_a_file_of_the_nodes_and_may_stand_in_for_app_servers() {
    run_test(async |fixture| {
        let text = render(&[APP_KEYS]).await?;
        let objects = Objects::read(fixture, "apps", &text).await?;
        objects.assert_whole();
        let (environment, pod) =
            (environment(&objects)?, &objects.get("Deployment", "fleet-trunkline")?["spec"]["template"]["spec"]);
        assert_eq!(variable(&environment, "TRUNKLINE_UPSTREAM"), None, "nobody is dialled");
        objects.assert_app_keys("fleet-trunkline", "keys-of-apps");
        let without = render(&[APP]).await?;
        assert!(!without.contains("app-keys") && pod["volumes"].as_array().context("volumes")?.len() == 2);
        Ok(())
    });
}

#[test]
fn an_existing_nats_is_the_store_of_the_nodes() {
    run_test(async |fixture| {
        let objects = Objects::read(fixture, "nats", &render(&[&[APP][..], &NATS].concat()).await?).await?;
        objects.assert_whole();
        let (all, mounts) = (environment(&objects)?, "/run/secrets/trunkline-nats");
        assert_eq!(variable(&all, "TRUNKLINE_NATS"), Some("nats://a:4222,tls://b:4222"));
        assert_eq!(variable(&all, "TRUNKLINE_NATS_CREDENTIALS"), Some(&*format!("{mounts}/node.creds")));
        assert_eq!(variable(&all, "TRUNKLINE_NATS_CA"), Some(&*format!("{mounts}/ca.pem")));
        let pod = &objects.get("Deployment", "fleet-trunkline")?["spec"]["template"]["spec"];
        let mounted = pod["containers"][0]["volumeMounts"].as_array().context("mounts")?;
        assert!(mounted.iter().any(|mount| mount["name"] == "nats" && mount["mountPath"] == mounts), "{mounted:?}");
        let volumes = pod["volumes"].as_array().context("volumes")?;
        assert!(volumes.iter().any(|volume| volume["secret"]["secretName"] == "trunkline-nats"), "{volumes:?}");
        let without = render(&[APP]).await?;
        assert!(!without.contains("TRUNKLINE_NATS") && !without.contains("trunkline-nats"));
        Ok(())
    });
}

#[test]
fn who_names_the_peers_of_a_release_replaces_the_charts_own() {
    run_test(async |fixture| {
        let text = render(&[APP, r#"settings={"TRUNKLINE_PEERS":""}"#]).await?;
        let objects = Objects::read(fixture, "alone", &text).await?;
        let environment = environment(&objects)?;
        let named =
            environment.as_array().context("variables")?.iter().filter(|entry| entry["name"] == "TRUNKLINE_PEERS");
        assert_eq!(named.map(|entry| &entry["value"]).collect::<Vec<_>>(), [""]);
        Ok(())
    });
}

#[test]
fn the_charts_schema_takes_its_values_and_refuses_mistakes() {
    run_test(async |fixture| {
        let folder = shipped("helm/trunkline");
        let values = read_yaml(&[folder.join("values.yaml")]).await?.remove(0);
        let check = async |name: &str, change: Change| -> Result<String> {
            let mut values = values.clone();
            values["appServers"]["selector"]["app"] = "mine".into();
            change(&mut values);
            let path = fixture.folder().join(name);
            std::fs::write(&path, values.to_string())?;
            run(python("check-jsonschema")?.arg("--schemafile").arg(folder.join("values.schema.json")).arg(path)).await
        };
        check("right.json", |_| ()).await?;
        let all_dial_in: Change = |values| {
            values["appServers"]["selector"] = serde_json::json!({});
            values["appKeys"]["secret"] = "keys-of-apps".into();
        };
        check("dial-in.json", all_dial_in).await?;
        // Kubernetes accepts only strings here, which YAML numbers are not.
        let wrong: [(&str, Change); 11] = [
            ("a number as annotation of pods", |values| values["podAnnotations"]["port"] = 9100.into()),
            ("a boolean as annotation of the service", |values| {
                values["service"]["annotations"]["scrape"] = true.into()
            }),
            ("a number as annotation of the ingress", |values| values["ingress"]["annotations"]["size"] = 8.into()),
            ("a number as label of the monitor", |values| values["serviceMonitor"]["labels"]["release"] = 1.into()),
            ("a boolean in the selector of machines", |values| values["nodeSelector"]["disk"] = true.into()),
            ("nobody behind it", |values| values["appServers"]["selector"] = serde_json::json!({})),
            ("a secret", |values| values["settings"]["TRUNKLINE_ACCESS_KEY"] = "k".into()),
            ("a secret of an app", |values| values["settings"]["TRUNKLINE_APP_KEY"] = "a=k".into()),
            ("a password in a URL", |values| values["nats"]["servers"] = serde_json::json!(["nats://a:b@c"])),
            ("no such value", |values| values["replica"] = 3.into()),
            ("no node", |values| values["replicas"] = 0.into()),
        ];
        for (what, change) in wrong {
            assert!(check("wrong.json", change).await.is_err(), "{what}");
        }
        Ok(())
    });
}
