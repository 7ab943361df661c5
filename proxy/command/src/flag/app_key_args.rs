//! Flags of dial-in app servers: keys per app, for fleets with several apps, and encryption.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use trunkline_proxy::parts::{AppKey, GivenKeys};

/// Keys of apps, also for commands that sign with them.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct AppKeyList {
    /// Key of one app of several, so that none of them needs `--access-key`: `NAME=KEY;HUB;HUB`, where a `*` at the end
    /// of a hub matches any suffix. The key is valid only for dial-in, REST and clients' tokens of these hubs;
    /// `trunkline token key --app NAME` creates one. Without hubs, it is valid for the hub NAME and the hubs of the
    /// application NAME (`NAME_*`). May be given several times, also with one name, for a rotation without
    /// interruption. The configuration file may have tables `[app-keys.NAME]` instead.
    #[arg(
        long = "app-key",
        env = "TRUNKLINE_APP_KEY",
        value_name = "NAME=KEY",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub app_keys: Vec<String>,

    /// File with keys of apps, one `NAME=KEY;HUB;HUB` on each line. May be given several times.
    #[arg(long = "app-key-file", env = "TRUNKLINE_APP_KEY_FILE", value_name = "FILE", value_delimiter = ',')]
    pub app_key_files: Vec<PathBuf>,
}

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct AppKeyArgs {
    #[command(flatten)]
    pub keys: AppKeyList,

    /// Refuse app servers that dial in from other machines by plain HTTP; without this flag, the first one causes a
    /// warning. https:// at `--tls-listen` or as reported by a load balancer of `--trust` counts as encrypted, and so
    /// do channels of the Trunkline SDK.
    #[arg(long, env = "TRUNKLINE_REQUIRE_ENCRYPTED_DIAL_IN")]
    pub require_encrypted_dial_in: bool,
}

impl AppKeyList {
    pub(crate) fn sources(&self) -> anyhow::Result<GivenKeys<AppKey>> {
        let typed = self.app_keys.iter().map(|text| text.parse()).collect::<Result<_, String>>();
        let typed = typed.map_err(|problem| anyhow!("--app-key: {problem}"))?;
        Ok(GivenKeys { typed, files: self.app_key_files.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(args: &AppKeyList) -> Result<Vec<AppKey>, String> {
        let read = |sources: GivenKeys<AppKey>| sources.read_lines().map_err(|error| error.to_string());
        args.sources().map_err(|error| format!("{error:#}")).and_then(read)
    }

    const KEY: &str = "0123456789abcdefgh";

    #[test]
    fn keys_of_apps_are_read_from_flags_and_lines_of_files() {
        let path = std::env::temp_dir().join(format!("trunkline-app-keys-{}", std::process::id()));
        std::fs::write(&path, format!("# Ours.\norders={KEY}\n")).unwrap();
        let args = AppKeyList { app_keys: vec![format!("shop={KEY};cart")], app_key_files: vec![path.clone()] };
        let names: Vec<_> = keys(&args).unwrap().iter().map(ToString::to_string).collect();
        std::fs::write(&path, "orders=short").unwrap();
        let problem = keys(&args).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(names, ["app key shop: hubs cart", "app key orders: hubs orders, orders_*"]);
        let expected = format!("--app-key-file {}, line 1: access key has 5 bytes", path.display());
        assert!(problem.starts_with(&expected), "{problem}");
    }

    #[test]
    fn an_invalid_key_is_refused_and_not_shown() {
        let args = AppKeyList { app_keys: vec![format!("{KEY}+/==")], ..AppKeyList::default() };
        let problem = keys(&args).unwrap_err();
        assert!(problem.starts_with("--app-key: ") && !problem.contains(KEY), "{problem}");
        let args = AppKeyList { app_key_files: vec!["no-such-file".into()], ..AppKeyList::default() };
        let problem = keys(&args).unwrap_err();
        assert!(problem.starts_with("--app-key-file no-such-file can't be read"), "{problem}");
    }
}
