//! `trunkline man`: prints the manual page of the command or of a subcommand.

use anyhow::Context;
use clap::{Args, Command};
use clap_mangen::Man;
use trunkline_proxy::parts::nearest;

const EXAMPLES: &str = "\
Examples:
  trunkline man | man -l -
  trunkline man serve >/usr/local/share/man/man1/trunkline-serve.1
  trunkline man token user | man -l -";

/// Arguments of `trunkline man`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ManualArgs {
    /// A subcommand, such as `serve` or `token user`. [default: the command itself]
    #[arg(value_name = "COMMAND")]
    path: Vec<String>,
}

/// Returns the page in roff format for `man`.
pub(super) fn manual(args: &ManualArgs, mut command: Command) -> anyhow::Result<String> {
    command.build();
    let mut shown = &command;
    for name in &args.path {
        shown = shown.find_subcommand(name).with_context(|| {
            let parent = shown.get_bin_name().unwrap_or_else(|| shown.get_name());
            let nearest = nearest(name, shown.get_subcommands().map(Command::get_name));
            let suggestion = nearest.map(|nearest| format!("; is {nearest:?} meant?")).unwrap_or_default();
            format!("{parent:?} has no command {name:?}{suggestion}")
        })?;
    }
    let mut page = Vec::new();
    let source = concat!("trunkline ", env!("CARGO_PKG_VERSION"));
    Man::new(shown.clone())
        .source(source)
        .manual("Trunkline")
        .render(&mut page)
        .context("the page can't be written")?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(path: &[&str]) -> anyhow::Result<String> {
        let serve = Command::new("serve").arg(clap::Arg::new("pool").long("pool-size"));
        let path = path.iter().map(|name| (*name).to_owned()).collect();
        manual(&ManualArgs { path }, Command::new("trunkline").subcommand(serve))
    }

    #[test]
    fn the_command_and_its_subcommands_have_a_page_each() {
        assert!(page(&[]).unwrap().contains("serve"));
        let serve = page(&["serve"]).unwrap();
        assert!(serve.contains(".TH trunkline-serve 1") && serve.contains("pool\\-size"), "{serve}");
    }

    #[test]
    fn an_unknown_command_is_refused_with_the_nearest() {
        let problem = page(&["sreve"]).unwrap_err().to_string();
        assert_eq!(problem, "\"trunkline\" has no command \"sreve\"; is \"serve\" meant?");
    }
}
