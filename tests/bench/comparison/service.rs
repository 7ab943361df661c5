//! Third-party servers, started with our configurations and stopped with their usual signal.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use trunkline_bench::child::ChildProcess;
use trunkline_bench::product;
use trunkline_tests::harness::dotnet::{APP, DotNet};
use trunkline_tests::harness::scenario::target_folder;

use crate::certificate::Certificate;

/// Debian's folder of servers, which may be missing in `PATH`.
const PROGRAMS: &str = "/usr/sbin:/usr/bin";
/// Debian's folder of nginx modules.
const NGINX_MODULES: &str = "/usr/lib/nginx/modules";
/// Folder of configurations and scripts.
const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/peers");

/// Reason for omitted rows.
pub(crate) const NO_DOTNET: &str = "there is no dotnet-apps.tar.xz (TRUNKLINE_AZURE_SDK names its folder)";
/// Reason for the omitted row if Go is too old.
pub(crate) const NO_CENTRIFUGE: &str = "tests/bench/compare builds it where `go` is new enough for its go.mod";

/// Server process. Ends on drop, and with this process in any case.
#[derive(Debug)]
pub(crate) struct Service {
    process: ChildProcess,
}

/// Folder for the servers' files, removed on drop.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("trunkline-compare-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The rest is small, and in a folder that the system cleans.
        drop(fs::remove_dir_all(&self.0));
    }
}

impl Service {
    pub(crate) fn node(script: &str, listen: SocketAddr, more: &[String]) -> Result<Self> {
        let path = Path::new(PEERS).join(script);
        ensure!(
            Path::new(PEERS).join("node_modules").is_dir(),
            "the node packages are missing: tests/bench/compare installs them"
        );
        let mut arguments = vec![path.display().to_string(), listen.port().to_string()];
        arguments.extend_from_slice(more);
        Self::start("node", "node", &arguments, listen)
    }

    /// Starts ASP.NET Core with SignalR, alone or with others around a Redis.
    pub(crate) fn kestrel(listen: SocketAddr, redis: Option<SocketAddr>) -> Result<Self> {
        let dotnet = DotNet::find()?.with_context(|| NO_DOTNET)?;
        let mut arguments =
            vec![dotnet.assembly(APP).display().to_string(), "--urls".into(), format!("http://{listen}")];
        let more = match redis {
            None => vec!["--mode".into(), "alone".into()],
            Some(redis) => vec!["--mode".into(), "redis".into(), "--connection".into(), redis.to_string()],
        };
        arguments.extend(more);
        Self::start("Kestrel", &dotnet.runtime().display().to_string(), &arguments, listen)
    }

    /// Starts ASP.NET Core with the package of the Azure SignalR Service, which dials these proxies.
    pub(crate) fn dotnet(listen: SocketAddr, proxies: &[SocketAddr]) -> Result<Self> {
        let dotnet = DotNet::find()?.with_context(|| NO_DOTNET)?;
        let assembly = dotnet.assembly(APP).display().to_string();
        let arguments = [&assembly, "--urls", &format!("http://{listen}"), "--mode", "azure"].map(str::to_owned);
        let names = (1..).map(|number| format!("Azure__SignalR__ConnectionString__node{number}__primary"));
        let services = names.zip(proxies.iter().map(|proxy| product::connection_string(*proxy))).collect::<Vec<_>>();
        Self::start_with("ASP.NET Core", &dotnet.runtime().display().to_string(), &arguments, &services, listen)
    }

    /// Starts the Go program of `peers/centrifuge`.
    pub(crate) fn centrifuge(listen: SocketAddr) -> Result<Self> {
        Self::start("Centrifuge", &centrifuge()?.display().to_string(), &[listen.to_string()], listen)
    }

    /// Starts nginx with its module nchan.
    pub(crate) fn nginx(listen: SocketAddr, folder: &Folder) -> Result<Self> {
        Self::nginx_with("nginx.conf", listen, &[("@MODULES@", NGINX_MODULES.to_owned())], folder)
    }

    /// Starts nginx as a TLS terminator for another server.
    pub(crate) fn nginx_tls(
        listen: SocketAddr,
        behind: SocketAddr,
        certificate: &Certificate,
        folder: &Folder,
    ) -> Result<Self> {
        let marks = [
            ("@BEHIND@", behind.to_string()),
            ("@CHAIN@", certificate.chain.clone()),
            ("@KEY@", certificate.key.clone()),
        ];
        Self::nginx_with("nginx-tls.conf", listen, &marks, folder)
    }

    fn nginx_with(file: &str, listen: SocketAddr, more: &[(&str, String)], folder: &Folder) -> Result<Self> {
        // As many workers as with `auto`.
        let workers = std::thread::available_parallelism()?.get();
        let marks = [&[("@LISTEN@", listen.to_string()), ("@WORKERS@", workers.to_string())], more].concat();
        let path = configuration(file, &marks, folder)?;
        let mut nginx = Self::start("nginx", "nginx", &["-e".into(), "stderr".into(), "-c".into(), path], listen)?;
        // The master listens before its workers exist.
        let id = nginx.id();
        nginx.process.wait_until(|| children(id).is_ok_and(|ids| ids.len() == workers))?;
        Ok(nginx)
    }

    pub(crate) fn haproxy(listen: SocketAddr, behind: SocketAddr, folder: &Folder) -> Result<Self> {
        let marks = [("@LISTEN@", listen.to_string()), ("@BEHIND@", behind.to_string())];
        let path = configuration("haproxy.cfg", &marks, folder)?;
        Self::start("haproxy", "haproxy", &["-db".into(), "-q".into(), "-f".into(), path], listen)
    }

    /// Starts HAProxy as a TLS terminator for another server.
    pub(crate) fn haproxy_tls(
        listen: SocketAddr,
        behind: SocketAddr,
        certificate: &Certificate,
        folder: &Folder,
    ) -> Result<Self> {
        let marks =
            [("@LISTEN@", listen.to_string()), ("@BEHIND@", behind.to_string()), ("@PEM@", certificate.both.clone())];
        let path = configuration("haproxy-tls.cfg", &marks, folder)?;
        Self::start("haproxy", "haproxy", &["-db".into(), "-q".into(), "-f".into(), path], listen)
    }

    /// Starts Redis without persistence.
    pub(crate) fn redis(listen: SocketAddr, folder: &Folder) -> Result<Self> {
        let (port, host, folder) = (listen.port().to_string(), listen.ip().to_string(), folder.0.display().to_string());
        let options = ["--port", &port, "--bind", &host, "--dir", &folder, "--save", "", "--appendonly", "no"];
        Self::start("redis", "redis-server", &options.map(str::to_owned), listen)
    }

    fn start(name: &'static str, program: &str, arguments: &[String], listen: SocketAddr) -> Result<Self> {
        Self::start_with(name, program, arguments, &[], listen)
    }

    fn start_with(
        name: &'static str,
        program: &str,
        arguments: &[String],
        variables: &[(String, String)],
        listen: SocketAddr,
    ) -> Result<Self> {
        // The system also ends the server, however this process ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--", program]).args(arguments).envs(variables.iter().cloned());
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:{PROGRAMS}"));
        let mut process = ChildProcess::start(name, &mut command)?;
        process.wait_until(|| TcpStream::connect(listen).is_ok())?;
        Ok(Self { process })
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Ids of the processes that it has started.
    pub(crate) fn children(&self) -> Result<Vec<u32>> {
        children(self.process.id())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // A killed master would leave its workers behind.
        let told = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status();
        if told.is_ok_and(|status| status.success()) {
            self.process.wait_for_end();
        }
    }
}

/// Path of the Go program built by `tests/bench/compare`.
pub(crate) fn centrifuge() -> Result<PathBuf> {
    Ok(target_folder()?.join("go/centrifuge"))
}

fn children(id: u32) -> Result<Vec<u32>> {
    let path = format!("/proc/{id}/task/{id}/children");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    Ok(text.split_whitespace().filter_map(|id| id.parse().ok()).collect())
}

/// Fills in a configuration and returns its path.
fn configuration(file: &str, marks: &[(&str, String)], folder: &Folder) -> Result<String> {
    let source = Path::new(PEERS).join(file);
    let text = fs::read_to_string(&source).with_context(|| format!("reading {}", source.display()))?;
    let text = text.replace("@FOLDER@", &folder.0.display().to_string());
    let text = marks.iter().fold(text, |text, (mark, value)| text.replace(mark, value));
    let path = folder.0.join(file);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path.display().to_string())
}
