//! The Kubernetes manifests: built by kustomize, and checked with the schemas of several versions and for consistency.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::process::Command;
use trunkline_tests::harness::scenario::{Fixture, run_test};
use trunkline_tests::harness::tools::{python, read_yaml, run, shipped};

/// The oldest supported version, and the newest of the validator.
const VERSIONS: [&str; 2] = ["1.30", "1.37"];

/// Kinds defined by operators, which the cluster's own schemas lack.
const FOREIGN_KINDS: [&str; 1] = ["ServiceMonitor"];

/// Seconds that a node needs in addition to its own timeouts.
pub(super) const SPARE_S: u64 = 5;

pub(super) struct Objects(pub(super) Vec<Value>);

impl Objects {
    /// Reads rendered text and validates each object.
    pub(super) async fn read(fixture: &Fixture, name: &str, text: &str) -> Result<Self> {
        let path = fixture.folder().join(name).with_extension("yaml");
        std::fs::write(&path, text)?;
        let objects = read_yaml(std::slice::from_ref(&path)).await?;
        let own = objects.iter().filter(|object| !FOREIGN_KINDS.iter().any(|kind| object["kind"] == *kind)).count();
        for version in VERSIONS {
            let mut command = python("kubernetes-validate")?;
            let said = run(command.args(["--strict", "-k", version]).arg(&path)).await?;
            let passed = said.matches(" passed for resource ").count();
            ensure!(passed == own, "{passed} of {own} objects pass as of {version}:\n{said}");
        }
        Ok(Self(objects))
    }

    /// The object of this kind and name.
    pub(super) fn get(&self, kind: &str, name: &str) -> Result<&Value> {
        let is_it = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
        self.0.iter().find(is_it).with_context(|| format!("no {kind} {name}"))
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |object| object["kind"] == kind)
    }

    /// Checks that each selector selects a pod, and that each named port exists.
    pub(super) fn assert_whole(&self) {
        for service in self.of_kind("Service") {
            let Some(deployment) = self.of_kind("Deployment").find(|deployment| {
                selects(&service["spec"]["selector"], &deployment["spec"]["template"]["metadata"]["labels"])
            }) else {
                // Service of the chart for external app servers.
                assert!(service["metadata"]["name"].as_str().unwrap_or_default().ends_with("-app"), "{service}");
                continue;
            };
            let ports = &deployment["spec"]["template"]["spec"]["containers"][0]["ports"];
            for port in service["spec"]["ports"].as_array().unwrap() {
                let target = &port["targetPort"];
                let has = |own: &Value| own["name"] == *target || own["containerPort"] == *target;
                assert!(ports.as_array().unwrap().iter().any(has), "{target} of {service}");
            }
            assert_ne!(service["spec"]["sessionAffinity"], "ClientIP", "no stickiness");
        }
        for kind in ["PodDisruptionBudget", "NetworkPolicy", "Deployment"] {
            for object in self.of_kind(kind) {
                let selector = object["spec"].get("selector").or_else(|| object["spec"].get("podSelector")).unwrap();
                let is_there = self.of_kind("Deployment").any(|deployment| {
                    selects(&selector["matchLabels"], &deployment["spec"]["template"]["metadata"]["labels"])
                });
                assert!(is_there, "{object}");
            }
        }
        assert_eq!(self.of_kind("Secret").count(), 0, "a secret in clear");
    }

    /// Checks that a node has enough time to drain before it is killed.
    pub(super) fn assert_drain_fits(&self, deployment: &str, setting: impl Fn(&str) -> Option<u64>) {
        let pod = &self.get("Deployment", deployment).unwrap()["spec"]["template"]["spec"];
        let pre_stop = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
        let drain = setting("TRUNKLINE_DRAIN_GRACE").unwrap() + setting("TRUNKLINE_DRAIN_TIMEOUT").unwrap();
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(grace >= pre_stop + drain + SPARE_S, "{grace} s for {pre_stop} + {drain} + {SPARE_S}");
    }

    /// Checks that `--peers` names a headless service, and that the network policy allows its ports between nodes.
    pub(super) fn assert_nodes_meet(&self, peers: &str) {
        let name = peers.strip_prefix("http://").and_then(|peers| peers.strip_suffix(":8090")).unwrap_or_default();
        let service = self.get("Service", name).unwrap();
        assert_eq!(service["spec"]["clusterIP"], "None", "its name has to resolve to each node");
        assert_eq!(
            service["spec"]["publishNotReadyAddresses"], true,
            "a node that waits for an app server is a member"
        );
        let nodes = &service["spec"]["selector"];
        let is_nodes = |policy: &&Value| policy["spec"]["podSelector"]["matchLabels"] == *nodes;
        let policy = self.of_kind("NetworkPolicy").find(is_nodes).unwrap();
        let opens = |direction: &str, side: &str, port: &Value| {
            let rules = policy["spec"][direction].as_array().unwrap();
            rules.iter().any(|rule| {
                let peers = rule[side].as_array();
                // A rule without peers applies to all.
                let is_for_nodes =
                    peers.is_none_or(|peers| peers.iter().any(|peer| peer["podSelector"]["matchLabels"] == *nodes));
                is_for_nodes && rule["ports"].as_array().unwrap().iter().any(|own| own["port"] == *port)
            })
        };
        for port in service["spec"]["ports"].as_array().unwrap() {
            assert!(opens("ingress", "from", &port["targetPort"]), "nobody may come to {port}");
            assert!(opens("egress", "to", &port["port"]), "nobody may go to {port}");
        }
    }

    /// Checks that a node's app keys are a file of this secret that other users can't read.
    pub(super) fn assert_app_keys(&self, deployment: &str, secret: &str) {
        let pod = &self.get("Deployment", deployment).unwrap()["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let named = |list: &Value, name: &str| {
            list.as_array().unwrap().iter().find(|entry| entry["name"] == name).cloned().unwrap_or_default()
        };
        let path = named(&container["env"], "TRUNKLINE_APP_KEY_FILE");
        let mounted = named(&container["volumeMounts"], "app-keys");
        let folder = format!("{}/", mounted["mountPath"].as_str().unwrap());
        assert!(path["value"].as_str().unwrap().starts_with(&folder), "{path} in {folder}");
        let volume = named(&pod["volumes"], "app-keys");
        assert_eq!(
            (&volume["secret"]["secretName"], &volume["secret"]["defaultMode"]),
            (&secret.into(), &0o440.into())
        );
    }

    /// Checks the restricted security settings of a pod.
    pub(super) fn assert_hardened(&self) {
        for deployment in self.of_kind("Deployment") {
            let pod = &deployment["spec"]["template"]["spec"];
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
            assert_eq!(pod["automountServiceAccountToken"], false);
            let container = &pod["containers"][0];
            let context = &container["securityContext"];
            assert_eq!(context["readOnlyRootFilesystem"], true);
            assert_eq!(context["allowPrivilegeEscalation"], false);
            assert_eq!(context["capabilities"]["drop"][0], "ALL");
            for probe in ["readinessProbe", "livenessProbe"] {
                assert!(container[probe]["httpGet"].is_object(), "{probe} of {deployment}");
            }
        }
    }
}

fn selects(selector: &Value, labels: &Value) -> bool {
    let selector = selector.as_object().filter(|selector| !selector.is_empty());
    selector.is_some_and(|selector| selector.iter().all(|(name, value)| labels.get(name) == Some(value)))
}

async fn kustomize(folder: &str) -> Result<String> {
    run(Command::new("kubectl").arg("kustomize").arg(shipped(folder))).await
}

#[test]
fn the_manifests_are_what_clusters_take_and_fit_together() {
    run_test(async |fixture| {
        let objects = Objects::read(fixture, "base", &kustomize("kubernetes").await?).await?;
        objects.assert_whole();
        objects.assert_hardened();
        let settings = objects.of_kind("ConfigMap").next().context("no settings")?["data"].clone();
        objects.assert_drain_fits("trunkline", |name| settings[name].as_str()?.parse().ok());
        assert_eq!(settings["TRUNKLINE_UPSTREAM"], "http://status:5000");
        objects.assert_nodes_meet(settings["TRUNKLINE_PEERS"].as_str().context("no peers")?);
        let status = objects.get("Service", "status")?;
        assert_eq!(status["spec"]["clusterIP"], "None", "its name has to resolve to each app server");
        assert_eq!(status["spec"]["ports"][0]["port"], 5000);
        Ok(())
    });
}

#[test]
fn the_manifests_with_keys_of_apps_are_what_clusters_take() {
    run_test(async |fixture| {
        let folder = fixture.folder().join("kubernetes");
        run(Command::new("cp").arg("-r").arg(shipped("kubernetes")).arg(&folder)).await?;
        let path = folder.join("kustomization.yaml");
        let without = std::fs::read_to_string(&path)?;
        let with = without.replace("#components: [app-keys]", "components: [app-keys]");
        assert_ne!(with, without);
        std::fs::write(&path, with)?;
        let text = run(Command::new("kubectl").arg("kustomize").arg(&folder)).await?;
        let objects = Objects::read(fixture, "app-keys", &text).await?;
        objects.assert_whole();
        objects.assert_hardened();
        objects.assert_app_keys("trunkline", "trunkline-app-keys");
        Ok(())
    });
}

#[test]
fn monitors_and_autoscaler_find_what_they_look_at() {
    run_test(async |fixture| {
        let text = format!("{}\n---\n{}", kustomize("kubernetes").await?, kustomize("kubernetes/metrics").await?);
        let objects = Objects::read(fixture, "metrics", &text).await?;
        assert_eq!(objects.of_kind("ServiceMonitor").count(), 2);
        for monitor in objects.of_kind("ServiceMonitor") {
            let mut services = objects
                .of_kind("Service")
                .filter(|service| selects(&monitor["spec"]["selector"]["matchLabels"], &service["metadata"]["labels"]));
            let service = services.next().with_context(|| format!("nothing for {monitor}"))?;
            assert!(services.next().is_none(), "{monitor} would scrape some twice");
            let port = &monitor["spec"]["endpoints"][0]["port"];
            let ports = service["spec"]["ports"].as_array().context("ports")?;
            assert!(ports.iter().any(|own| own["name"] == *port), "{port} of {service}");
        }
        let autoscaler = objects.get("HorizontalPodAutoscaler", "trunkline")?;
        objects.get("Deployment", autoscaler["spec"]["scaleTargetRef"]["name"].as_str().context("a name")?)?;
        let metric = &autoscaler["spec"]["metrics"][0]["pods"]["metric"]["name"];
        let adapter = read_yaml(&[shipped("kubernetes/metrics/adapter-values.yaml")]).await?;
        assert_eq!(adapter[0]["rules"]["custom"][0]["name"]["as"], *metric);
        Ok(())
    });
}

#[test]
fn the_validator_finds_what_is_wrong() {
    run_test(async |fixture| {
        let text = kustomize("kubernetes").await?;
        for (right, wrong) in
            [("maxUnavailable: 1", "maxUnavailble: 1"), ("containerPort: 8080", "containerPort: eighty")]
        {
            let wrong = text.replace(right, wrong);
            assert_ne!(wrong, text, "{right}");
            assert!(Objects::read(fixture, "wrong", &wrong).await.is_err(), "{right}");
        }
        Ok(())
    });
}
