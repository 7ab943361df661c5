//! Tables `[webhooks.NAME]`: settings of webhook hubs.

use std::time::Duration;

use trunkline_protocol::manifest::{Authentication, SlowClients, Transport};
use trunkline_protocol::pattern::Pattern;

use super::message_entry::size;
use super::named_file::secrets;
use super::toml_value::{TomlTable, TomlValue};
use crate::ground::routing::rule_error::{Fault, RuleProblem};
use crate::ground::routing::webhook_table::{WebhookEvents, WebhookHeader, WebhookHubSettings, WebhookTable};

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
            let header = line.parse().map_err(|problem| item.fault(RuleProblem::Header { key: item.key, problem }))?;
            headers.push(header);
        }
    }
    Ok(headers)
}
