//! App servers and proxies, each a process, on free loopback ports.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use http::StatusCode;
use tokio::process::Command;

use crate::harness::http_client::{self, Answer};
use crate::harness::metrics::Metrics;
use crate::harness::process::{Process, Signal};
use crate::harness::scenario::{Fixture, profile_folder, until};
use crate::harness::sockets::{established_at, free_address};

/// Explicit access key of a fleet.
pub const ACCESS_KEY: &str = "Zr8Q2mX7vK1pL5tN9wB3yD6hJ4cF0gSa";

/// Program of an app server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum App {
    /// The chat of `app-sdk/examples/`.
    Chat,
    /// The online status of users, of `app-sdk/examples/`.
    Status,
    /// The board with rooms and notes, of `app-sdk/examples/`. All instances of a test share one file.
    Board,
    /// The collaborative canvas of `app-sdk/examples/`.
    Canvas,
    /// Echoes, sends and ticks, of `app-sdk/examples/`.
    Bench,
    /// The hub of the official functional tests, of `app-sdk/examples/`.
    Functional,
    /// Calls with exported spans, of `app-sdk/examples/`.
    Traced,
    /// Test app: every kind of send, errors, hubs with other settings.
    Sends,
    /// Test app for authorization of clients.
    Members,
    /// Test app: streams, client results, filters, flow control.
    Calls,
    /// Test app: prints the inputs of its hooks and methods; with `--feed`, a raw endpoint with movable clients.
    Moves,
    /// Test app for groups of app servers: reports its name, and prints the inputs of its hooks and methods.
    Roles,
    /// Test app: everything other than hubs.
    Web,
    /// Test app: its hooks print why connections end.
    Ends,
    /// Test app: records groups, and sends to them by its HTTP routes.
    Records,
    /// Test app: bids on lots, in a file shared by all app servers.
    Auction,
}

impl App {
    /// Name of the app and of its program.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            App::Chat => "chat",
            App::Status => "status",
            App::Board => "board",
            App::Canvas => "canvas",
            App::Bench => "bench",
            App::Functional => "functional",
            App::Traced => "traced",
            App::Sends => "sends",
            App::Members => "members",
            App::Calls => "calls",
            App::Moves => "moves",
            App::Records => "records",
            App::Roles => "roles",
            App::Web => "web",
            App::Ends => "ends",
            App::Auction => "auction",
        }
    }

    fn hubs(self) -> usize {
        match self {
            App::Chat
            | App::Status
            | App::Board
            | App::Canvas
            | App::Bench
            | App::Traced
            | App::Moves
            | App::Records
            | App::Web
            | App::Auction => 1,
            App::Sends | App::Calls | App::Roles => 2,
            App::Members => 4,
            App::Ends => 5,
            App::Functional => 6,
        }
    }

    /// Whether it is part of the program `tests/apps`.
    fn is_of_the_tests(self) -> bool {
        use App::{Auction, Calls, Ends, Members, Moves, Records, Roles, Sends, Web};
        matches!(self, Auction | Calls | Ends | Members | Moves | Records | Roles | Sends | Web)
    }

    fn program(self) -> Result<PathBuf> {
        let folder = profile_folder()?;
        Ok(if self.is_of_the_tests() { folder.join("apps") } else { folder.join("examples").join(self.name()) })
    }
}

/// Links of a proxy to an app server per hub.
pub const POOL_SIZE: usize = 5;

/// Runs a command with another file as `/etc/hosts`, in its own mount namespace. `exec` keeps the process id.
const OWN_HOSTS: &str = r#"
    [ "$(id -u)" = 0 ] || root=--map-root-user
    exec unshare --mount $root sh -c 'mount --bind "$1" /etc/hosts && shift && exec "$@"' sh "$@"
"#;

/// Access keys of a fleet's processes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Keys {
    Given(String),
    InFile(PathBuf),
    /// No configured key: the first process creates one in the test's own state folder.
    Development,
}

/// Starts processes of one fleet.
#[derive(Debug)]
pub struct Fleet<'a> {
    fixture: &'a Fixture,
    keys: Keys,
}

impl<'a> Fleet<'a> {
    /// Creates a fleet with [`ACCESS_KEY`].
    #[must_use]
    pub fn new(fixture: &'a Fixture) -> Self {
        Self::with_keys(fixture, ACCESS_KEY)
    }

    /// Creates a fleet with other keys, separated by commas.
    #[must_use]
    pub fn with_keys(fixture: &'a Fixture, keys: &str) -> Self {
        Self { fixture, keys: Keys::Given(keys.into()) }
    }

    /// Creates a fleet with its key in a file.
    #[must_use]
    pub fn with_key_file(fixture: &'a Fixture, file: &Path) -> Self {
        Self { fixture, keys: Keys::InFile(file.into()) }
    }

    /// Creates a fleet without a configured key, as on a developer's machine.
    #[must_use]
    pub fn in_development(fixture: &'a Fixture) -> Self {
        Self { fixture, keys: Keys::Development }
    }

    /// File folder of the test.
    #[must_use]
    pub fn fixture(&self) -> &'a Fixture {
        self.fixture
    }

    /// Starts an app server and waits until it listens.
    pub async fn app(&self, app: App) -> Result<AppServer> {
        self.app_with(app, &[]).await
    }

    /// Starts an app server with additional arguments.
    pub async fn app_with(&self, app: App, arguments: &[&str]) -> Result<AppServer> {
        let mut server = self.app_at(app, &free_address()?, arguments)?;
        server.listening().await?;
        Ok(server)
    }

    /// Starts an app server at an address, without waiting.
    pub fn app_at(&self, app: App, address: &str, arguments: &[&str]) -> Result<AppServer> {
        let mut all = vec!["--listen", address];
        all.extend(app.is_of_the_tests().then(|| app.name()));
        all.extend(arguments);
        let mut launch = self.launch(app.name(), app.program()?, &all);
        let board = self.fixture.folder().join("board.jsonl");
        launch.environment.push(("BOARD_FILE".into(), board.to_string_lossy().into_owned()));
        let process = launch.start(self.fixture)?;
        Ok(AppServer { app, launch, process, address: address.into() })
    }

    /// Starts a proxy for an app server and waits for all its links.
    pub async fn proxy(&self, app: &AppServer) -> Result<Proxy> {
        self.proxy_with(&[app], &[]).await
    }

    /// Starts a proxy for these app servers, with additional arguments, and waits for all its links.
    pub async fn proxy_with(&self, apps: &[&AppServer], arguments: &[&str]) -> Result<Proxy> {
        let upstreams: Vec<&str> = apps.iter().map(|app| app.address.as_str()).collect();
        let mut proxy = self.proxy_of(&free_address()?, &free_address()?, &upstreams, arguments)?;
        proxy.ready().await?;
        let hubs: usize = apps.iter().map(|app| app.app.hubs()).sum();
        proxy.linked(hubs * POOL_SIZE).await?;
        Ok(proxy)
    }

    /// Starts a proxy at these addresses, without waiting.
    pub fn proxy_at(&self, address: &str, admin: &str, upstreams: &[&str]) -> Result<Proxy> {
        self.proxy_of(address, admin, upstreams, &[])
    }

    /// Starts a proxy at these addresses with additional arguments, without waiting. An upstream is a URL or
    /// `host:port`.
    pub fn proxy_of(&self, address: &str, admin: &str, upstreams: &[&str], more: &[&str]) -> Result<Proxy> {
        let launch = self.launch_of_proxy(address, admin, upstreams, more)?;
        let process = launch.start(self.fixture)?;
        Ok(Proxy { launch, process, address: address.into(), admin: admin.into() })
    }

    /// Starts a proxy without app servers and with faulty standard output and error, and waits until it is ready.
    pub async fn proxy_with_log(&self, log: LogFault, more: &[&str]) -> Result<Proxy> {
        let (address, admin) = (free_address()?, free_address()?);
        let mut launch = self.launch_of_proxy(&address, &admin, &[], more)?;
        let program = std::mem::replace(&mut launch.program, "python3".into());
        let arguments = ["-c".to_owned(), log.script().to_owned(), program.to_string_lossy().into_owned()];
        launch.arguments.splice(0..0, arguments);
        let process = launch.start(self.fixture)?;
        let mut proxy = Proxy { launch, process, address, admin };
        proxy.ready().await?;
        Ok(proxy)
    }

    /// Starts a proxy that resolves its app servers by name, and waits until it is ready. The file `hosts`, which may
    /// change, replaces `/etc/hosts` for it.
    pub async fn proxy_at_name(&self, hosts: &Path, upstream: &str, more: &[&str]) -> Result<Proxy> {
        let (address, admin) = (free_address()?, free_address()?);
        let launch = self.launch_of_proxy(&address, &admin, &[upstream], more)?.with_hosts(hosts);
        let process = launch.start(self.fixture)?;
        let mut proxy = Proxy { launch, process, address, admin };
        proxy.ready().await?;
        Ok(proxy)
    }

    /// Starts two proxies for an app server, and waits for all their links.
    pub async fn two_proxies(&self, app: &AppServer) -> Result<[Proxy; 2]> {
        Ok([self.proxy(app).await?, self.proxy(app).await?])
    }

    fn launch_of_proxy(&self, address: &str, admin: &str, upstreams: &[&str], more: &[&str]) -> Result<Launch> {
        let mut arguments = vec!["serve", "--listen", address, "--admin", admin, "--shards", "2"];
        let upstreams: Vec<String> = upstreams.iter().map(|upstream| url_of(upstream)).collect();
        for upstream in &upstreams {
            arguments.extend(["--upstream", upstream]);
        }
        arguments.extend(more);
        Ok(self.launch("proxy", profile_folder()?.join("trunkline"), &arguments))
    }

    fn launch(&self, name: &str, program: PathBuf, arguments: &[&str]) -> Launch {
        let state = self.fixture.folder().join("state");
        let environment = match &self.keys {
            Keys::Given(keys) => vec![("TRUNKLINE_ACCESS_KEY".into(), keys.clone())],
            Keys::InFile(file) => vec![("TRUNKLINE_ACCESS_KEY_FILE".into(), file.to_string_lossy().into_owned())],
            Keys::Development => vec![("XDG_STATE_HOME".into(), state.to_string_lossy().into_owned())],
        };
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Launch { name: name.into(), program, arguments, environment }
    }
}

/// Fault of a process's log destination.
#[derive(Debug, Clone, Copy)]
pub enum LogFault {
    /// Pipe that is never read but stays open.
    Unread,
    /// File that has reached its size limit.
    Full,
}

impl LogFault {
    /// Program that starts another one with this fault.
    fn script(self) -> &'static str {
        match self {
            Self::Unread => UNREAD_LOG,
            Self::Full => FULL_LOG,
        }
    }
}

const FULL_LOG: &str = "import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
os.execv(sys.argv[1], sys.argv[1:])";

const UNREAD_LOG: &str = "import fcntl, os, sys
reader, writer = os.pipe()
fcntl.fcntl(writer, 1031, 4096)
os.set_inheritable(reader, True)
os.dup2(writer, 1)
os.dup2(writer, 2)
os.execv(sys.argv[1], sys.argv[1:])";

fn url_of(upstream: &str) -> String {
    if upstream.contains("://") { upstream.into() } else { format!("http://{upstream}") }
}

/// Command line and environment of a process, for restarts.
#[derive(Debug, Clone)]
struct Launch {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Launch {
    fn with_hosts(mut self, hosts: &Path) -> Self {
        let files = [hosts.to_owned(), self.program].map(|path| path.to_string_lossy().into_owned());
        let command = ["-c", OWN_HOSTS, "sh"].map(str::to_owned).into_iter().chain(files);
        self.arguments = command.chain(self.arguments).collect();
        self.program = "sh".into();
        self
    }

    fn start(&self, fixture: &Fixture) -> Result<Process> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        // The tester's own settings must not affect the fleet.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TRUNKLINE_") {
                command.env_remove(name);
            }
        }
        command.env("NO_COLOR", "1");
        // Makes few clients use all links of a pool, to test traffic over several links.
        command.env("TRUNKLINE_POOL_TURN", "1");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Process::start(fixture, &self.name, command)
    }
}

/// Running app server process.
#[derive(Debug)]
pub struct AppServer {
    app: App,
    launch: Launch,
    /// Process that runs it.
    pub process: Process,
    address: String,
}

impl AppServer {
    /// Listen address as `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Waits until it has printed its address.
    pub async fn listening(&mut self) -> Result<()> {
        let expected = format!("listening on http://{}", self.address);
        self.process.wait_for_line(&expected).await?;
        Ok(())
    }

    /// Restarts it at its old address, after it has ended.
    pub async fn start_again(&mut self, fixture: &Fixture) -> Result<()> {
        self.process = self.launch.start(fixture)?;
        self.listening().await
    }

    /// Number of its TCP connections.
    pub fn established(&self) -> Result<usize> {
        established_at(&self.address)
    }
}

/// Running proxy, stopped on drop.
#[derive(Debug)]
pub struct Proxy {
    launch: Launch,
    /// Process that runs it.
    pub process: Process,
    address: String,
    admin: String,
}

impl Proxy {
    /// Client address as `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Admin address as `host:port`.
    #[must_use]
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// URL of a path for clients.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Waits until it is ready for clients.
    pub async fn ready(&mut self) -> Result<()> {
        self.readiness(StatusCode::OK).await?;
        Ok(())
    }

    /// Waits until `links` links are open. A proxy is ready after the first.
    pub async fn linked(&self, links: usize) -> Result<()> {
        until(async || {
            let open = self.metrics().await?.sum("trunkline_links", &[("state", "open")]);
            Ok((open >= links as f64).then_some(()))
        })
        .await
    }

    /// Waits until `/readyz` answers with this status, and returns the answer.
    pub async fn readiness(&mut self, status: StatusCode) -> Result<Answer> {
        until(async || match http_client::get(&self.admin, "/readyz").await {
            Ok(answer) if answer.status == status => Ok(Some(answer)),
            _ if !self.process.is_running() => bail!("{}", self.process.log()),
            // The process may not listen yet.
            _ => Ok(None),
        })
        .await
        .with_context(|| format!("{} ended before /readyz answered {status}", self.process.name()))
    }

    /// Reads its current `/metrics`.
    pub async fn metrics(&self) -> Result<Metrics> {
        Metrics::of(&self.admin).await
    }

    /// Restarts it at its old addresses, after it has ended.
    pub async fn start_again(&mut self, fixture: &Fixture) -> Result<()> {
        self.process = self.launch.start(fixture)?;
        self.ready().await
    }
}

/// Sends a signal and checks that the process then exits without an error.
pub async fn stop(process: &mut Process, signal: Signal) -> Result<()> {
    process.signal(signal).await?;
    let status = process.ended().await?;
    ensure!(status.success(), "{} ended with {status} after {signal:?}\n{}", process.name(), process.log());
    Ok(())
}

/// Waits until a process fails, and returns its output.
pub async fn failure_of(process: &mut Process) -> Result<String> {
    let status = process.ended().await?;
    if status.success() {
        bail!("{} should fail", process.name());
    }
    Ok(process.log())
}
