//! `trunkline init`: writes a configuration file with every option of `trunkline serve` as a comment.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, Args, Command};

use super::flag::ServeArgs;
use super::settings_loader::{file_value, options};

const INTRODUCTION: &str = "\
# Settings of a Trunkline node, for `trunkline serve --config FILE`; `trunkline check FILE` prints the effective settings.
#
# Every option is a comment with its default, if any: remove the # to change it. `trunkline serve --help` has complete
# descriptions. Flags and environment variables override this file.
#
# Durations: \"500ms\", \"30s\", \"5m\", \"1h\". Sizes: \"64KiB\", \"16MiB\", \"1MB\". Addresses: \"127.0.0.1:8080\", or \":8080\" for every
# address of this machine.
";

const RULES: &str = "
# Rules come last, because they are tables: other groups of app servers, routes, mirrors, a method firewall. See the chapter
# \"Groups, routes and mirrors\" of the book.
# Tables are reloaded when this file changes, and on SIGHUP; all settings above need a restart.
#[groups.canary]
#upstream = [\"http://127.0.0.1:5001\"]
#
#[[routes]]
#hub = \"/chat\"
#percent = 10
#group = \"canary\"
#
# Keys of apps, and further issuers of access tokens. See the chapter \"Keys, tokens and pages\" of the book.
#[app-keys.shop]
#key-file = \"/etc/trunkline/shop-key\"
#hubs = [\"shop\", \"orders*\"]
#
#[issuers.shop]
#issuer = \"https://login.shop.example\"
#jwks = \"https://login.shop.example/jwks.json\"
#audiences = [\"shop\"]
#hubs = [\"shop\", \"orders*\"]
";

const LINE_BYTES: usize = 120;

/// Arguments of `trunkline init`.
#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// File to create, which must not exist; `-` is standard output.
    #[arg(long, value_name = "FILE", default_value = "trunkline.toml")]
    out: PathBuf,
}

/// Writes the file and returns the text to print.
pub(super) fn init(args: &InitArgs) -> anyhow::Result<String> {
    let text = text();
    if args.out == Path::new("-") {
        return Ok(text);
    }
    let path = args.out.display();
    match private_file().open(&args.out).and_then(|mut file| file.write_all(text.as_bytes())) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{path} exists, and was not changed: choose another file by --out")
        }
        written => written.with_context(|| format!("--out {path} can't be written"))?,
    }
    Ok(format!("wrote {path}: review it, then run `trunkline serve --config {path}`"))
}

/// Options for a new file that only its owner can read, because it may hold keys.
fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn text() -> String {
    let serve = ServeArgs::augment_args(Command::new("trunkline serve"));
    let mut text = INTRODUCTION.to_owned();
    for (name, arg) in options(&serve) {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        // Writing to a string can't fail.
        let _ = write!(text, "\n{}\n#{name} = {}\n", comment(&first_sentence(&help)), value(arg));
    }
    text + RULES
}

fn comment(text: &str) -> String {
    let mut lines = vec!["#".to_owned()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() == 1 || line.len() + word.len() < LINE_BYTES => line.extend([" ", word]),
            _ => lines.push(format!("# {word}")),
        }
    }
    lines.join("\n")
}

/// First sentence of a help text, with the default that it describes, if any.
fn first_sentence(help: &str) -> String {
    let sentence = help.split_once(". ").map_or(help, |(first, _)| first).trim_end_matches('.');
    let default = help.split_once("[default: ").and_then(|(_, rest)| rest.split_once(']'));
    match default {
        Some((default, _)) if !sentence.contains("[default: ") => format!("{sentence}. Default: {default}."),
        _ => format!("{sentence}."),
    }
}

/// Default of an option in file syntax, or else its kind.
fn value(arg: &Arg) -> String {
    let defaults = arg.get_default_values().iter().map(|value| file_value(&value.to_string_lossy()));
    let kinds = arg.get_value_names().unwrap_or_default().iter().map(|name| file_value(name));
    let has_default = !arg.get_default_values().is_empty();
    let values: Vec<_> = if has_default { defaults.collect() } else { kinds.collect() };
    match arg.get_action() {
        ArgAction::SetTrue => "false".into(),
        ArgAction::Append => format!("[{}]", values.join(", ")),
        _ => values.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use trunkline_proxy::parts::RuleFile;

    use super::*;
    use crate::settings_loader::load_text;

    fn serve() -> Command {
        ServeArgs::augment_args(Command::new("trunkline"))
    }

    /// Values of all options in a file, as parsed by clap.
    fn values(text: &str) -> BTreeMap<String, Vec<String>> {
        let command = load_text(serve(), Path::new("t.toml"), text).unwrap().command;
        let matches = command.clone().no_binary_name(true).get_matches_from([""; 0]);
        let raw =
            |id: &str| matches.get_raw(id).into_iter().flatten().map(|value| value.to_string_lossy().into_owned());
        options(&command).map(|(name, arg)| (name.to_owned(), raw(arg.get_id().as_str()).collect())).collect()
    }

    #[test]
    fn the_file_names_every_option_and_its_defaults_are_those_of_the_flags() {
        let written = text();
        let defaults = values("");
        assert_eq!(values(&written), defaults);
        let mut uncommented = String::new();
        for (name, value) in &defaults {
            let line = written.lines().find_map(|line| line.strip_prefix(&format!("#{name} = ")));
            let line = line.unwrap_or_else(|| panic!("{name} is missing"));
            if !value.is_empty() {
                uncommented += &format!("{name} = {line}\n");
            }
        }
        assert!(uncommented.lines().count() > 50, "{uncommented}");
        assert_eq!(values(&uncommented), defaults);
    }

    #[test]
    fn an_option_has_its_first_sentence_and_the_default_from_its_help() {
        let written = text();
        for lines in [
            "\n# Address on which clients connect.\n#listen = \"127.0.0.1:8080\"\n",
            "\n# Threads that serve clients. Default: one per core.\n#shards = \"N\"\n",
            "\n#drain-timeout = \"30s\"\n",
            "\n#body-max-bytes = \"30MB\"\n",
            "\n#trust-headers = [\"for\", \"proto\"]\n",
            "\n#hold-new = false\n",
        ] {
            assert!(written.contains(lines), "{lines} is missing in\n{written}");
        }
    }

    #[test]
    fn the_tables_of_the_file_are_valid_once_uncommented() {
        let lines = RULES.lines().filter_map(|line| line.strip_prefix('#')).filter(|line| !line.starts_with(' '));
        let tables = lines.collect::<Vec<_>>().join("\n");
        let folder = std::env::temp_dir().join(format!("trunkline-init-tables-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (key, file) = (folder.join("key"), folder.join("trunkline.toml"));
        std::fs::write(&key, "a key of one app, long enough").unwrap();
        std::fs::write(&file, tables.replace("/etc/trunkline/shop-key", key.to_str().unwrap())).unwrap();
        let rules = RuleFile::read(&file).map(|file| (file.access.app_keys.len(), file.access.issuers.len()));
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(rules.unwrap(), (1, 1));
    }

    #[test]
    fn comments_are_broken_between_words() {
        let broken = comment(&"word ".repeat(40));
        assert_eq!(broken.split_whitespace().filter(|word| *word == "word").count(), 40);
        assert!(broken.lines().count() == 2 && broken.lines().all(|line| line.len() <= 120), "{broken}");
        assert!(text().lines().all(|line| line.len() <= 140));
    }

    #[test]
    fn a_file_that_is_there_stays() {
        let out = std::env::temp_dir().join(format!("trunkline-init-{}.toml", std::process::id()));
        let args = InitArgs { out: out.clone() };
        let first = init(&args).map(drop);
        let second = init(&args).unwrap_err().to_string();
        let read = std::fs::read_to_string(&out).unwrap();
        std::fs::remove_file(&out).unwrap();
        first.unwrap();
        assert_eq!(read, text());
        assert_eq!(second, format!("{} exists, and was not changed: choose another file by --out", out.display()));
    }
}
