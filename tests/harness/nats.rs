//! NATS servers with JetStream, which sync each write.

use anyhow::Result;
use tokio::process::Command;

use crate::harness::process::Process;
use crate::harness::scenario::Fixture;
use crate::harness::sockets::free_address;
use crate::harness::tools::python;

/// A NATS server with its files.
#[derive(Debug)]
pub struct Nats {
    name: String,
    address: String,
    routes: Vec<String>,
    /// Process of the server, to end it.
    pub process: Process,
}

impl Nats {
    /// Starts a server with these lines in its configuration. Its own route and those of others are `name=host:port`.
    pub async fn start(fixture: &Fixture, address: &str, name: &str, routes: &[String], more: &str) -> Result<Self> {
        let (files, route) = (fixture.folder().join(name), routes.iter().find(|route| route.starts_with(name)));
        let own = |text: &String| text.split_once('=').map(|(_, address)| address.to_owned());
        let cluster = match route.and_then(own) {
            Some(own_route) => {
                let others = routes.iter().filter_map(own).map(|address| format!("\"nats://{address}\""));
                let others: Vec<_> = others.collect();
                format!("cluster {{ name: t, listen: \"{own_route}\", routes: [{}] }}", others.join(", "))
            }
            None => String::new(),
        };
        // A limit of the store belongs into its block.
        let (limit, more) = if more.starts_with("max_file_store") { (more, "") } else { ("", more) };
        let config = format!(
            "listen: \"{address}\"\nserver_name: {name}\n\
             jetstream {{ store_dir: \"{}\", sync_interval: always, {limit} }}\n{cluster}\n{more}\n",
            files.display()
        );
        let file = fixture.folder().join(format!("{name}.conf"));
        std::fs::write(&file, config)?;
        let mut command: Command = python("nats-server")?;
        command.arg("-c").arg(&file);
        let process = Process::start(fixture, name, command)?;
        Ok(Self { name: name.into(), address: address.into(), routes: routes.into(), process })
    }

    /// Starts a server without others.
    pub async fn alone(fixture: &Fixture) -> Result<Self> {
        Self::start(fixture, &free_address()?, "nats", &[], "").await
    }

    /// Starts three servers that are a cluster.
    pub async fn cluster(fixture: &Fixture) -> Result<Vec<Self>> {
        let names = ["n1", "n2", "n3"];
        let routes = names.iter().map(|name| Ok(format!("{name}={}", free_address()?))).collect::<Result<Vec<_>>>()?;
        let mut servers = Vec::new();
        for name in names {
            servers.push(Self::start(fixture, &free_address()?, name, &routes, "").await?);
        }
        Ok(servers)
    }

    /// URLs of servers, as the option `--nats` takes them.
    #[must_use]
    pub fn urls(servers: &[Self]) -> String {
        servers.iter().map(|server| format!("nats://{}", server.address)).collect::<Vec<_>>().join(",")
    }

    /// Address of the server for clients.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Starts the server again at its address, with its files.
    pub async fn start_again(&mut self, fixture: &Fixture) -> Result<()> {
        *self = Self::start(fixture, &self.address, &self.name, &self.routes.clone(), "").await?;
        Ok(())
    }
}
