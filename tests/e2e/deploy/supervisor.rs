//! systemd's side of a node: its units, passed sockets, notifications and watchdog.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use serde_json::json;
use tokio::net::{TcpStream, UnixDatagram};
use tokio::process::Command;
use trunkline_protocol::manifest::Transport;
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, AppServer, Fleet, failure_of};
use trunkline_tests::harness::http_client;
use trunkline_tests::harness::process::{Process, Signal};
use trunkline_tests::harness::scenario::{Fixture, profile_folder, run_heavy_test, run_test, until};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::tools::{run, shipped};

/// Maximum exposure by `systemd-analyze security`, in tenths: 100 is a service without any confinement.
const EXPOSURE_MAX: &str = "15";

/// Supervisor that holds one socket and restarts the node on it whenever the node ends.
const SUPERVISOR: &str = r#"
import os, socket, subprocess, sys
address, *command = sys.argv[1:]
host, port = address.rsplit(":", 1)
listener = socket.create_server((host, int(port)), backlog=64)
while True:
    handed = {"LISTEN_FDS": "1", "LISTEN_FDS_FIRST_FD": str(listener.fileno())}
    node = subprocess.Popen(command, pass_fds=[listener.fileno()], env={**os.environ, **handed})
    print("node", node.pid, flush=True)
    node.wait()
    print("ended", flush=True)
    # Somebody has to say so: until then nobody accepts.
    sys.stdin.readline()
"#;

#[test]
fn the_units_are_what_systemd_takes_and_confine_the_process() {
    run_test(async |fixture| {
        let program = profile_folder()?.join("trunkline");
        let units: Vec<PathBuf> =
            ["trunkline.service", "trunkline.socket"].map(|name| fixture.folder().join(name)).into();
        for unit in &units {
            let text = std::fs::read_to_string(shipped("systemd").join(unit.file_name().context("a name")?))?;
            // `systemd-analyze` requires the program to exist.
            std::fs::write(unit, text.replace("/usr/bin/trunkline", &program.to_string_lossy()))?;
        }
        run(Command::new("systemd-analyze").args(["verify", "--man=no", "--recursive-errors=no"]).args(&units)).await?;
        let mut security = Command::new("systemd-analyze");
        security.args(["security", "--offline=true", "--threshold", EXPOSURE_MAX]).arg(&units[0]);
        run(&mut security).await?;
        let wrong = std::fs::read_to_string(&units[0])?.replace("WatchdogSec=30", "WatchdogSec=often");
        std::fs::write(&units[0], wrong)?;
        let verified =
            run(Command::new("systemd-analyze").args(["verify", "--man=no", "--recursive-errors=no"]).args(&units))
                .await;
        assert!(verified.is_err(), "what is wrong has to be found");
        Ok(())
    });
}

#[test]
fn the_units_settings_are_good_and_listen_where_the_socket_does() {
    run_test(async |_stage| {
        let mut check = Command::new(profile_folder()?.join("trunkline"));
        check.arg("check").arg(shipped("systemd/trunkline.toml")).env("TRUNKLINE_ACCESS_KEY", ACCESS_KEY);
        let said = run(&mut check).await?;
        let socket = std::fs::read_to_string(shipped("systemd/trunkline.socket"))?;
        let address = socket.lines().find_map(|line| line.strip_prefix("ListenStream=")).context("no socket")?;
        assert!(said.contains(&format!("listen = \":{address}\" # file")), "{said}");
        Ok(())
    });
}

struct SupervisorScene<'a> {
    fixture: &'a Fixture,
    app: AppServer,
    listen: String,
    admin: String,
}

impl<'a> SupervisorScene<'a> {
    async fn new(fixture: &'a Fixture) -> Result<Self> {
        let app = Fleet::new(fixture).app(App::Bench).await?;
        Ok(Self { fixture, app, listen: free_address()?, admin: free_address()? })
    }

    /// Appends the unit file's command that runs a node.
    fn node(&self, mut starter: Command) -> Result<Command> {
        let upstream = format!("http://{}", self.app.address());
        starter.arg(profile_folder()?.join("trunkline")).args([
            "serve",
            "--listen",
            &self.listen,
            "--admin",
            &self.admin,
        ]);
        starter.args(["--upstream", &upstream, "--shards", "2", "--drain-timeout", "1"]);
        starter.env("TRUNKLINE_ACCESS_KEY", ACCESS_KEY);
        Ok(starter)
    }

    async fn ready(&self) -> Result<()> {
        until(async || {
            let answer = http_client::get(&self.admin, "/readyz").await.ok();
            Ok(answer.filter(|answer| answer.status == StatusCode::OK).map(|_| ()))
        })
        .await
    }

    async fn echoes(&self, clients: u64) -> Result<()> {
        let agents = Agents::new(self.fixture);
        let url = format!("http://{}/bench", self.listen);
        for number in 0..clients {
            let client = agents.client(Kind::JsJson, &url).transport(Transport::WebSockets);
            let mut client = client.open().await?;
            assert_eq!(client.invoke("Echo", json!([number])).await?, number);
            client.close().await?;
        }
        Ok(())
    }
}

#[test]
fn sockets_of_systemd_are_shared_by_all_shards() {
    run_heavy_test(async |fixture| {
        let scene = SupervisorScene::new(fixture).await?;
        let mut starter = Command::new("systemd-socket-activate");
        // `systemd-socket-activate` passes on only named variables.
        starter.args(["--listen", &scene.listen, "--listen", &scene.admin, "--setenv=TRUNKLINE_ACCESS_KEY"]);
        let mut process = Process::start(fixture, "activated", scene.node(starter)?)?;
        // It listens itself, and starts the node for the first client.
        until(async || Ok(TcpStream::connect(&scene.listen).await.ok())).await?;
        process.wait_for_line("listening on").await?;
        scene.ready().await?;
        scene.echoes(20).await?;
        process.signal(Signal::Terminate).await?;
        assert!(process.ended().await?.success());
        Ok(())
    });
}

#[test]
fn a_socket_that_no_flag_names_is_an_error_that_tells_what_to_change() {
    run_test(async |fixture| {
        let scene = SupervisorScene::new(fixture).await?;
        let stray = free_address()?;
        let mut starter = Command::new("systemd-socket-activate");
        starter.args(["--listen", &stray, "--setenv=TRUNKLINE_ACCESS_KEY"]);
        let mut process = Process::start(fixture, "activated", scene.node(starter)?)?;
        // The first client starts the node, which may end before it answers.
        until(async || Ok((TcpStream::connect(&stray).await.is_ok() || !process.is_running()).then_some(()))).await?;
        let error = failure_of(&mut process).await?;
        assert!(error.contains(&stray) && error.contains("--listen") && error.contains("ListenStream="), "{error}");
        Ok(())
    });
}

#[test]
fn who_comes_while_a_node_is_started_again_waits_and_is_not_refused() {
    run_heavy_test(async |fixture| {
        let scene = SupervisorScene::new(fixture).await?;
        let mut starter = Command::new("python3");
        starter.args(["-c", SUPERVISOR, &scene.listen]);
        let (supervisor, mut orders, lines) = Process::start_driven(fixture, "supervisor", scene.node(starter)?)?;
        let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(lines));
        let mut next = async |start: &str| -> Result<String> {
            // Skips the node's own lines.
            while let Some(line) = lines.next_line().await? {
                if let Some(rest) = line.strip_prefix(start) {
                    return Ok(rest.trim().to_owned());
                }
            }
            anyhow::bail!("the supervisor has ended: {}", supervisor.log())
        };
        let first = next("node").await?;
        scene.ready().await?;
        scene.echoes(1).await?;
        run(Command::new("sh").args(["-c", &format!("kill -s TERM {first}")])).await?;
        next("ended").await?;
        let waiting = TcpStream::connect(&scene.listen).await.context("nobody is refused")?;
        let asked = http_client::get(&scene.listen, "/metrics");
        tokio::pin!(asked);
        ensure!(futures_util::poll!(&mut asked).is_pending());
        tokio::io::AsyncWriteExt::write_all(&mut orders, b"go on\n").await?;
        let second = next("node").await?;
        asked.await.context("who came meanwhile is served")?;
        scene.ready().await?;
        scene.echoes(1).await?;
        drop(waiting);
        run(Command::new("sh").args(["-c", &format!("kill -s TERM {second}")])).await?;
        next("ended").await?;
        Ok(())
    });
}

/// File that is removed on drop.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

/// Messages of the node to its supervisor.
struct Ear(UnixDatagram);

impl Ear {
    async fn receives(&self, word: &str) -> Result<()> {
        let mut message = [0; 512];
        loop {
            let length = self.0.recv(&mut message).await?;
            if String::from_utf8_lossy(&message[..length]).lines().any(|line| line == word) {
                return Ok(());
            }
        }
    }
}

#[test]
fn the_supervisor_is_told_of_start_and_stop_and_its_watchdog_is_fed_meanwhile() {
    run_test(async |fixture| {
        let scene = SupervisorScene::new(fixture).await?;
        // The path in the test's folder would be too long for a socket.
        let place = std::env::temp_dir().join(format!("trunkline-notify-{}", std::process::id()));
        let ear = Ear(UnixDatagram::bind(&place)?);
        let _removed = Removed(place.clone());
        let mut starter = Command::new("env");
        starter.env("NOTIFY_SOCKET", &place).env("WATCHDOG_USEC", "2000000");
        let mut process = Process::start(fixture, "node", scene.node(starter)?)?;
        ear.receives("READY=1").await?;
        // The ports open even without an app server.
        assert!(http_client::get(&scene.admin, "/healthz").await?.status.is_success());
        for _ in 0..3 {
            ear.receives("WATCHDOG=1").await?;
        }
        process.signal(Signal::Terminate).await?;
        ear.receives("STOPPING=1").await?;
        assert!(process.ended().await?.success());
        Ok(())
    });
}
