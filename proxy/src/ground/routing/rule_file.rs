//! Rules in a configuration file: its tables `groups`, `routes`, `messages`, `mirrors`, `methods`, `history` and
//! `webhooks`, the keys of apps in `app-keys`, and the issuers of access tokens in `issuers`.
//!
//! All other keys are flags, checked by the command-line parser.

mod access_entry;
mod group_entry;
mod message_entry;
mod named_file;
mod route_entry;
mod toml_value;
mod webhook_entry;

pub use named_file::{NamedFiles, RULE_TABLES};

use std::path::Path;

use group_entry::Labels;
use named_file::FILE_MAX_BYTES;
use toml::de::{DeTable, DeValue};
use toml_value::{TomlValue, read_beyond};

use super::rule_error::{Fault, RuleError, RuleFileError, RuleProblem, nearest};
use super::ruleset::Ruleset;
use crate::ground::auth::AccessTables;

/// Maximum number of rules per kind. They are tried one by one.
const RULES_MAX: usize = 1000;

#[cfg(test)]
impl Ruleset {
    pub(crate) fn parse(text: &str) -> Result<Self, RuleError> {
        RuleFile::parse(text).map(|file| file.rules)
    }
}

impl RuleFile {
    /// Reads the rules of a configuration file, and the files they reference.
    ///
    /// # Errors
    /// If the text is not TOML or a rule is invalid. The error has the position and the allowed values.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        rule_file(text).map_err(|fault| RuleError::new(text, fault))
    }

    /// Reads the rules of the configuration file at a path.
    ///
    /// # Errors
    /// If the file is unreadable or its rules are invalid. The error names the file.
    pub fn read(path: &Path) -> Result<Self, RuleFileError> {
        let text = read_beyond(path, FILE_MAX_BYTES);
        let text = text.map_err(|cause| RuleFileError::Read { path: path.into(), cause })?;
        Self::parse(&text).map_err(|cause| RuleFileError::Rules { path: path.into(), cause })
    }
}

fn rule_file(text: &str) -> Result<RuleFile, Fault> {
    if text.len() > FILE_MAX_BYTES {
        return Err(RuleProblem::FileTooLarge { most: FILE_MAX_BYTES }.at(0));
    }
    let document = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        RuleProblem::Syntax(error.message().to_owned()).at(at)
    })?;
    let table = document.get_ref();
    refuse_unknown_tables(table)?;
    let value = |key: &'static str| {
        let entry = table.iter().find(|(name, _)| *name.get_ref() == key);
        entry.map(|(_, value)| TomlValue::new(key, value))
    };
    let groups = group_entry::groups(value("groups"))?;
    let mut known = groups.known;
    // Mirrors are read after the other rules, because their groups must not serve clients.
    let rules = Ruleset {
        groups: groups.groups,
        default_group: groups.default_group,
        routes: rules(value("routes"), |value, labels| route_entry::route(value, labels, &mut known))?,
        messages: rules(value("messages"), |value, labels| message_entry::message(value, labels, &mut known))?,
        mirrors: rules(value("mirrors"), |value, labels| message_entry::mirror(value, labels, &known))?,
        methods: rules(value("methods"), message_entry::method)?,
        histories: rules(value("history"), message_entry::history)?,
        webhooks: webhook_entry::webhooks(value("webhooks"))?,
    };
    let app_keys = access_entry::app_keys(value("app-keys"))?;
    Ok(RuleFile { rules, access: AccessTables { app_keys, issuers: access_entry::issuers(value("issuers"))? } })
}

/// Rejects unknown tables. A flag is never a table, so such a name is a typo, and a reload would disable its rules.
fn refuse_unknown_tables(document: &DeTable<'_>) -> Result<(), Fault> {
    let is_table = |value: &DeValue<'_>| match value {
        DeValue::Array(items) => items.iter().any(|item| item.get_ref().is_table()),
        value => value.is_table(),
    };
    let is_unknown = |name: &str, value: &DeValue<'_>| is_table(value) && !RULE_TABLES.contains(&name);
    let unknown = document.iter().filter(|(name, value)| is_unknown(name.get_ref(), value.get_ref()));
    let Some((name, _)) = unknown.min_by_key(|(name, _)| name.span().start) else { return Ok(()) };
    let (key, allowed) = (name.get_ref().to_string(), RULE_TABLES.join(", "));
    let nearest = nearest(&key, RULE_TABLES.into_iter());
    Err(RuleProblem::UnknownKey { key, table: "the file", nearest, allowed }.at(name.span().start))
}

fn rules<R>(
    value: Option<TomlValue<'_>>,
    mut read: impl FnMut(&TomlValue<'_>, &mut Labels) -> Result<R, Fault>,
) -> Result<Vec<R>, Fault> {
    let (Some(value), mut labels) = (value, Labels::default()) else { return Ok(Vec::new()) };
    value.items(RULES_MAX)?.iter().map(|item| read(item, &mut labels)).collect()
}

/// Contents of a configuration file that are not flags.
#[derive(Debug, Clone, Default)]
pub struct RuleFile {
    /// Rules for connections and messages.
    pub rules: Ruleset,
    /// Keys of apps, and issuers of access tokens.
    pub access: AccessTables,
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use proptest::prelude::*;
    use trunkline_protocol::manifest::{Authentication, SlowClients, Transport};

    use super::*;
    use crate::ground::routing::{Rejection, RouteAction, TextPlace};

    const GROUPS: &str =
        "[groups.canary]\nupstream = \"http://canary:5000\"\n[groups.audit]\nupstream = \"http://audit\"\n";

    fn rules(text: &str) -> Ruleset {
        Ruleset::parse(&format!("{GROUPS}{text}")).unwrap()
    }

    /// Error text for rules appended after the groups; lines are counted from there.
    fn problem(text: &str) -> String {
        let error = Ruleset::parse(&format!("{GROUPS}{text}")).unwrap_err();
        format!("{}:{}: {}", error.place.line - GROUPS.matches('\n').count(), error.place.column, error.problem)
    }

    #[test]
    fn the_tables_of_the_reference_are_read_and_flags_are_left_alone() {
        let rules = Ruleset::parse(include_str!("rule_file/reference.toml")).unwrap();
        let names: Vec<_> = rules.groups.iter().map(|group| &*group.name).collect();
        assert_eq!(names, ["canary", "admin", "audit"]);
        let [canary, admin, _] = &*rules.groups else { panic!("{:?}", rules.groups) };
        assert_eq!((canary.pool_size, admin.pool_size), (Some(2), None));
        let weights: Vec<_> = canary.upstreams.iter().map(|upstream| upstream.weight).collect();
        assert_eq!(weights, [3, 1]);
        assert!(admin.keys.is_some() && admin.roots.len() == 2 && admin.identity.is_some());
        assert_eq!((rules.default_group.pool_size, rules.default_group.weights.len()), (Some(3), 1));
        let labels: Vec<_> = rules.routes.iter().map(|route| &*route.label).collect();
        assert_eq!(labels, ["1", "closed", "3", "all", "5"]);
        let RouteAction::Reject(rejection) = &rules.routes[1].action else { panic!("{:?}", rules.routes[1]) };
        let refused = (StatusCode::FORBIDDEN, "Forbidden");
        assert_eq!((rejection.status, &*rejection.body), refused);
        assert_eq!((rules.messages.len(), rules.mirrors.len(), rules.methods.len()), (1, 1, 2));
        assert!(rules.mirrors[0].copies_down);
        let histories: Vec<_> = rules.histories.iter().map(ToString::to_string).collect();
        assert_eq!(
            histories,
            [
                "history rule 1: hub is \"/chat\" -> record groups \"room-*\" or \"hall\", 100 messages for 10m",
                "history rule 2: hub is \"/*\" -> record users \"*\", 1000 messages for 1h"
            ]
        );
        let sizes: Vec<_> = rules.methods[0].max_bytes.iter().map(|(_, most)| *most).collect();
        assert_eq!(sizes, [4096, 65_536]);
    }

    #[test]
    fn a_table_with_a_misspelt_name_is_refused_and_flags_are_left_alone() {
        for table in
            ["[[route]]\ngroup = \"canary\"", "[route]\ngroup = \"canary\"", "route = [{ group = \"canary\" }]"]
        {
            let error = Ruleset::parse(&format!("listen = [1]\npeers = \"a\"\n{table}")).unwrap_err().to_string();
            assert!(error.starts_with("line 3, column ") && error.contains("is \"routes\" meant?"), "{error}");
        }
    }

    #[test]
    fn a_file_without_rules_has_none() {
        let rules = Ruleset::parse("upstream = [\"http://app:5000\"]").unwrap();
        assert!(rules.groups.is_empty() && rules.routes.is_empty() && rules.of_hub("/chat").is_none());
    }

    #[test]
    fn a_rejection_has_a_text_of_its_own_or_a_page() {
        let body = |text: &str| {
            let RouteAction::Reject(Rejection { body, content_type, .. }) = rules(text).routes.remove(0).action else {
                panic!("{text}")
            };
            (body.to_string(), content_type)
        };
        let plain = body("[[routes]]\nreject = 503\ntext = \"Back at noon\"");
        assert_eq!(plain, ("Back at noon".to_owned(), "text/plain; charset=utf-8"));
        let page = std::env::temp_dir().join(format!("trunkline-page-{}.html", std::process::id()));
        std::fs::write(&page, "<p>Back at noon").unwrap();
        let read = body(&format!("[[routes]]\nreject = 503\npage = {page:?}"));
        assert_eq!(read, ("<p>Back at noon".to_owned(), "text/html; charset=utf-8"));
        std::fs::write(&page, "a".repeat(64 * 1024 + 1)).unwrap();
        let large = problem(&format!("[[routes]]\nreject = 503\npage = {page:?}"));
        std::fs::remove_file(&page).unwrap();
        assert_eq!(large, "3:8: page names a file of more than 65536 bytes");
        let missing = problem("[[routes]]\nreject = 503\npage = \"no-such-page.html\"");
        assert!(missing.starts_with("3:8: page no-such-page.html can't be read ("), "{missing}");
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place_and_the_nearest_one() {
        assert_eq!(
            problem("[[mirrors]]\nhub = \"/chat\"\ngroup = \"audit\"\nsampel = 0.5"),
            "4:1: unknown key \"sampel\" in a mirror; is \"sample\" meant?; allowed: name, hub, group, sample, \
             down"
        );
        assert!(problem("[[routes]]\ngroup = \"canary\"\nhubs = \"/chat\"").contains("is \"hub\" meant?"));
        assert!(problem("[groups.x]\nupstream = \"http://x\"\nsize = 3").contains("unknown key \"size\" in a group"));
        let operator = "[[routes]]\nreject = 403\nheader = { name = \"x\", equal = \"y\" }";
        assert!(problem(operator).starts_with("3:24: unknown key \"equal\" in a condition; is \"equals\" meant?"));
    }

    #[test]
    fn access_keys_of_a_group_come_from_the_file_or_from_files_that_it_names() {
        let path = std::env::temp_dir().join(format!("trunkline-group-key-{}", std::process::id()));
        let group = format!("[groups.x]\nupstream = 'http://x'\naccess-key-file = {path:?}");
        std::fs::write(&path, "a-key-of-the-group-long-enough\n").unwrap();
        let read = rules(&group);
        std::fs::write(&path, "a".repeat(4097)).unwrap();
        let large = problem(&group);
        std::fs::remove_file(&path).unwrap();
        let keys: Vec<_> = read.groups.iter().filter_map(|group| group.keys.as_ref()).collect();
        assert_eq!(keys.len(), 1);
        assert_eq!(large, "3:19: access-key-file names a file of more than 4096 bytes");
        assert!(problem(&group).starts_with("3:19: access-key-file /"), "a missing file is named");
        let short = problem("[groups.x]\nupstream = 'http://x'\naccess-key = ['hush']");
        assert!(short.starts_with("3:15: access-key: ") && !short.contains("hush"), "{short}");
    }

    #[test]
    fn groups_have_to_exist_and_a_mirror_needs_one_of_its_own() {
        assert_eq!(
            problem("[[routes]]\ngroup = \"canari\""),
            "2:9: there is no group \"canari\"; is \"canary\" meant?; give its app servers in [groups.canari]"
        );
        let mirror = "[[mirrors]]\nhub = \"*\"\ngroup = ";
        for (other, group) in [
            ("[[routes]]\ngroup = \"audit\"\n", "audit"),
            ("[[messages]]\nhub = \"*\"\ntarget = \"A\"\ngroup = \"audit\"\n", "audit"),
            ("", "default"),
        ] {
            let found = problem(&format!("{mirror}{group:?}\n{other}"));
            let expected = format!("3:9: group {group:?} is used by a route or message rule");
            assert!(found.starts_with(&expected), "{found}");
        }
        assert!(problem("[groups.x]\npool-size = 2").starts_with("1:1: a group has no upstream: give the address"));
        assert!(
            problem("[groups.\"a b\"]\nupstream = \"http://x\"").starts_with("1:9: group \"a b\" must have 1 to 64")
        );
        assert!(problem("[groups.default]\nupstream = \"http://x\"").contains("`upstream` at the top of the file"));
    }

    #[test]
    fn a_route_has_one_action_and_its_companions() {
        for (text, expected) in [
            (
                "hub = \"/chat\"",
                "1:1: a route needs exactly one of group, reject and next = true, but this one has none",
            ),
            (
                "group = \"canary\"\nreject = 403",
                "1:1: a route needs exactly one of group, reject and next = true, but this one has group and reject",
            ),
            ("next = false", "2:8: next is \"false\", but must be true"),
            ("next = true\non-down = \"next\"", "3:11: on-down has no meaning without group"),
            ("group = \"canary\"\non-down = \"stop\"", "3:11: on-down is \"stop\", but must be \"wait\" or \"next\""),
            ("group = \"canary\"\ntext = \"a\"", "3:8: text has no meaning without reject"),
            ("reject = 403\ntext = \"a\"\npage = \"b\"", "4:8: page and text exclude each other"),
            ("reject = 200", "2:10: reject is 200, but must be from 400 to 599"),
        ] {
            assert_eq!(problem(&format!("[[routes]]\n{text}")), expected);
        }
    }

    #[test]
    fn conditions_that_make_no_sense_are_refused_with_what_is_allowed() {
        for (text, expected) in [
            ("percent = 100.5", "3:11: percent is 100.5, but must be from 0 to 100"),
            ("percent = nan", "3:11: percent is nan, but must be from 0 to 100"),
            ("percent = \"10\"", "3:11: percent is a string, but must be a number"),
            ("user = []", "3:8: user is an empty list: leave the key out, or give a value"),
            ("hub = \"\"", "3:7: hub \"\" is empty; `*` stands for any text"),
            (
                "address = \"10.0.0.0/33\"",
                "3:11: address \"10.0.0.0/33\" is neither an address like 10.1.2.3 or ::1 nor a network like \
                 10.0.0.0/8",
            ),
            (
                "query = { name = \"x\" }",
                "3:9: a condition about query needs exactly one of equals, prefix and present, but this one has none",
            ),
            (
                "claim = { name = \"x\", equals = \"a\", prefix = \"b\" }",
                "3:9: a condition about claim needs exactly one of equals, prefix and present, but this one has 2",
            ),
            (
                "cookie = { equals = \"x\" }",
                "3:10: a condition has no name: give the name of the value, as in { name = \"x-tenant\", equals = \
                 \"acme\" }",
            ),
        ] {
            assert_eq!(problem(&format!("[[routes]]\ngroup = \"canary\"\n{text}")), expected);
        }
        let long = problem(&format!("[[routes]]\nreject = 403\npath = \"/{}\"", "a".repeat(256)));
        assert!(long.ends_with("has 257 bytes, but a pattern has at most 256"), "{long}");
    }

    #[test]
    fn method_rules_have_something_to_refuse_and_sizes_have_units() {
        let rule = |text: &str| format!("[[methods]]\nhub = \"/chat\"\n{text}");
        assert!(problem(&rule("")).starts_with("1:1: a method rule is empty: give deny, allow"));
        assert!(problem("[[methods]]\ndeny = [\"A\"]").starts_with("1:1: a method rule has no hub: name the hub"));
        assert!(problem(&rule("per-second = { Say = 0 }")).contains("per-second is 0, but must be from 1"));
        for size in ["4 miles", "KiB", "-1B", "0B", "9GiB", "1..5KiB"] {
            let problem = problem(&rule(&format!("max-bytes = {{ Say = {size:?} }}")));
            assert!(problem.starts_with("3:21: max-bytes is") && problem.contains("such as \"4KiB\""), "{problem}");
        }
    }

    #[test]
    fn a_history_rule_names_groups_or_users_and_has_limits() {
        for (text, expected) in [
            ("", "a history rule is empty: give either groups or users"),
            ("groups = 'a'\nusers = 'b'", "a history rule is empty: give either groups or users"),
            ("groups = 'a'\nmessages = 0", "messages is 0, but must be from 1 to 1000000"),
            ("groups = 'a'\nage = '31d'", "age is 31d, but must be from 1s to"),
            ("groups = 'a'\nlast = 5", "unknown key \"last\" in a history rule"),
        ] {
            let found = problem(&format!("[[history]]\nhub = \"*\"\n{text}"));
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn names_are_not_given_twice_and_numbers_of_rules_are_bounded() {
        let twice = "[[routes]]\nname = \"2\"\nreject = 403\n[[routes]]\nreject = 403";
        assert_eq!(problem(twice), "4:1: name \"2\" is used twice; each needs its own name");
        let many = problem(&"[[routes]]\nreject = 403\n".repeat(1001));
        assert_eq!(many, "1:1: routes has 1001 entries, but may have at most 1000");
        let groups: String = (0..101).map(|at| format!("[groups.g{at}]\nupstream = \"http://a{at}\"\n")).collect();
        let groups = Ruleset::parse(&groups).unwrap_err().to_string();
        assert_eq!(groups, "line 1, column 2: groups has 101 entries, but may have at most 100");
        let large = Ruleset::parse(&"#".repeat(1024 * 1024 + 1)).unwrap_err().to_string();
        assert!(large.contains("more than 1048576 bytes"), "{large}");
    }

    #[test]
    fn a_file_that_is_no_toml_is_refused_at_its_place() {
        let problem = problem("[[routes]\nreject = 403");
        assert!(problem.starts_with("1:"), "{problem}");
    }

    /// Lines that form valid rules more often than random text does.
    fn line() -> impl Strategy<Value = String> {
        let keys = "name hub path query header user address percent group reject next on-down target sample deny allow \
                    per-second max-bytes upstream weights pool-size";
        let values = [
            "\"/chat\"",
            "\"http://a\"",
            "\"canary\"",
            "10",
            "0.5",
            "-1",
            "nan",
            "403",
            "true",
            "[]",
            "[\"a\"]",
            "{ name = \"a\", present = true }",
            "{ \"http://a\" = 1 }",
            "{ \"a\" = \"4KiB\" }",
        ];
        let keys: Vec<_> = keys.split_whitespace().collect();
        prop_oneof![
            "\\[\\[(routes|messages|mirrors|methods)\\]\\]",
            "\\[groups\\.(a|default)\\]",
            (prop::sample::select(keys), prop::sample::select(values.to_vec()))
                .prop_map(|(key, value)| format!("{key} = {value}")),
            "\\PC{0,8}",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_makes_the_reader_panic_and_every_error_has_a_place(lines in prop::collection::vec(line(), 0..8)) {
            let text = lines.join("\n");
            if let Err(error) = Ruleset::parse(&text) {
                let TextPlace { line, column } = error.place;
                prop_assert!(line >= 1 && column >= 1 && !error.problem.to_string().is_empty());
                prop_assert!(line <= text.split('\n').count(), "{error} in {text}");
            }
        }
    }

    #[test]
    fn an_issuer_has_keys_audiences_and_hubs_and_shows_no_secret() {
        let file = std::env::temp_dir().join(format!("trunkline-issuer-key-{}", std::process::id()));
        std::fs::write(&file, "a secret that is long enough\n").unwrap();
        let text = format!(
            "[issuers.shop]\nkeys = {file:?}\nissuer = 'https://shop'\naudiences = 'shop'\nhubs = ['shop', 'Orders*']\n
             [issuers.staff]\njwks = 'https://staff.example/keys?secret'\nissuer = ['https://staff', 'staff']"
        );
        let tables = RuleFile::parse(&text).unwrap().access;
        std::fs::remove_file(&file).unwrap();
        let signing = tables.issuers[0].signing().unwrap();
        assert_eq!((signing.0, signing.1), ("a secret that is long enough", "https://shop"));
        assert!(tables.issuers[1].signing().is_none());
        let lines: Vec<_> = tables.lines().collect();
        assert_eq!(
            lines,
            [
                &*format!(
                    "issuer shop: iss https://shop, audiences shop, hubs shop, orders*, keys in 1 files, {}: secret (HS256)",
                    file.display()
                ),
                "issuer staff: iss https://staff, staff, audiences any, all hubs, keys in 0 files, \
                 jwks https://staff.example/keys?…",
            ]
        );
    }

    #[test]
    fn a_table_that_describes_no_issuer_is_refused_with_its_place() {
        for (rest, words) in [
            ("jwks = 'https://a/keys'", "an issuer has no issuer"),
            ("issuer = 'a'", "an issuer has no keys"),
            ("issuer = 'a'\nkeys = 'no-such-file'", "keys no-such-file can't be read"),
            ("issuer = 'a'\njwks = 'ftp://a'", "line 3, column 8: the key set of issuer \"a\": \"ftp://a\" is neither"),
            ("issuer = 'a'\njwks = 'https://a/k'\nhubs = 'a*b'", "the hubs of issuer \"a\": names a hub \"a*b\""),
            ("issuer = 'a'\njwks = 'https://a/k'\nhub = 'a'", "is \"hubs\" meant?"),
            ("issuer = 'a'\njwks = 'https://a/k'\nhubs = []", "hubs is an empty list"),
        ] {
            let found = RuleFile::parse(&format!("[issuers.a]\n{rest}")).unwrap_err().to_string();
            assert!(found.contains(words), "{found}");
        }
    }

    const KEY: &str = "0123456789abcdef";

    fn file_problem(text: &str) -> String {
        RuleFile::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn an_app_has_keys_of_its_own_for_the_hubs_that_it_names() {
        let path = std::env::temp_dir().join(format!("trunkline-app-key-{}", std::process::id()));
        std::fs::write(&path, format!("{KEY}-in-a-file\n")).unwrap();
        let text = format!(
            "[app-keys.shop]\nkey-file = {path:?}\nkey = \"{KEY}-old\"\nhubs = [\"shop\", \"orders*\"]\nshared = true\n[app-keys.news]\nkey = \"{KEY}\""
        );
        let keys = RuleFile::parse(&text).unwrap().access.app_keys;
        std::fs::remove_file(&path).unwrap();
        let shown: Vec<_> = keys.iter().map(|key| format!("{key} {}", key.key().expose())).collect();
        assert_eq!(
            shown,
            [
                format!("app key shop: hubs shop, orders*, shared {KEY}-old"),
                format!("app key shop: hubs shop, orders*, shared {KEY}-in-a-file"),
                format!("app key news: hubs news, news_* {KEY}"),
            ]
        );
    }

    #[test]
    fn a_table_that_makes_no_key_is_refused_with_its_place() {
        for (text, words) in [
            ("[app-keys.shop]\nhubs = \"shop\"", "an app's key has no key-file"),
            ("[app-keys.shop]\nkey = \"short\"", "line 2, column 7: the key of app \"shop\": access key has 5 bytes"),
            ("[app-keys.shop]\nkey-fil = \"x\"\nkey = \"0123456789abcdef\"", "is \"key-file\" meant?"),
            ("[app-keys.shop]\nkey-file = \"no-such-file\"", "key-file no-such-file can't be read"),
            ("[app-keys.\"a b\"]\nkey = \"0123456789abcdef\"", "the key of app \"a b\": has no name of an app"),
            ("[app-key.shop]\nkey = \"0123456789abcdef\"", "is \"app-keys\" meant?"),
        ] {
            let found = file_problem(text);
            assert!(found.contains(words) && !found.contains(KEY), "{found}");
        }
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
            let found = file_problem(&format!("[webhooks.chat]\n{text}"));
            assert!(found.contains(words) && !found.contains("hush"), "{text}: {found}");
        }
    }
}
