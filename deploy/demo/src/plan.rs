//! Plan of the demo: the checked flags.

use std::fmt::Write;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, bail};
use clap::Parser;

use crate::app::App;

pub(crate) const CLIENTS_PER_PROXY: usize = 3;

/// Builds and runs an example app on this machine: one app server, and proxies before it.
///
/// The first build takes about two minutes on two cores. Ctrl-C ends all of it. What is logged is set by TRUNKLINE_LOG
/// for the proxies and by RUST_LOG for the app server.
#[derive(Debug, Parser)]
#[command(name = "cargo demo", version)]
pub(crate) struct Args {
    /// The example app to run
    #[arg(long, value_name = "NAME", default_value = "chat")]
    pub(crate) app: App,

    /// Have simulated clients use the app at each proxy, so that there is something to see
    #[arg(long)]
    pub(crate) traffic: bool,

    /// Where the app server listens
    #[arg(long = "app-listen", value_name = "HOST:PORT", default_value = "127.0.0.1:5000")]
    pub(crate) listen: SocketAddr,

    /// Where a proxy takes clients; once for each proxy
    #[arg(long = "proxy", value_name = "HOST:PORT", default_values = ["127.0.0.1:8080", "127.0.0.1:8081"])]
    pub(crate) proxies: Vec<SocketAddr>,

    /// Where that proxy shows health and counters; once for each proxy, in the same order
    #[arg(long = "admin", value_name = "HOST:PORT", default_values = ["127.0.0.1:8090", "127.0.0.1:8091"])]
    pub(crate) admins: Vec<SocketAddr>,

    /// Run the programs that were built beside this one, whatever their profile
    #[arg(long)]
    pub(crate) no_build: bool,
}

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) app: App,
    pub(crate) listen: SocketAddr,
    pub(crate) proxies: Vec<ProxyPlan>,
    pub(crate) has_traffic: bool,
}

#[derive(Debug)]
pub(crate) struct ProxyPlan {
    pub(crate) name: String,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Plan {
    /// Checks the flags. Errors name the flag.
    pub(crate) fn new(Args { app, listen, proxies, admins, traffic, .. }: Args) -> anyhow::Result<Self> {
        if proxies.len() != admins.len() {
            bail!("--proxy is given {} times but --admin {} times: each proxy needs both", proxies.len(), admins.len());
        }
        let proxies = (1..).zip(proxies.into_iter().zip(admins));
        let proxies =
            proxies.map(|(number, (listen, admin))| ProxyPlan { name: format!("proxy-{number}"), listen, admin });
        let plan = Self { app, listen, proxies: proxies.collect(), has_traffic: traffic };
        for (flag, address) in plan.addresses() {
            if !address.ip().is_loopback() {
                bail!(
                    "{flag} {address} is open to other machines, but the demo has no access key: name a loopback \
                     address"
                );
            }
            if address.port() == 0 {
                bail!("{flag} {address} has no fixed port, but the pages need one: give a port");
            }
        }
        Ok(plan)
    }

    pub(crate) fn check_ports(&self) -> anyhow::Result<()> {
        let mut held = Vec::new();
        for (flag, address) in self.addresses() {
            match TcpListener::bind(address) {
                Ok(listener) => held.push(listener),
                Err(error) if error.kind() == ErrorKind::AddrInUse => {
                    bail!(
                        "{address} is in use: stop the program that listens there, or choose another address: {}",
                        self.with_another(flag, address)
                    )
                }
                Err(error) => return Err(error).with_context(|| format!("{flag} {address} can't be listened on")),
            }
        }
        Ok(())
    }

    pub(crate) fn app_arguments(&self) -> Vec<String> {
        let own = words(["--listen", &self.listen.to_string(), "--name", self.app.name()]);
        own.into_iter().chain(self.app.flags().iter().map(ToString::to_string)).collect()
    }

    pub(crate) fn proxy_arguments(&self, proxy: &ProxyPlan) -> Vec<String> {
        let (listen, admin) = (proxy.listen.to_string(), proxy.admin.to_string());
        let upstream = format!("http://{}", self.listen);
        let own =
            ["serve", "--listen", &listen, "--admin", &admin, "--upstream", &upstream, "--node-name", &proxy.name];
        // Every proxy gets the full list and skips itself.
        let peers = self.proxies.iter().flat_map(|peer| ["--peers".to_owned(), format!("http://{}", peer.admin)]);
        words(own).into_iter().chain(peers).collect()
    }

    pub(crate) fn invitation(&self) -> String {
        let mut text = format!("\n{}\n", self.app.invitation());
        for proxy in &self.proxies {
            let _ = writeln!(text, "  http://{}/", proxy.listen);
        }
        if self.has_traffic {
            let clients = CLIENTS_PER_PROXY * self.proxies.len();
            let _ = writeln!(text, "{clients} simulated clients {}.", self.app.traffic());
        }
        text.push_str("Admin pages: each shows the whole fleet, with its clients, links and app server.\n");
        for proxy in &self.proxies {
            let _ = writeln!(text, "  http://{}/", proxy.admin);
        }
        text.push_str("Ctrl-C ends it all.\n");
        text
    }

    /// Flags to type in order to change only this address.
    fn with_another(&self, flag: &str, address: SocketAddr) -> String {
        let mut words = Vec::new();
        for (_, one) in self.addresses().filter(|(named, _)| *named == flag) {
            words.push(if one == address { format!("{flag} HOST:PORT") } else { format!("{flag} {one}") });
        }
        words.join(" ")
    }

    fn addresses(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let of_proxies = self.proxies.iter().flat_map(|proxy| [("--proxy", proxy.listen), ("--admin", proxy.admin)]);
        [("--app-listen", self.listen)].into_iter().chain(of_proxies)
    }
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).into()
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, ValueEnum};

    use super::*;

    fn plan(args: &[&str]) -> anyhow::Result<Plan> {
        Plan::new(Args::parse_from([&["demo"], args].concat()))
    }

    fn problem(args: &[&str]) -> String {
        plan(args).unwrap_err().to_string()
    }

    #[test]
    fn the_default_is_the_fleet_of_the_readme() {
        let plan = plan(&[]).unwrap();
        let [first, second] = plan.proxies.as_slice() else { panic!("two proxies") };
        assert_eq!(plan.app_arguments().join(" "), "--listen 127.0.0.1:5000 --name chat");
        assert_eq!(
            plan.proxy_arguments(first).join(" "),
            "serve --listen 127.0.0.1:8080 --admin 127.0.0.1:8090 --upstream http://127.0.0.1:5000 --node-name proxy-1 \
             --peers http://127.0.0.1:8090 --peers http://127.0.0.1:8091"
        );
        assert_eq!((second.listen.port(), second.admin.port()), (8081, 8091));
        let text = plan.invitation();
        assert!(text.contains("Chat: ") && text.contains("  http://127.0.0.1:8081/\n"), "{text}");
        assert!(text.contains("http://127.0.0.1:8091/\n"), "{text}");
    }

    #[test]
    fn a_taken_port_is_named_with_the_flag_that_changes_it() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let text = plan(&["--app-listen", &address]).unwrap().check_ports().unwrap_err().to_string();
        assert!(text.contains(&address) && text.ends_with("another address: --app-listen HOST:PORT"), "{text}");
        let second = "127.0.0.1:8081".parse().unwrap();
        let words = plan(&[]).unwrap().with_another("--proxy", second);
        assert_eq!(words, "--proxy 127.0.0.1:8080 --proxy HOST:PORT");
    }

    #[test]
    fn an_address_given_twice_counts_as_taken() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let text = plan(&["--app-listen", &free, "--proxy", &free, "--admin", "127.0.0.1:1"]).unwrap().check_ports();
        assert!(text.unwrap_err().to_string().contains("--proxy"));
    }

    #[test]
    fn a_wrong_value_is_named_with_its_flag() {
        assert!(
            problem(&["--app-listen", "0.0.0.0:5000"])
                .starts_with("--app-listen 0.0.0.0:5000 is open to other machines")
        );
        assert!(problem(&["--app-listen", "127.0.0.1:0"]).starts_with("--app-listen 127.0.0.1:0 has no fixed port"));
        assert!(problem(&["--proxy", "127.0.0.1:1"]).starts_with("--proxy is given 1 times but --admin 2 times"));
    }
    #[test]
    fn apps_are_listed_and_the_nearest_one_is_suggested() {
        let help = Args::command().render_long_help().to_string();
        for app in App::value_variants() {
            assert!(help.contains(&format!("- {}:", app.name())), "{help}");
        }
        let error = Args::try_parse_from(["demo", "--app", "staus"]).unwrap_err().to_string();
        assert!(error.contains("'status'") && error.contains("streaming"), "{error}");
    }

    #[test]
    fn the_text_describes_the_app_and_its_traffic() {
        let text = plan(&["--app", "status", "--traffic"]).unwrap().invitation();
        assert!(text.starts_with("\nWho is online") && text.contains("\n6 simulated clients come and go.\n"), "{text}");
        assert!(!plan(&["--app", "status"]).unwrap().invitation().contains("simulated"));
    }
}
