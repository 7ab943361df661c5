//! Tables `[webhooks.NAME]`: settings of webhook hubs.

use std::time::Duration;

use trunkline_protocol::manifest::{Authentication, SlowClients, Transport};

use super::message_entry::size;
use super::secret_entry::secrets;
use super::toml_value::{TomlTable, TomlValue};
use crate::ground::routing::pattern::Pattern;
use crate::ground::routing::rule_error::{Fault, RuleProblem};
use crate::ground::routing::webhook_header::WebhookHeader;
use crate::ground::routing::webhook_table::{WebhookEvents, WebhookHubSettings, WebhookTable};

/// Maximum number of `[webhooks.HUB]` tables. They are tried one by one.
const TABLES_MAX: usize = 250;

/// Maximum number of keys in a `[webhooks.HUB]` table, more than there are.
const KEYS_MAX: usize = 100;

/// Longest interval or timeout in a `[webhooks.HUB]` table.
const TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// Settings of hubs in Rust that webhook hubs can't have, and why.
const IMPOSSIBLE: [(&str, &str); 4] = [
    ("stateful-reconnect", "events that were answered can't be repeated, so clients connect again as new ones"),
    ("parallel-invocations", "the events of a connection are sent in order, each after the answer to the one before"),
    ("protocols", "a back end answers in the hub protocol of the client, and may refuse a call"),
    ("presence-grace", "the nodes share one table of users: see --webhook-presence-grace"),
];

pub(super) fn webhooks(value: Option<TomlValue<'_>>) -> Result<Vec<WebhookTable>, Fault> {
    let entries = value.map(|value| value.entries(TABLES_MAX)).transpose()?.unwrap_or_default();
    entries.into_iter().map(|(name, at, value)| webhook((name, at), &value)).collect()
}

fn webhook((name, at): (&str, usize), value: &TomlValue<'_>) -> Result<WebhookTable, Fault> {
    // Hub names are compared in lower case.
    let hubs = Pattern::new(&name.to_ascii_lowercase());
    let hubs = hubs.map_err(|source| RuleProblem::Pattern { key: "webhooks", text: name.into(), source }.at(at))?;
    let mut table = TomlTable::new("a webhook hub", value)?;
    let keys: Vec<_> = value.entries(KEYS_MAX)?.iter().map(|(key, at, _)| (key.replace('_', "-"), *at)).collect();
    for (key, reason) in IMPOSSIBLE {
        if let Some((_, at)) = keys.iter().find(|(given, _)| given == key) {
            return Err(RuleProblem::Impossible { key, reason }.at(*at));
        }
    }
    let settings = settings(&mut table)?;
    table.finish()?;
    if keys.is_empty() {
        return Err(value.fault(RuleProblem::Empty { table: "a webhook hub", advice: "give a setting, or remove it" }));
    }
    Ok(WebhookTable {
        hubs,
        settings: settings.into(),
        keys: keys.iter().map(|(key, _)| &**key).collect::<Vec<_>>().join(", "),
    })
}

fn settings(table: &mut TomlTable<'_>) -> Result<WebhookHubSettings, Fault> {
    let mut settings = WebhookHubSettings::default();
    let hub = &mut settings.manifest;
    for (key, time) in [
        ("keep-alive-interval", &mut hub.keep_alive_interval_ms),
        ("client-timeout", &mut hub.client_timeout_ms),
        ("handshake-timeout", &mut hub.handshake_timeout_ms),
    ] {
        if let Some(value) = table.take(key) {
            *time = value.milliseconds(Duration::from_secs(1)..=TIME_MAX)?;
        }
    }
    for (key, is_on) in [
        ("close-on-token-expiry", &mut hub.close_on_token_expiry),
        ("authentication-refresh", &mut hub.refreshes_authentication),
        ("detailed-errors", &mut hub.detailed_errors),
    ] {
        *is_on = truth(table, key)?.unwrap_or_default();
    }
    hub.compress = truth(table, "compress")?.unwrap_or(true);
    if let Some(value) = table.take("slow-clients") {
        hub.slow_clients = slow_clients(&value)?;
    }
    if let Some(value) = table.take("transports") {
        hub.transports = value.items(Transport::ALL.len())?.iter().map(transport).collect::<Result<_, _>>()?;
    }
    settings.requires_authentication = truth(table, "require-authentication")?;
    if settings.requires_authentication == Some(true) {
        settings.manifest.authentication = Authentication::Required;
    }
    settings.message_max_bytes = table.take("message-max-bytes").map(|value| size(&value)).transpose()?;
    settings.connect = truth(table, "connect")?;
    settings.presence = truth(table, "presence")?;
    if let Some(value) = table.take("events") {
        settings.events = events(&value)?;
    }
    settings.headers = headers(table)?;
    Ok(settings)
}

fn truth(table: &mut TomlTable<'_>, key: &'static str) -> Result<Option<bool>, Fault> {
    table.take(key).map(|value| value.truth()).transpose()
}

fn slow_clients(value: &TomlValue<'_>) -> Result<SlowClients, Fault> {
    match value.text()? {
        "close" => Ok(SlowClients::Close),
        "drop" => Ok(SlowClients::Drop),
        other => Err(value.choice(other, "\"close\" or \"drop\"")),
    }
}

fn transport(value: &TomlValue<'_>) -> Result<Transport, Fault> {
    let name = value.text()?;
    let wanted = "\"WebSockets\", \"ServerSentEvents\" or \"LongPolling\"";
    Transport::from_name(name).ok_or_else(|| value.choice(name, wanted))
}

/// Reads the events that are sent. An empty list stands for none, such as for a hub that only receives.
fn events(value: &TomlValue<'_>) -> Result<WebhookEvents, Fault> {
    let mut events = WebhookEvents { connected: false, messages: false, disconnected: false };
    for item in if value.is_empty_list() { Vec::new() } else { value.items(3)? } {
        match item.text()? {
            "connected" => events.connected = true,
            "messages" => events.messages = true,
            "disconnected" => events.disconnected = true,
            other => {
                let wanted = "\"connected\", \"messages\" or \"disconnected\"; `connect` and `presence` are keys";
                return Err(item.choice(other, wanted));
            }
        }
    }
    Ok(events)
}

fn headers(table: &mut TomlTable<'_>) -> Result<Vec<WebhookHeader>, Fault> {
    let mut headers = Vec::new();
    for (item, text) in secrets(table, "headers", "headers-file")? {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in lines {
            let header = line.parse().map_err(|source| item.fault(RuleProblem::Header { key: item.key, source }))?;
            headers.push(header);
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::routing::RuleFile;

    fn problem(text: &str) -> String {
        RuleFile::parse(&format!("[webhooks.chat]\n{text}")).unwrap_err().to_string()
    }

    #[test]
    fn a_webhook_hub_has_settings_of_its_own() {
        let path = std::env::temp_dir().join(format!("trunkline-webhook-headers-{}", std::process::id()));
        std::fs::write(&path, "# Gateway.\nAuthorization: Basic hush\n").unwrap();
        let text = format!(
            "[webhooks.Chat]\nkeep-alive-interval = 5\nclient_timeout = \"1m\"\nslow-clients = \"drop\"\n\
             close-on-token-expiry = true\nrequire-authentication = true\nmessage-max-bytes = \"64KiB\"\n\
             connect = true\npresence = false\nevents = [\"messages\"]\ntransports = [\"WebSockets\"]\n\
             headers = [\"X-A: hush\"]\nheaders-file = {path:?}\n[webhooks.\"*\"]\nevents = []\n"
        );
        let tables = RuleFile::parse(&text).unwrap().rules.webhooks;
        std::fs::remove_file(&path).unwrap();
        let [chat, others] = &*tables else { panic!("{tables:?}") };
        let hub = &chat.settings.manifest;
        assert_eq!((hub.keep_alive_interval_ms, hub.client_timeout_ms), (5_000, 60_000));
        assert_eq!((hub.slow_clients, hub.authentication), (SlowClients::Drop, Authentication::Required));
        assert!(hub.close_on_token_expiry && hub.transports == [Transport::WebSockets]);
        assert_eq!((chat.settings.message_max_bytes, chat.settings.connect), (Some(65_536), Some(true)));
        assert_eq!((chat.settings.presence, chat.settings.headers.len()), (Some(false), 2));
        assert!(chat.settings.events.messages && !chat.settings.events.connected && !others.settings.events.messages);
        assert!(chat.hubs.matches("chat") && others.hubs.matches("news"));
        assert!(!format!("{tables:?}{chat}").contains("hush"));
    }

    #[test]
    fn a_setting_that_makes_no_sense_is_refused_with_what_is_allowed() {
        for (text, words) in [
            ("", "a webhook hub is empty: give a setting"),
            ("keep-alive = 5", "unknown key \"keep-alive\" in a webhook hub; is \"keep-alive-interval\" meant?"),
            ("keep-alive-interval = 0", "line 2, column 23: keep-alive-interval is 0, but must be from 1s to 86400s"),
            ("client-timeout = \"25h\"", "client-timeout is 25h, but must be from 1s to 86400s"),
            ("client-timeout = \"soon\"", "client-timeout is \"soon\", but must be seconds, or a time such as \"90s\""),
            ("slow-clients = \"wait\"", "slow-clients is \"wait\", but must be \"close\" or \"drop\""),
            ("events = [\"connect\"]", "events is \"connect\", but must be \"connected\", \"messages\" or"),
            ("transports = []", "transports is an empty list"),
            ("transports = [\"Tcp\"]", "transports is \"Tcp\", but must be \"WebSockets\""),
            ("message-max-bytes = 0", "message-max-bytes is 0, but must be from 1 to"),
            ("stateful-reconnect = true", "stateful-reconnect is not possible at a webhook hub: events that were"),
            ("headers = [\"Host: hush\"]", "headers: host is set by the node"),
        ] {
            let found = problem(text);
            assert!(found.contains(words) && !found.contains("hush"), "{text}: {found}");
        }
    }
}
