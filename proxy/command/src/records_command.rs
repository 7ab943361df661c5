//! `trunkline records`: lists the records of a hub, and ends or deletes one.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use trunkline_proxy::parts::{ListPage, RecordReport, RecordRow, unix_seconds};

use super::admin_client::{AdminPortArgs, complete};
use crate::quantity::{counted, duration_text, size_text};
use crate::shown_text::one_line;
use crate::text_table::columns;

/// Maximum answer size: 200 rows.
const ANSWER_MAX_BYTES: usize = 1024 * 1024;

const EXAMPLES: &str = "\
Examples:
  trunkline records --hub chat                            list the largest records
  trunkline records --hub chat --group answer-7 --finish  followers receive the rest, then the end
  trunkline records --hub chat --user ann --delete        followers receive a reset

A record has the messages to a group or user that a rule ([[history]]) or the hub (Hub::history) names.
Deletions and ends are in the audit log. The exit status is 1 if there is no such record, or a node did not answer.";

/// Flags of `trunkline records`, and the body of a change.
#[derive(Debug, Args, Serialize)]
#[command(after_help = EXAMPLES)]
pub(super) struct RecordsArgs {
    /// Name of the hub.
    #[arg(long, value_name = "HUB")]
    pub hub: String,

    /// Group of the record to finish or delete.
    #[arg(long, value_name = "GROUP", group = "of", requires = "change")]
    pub group: Option<String>,

    /// User of the record to finish or delete.
    #[arg(long, value_name = "USER", group = "of", requires = "change")]
    pub user: Option<String>,

    /// End the record: it stays readable, and refuses messages.
    #[arg(long, group = "change", requires = "of")]
    #[serde(skip)]
    pub finish: bool,

    /// Delete the record with its messages, also from the store.
    #[arg(long, group = "change", requires = "of")]
    #[serde(skip)]
    pub delete: bool,

    #[command(flatten)]
    #[serde(skip)]
    pub admin: AdminPortArgs,
}

/// Lists records, or changes one. Fails if a node refuses or does not answer.
pub(super) async fn records(args: &RecordsArgs) -> anyhow::Result<String> {
    let port = args.admin.port(ANSWER_MAX_BYTES)?;
    let RecordsArgs { hub, finish, delete, .. } = args;
    if !finish && !delete {
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("hub", hub).finish();
        return Ok(list(&port.get(&format!("/api/records?{query}")).await?));
    }
    let (path, done) = match finish {
        true => ("/api/records/finish", "finished"),
        false => ("/api/records/delete", "deleted"),
    };
    let report: RecordReport = port.post(path, args).await?;
    let risk = "followers at nodes without an answer were not informed";
    complete(format!("{done} at position {}", report.position), risk, &report.missing)
}

fn list(page: &ListPage<RecordRow>) -> String {
    let total = page.total.unwrap_or_default();
    let mut lines = vec![counted(total, "record")];
    if !page.items.is_empty() {
        let texts = ["NAME", "KIND", "STATE", "NODE"];
        let numbers = ["MESSAGES", "SIZE", "FOLLOWERS", "LAST"];
        lines.extend(columns(&texts, &numbers, page.items.iter().map(row)));
    }
    lines.join("\n")
}

fn row(record: &RecordRow) -> Vec<String> {
    let since = |used_ms: u64| duration_text(Duration::from_secs(unix_seconds().saturating_sub(used_ms / 1000)));
    let state = if record.is_finished { "finished" } else { "open" };
    vec![
        one_line(&record.name).into_owned(),
        if record.is_user { "user" } else { "group" }.into(),
        state.into(),
        record.node.as_deref().unwrap_or("-").into(),
        record.messages.to_string(),
        size_text(record.bytes),
        record.followers.to_string(),
        if record.used_ms == 0 { "-".into() } else { since(record.used_ms) },
    ]
}

#[cfg(test)]
mod tests {
    use axum::extract::RawQuery;
    use axum::routing::{get, post};
    use axum::{Json, Router};
    use clap::Parser;
    use serde_json::{Value, json};
    use tokio::net::TcpListener;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: RecordsArgs,
    }

    fn parse(typed: &[&str]) -> Result<RecordsArgs, String> {
        let typed = [&["records", "--hub", "a&b"], typed].concat();
        Command::try_parse_from(typed).map(|command| command.args).map_err(|error| error.to_string())
    }

    /// Runs the command at a node with these answers, which include the request.
    async fn run(typed: &[&str], answer: Value) -> Result<String, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (list, change) = (answer.clone(), answer);
        let changed = async move |Json(body): Json<Value>| {
            assert_eq!(body, json!({ "hub": "a&b", "group": "red", "user": null }));
            Json(change)
        };
        let listed = async move |RawQuery(query): RawQuery| {
            assert_eq!(query.as_deref(), Some("hub=a%26b"));
            Json(list)
        };
        let router = Router::new().route("/api/records", get(listed)).route("/api/records/delete", post(changed));
        tokio::spawn(async { axum::serve(listener, router).await });
        let args = parse(&[typed, &["--admin", &url]].concat()).unwrap();
        records(&args).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn the_largest_records_are_listed_and_names_cannot_steer_the_terminal() {
        let row = json!({ "name": "red\u{1b}", "messages": 7, "bytes": 2048, "followers": 3, "node": "n1" });
        let answer = json!({ "items": [row], "total": 12 });
        let lines = "12 records\nNAME  KIND   STATE  NODE  MESSAGES  SIZE  FOLLOWERS  LAST\n\
                     red\u{fffd}  group  open   n1           7  2KiB          3     -";
        assert_eq!(run(&[], answer).await.unwrap(), lines);
        assert_eq!(run(&[], json!({ "items": [], "total": 0 })).await.unwrap(), "0 records");
    }

    #[tokio::test]
    async fn a_record_is_deleted_and_a_node_that_is_missing_is_named() {
        let typed = ["--group", "red", "--delete"];
        let done = run(&typed, json!({ "position": "0000000000000007-3", "missing": [] })).await;
        assert_eq!(done.unwrap(), "deleted at position 0000000000000007-3");
        let problem = run(&typed, json!({ "position": "0", "missing": ["n2"] })).await.unwrap_err();
        assert!(
            problem.starts_with("deleted at position 0; followers at nodes without an answer")
                && problem.ends_with("n2")
        );
    }

    #[test]
    fn a_change_is_of_one_group_or_user() {
        for wrong in [&["--delete"][..], &["--group", "a"], &["--group", "a", "--user", "b", "--delete"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(parse(&["--user", "a", "--finish"]).unwrap().finish);
        assert!(parse(&["--user", "a", "--finish", "--delete"]).is_err());
    }
}
