//! Reference pages of the book, compared with the code: some are generated, others must name each item.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use clap::{Arg, Args, Command};
use serde_json::Value;
use trunkline_command::ServeArgs;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::manifest::{HubManifest, Manifest};
use trunkline_proxy::parts::{MetricEntry, RuleFile, condition_entries, metric_entries};

use crate::workspace::{rust_files, workspace};

/// Folder of the reference pages.
const FOLDER: &str = "docs/book/src/reference";

/// Delimiters of the generated part; the rest of a page is written by hand.
const BEGIN: &str = "<!-- generated from here -->\n";
const END: &str = "<!-- to here -->\n";

/// Environment variable that makes the test write the pages.
const WRITE: &str = "TRUNKLINE_WRITE_PAGES";

/// Compares the generated part of a page with the current code, or writes the page if [`WRITE`] is set.
pub(crate) fn check_generated(page: &str, generated: &str) {
    let path = workspace().join(FOLDER).join(page);
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (old, after) = rest.split_once(END).unwrap();
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, format!("{before}{BEGIN}{generated}{END}{after}")).unwrap();
    } else {
        assert_eq!(old, generated, "{FOLDER}/{page} is out of date: run this test with {WRITE}=1");
    }
}

/// Flag of `trunkline serve`, as shown on pages.
pub(crate) struct ServeFlag {
    /// Name without leading dashes.
    pub(crate) name: String,
    /// Name of its value after a space; empty without a value.
    pub(crate) value: String,
    pub(crate) default: String,
    pub(crate) help: String,
    /// Name of its environment variable, unless derived from the flag's name.
    pub(crate) variable: Option<String>,
}

/// Returns the flags of `trunkline serve`, from clap's definitions.
pub(crate) fn serve_flags() -> Vec<ServeFlag> {
    let command = ServeArgs::augment_args(Command::new("serve"));
    let of = |flag: &Arg| {
        let names = flag.get_value_names().unwrap_or_default().join(" ");
        let value = if flag.get_action().takes_values() { escape(&format!(" {names}")) } else { String::new() };
        let name = flag.get_long().unwrap_or_default().to_owned();
        let usual = format!("TRUNKLINE_{}", name.replace('-', "_").to_uppercase());
        let variable = flag.get_env().unwrap_or_default().to_string_lossy().into_owned();
        let (help, default) = help_and_default(flag);
        ServeFlag { name, value, default, help, variable: Some(variable).filter(|variable| *variable != usual) }
    };
    command.get_arguments().map(of).collect()
}

/// Table of the flags of `trunkline serve`.
pub(crate) fn flags() -> String {
    let mut table = "| flag | default | |\n|---|---|---|\n".to_owned();
    for ServeFlag { name, value, default, help, variable } in serve_flags() {
        let other = variable.map(|variable| format!(" Environment variable: `{variable}`.")).unwrap_or_default();
        writeln!(table, "| `--{name}{value}` | {default} | {help}{other} |").unwrap();
    }
    table
}

/// Help of a flag, and its default: clap's, or, for a default that depends on other settings, the end of the help.
fn help_and_default(flag: &Arg) -> (String, String) {
    let help = flag.get_long_help().or(flag.get_help()).map(ToString::to_string).unwrap_or_default();
    let help = escape(&help.split_whitespace().collect::<Vec<_>>().join(" "));
    let told = help.strip_suffix(']').and_then(|help| help.rsplit_once(" [default: "));
    let (help, default) = told.map_or((help.as_str(), ""), |told| told);
    let sentence = if help.ends_with(['.', ']']) { help.to_owned() } else { format!("{help}.") };
    let values = flag.get_default_values().iter().map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(",");
    let is_value = flag.get_action().takes_values() && !values.is_empty();
    (sentence, if is_value { format!("`{values}`") } else { default.to_owned() })
}

/// Text in a cell of a table.
pub(crate) fn escape(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

/// Table of the causes, from their enum.
pub(crate) fn causes() -> String {
    let mut table = "| cause | ends | refuses | |\n|---|---|---|---|\n".to_owned();
    let mark = |is_true| if is_true { "yes" } else { "" };
    for cause in Cause::all() {
        let (ends, refuses) = (mark(cause.closes()), mark(cause.refuses()));
        writeln!(table, "| `{}` | {ends} | {refuses} | {} |", cause.label(), cause.text()).unwrap();
    }
    table
}

/// Table of the conditions, from their catalogue.
pub(crate) fn conditions() -> String {
    let mut table = "| condition | severity | begins after | state | remedy |\n|---|---|---|---|---|\n".to_owned();
    for entry in condition_entries() {
        let (name, severity, after_s) = (entry.name, entry.severity.label(), entry.after_s);
        let start = if entry.is_normal_at_start { ", not in the first minute" } else { "" };
        let (text, remedy) = (escape(entry.text), escape(entry.remedy));
        writeln!(table, "| `{name}` | {severity} | {after_s} s{start} | {text} | {remedy} |").unwrap();
    }
    table
}

/// Tables of the metrics of nodes and of app servers, from their declarations.
pub(crate) fn metrics() -> String {
    const HEAD: &str = "| metric | labels | |\n|---|---|---|\n";
    let mut page = format!("## Of a node\n\n{HEAD}");
    for MetricEntry { name, help, labels } in metric_entries() {
        let labels = labels.iter().map(|(label, values)| (*label, values.iter().map(String::as_str).collect()));
        page += &metric_row(name, labels, help);
    }
    write!(page, "\n## Of an app server\n\n{HEAD}").unwrap();
    page += &metric_row("trunkline_app_build_info", [("version", Vec::new())], "Version of the program; always 1.");
    let help = "Log lines of LogQueue dropped because their reader is too slow or gone.";
    page += &metric_row("trunkline_app_log_lines_dropped_total", [], help);
    let text = read(Path::new("app-sdk/src/metrics.rs"));
    let (_, rows) = text.split_once("\nfamilies! {\n").unwrap();
    for row in rows.split_once("\n}\n").unwrap().0.split_inclusive(";\n") {
        let (declared, looked_up) = row.split_once("=> [").unwrap();
        let (declared, values) = (literals(declared, ""), literals(looked_up, ""));
        let [name, help, labels @ ..] = &declared[..] else { panic!("{row} has no name and no help") };
        let labels = labels.iter().map(|label| (label.as_str(), values.iter().map(String::as_str).collect()));
        page += &metric_row(&format!("trunkline_app_{name}"), labels, help);
    }
    page
}

/// Row of the table of metrics, with predefined label values.
fn metric_row<'a>(name: &str, labels: impl IntoIterator<Item = (&'a str, Vec<&'a str>)>, help: &str) -> String {
    let shown = |(label, values): (&str, Vec<&str>)| {
        let values: Vec<_> = values.into_iter().filter(|value| !value.is_empty()).collect();
        match (label, &values[..]) {
            ("cause", [] | ["unnamed"]) => "[`cause`](causes.md)".to_owned(),
            (_, []) => format!("`{label}`"),
            (_, values) => format!("`{label}`: `{}`", values.join("`, `")),
        }
    };
    let labels: Vec<_> = labels.into_iter().map(shown).collect();
    format!("| `{name}` | {} | {} |\n", labels.join("; "), escape(help))
}

/// Paths of the admin port, from its routes.
pub(crate) fn admin_paths() -> BTreeSet<String> {
    let texts = rust_files(Path::new("proxy/src/edge/admin")).into_iter().map(|path| read(&path));
    let routes = texts.flat_map(|text| [".route(", "const PATH: &str = "].map(|before| literals(&text, before)));
    routes.flatten().filter(|path| path.starts_with("/api/")).collect()
}

/// Names of the fields of a manifest and of its hubs.
pub(crate) fn manifest_fields() -> BTreeSet<String> {
    let hub = HubManifest::new("chat", "/chat");
    let manifest = Manifest { instance: String::new(), name: String::new(), version: String::new(), hubs: Vec::new() };
    let values = [serde_json::to_value(manifest).unwrap(), serde_json::to_value(hub).unwrap()];
    values.iter().filter_map(Value::as_object).flat_map(|fields| fields.keys().cloned()).collect()
}

/// Functions of `Hub` in the SDK that set something.
pub(crate) fn hub_functions() -> Vec<String> {
    let text = read(Path::new("app-sdk/src/hub.rs"));
    let functions = text.lines().filter_map(|line| line.strip_prefix("    pub fn "));
    functions.map(|rest| rest.split(['(', '<']).next().unwrap_or_default().to_owned()).collect()
}

/// Keys of the table of a webhook hub, from the error about an unknown one.
pub(crate) fn webhook_keys() -> Vec<String> {
    let problem = RuleFile::parse("[webhooks.chat]\nunknown = 1").unwrap_err().to_string();
    let (_, keys) = problem.split_once("allowed: ").unwrap();
    keys.split(", ").map(str::to_owned).collect()
}

/// Code spans of a reference page with this prefix, up to the end of the name or path.
pub(crate) fn named(page: &str, prefix: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(workspace().join(FOLDER).join(page)).unwrap();
    let spans = text.split('`').skip(1).step_by(2).flat_map(str::split_whitespace);
    let spans = spans.filter(|span| span.starts_with(prefix));
    spans.map(|span| span.split(['?', ',']).next().unwrap_or_default().to_owned()).collect()
}

/// Names in the first column of the tables of a reference page.
pub(crate) fn first_column(page: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(workspace().join(FOLDER).join(page)).unwrap();
    let cells = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    cells.map(|(name, _)| name.to_owned()).collect()
}

/// Returns the first string literal after each occurrence of a text.
fn literals(text: &str, after: &str) -> Vec<String> {
    let of = |part: &str| Some(part.split_once('"')?.1.split_once('"')?.0.to_owned());
    if after.is_empty() {
        return text.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    }
    text.split(after).skip(1).filter_map(of).collect()
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(workspace().join(path)).unwrap()
}
