//! Settings of webhooks: hubs without app servers that send their events as POST requests to URLs.

use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE};
use trunkline_protocol::pattern::Pattern;

use super::UrlTemplate;
use super::option_group::{OptionGroup, settings};
use super::secret_source::WebhookSecret;
use crate::ground::routing::{Ruleset, WebhookHeader, WebhookTable};

settings! {
    /// Settings of all webhooks of a node.
    #[derive(Debug, Clone)]
    pub struct WebhookSettings {
        /// Rules in their order; the first one that matches a hub counts.
        pub rules: Vec<WebhookRule> = Vec::new(),

        /// Secrets that sign requests initially. Without a secret for the hub, the access keys sign.
        pub secrets: Vec<WebhookSecret> = Vec::new(),

        /// Headers that each request has initially, unless the table of a hub replaces them.
        pub headers: Vec<WebhookHeader> = Vec::new(),

        /// Whether a back end is asked about each client before it is let in.
        pub connecting: WebhookConnecting = WebhookConnecting::Open,

        /// Items of a client's request that the back end receives when it is asked.
        pub connect_items: Vec<ConnectItem> = Vec::new(),

        /// Send the webhook the events `online` and `offline` of each user, over all nodes: with the first connection
        /// of the user, and some seconds after the last one has ended. Needs the same setting at all nodes.
        #[flag("webhook-presence", On)]
        pub has_presence: bool = false,

        /// Send the webhook `disconnected` also for the clients of a node that was killed or lost: one of the other
        /// nodes sends it. Needs the same setting at all nodes.
        #[flag("webhook-lost-clients", On)]
        pub reports_lost_clients: bool = false,

        /// How long a user is without connections until a webhook receives `offline`.
        #[flag("webhook-presence-grace", Seconds(1..=3600))]
        // Reloading a page, or reconnecting to another node, takes less.
        pub presence_grace: Duration = Duration::from_secs(5),

        /// How long a webhook may take to accept a connection.
        #[flag("webhook-connect-timeout", Seconds(1..=600))]
        // Back ends are nearby. A slower one is unlikely to accept at all.
        pub connect_timeout: Duration = Duration::from_secs(5),

        /// How long a webhook may take to answer an event, further attempts included. Then the client's call
        /// fails, and its next one is sent.
        #[flag("webhook-timeout", Seconds(1..=3600))]
        // Official clients wait forever; people don't.
        pub answer_timeout: Duration = Duration::from_secs(30),

        /// Largest answer of a webhook; beyond it the client's call fails. At most 16MiB.
        // Limited by the size of a link frame for one client.
        #[flag("webhook-answer-max-bytes", Bytes(1024..=16 * 1024 * 1024))]
        pub answer_max_bytes: usize = 1024 * 1024,

        /// Requests to webhooks in flight for one hub; further events wait their turn.
        #[flag("webhook-in-flight-max", Count(1..=u64::MAX))]
        // Typical concurrency of a few back ends in PHP or Python.
        pub in_flight_max: NonZeroUsize = NonZeroUsize::new(128).unwrap(),

        /// Requests to webhooks in flight for all hubs of this node; further events wait their turn.
        #[flag("webhook-total-in-flight-max", Count(1..=u64::MAX))]
        // A hub with a hanging back end leaves capacity for other hubs.
        pub total_in_flight_max: NonZeroUsize = NonZeroUsize::new(512).unwrap(),

        /// Bytes of events that wait for webhooks at this node. Beyond it, a client with more than 1 KiB of waiting
        /// events is not read, and unsent events of disconnected clients are dropped and counted.
        #[flag("webhook-waiting-max-bytes", Bytes(64 * 1024..=16 * 1024 * 1024 * 1024))]
        pub waiting_max_bytes: usize = 64 * 1024 * 1024,
    }
}

/// Admission of clients to a hub with a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookConnecting {
    /// Immediately; the back end receives `connected` afterwards.
    Open,
    /// After the back end has answered `connect`.
    Asked,
}

/// Hubs served by one webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookRule {
    pub(crate) hubs: Pattern,
    /// URL template of the requests.
    pub template: UrlTemplate,
}

/// Maximum length of a hub name or pattern.
const HUB_NAME_MAX_BYTES: usize = 128;

impl WebhookSettings {
    /// Returns the rule for a hub. The hub name must be in lower case.
    #[must_use]
    pub fn rule_for(&self, hub: &str) -> Option<&WebhookRule> {
        self.rules.iter().find(|rule| rule.hubs.matches(hub))
    }

    /// Whether back ends of any hub receive events about users. Nodes copy the users to each other then.
    pub(crate) fn needs_presence(&self, tables: &[WebhookTable]) -> bool {
        !self.rules.is_empty()
            && (self.has_presence || tables.iter().any(|table| table.settings.presence == Some(true)))
    }

    /// Checks that each table has an effect.
    ///
    /// # Errors
    /// If a table is about no hub with a webhook, or an earlier table is about its hubs.
    pub(crate) fn check_tables(&self, tables: &[WebhookTable]) -> Result<(), String> {
        for (at, table) in tables.iter().enumerate() {
            let hubs = &table.hubs;
            if !self.rules.iter().any(|rule| rule.hubs.may_share(hubs)) {
                let known: Vec<_> = self.rules.iter().map(|rule| &*rule.hubs.text).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(format!(
                    "[webhooks.{hubs}] is about no hub with a webhook; hubs of --upstream-webhook: {known}"
                ));
            }
            if let Some(earlier) = tables.iter().take(at).find(|earlier| earlier.hubs.covers(hubs)) {
                let earlier = &earlier.hubs;
                return Err(format!(
                    "[webhooks.{hubs}] has no effect, because [webhooks.{earlier}] is about the same hubs: move it up"
                ));
            }
        }
        Ok(())
    }

    /// Warnings about settings without an effect: no hub has a webhook, or none that a secret names.
    #[must_use]
    pub fn warnings(&self, rules: &Ruleset) -> Vec<String> {
        let given = self.given_without_rules().join(", ");
        match self.rules.is_empty() {
            true if given.is_empty() => Vec::new(),
            true => vec![format!(
                "{given}: no effect, because no hub has a webhook; give --upstream-webhook HUB=URL, or remove the \
                 option"
            )],
            false => self.partial_warnings(&rules.webhooks),
        }
    }

    /// Options that differ from their defaults, rules left out.
    fn given_without_rules(&self) -> Vec<String> {
        let flags = [
            ("webhook-secret", !self.secrets.is_empty()),
            ("webhook-header", !self.headers.is_empty()),
            ("webhook-connect", self.connecting == WebhookConnecting::Asked),
            ("webhook-connect-item", !self.connect_items.is_empty()),
        ];
        let flags = flags.into_iter().filter_map(|(flag, is_given)| is_given.then_some(flag));
        let changed = Self::options().filter(|option| (option.get)(self) != (option.get)(&Self::DEFAULT));
        flags.chain(changed.map(|option| option.flag)).map(|flag| format!("--{flag}")).collect()
    }

    fn partial_warnings(&self, tables: &[WebhookTable]) -> Vec<String> {
        let hubs: Vec<_> = self.rules.iter().map(|rule| &*rule.hubs.text).collect();
        let unused =
            self.secrets.iter().filter(|secret| !self.rules.iter().any(|rule| secret.may_sign_for(&rule.hubs)));
        let mut warnings: Vec<_> = unused
            .map(|secret| {
                format!(
                    "--webhook-secret {}=…: signs nothing, because no such hub has a webhook; hubs of \
                     --upstream-webhook: {}",
                    secret.hubs(),
                    hubs.join(", ")
                )
            })
            .collect();
        let asks = self.connecting == WebhookConnecting::Asked
            || tables.iter().any(|table| table.settings.connect == Some(true));
        if !asks && !self.connect_items.is_empty() {
            warnings.push("--webhook-connect-item: no effect without --webhook-connect".to_owned());
        }
        warnings
    }

    /// Names of hubs served from startup at their own paths.
    pub(crate) fn named_hubs(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().filter_map(|rule| rule.hubs.exact())
    }
}

impl std::str::FromStr for WebhookRule {
    type Err = String;

    /// Parses `HUB=URL`. The URL may hold a secret, so no error text repeats it.
    fn from_str(text: &str) -> Result<Self, String> {
        const NO_PAIR: &str = "not `HUB=URL`, such as `chat=http://127.0.0.1:5000/{hub}/{category}/{event}`";
        let (hub, url) = text.split_once('=').ok_or(NO_PAIR)?;
        // Hub names are compared in lower case.
        let (hub, url) = (hub.trim().to_ascii_lowercase(), url.trim());
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.*".contains(&byte);
        let is_name = hub.len() <= HUB_NAME_MAX_BYTES && hub.bytes().all(is_plain) && !matches!(&*hub, "." | "..");
        let hubs = Pattern::new(&hub).ok().filter(|_| is_name).ok_or_else(|| {
            format!("the hub is named {hub:?}; a name has 1 to 128 letters, digits, `-`, `_` and `.`, and `*` for any of them")
        })?;
        let template = url.parse::<UrlTemplate>().map_err(|problem| format!("the URL {problem}"))?;
        Ok(Self { hubs, template })
    }
}

/// Item of a connecting client's request that a webhook receives, named by the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectItem {
    /// Address of the client.
    Address,
    /// Values of a header.
    Header(HeaderName),
    /// Value of a cookie.
    Cookie(String),
}

impl FromStr for ConnectItem {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        match text.split_once(':') {
            None if text.eq_ignore_ascii_case("address") => Ok(Self::Address),
            Some(("header", name)) => {
                let header: HeaderName = name.parse().map_err(|_| format!("{name:?} is not the name of a header"))?;
                let is_of_node =
                    ["x-trunkline-", "x-asrs-", "asrs-"].iter().any(|prefix| header.as_str().starts_with(prefix));
                if is_of_node || [AUTHORIZATION, COOKIE].contains(&header) {
                    let remedy = "name each cookie by `cookie:NAME`; nodes check access tokens";
                    return Err(format!("the header {name:?} is not passed on: {remedy}"));
                }
                Ok(Self::Header(header))
            }
            Some(("cookie", name)) => {
                let is_token = |byte: u8| byte.is_ascii_graphic() && !b"=;,\"\\".contains(&byte);
                let is_name = !name.is_empty() && name.bytes().all(is_token);
                is_name
                    .then(|| Self::Cookie(name.to_owned()))
                    .ok_or_else(|| format!("{name:?} is not the name of a cookie"))
            }
            _ => Err(format!("{text:?} is not `address`, `header:NAME` or `cookie:NAME`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Result<WebhookRule, String> {
        text.parse()
    }

    #[test]
    fn the_first_rule_that_matches_a_hub_counts() {
        let rules = ["Chat=http://a/x", "ch*=http://b/", "*=http://c/?x=y=z"].map(|text| rule(text).unwrap());
        let settings = WebhookSettings { rules: rules.into(), ..WebhookSettings::DEFAULT };
        let shown = |hub: &str| settings.rule_for(hub).map(|rule| rule.template.to_string());
        assert_eq!(
            ["chat", "chess", "other"].map(|hub| shown(hub).unwrap()),
            ["http://a:80/x", "http://b:80/", "http://c:80/"]
        );
        assert_eq!(settings.named_hubs().collect::<Vec<_>>(), ["chat"], "patterns name no path");
    }

    #[test]
    fn settings_without_an_effect_are_named() {
        let with = |rules: &[&str], secrets: &[&str]| WebhookSettings {
            rules: rules.iter().map(|text| rule(text).unwrap()).collect(),
            secrets: secrets.iter().map(|text| text.parse().unwrap()).collect(),
            ..WebhookSettings::DEFAULT
        };
        let none: &[&str] = &[];
        assert_eq!(WebhookSettings::DEFAULT.warnings(&Ruleset::default()), none);
        let alone = WebhookSettings {
            connecting: WebhookConnecting::Asked,
            has_presence: true,
            reports_lost_clients: true,
            answer_timeout: Duration::from_secs(1),
            ..with(&[], &["chat=0123456789abcdef"])
        };
        let warned = alone.warnings(&Ruleset::default());
        let flags = "--webhook-secret, --webhook-connect, --webhook-presence, --webhook-lost-clients, \
                     --webhook-timeout: no effect";
        assert!(warned.len() == 1 && warned[0].starts_with(flags), "{warned:?}");
        let secrets = ["Chat=0123456789abcdef", "shop*=0123456789abcdef", "news=0123456789abcdef"];
        let warned = with(&["chat=http://a/", "shop_*=http://b/"], &secrets).warnings(&Ruleset::default());
        let expected = "--webhook-secret news=…: signs nothing, because no such hub has a webhook; hubs of \
                        --upstream-webhook: chat, shop_*";
        assert_eq!(warned, [expected]);
        assert_eq!(with(&["*=http://a/"], &secrets).warnings(&Ruleset::default()), none);
        let items =
            WebhookSettings { connect_items: vec!["address".parse().unwrap()], ..with(&["chat=http://a/"], &[]) };
        assert_eq!(
            items.warnings(&Ruleset::default()),
            ["--webhook-connect-item: no effect without --webhook-connect"]
        );
        assert_eq!(items.warnings(&Ruleset::parse("[webhooks.chat]\nconnect = true").unwrap()), none);
    }

    #[test]
    fn a_table_without_an_effect_is_refused() {
        let rules = ["chat=http://a/", "shop_*=http://b/"].map(|text| rule(text).unwrap());
        let settings = WebhookSettings { rules: rules.into(), ..WebhookSettings::DEFAULT };
        let check = |names: &[&str]| {
            let tables: String = names.iter().map(|name| format!("[webhooks.\"{name}\"]\nconnect = true\n")).collect();
            settings.check_tables(&Ruleset::parse(&tables).unwrap().webhooks)
        };
        assert_eq!(check(&["chat", "shop_a", "*"]), Ok(()));
        let unknown = "[webhooks.news] is about no hub with a webhook; hubs of --upstream-webhook: chat, shop_*";
        assert_eq!(check(&["news"]), Err(unknown.to_owned()));
        assert!(check(&["shop_*", "shop_a"]).unwrap_err().starts_with("[webhooks.shop_a] has no effect, because"));
    }

    #[test]
    fn a_rule_that_makes_no_sense_is_refused_with_the_reason() {
        for (text, reason) in [
            ("http://app/", "not `HUB=URL`"),
            ("=http://app/", "the hub is named \"\""),
            ("a/b=http://app/", "the hub is named \"a/b\""),
            ("..=http://app/", "the hub is named \"..\""),
            ("chat=app", "the URL is not a URL"),
        ] {
            let problem = rule(text).unwrap_err();
            assert!(problem.starts_with(reason), "{text}: {problem}");
        }
    }

    #[test]
    fn an_item_is_an_address_a_header_or_a_cookie() {
        let read = |text: &str| text.parse::<ConnectItem>();
        assert_eq!(read("address"), Ok(ConnectItem::Address));
        assert_eq!(read("header:User-Agent"), Ok(ConnectItem::Header("user-agent".parse().unwrap())));
        assert_eq!(read("cookie:sid"), Ok(ConnectItem::Cookie("sid".into())));
        for (text, problem) in [
            ("sid", "\"sid\" is not `address`, `header:NAME` or `cookie:NAME`"),
            ("header:a b", "is not the name of a header"),
            ("cookie:a=b", "is not the name of a cookie"),
            ("header:Cookie", "name each cookie by `cookie:NAME`"),
            ("header:Authorization", "nodes check access tokens"),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.contains(problem), "{text}: {told}");
        }
    }
}
