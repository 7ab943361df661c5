//! Flags of the store in NATS.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use trunkline_proxy::parts::{NatsCredentials, NatsSettings, check_nats_prefix};

use super::all_parsed;

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct NatsArgs {
    /// NATS servers with JetStream, 2.11 or later, such as `nats://a:4222,nats://b:4222`: the store of revoked tokens
    /// and group memberships of users, which then outlive the last node. `tls://` needs TLS. A user and password can be
    /// part of the URL. [default: these end with the last node]
    #[arg(long, env = "TRUNKLINE_NATS", value_name = "URL", value_delimiter = ',', hide_env_values = true)]
    pub nats: Vec<String>,

    /// Credentials file (.creds) of the node's NATS user.
    #[arg(long, env = "TRUNKLINE_NATS_CREDENTIALS", value_name = "FILE", requires = "nats")]
    pub nats_credentials: Option<PathBuf>,

    /// PEM file with the CA certificates of the NATS servers, which must then use TLS. [default: the system's
    /// certificates]
    #[arg(long, env = "TRUNKLINE_NATS_CA", value_name = "FILE", requires = "nats")]
    pub nats_ca: Option<PathBuf>,

    /// Name of the bucket in NATS. Two fleets in one NATS account need two names.
    #[arg(long, env = "TRUNKLINE_NATS_PREFIX", value_name = "NAME", default_value = "trunkline")]
    pub nats_prefix: String,

    /// Copies of each value in the NATS cluster, if this node creates the bucket. [default: 3 with three servers, else
    /// 1]
    #[arg(long, env = "TRUNKLINE_NATS_REPLICAS", value_name = "N", requires = "nats",
          value_parser = clap::value_parser!(u8).range(1..=5))]
    pub nats_replicas: Option<u8>,

    /// Serve clients if NATS can't be reached at the start. Tokens revoked before are then accepted until it can be.
    #[arg(long, env = "TRUNKLINE_NATS_OPTIONAL_AT_START", requires = "nats")]
    pub nats_optional_at_start: bool,
}

impl NatsArgs {
    /// Returns the settings of the store; `None` without one.
    pub(crate) fn settings(&self) -> anyhow::Result<Option<NatsSettings>> {
        if self.nats.is_empty() {
            return Ok(None);
        }
        let servers = all_parsed("--nats", &self.nats)?;
        let prefix = &self.nats_prefix;
        check_nats_prefix(prefix).map_err(|problem| anyhow!("--nats-prefix {prefix:?} {problem}"))?;
        let settings = NatsSettings {
            servers,
            prefix: prefix.clone(),
            replicas: self.nats_replicas,
            credentials: self.credentials()?,
            ca: self.ca()?,
            is_optional_at_start: self.nats_optional_at_start,
        };
        if !cfg!(feature = "nats") {
            bail!("--nats: this program was built without NATS (its feature `nats`)");
        }
        Ok(Some(settings))
    }

    fn credentials(&self) -> anyhow::Result<Option<NatsCredentials>> {
        let Some(path) = &self.nats_credentials else { return Ok(None) };
        let text = read("--nats-credentials", path)?;
        let has = |part: &str| text.contains(&format!("-----BEGIN {part}-----"));
        match has("NATS USER JWT") && has("USER NKEY SEED") {
            true => Ok(Some(NatsCredentials(text))),
            false => bail!("--nats-credentials {}: it has no JWT and seed of a user", path.display()),
        }
    }

    fn ca(&self) -> anyhow::Result<Option<PathBuf>> {
        let Some(path) = &self.nats_ca else { return Ok(None) };
        match read("--nats-ca", path)?.contains("-----BEGIN CERTIFICATE-----") {
            true => Ok(Some(path.clone())),
            false => bail!("--nats-ca {}: it has no certificate in PEM format", path.display()),
        }
    }
}

fn read(flag: &str, path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{flag} {}", path.display()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct NatsCli {
        #[command(flatten)]
        nats: NatsArgs,
    }

    fn settings(args: &[&str]) -> Result<Option<NatsSettings>, String> {
        let args = NatsCli::parse_from([&["trunkline"], args].concat()).nats;
        args.settings().map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn without_a_server_there_is_no_store() {
        assert!(settings(&[]).unwrap().is_none());
        assert!(NatsCli::try_parse_from(["trunkline", "--nats-replicas", "3"]).is_err());
    }

    #[test]
    fn servers_have_a_prefix_and_copies() {
        let all = settings(&["--nats", "nats://a,tls://u:p@b:1", "--nats-replicas", "3"]).unwrap().unwrap();
        assert_eq!(format!("{:?}", all.servers), "[nats://a:4222, tls://b:1]");
        assert_eq!((&*all.prefix, all.replicas, all.is_optional_at_start), ("trunkline", Some(3), false));
    }

    #[test]
    fn a_wrong_value_is_named_with_its_flag_and_no_password() {
        let problem = |args: &[&str]| settings(&[&["--nats", "nats://a"], args].concat()).unwrap_err();
        let url = settings(&["--nats", "nats://ann:secret@a/x"]).unwrap_err();
        assert!(url.starts_with("--nats \"nats://…@a/x\" has a path"), "{url}");
        assert!(problem(&["--nats-prefix", "a.b"]).starts_with("--nats-prefix \"a.b\" must be 1 to 64"));
        assert!(problem(&["--nats-ca", "/nowhere"]).starts_with("--nats-ca /nowhere: "));
        let file = std::env::temp_dir().join(format!("trunkline-nats-{}", std::process::id()));
        std::fs::write(&file, "-----BEGIN NATS USER JWT-----").unwrap();
        let path = file.to_str().unwrap();
        let problems = [problem(&["--nats-credentials", path]), problem(&["--nats-ca", path])];
        std::fs::remove_file(&file).unwrap();
        assert!(problems[0].contains("no JWT and seed") && problems[1].contains("no certificate"), "{problems:?}");
    }
}
