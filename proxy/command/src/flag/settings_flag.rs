//! Settings of the node as flags: a clap argument for each option.

use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use trunkline_proxy::parts::{OptionGroup, OptionKind, OptionRow};

use super::value_parser::{bytes, bytes_limit, count, milliseconds, seconds, whole_seconds};
use crate::quantity::{duration_text, size_text};

#[derive(Debug, Clone)]
pub(crate) struct Flags<S>(pub S);

impl<S: OptionGroup> Args for Flags<S> {
    fn augment_args(command: Command) -> Command {
        let defaults = S::default();
        command.args(S::options().map(|option| argument(option, (option.get)(&defaults))))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<S: OptionGroup> FromArgMatches for Flags<S> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self(S::default());
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for option in S::options() {
            let number = match option.kind {
                OptionKind::On => Some(u64::from(matches.get_flag(option.flag))),
                OptionKind::Off => Some(u64::from(!matches.get_flag(option.flag))),
                _ => matches.get_one(option.flag).copied(),
            };
            if let Some(number) = number {
                (option.set)(&mut self.0, number);
            }
        }
        Ok(())
    }
}

/// Creates the argument of an option. Its environment variable is named after the flag.
fn argument<S>(option: &'static OptionRow<S>, default: Option<u64>) -> Arg {
    let OptionRow { flag, kind, .. } = option;
    let variable = format!("TRUNKLINE_{}", flag.replace('-', "_").to_uppercase());
    let argument = Arg::new(*flag).long(*flag).env(variable).help(help(option.help));
    let Some(name) = value_name(kind) else { return argument.action(ArgAction::SetTrue) };
    let argument = argument.value_name(name).value_parser(move |text: &str| number(kind, text));
    match default {
        Some(number) => argument.default_value(text(kind, number)),
        None => argument,
    }
}

/// Joins the lines of a doc comment like clap does.
fn help(lines: &[&str]) -> String {
    let text = lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    text.strip_suffix('.').map(str::to_owned).unwrap_or(text)
}

/// Name of the value in the help; `None` for a flag without a value.
fn value_name(kind: &OptionKind) -> Option<&'static str> {
    match kind {
        OptionKind::On | OptionKind::Off => None,
        OptionKind::Count(_) | OptionKind::CountLimit => Some("N"),
        OptionKind::Clients(_) => Some("CLIENTS"),
        OptionKind::Seconds(_) | OptionKind::WholeSeconds(_) => Some("SECONDS"),
        OptionKind::Milliseconds(_) => Some("MS"),
        OptionKind::Bytes(_) | OptionKind::BytesLimit(_) => Some("BYTES"),
    }
}

fn number(kind: &OptionKind, text: &str) -> anyhow::Result<u64> {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    match kind {
        OptionKind::On | OptionKind::Off => Ok(1),
        OptionKind::Count(range) | OptionKind::Clients(range) => count(text, range),
        OptionKind::CountLimit => {
            count(text, &(0..=u64::MAX)).map(|number| if number == 0 { u64::MAX } else { number })
        }
        OptionKind::Seconds(range) => seconds(range.clone())(text).map(ms),
        OptionKind::WholeSeconds(range) => whole_seconds(range.clone())(text),
        OptionKind::Milliseconds(range) => milliseconds(range.clone())(text).map(ms),
        OptionKind::Bytes(range) => bytes(range.clone())(text),
        OptionKind::BytesLimit(least) => bytes_limit(*least, text),
    }
}

/// Formats the number of an option so that [`number`] can parse it.
fn text(kind: &OptionKind, number: u64) -> String {
    match kind {
        OptionKind::On | OptionKind::Off | OptionKind::Count(_) | OptionKind::Clients(_) | OptionKind::CountLimit => {
            number.to_string()
        }
        OptionKind::Seconds(_) | OptionKind::Milliseconds(_) => duration_text(Duration::from_millis(number)),
        OptionKind::WholeSeconds(_) => duration_text(Duration::from_secs(number)),
        OptionKind::Bytes(_) | OptionKind::BytesLimit(_) => size_text(number),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use clap::Parser;
    use trunkline_proxy::parts::{FrontendLimits, GroupLimits, LinkSettings, RelaySettings};

    use super::*;

    #[derive(Parser)]
    struct FlagCli {
        #[command(flatten)]
        limits: Flags<FrontendLimits>,
        #[command(flatten)]
        groups: Flags<GroupLimits>,
        #[command(flatten)]
        links: Flags<LinkSettings>,
        #[command(flatten)]
        relay: Flags<RelaySettings>,
    }

    fn parsed(arguments: &[&str]) -> FlagCli {
        FlagCli::parse_from([&["trunkline"], arguments].concat())
    }

    #[test]
    fn flags_that_are_not_given_leave_the_defaults() {
        let flags = parsed(&[]);
        assert_eq!((flags.links.0, flags.groups.0), (LinkSettings::DEFAULT, GroupLimits::DEFAULT));
        assert_eq!(flags.relay.0, RelaySettings::DEFAULT);
        assert_eq!(flags.limits.0.connections_per_address, None);
        assert_eq!(flags.limits.0.messages_per_second, NonZeroU32::new(20_000));
    }

    #[test]
    fn flags_set_their_fields_and_zero_is_no_limit_if_the_help_allows_it() {
        let flags = parsed(&[
            "--resume-window=3s",
            "--no-forward",
            "--connections-per-address-max=0",
            "--messages-per-second=0",
            "--groups-per-client-max=0",
            "--group-name-max-bytes=0",
            "--connect-wait-ms=250",
        ]);
        assert_eq!(flags.links.0, LinkSettings { resume_window_ms: 3_000, ..LinkSettings::DEFAULT });
        assert_eq!(flags.relay.0, RelaySettings { forward: false, ..RelaySettings::DEFAULT });
        let FrontendLimits { connections_per_address, messages_per_second, connect_wait, .. } = flags.limits.0;
        assert_eq!((connections_per_address, messages_per_second), (Some(0), None));
        assert_eq!(connect_wait, Duration::from_millis(250));
        assert_eq!(
            flags.groups.0,
            GroupLimits { name_max_bytes: usize::MAX, per_client: usize::MAX, ..GroupLimits::DEFAULT }
        );
    }

    #[test]
    fn every_default_is_read_as_it_is_written() {
        fn check<S: OptionGroup>() {
            let defaults = S::default();
            for option in S::options() {
                let Some(default) = (option.get)(&defaults) else { continue };
                let is_switch = value_name(&option.kind).is_none();
                let read = number(&option.kind, &text(&option.kind, default));
                assert!(is_switch || read.is_ok_and(|read| read == default), "{}", option.flag);
            }
        }
        check::<FrontendLimits>();
        check::<GroupLimits>();
        check::<LinkSettings>();
        check::<RelaySettings>();
    }
}
