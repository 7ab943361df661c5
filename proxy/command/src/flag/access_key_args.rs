//! Flags of access keys, and the development key that replaces them on a single machine.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::Args;
use tracing::warn;
use trunkline_protocol::development_key;
use trunkline_protocol::key::{AccessKey, AccessKeys};
use trunkline_proxy::parts::GivenKeys;

use crate::logging::LOG_TARGET;

const FLAG: &str = "--access-key";

#[derive(Debug, Clone, Args)]
pub(crate) struct AccessKeyArgs {
    /// Access key that this node shares with app servers and other nodes; `trunkline token key` creates one. App
    /// servers that dial in get it in their connection string, which `trunkline connection-string` prints. Without a
    /// key, a node serves only its own machine. May be given several times, for a rotation without interruption: the
    /// first key signs, and all are accepted.
    #[arg(
        long = "access-key",
        env = "TRUNKLINE_ACCESS_KEY",
        value_name = "KEY",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub access_keys: Vec<String>,

    /// File with an access key. May be given several times. Reloaded when it changes, and on SIGHUP; links and
    /// connections stay open.
    #[arg(long = "access-key-file", env = "TRUNKLINE_ACCESS_KEY_FILE", value_name = "FILE", value_delimiter = ',')]
    pub access_key_files: Vec<PathBuf>,
}

impl AccessKeyArgs {
    pub(crate) fn keys(&self) -> anyhow::Result<Option<AccessKeys>> {
        let keys = self.sources()?.read()?;
        if keys.is_empty() { Ok(None) } else { AccessKeys::new(keys).map(Some).context(FLAG) }
    }

    pub(super) fn sources(&self) -> anyhow::Result<GivenKeys<AccessKey>> {
        let typed = self.access_keys.iter().map(|text| AccessKey::new(text)).collect::<Result<_, _>>();
        Ok(GivenKeys { typed: typed.context(FLAG)?, files: self.access_key_files.clone() })
    }

    /// Returns the access keys, or the development key and `true`; an error if `remote` then lists any peer.
    pub(crate) fn keys_or_development(&self, remote: &[String]) -> anyhow::Result<(AccessKeys, bool)> {
        match self.keys()? {
            Some(keys) => Ok((keys, false)),
            None => Ok((development_keys(remote)?, true)),
        }
    }
}

/// Returns this machine's development key. Refused if a listener or upstream in `remote` is on another machine.
fn development_keys(remote: &[String]) -> anyhow::Result<AccessKeys> {
    if let Some(what) = remote.first() {
        return Err(needs_key(what));
    }
    let path = development_key::path()?;
    let key = development_key::read_or_make(&path)?;
    warn!(target: LOG_TARGET, file = %path.display(), "no access key: using this machine's development key");
    AccessKeys::new(vec![key]).context(FLAG)
}

/// Error for an address on another machine without an access key.
pub(crate) fn needs_key(address: &str) -> anyhow::Error {
    anyhow!(
        "{address} is not on this machine, so an access key is needed: make one by `trunkline token key`, and give it to \
         this node and the app servers by --access-key or TRUNKLINE_ACCESS_KEY"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(texts: &[&str]) -> anyhow::Result<Option<AccessKeys>> {
        let access_keys = texts.iter().map(|text| (*text).to_owned()).collect();
        AccessKeyArgs { access_keys, access_key_files: Vec::new() }.keys()
    }

    #[test]
    fn without_texts_there_is_no_key_and_invalid_texts_are_refused() {
        assert!(keys(&[]).unwrap().is_none());
        assert!(keys(&["a-key-of-the-fleet-long-enough"]).unwrap().is_some());
        assert!(format!("{:#}", keys(&["short"]).unwrap_err()).starts_with("--access-key: access key has 5 bytes"));
    }

    #[test]
    fn a_missing_key_file_is_named() {
        let args = AccessKeyArgs { access_keys: Vec::new(), access_key_files: vec!["no-such-file.key".into()] };
        let problem = args.keys().unwrap_err().to_string();
        assert!(problem.starts_with("--access-key-file no-such-file.key can't be read"), "{problem}");
    }

    #[test]
    fn a_key_file_with_a_mark_holds_the_key_and_one_with_a_comment_is_refused() {
        let file = std::env::temp_dir().join(format!("trunkline-marked-{}.key", std::process::id()));
        let args = AccessKeyArgs { access_keys: Vec::new(), access_key_files: vec![file.clone()] };
        std::fs::write(&file, "\u{feff}a-key-of-the-fleet-long-enough\r\n").unwrap();
        let key = args.keys().unwrap().unwrap().iter().next().unwrap();
        assert_eq!(key.expose(), "a-key-of-the-fleet-long-enough");
        std::fs::write(&file, "# ours\na-key-of-the-fleet-long-enough\n").unwrap();
        let problem = args.keys().unwrap_err().to_string();
        std::fs::remove_file(&file).unwrap();
        assert!(problem.starts_with("--access-key-file") && problem.contains("without comments"), "{problem}");
        assert!(!problem.contains("long-enough"), "{problem}");
    }

    #[test]
    fn the_development_key_is_refused_beyond_this_machine() {
        let problem = development_keys(&["--listen 0.0.0.0:80".into()]).unwrap_err().to_string();
        assert!(problem.starts_with("--listen 0.0.0.0:80 is not on this machine"), "{problem}");
    }
}
