//! The image, built by buildah without an engine: its last stages, with files prepared by `root.sh`.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use serde_json::Value;
use tokio::process::Command;
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, Fleet};
use trunkline_tests::harness::http_client;
use trunkline_tests::harness::process::{Process, Signal};
use trunkline_tests::harness::scenario::{Fixture, is_full, profile_folder, run_test};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::tools::{run, shipped};

/// Runs a program in a folder as its root, read-only and as the image's user.
const INSIDE: &str = r#"
    exec unshare --mount sh -c '
        mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && folder=$1 && shift && exec chroot --userspec=65532:65532 "$folder" "$@"
    ' sh "$@"
"#;

/// buildah with a separate image store.
struct Builder {
    store: PathBuf,
}

impl Builder {
    fn new(fixture: &Fixture) -> Self {
        Self { store: fixture.folder().join("images") }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(self.store.join("root")).arg("--runroot").arg(self.store.join("run"));
        command.args(["--storage-driver", "vfs"]);
        command
    }

    /// Builds a stage of the shipped file. `built` contains the result of the previous stage.
    async fn build(&self, target: &str, built: &Path) -> Result<String> {
        let mut command = self.command();
        command.args(["build", "--quiet", "--isolation", "chroot", "--format", "docker", "--timestamp", "0"]);
        command.arg("--build-context").arg(format!("build={}", built.display()));
        command.args(["--target", target, "--file"]).arg(shipped("image/Dockerfile")).arg(shipped("image"));
        Ok(run(&mut command).await?.trim().to_owned())
    }

    async fn inspect(&self, image: &str) -> Result<Value> {
        Ok(serde_json::from_str(&run(self.command().args(["inspect", "--type", "image", image])).await?)?)
    }

    /// The file system of a container of this image.
    async fn mount(&self, image: &str) -> Result<PathBuf> {
        let container = run(self.command().args(["from", "--pull-never", image])).await?;
        Ok(run(self.command().args(["mount", container.trim()])).await?.trim().into())
    }
}

/// Result of the build stage, from the programs built with the tests.
async fn lay_out(fixture: &Fixture, folder: &str) -> Result<PathBuf> {
    let folder = fixture.folder().join(folder);
    let built = profile_folder()?;
    let (proxy, status) = (built.join("trunkline"), built.join("examples/status"));
    run(Command::new(shipped("image/root.sh")).arg(folder.join("roots/trunkline")).arg(&proxy)).await?;
    run(Command::new(shipped("image/root.sh")).arg(folder.join("roots/status")).arg(&status).arg(&proxy)).await?;
    Ok(folder)
}

fn inside(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", INSIDE, "sh"])
        .arg(root)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("TRUNKLINE_ACCESS_KEY", ACCESS_KEY);
    command
}

fn programs(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        found.push(entry?.file_name().to_string_lossy().into_owned());
    }
    found.sort();
    Ok(found)
}

#[test]
fn the_images_hold_their_programs_and_nothing_else_that_could_be_run() {
    if !is_full() {
        return;
    }
    run_test(async |fixture| {
        let builder = Builder::new(fixture);
        let built = lay_out(fixture, "built").await?;
        for (target, expected) in [("trunkline", vec!["trunkline"]), ("status", vec!["status", "trunkline"])] {
            let image = builder.build(target, &built).await?;
            let root = builder.mount(&image).await?;
            assert_eq!(programs(&root.join("usr/bin"))?, expected, "no shell, and nothing else");
            assert!(!root.join("bin").exists() && !root.join("usr/sbin").exists());
            let seen = builder.inspect(&image).await?;
            let config = &seen["Docker"]["config"];
            assert_eq!(config["User"], "65532:65532");
            assert_eq!(config["Healthcheck"]["Test"][1], "/usr/bin/trunkline");
            assert_eq!(config["Healthcheck"]["Test"][2], "health");
            assert_eq!(config["Healthcheck"]["Test"][3], if target == "trunkline" { "--live" } else { "--admin" });
            assert_eq!(config["Labels"]["org.opencontainers.image.licenses"], "Apache-2.0");
        }
        // A second build has equal content: labels and files contain no times or random values. (Only buildah's random
        // host name differs.)
        let content = async |built: &Path, builder: &Builder| -> Result<[Value; 2]> {
            let image = builder.inspect(&builder.build("trunkline", built).await?).await?;
            Ok([image["Docker"]["rootfs"]["diff_ids"].clone(), image["Docker"]["config"]["Labels"].clone()])
        };
        let again = Builder { store: fixture.folder().join("again") };
        let first = content(&built, &builder).await?;
        assert_eq!(content(&lay_out(fixture, "built-again").await?, &again).await?, first);
        assert!(first[0][0].as_str().is_some_and(|digest| digest.starts_with("sha256:")), "{first:?}");
        Ok(())
    });
}

#[test]
fn both_run_inside_read_only_as_nobody_and_tell_their_health() {
    if !is_full() {
        return;
    }
    run_test(async |fixture| {
        let builder = Builder::new(fixture);
        let built = lay_out(fixture, "built").await?;
        let proxy_root = builder.mount(&builder.build("trunkline", &built).await?).await?;
        let app_root = builder.mount(&builder.build("status", &built).await?).await?;
        let (app, listen, admin) = (free_address()?, free_address()?, free_address()?);
        let upstream = format!("http://{app}");
        let mut status = Process::start(fixture, "status", inside(&app_root, &["/usr/bin/status", "--listen", &app]))?;
        status.wait_for_line("listening on").await?;
        let serve = ["/usr/bin/trunkline", "serve", "--listen", &listen, "--admin", &admin, "--upstream", &upstream];
        let mut proxy = Process::start(fixture, "trunkline", inside(&proxy_root, &serve))?;
        proxy.wait_for_line("admin on").await?;
        for (root, asked) in [(&proxy_root, &admin), (&app_root, &app)] {
            let url = format!("http://{asked}");
            let health = ["/usr/bin/trunkline", "health", "--admin", &url];
            trunkline_tests::harness::scenario::until(async || Ok(run(&mut inside(root, &health)).await.ok())).await?;
        }
        let answer = http_client::get(&listen, "/api").await?;
        ensure!(answer.status.is_success() && answer.header("x-trunkline-node").is_some(), "{answer:?}");
        for process in [&mut proxy, &mut status] {
            let name = std::fs::read_to_string(format!("/proc/{}/status", process.id()?))?;
            ensure!(name.contains("Uid:\t65532\t65532"), "it is somebody else: {name}");
            process.signal(Signal::Terminate).await?;
            assert!(process.ended().await?.success());
        }
        Ok(())
    });
}

/// Fleet in the container with only the generated key file in its environment.
#[test]
fn a_key_file_is_made_once_and_understood_by_proxies_and_app_servers() {
    run_test(async |fixture| {
        let file = fixture.folder().join("access-key");
        let trunkline = profile_folder()?.join("trunkline");
        let make = || {
            let mut command = Command::new(&trunkline);
            command.args(["token", "key", "--file"]).arg(&file);
            command
        };
        run(&mut make()).await?;
        let key = std::fs::read_to_string(&file)?;
        run(&mut make()).await?;
        assert_eq!(std::fs::read_to_string(&file)?, key, "it stays");
        let fleet = Fleet::with_key_file(fixture, &file);
        let app = fleet.app(App::Status).await?;
        let proxy = fleet.proxy(&app).await?;
        assert!(http_client::get(proxy.address(), "/api").await?.status.is_success());
        std::fs::write(&file, "short")?;
        let error = run(&mut make()).await.unwrap_err().to_string();
        assert!(error.contains("--file") && error.contains("does not contain a key"), "{error}");
        Ok(())
    });
}
