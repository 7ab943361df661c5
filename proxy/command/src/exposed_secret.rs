//! Secrets that every user of the machine can read: on the command line, which the process list shows, and in files.
//!
//! Kubernetes and Docker mount secrets readable by all, in containers without other users. Such files are skipped, as
//! are files in folders that other users can't access. Others cause only a warning, because an orchestrator may have
//! mounted them.

use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use trunkline_proxy::parts::NamedFiles;

use super::setting_source::{Source, Sources};

/// Ids of flags for files that contain only secrets.
const SECRET_FILES: [&str; 8] = [
    "access_key_files",
    "app_key_files",
    "admin_token_file",
    "jwt_secret_files",
    "webhook_secret_files",
    "webhook_header_files",
    "tls_keys",
    "upstream_key",
];

/// The configuration file may contain secrets, and its rules may name files with secrets.
const CONFIG_FILE: &str = "config";

/// Folders where orchestrators and supervisors mount secrets.
const MOUNTED: [&str; 2] = ["/run/secrets", "/run/credentials"];

/// Returns a warning for each typed secret of a command and its subcommands, and each secret file that others can read.
pub(super) fn warnings(command: &Command, matches: &ArgMatches, sources: &Sources) -> Vec<String> {
    let typed = command.get_arguments().filter(|arg| {
        let source = matches.value_source(arg.get_id().as_str());
        arg.is_hide_env_values_set() && source == Some(ValueSource::CommandLine)
    });
    let mut warnings: Vec<_> = typed.filter_map(|arg| typed_warning(command, arg)).collect();
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        let flag = format!("--{}", arg.get_long().unwrap_or_default());
        for path in matches.try_get_many::<PathBuf>(id).ok().flatten().into_iter().flatten() {
            let is_config = id == CONFIG_FILE;
            let rules = if is_config { NamedFiles::of(path).unwrap_or_default() } else { NamedFiles::default() };
            let sets_secret = is_config && (rules.has_secrets || sets_secret(command, sources));
            if SECRET_FILES.contains(&id) || sets_secret {
                warnings.extend(file_warning(&flag, path));
            }
            warnings
                .extend(rules.secret_files().filter_map(|named| file_warning(&format!("a table of {flag},"), named)));
        }
    }
    if let Some((name, below)) = matches.subcommand()
        && let Some(command) = command.find_subcommand(name)
    {
        warnings.extend(self::warnings(command, below, sources));
    }
    warnings
}

/// Warning about a typed secret, with the other ways to give it.
fn typed_warning(command: &Command, arg: &Arg) -> Option<String> {
    let flag = arg.get_long()?;
    let file = format!("{flag}-file");
    let file = command.get_arguments().any(|arg| arg.get_long() == Some(&file)).then(|| format!("--{file}"));
    let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned());
    let others: Vec<_> = variable.into_iter().chain(file).collect();
    let advice = if others.is_empty() { String::new() } else { format!(": use {}", others.join(" or ")) };
    Some(format!("--{flag} is visible in the process list to every user of this machine{advice}"))
}

fn sets_secret(command: &Command, sources: &Sources) -> bool {
    let mut secrets = command.get_arguments().filter(|arg| arg.is_hide_env_values_set());
    secrets.any(|arg| arg.get_long().is_some_and(|flag| matches!(sources.0.get(flag), Some(Source::File { .. }))))
}

/// Warning about a secret file, if others can read it.
fn file_warning(place: &str, path: &Path) -> Option<String> {
    can_be_read_by_others(path).then(|| {
        let path = path.display();
        format!("every user of this machine can read the secret in {place} {path}: run `chmod o= {path}`")
    })
}

#[cfg(unix)]
fn can_be_read_by_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;

    const READ: u32 = 0o004;
    const ENTER: u32 = 0o001;

    let Ok(path) = path.canonicalize() else { return false };
    let allows = |path: &Path, right| path.metadata().is_ok_and(|found| found.permissions().mode() & right != 0);
    allows(&path, READ) && !is_mounted(&path) && path.ancestors().skip(1).all(|folder| allows(folder, ENTER))
}

/// On other systems, files belong to their user.
#[cfg(not(unix))]
fn can_be_read_by_others(_: &Path) -> bool {
    false
}

/// Kubernetes mounts links to folders such as `..2026_11_23_21_05_59.1`, which it swaps.
#[cfg(unix)]
fn is_mounted(path: &Path) -> bool {
    let is_of_kubernetes = path.iter().any(|part| part.to_string_lossy().starts_with(".."));
    is_of_kubernetes || MOUNTED.iter().any(|folder| path.starts_with(folder))
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use clap::Args;

    use super::*;
    use crate::flag::ServeArgs;
    use crate::settings_loader::{Loaded, load};

    /// Folder of one test, removed at its end.
    struct SecretFolder(PathBuf);

    impl SecretFolder {
        fn new(test: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("trunkline-{test}-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            let folder = Self(folder.canonicalize().unwrap());
            folder.allow("", 0o755);
            folder
        }

        /// Writes a file with these permissions.
        fn write(&self, name: &str, text: &str, mode: u32) -> String {
            fs::create_dir_all(self.0.join(name).parent().unwrap()).unwrap();
            fs::write(self.0.join(name), text).unwrap();
            self.allow(name, mode);
            self.0.join(name).display().to_string()
        }

        fn allow(&self, name: &str, mode: u32) {
            fs::set_permissions(self.0.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    impl Drop for SecretFolder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn serve() -> Command {
        ServeArgs::augment_args(Command::new("serve"))
    }

    fn warnings_of(serve: Command, typed: &[&str]) -> Vec<String> {
        warnings_of_loaded(Loaded { command: serve, sources: Sources::default() }, typed)
    }

    fn with_file(file: &str) -> Loaded {
        load(serve(), None, &crate::setting_source::Environment::default(), Some(Path::new(file))).unwrap()
    }

    fn warnings_of_loaded(Loaded { command: serve, sources }: Loaded, typed: &[&str]) -> Vec<String> {
        let command = Command::new("trunkline").subcommand(serve);
        let matches = command
            .clone()
            .get_matches_from([&["trunkline", "serve", "--upstream", "http://127.0.0.1:1"], typed].concat());
        warnings(&command, &matches, &sources)
    }

    #[test]
    fn a_secret_that_others_can_read_is_reported_with_advice() {
        let folder = SecretFolder::new("open-secret");
        let (open, own) = (folder.write("open", "x", 0o644), folder.write("own", "x", 0o640));
        let shown = warnings_of(
            serve(),
            &["--access-key-file", &open, "--access-key-file", &own, "--admin-token-file", &open, "--tls-cert", &open],
        );
        assert_eq!(shown.len(), 2, "{shown:?}");
        assert!(shown.iter().all(|line| line.contains(&format!("`chmod o= {open}`"))), "{shown:?}");
        for flag in ["--access-key-file", "--admin-token-file"] {
            assert!(shown.iter().any(|line| line.contains(flag)), "{flag}: {shown:?}");
        }
        let files = [
            "--access-key-file",
            "--app-key-file",
            "--admin-token-file",
            "--jwt-secret-file",
            "--webhook-secret-file",
            "--webhook-header-file",
            "--tls-key",
            "--upstream-key",
        ];
        let typed: Vec<_> = files.iter().flat_map(|flag| [*flag, &open]).chain(["--upstream-cert", &open]).collect();
        assert_eq!(warnings_of(serve(), &typed).len(), files.len(), "a flag has another id");
        folder.allow("", 0o750);
        assert_eq!(warnings_of(serve(), &["--access-key-file", &open]).len(), 0, "nobody else enters its folder");
    }

    #[test]
    fn a_configuration_counts_where_it_holds_a_secret() {
        let folder = SecretFolder::new("open-configuration");
        for (text, count) in [("admin-token = '0123456789abcdef'", 1), ("pool-size = 5", 0)] {
            let file = folder.write("trunkline.toml", text, 0o644);
            let loaded = with_file(&file);
            assert_eq!(warnings_of_loaded(loaded, &["--config", &file]).len(), count, "{text}");
        }
    }

    #[test]
    fn secrets_of_rules_and_files_that_rules_name_count() {
        let folder = SecretFolder::new("open-rules");
        let (open, own) = (folder.write("open", "x", 0o644), folder.write("own", "x", 0o640));
        for (text, count) in [
            ("[app-keys.shop]\nkey = '0123456789abcdef'".to_owned(), 1),
            ("[groups.canary]\naccess-key = ['0123456789abcdef']".to_owned(), 1),
            (format!("[app-keys.shop]\nkey-file = ['{open}', '{own}']\nkey = '0123456789abcdef'"), 2),
            (format!("[groups.canary]\naccess-key-file = '{open}'\nupstream-key = '{open}'"), 2),
            (format!("[app-keys.shop]\nkey-file = '{own}'"), 0),
        ] {
            let file = folder.write("trunkline.toml", &text, 0o644);
            let shown = warnings_of_loaded(with_file(&file), &["--config", &file]);
            assert_eq!(shown.len(), count, "{text}: {shown:?}");
        }
    }

    #[test]
    fn files_mounted_by_kubernetes_cause_no_warning() {
        let folder = SecretFolder::new("mounted-secret");
        folder.write("..2026_11_23_21_05_59.1/key", "x", 0o644);
        symlink("..2026_11_23_21_05_59.1", folder.0.join("..data")).unwrap();
        symlink("..data/key", folder.0.join("key")).unwrap();
        let key = folder.0.join("key").display().to_string();
        assert_eq!(warnings_of(serve(), &["--access-key-file", &key]).len(), 0);
        assert!(is_mounted(Path::new("/run/secrets/key")) && !is_mounted(Path::new("/run/secret/key")));
    }
}

#[cfg(test)]
mod typed_tests {
    use clap::Args;

    use super::*;
    use crate::flag::ServeArgs;

    fn warnings_of(typed: &[&str]) -> Vec<String> {
        let command = Command::new("trunkline").subcommand(ServeArgs::augment_args(Command::new("serve")));
        let matches = command
            .clone()
            .get_matches_from([&["trunkline", "serve", "--upstream", "http://127.0.0.1:1"], typed].concat());
        warnings(&command, &matches, &Sources::default())
    }

    #[test]
    fn a_typed_secret_is_named_with_the_other_ways_to_give_it_and_never_shown() {
        let secret = "the-very-secret-of-this-fleet";
        let shown = warnings_of(&["--access-key", secret, "--admin-token", secret, "--metrics-token", secret]);
        assert_eq!(shown.len(), 3, "{shown:?}");
        assert!(shown.iter().all(|line| !line.contains(secret)), "{shown:?}");
        let ways = ["TRUNKLINE_ACCESS_KEY or --access-key-file", "TRUNKLINE_ADMIN_TOKEN or --admin-token-file"];
        for way in ways.into_iter().chain(["TRUNKLINE_METRICS_TOKEN"]) {
            assert!(shown.iter().any(|line| line.contains(way)), "{way}: {shown:?}");
        }
    }

    #[test]
    fn files_and_other_flags_are_no_secrets() {
        let none: &[&str] = &[];
        assert_eq!(warnings_of(&["--access-key-file", "/k", "--listen", "127.0.0.1:1"]), none);
    }
}
