//! Flags of records of groups and users.

use clap::Args;
use trunkline_proxy::parts::{DEFAULT_FOLLOW_METHOD, HistorySettings};

use super::settings_flag::Flags;

#[derive(Debug, Clone, Args)]
pub(crate) struct HistoryArgs {
    /// Name of the stream method for clients that follow a recorded group, in hubs with a `[[history]]` rule. Rename
    /// the method if a hub already has a method with this name.
    #[arg(long, env = "TRUNKLINE_HISTORY_METHOD", value_name = "NAME", default_value = DEFAULT_FOLLOW_METHOD,
          value_parser = method)]
    pub history_method: String,

    #[command(flatten)]
    pub settings: Flags<HistorySettings>,
}

fn method(text: &str) -> Result<String, String> {
    let is_name = (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_name.then(|| text.to_owned()).ok_or_else(|| "must be the name of a method, of 1 to 64 ASCII characters".into())
}

impl From<&HistoryArgs> for HistorySettings {
    fn from(args: &HistoryArgs) -> Self {
        Self { method: args.history_method.clone().into(), ..args.settings.0.clone() }
    }
}
