//! `trunkline completions`: prints a shell's completion script for commands and flags.

use clap::{Args, Command};
use clap_complete::{Shell, generate};

const EXAMPLES: &str = "\
Examples:
  trunkline completions bash >/etc/bash_completion.d/trunkline
  trunkline completions zsh >\"${fpath[1]}/_trunkline\"
  trunkline completions fish >~/.config/fish/completions/trunkline.fish";

/// Arguments of `trunkline completions`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CompletionArgs {
    #[arg(help = "The shell", value_name = "SHELL")]
    shell: Shell,
}

pub(super) fn completions(args: &CompletionArgs, mut command: Command) -> String {
    let (name, mut script) = (command.get_name().to_owned(), Vec::new());
    generate(args.shell, &mut command, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shell_gets_the_flags_of_subcommands() {
        let serve = Command::new("serve").arg(clap::Arg::new("pool").long("pool-size"));
        let command = Command::new("trunkline").subcommand(serve);
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell, Shell::Elvish] {
            let script = completions(&CompletionArgs { shell }, command.clone());
            assert!(script.contains("trunkline") && script.contains("pool-size"), "{shell}: {script}");
        }
    }
}
