//! `trunkline revoke`: revokes access tokens at all nodes of a fleet, and lists revocations.

use std::time::{Duration, UNIX_EPOCH};

use clap::{ArgGroup, Args};
use serde::Serialize;
use trunkline_proxy::parts::{RevocationList, RevocationReport, RevokedTokens};

use super::admin_client::{AdminPortArgs, complete};
use super::flag::value_parser::whole_seconds;
use super::text_table::columns;
use crate::quantity::counted;
use crate::shown_text::one_line;

const PATH: &str = "/api/revocations";
const LIST_PATH: &str = "/api/revocations?limit=1000";

/// Maximum answer size: a list of a thousand revocations with long names.
const ANSWER_MAX_BYTES: usize = 8 * 1024 * 1024;

/// Maximum time that nodes keep a revocation, in seconds.
const KEEP_MAX_S: u64 = 366 * 24 * 3600;

const EXAMPLES: &str = "\
Examples:
  trunkline revoke --user ann --close                         log ann out everywhere, immediately
  trunkline revoke --user ann --issued-before 2026-11-24T08:00:00Z
  trunkline revoke --all --keep 8h                            if no token lives for longer than 8 hours
  trunkline revoke --app shop                                 tokens signed with the key of this app
  trunkline revoke --list

Nodes refuse tokens issued in that second or before, or without an issue time (claim iat). Users who log in again get
valid tokens. A revocation can't be undone; keep it for as long as such tokens live.
The node forwards the revocation to the other nodes of its fleet, and starting nodes receive it from them.
The exit status is 1 if a node did not answer: it may still accept such tokens.";

/// Flags of `trunkline revoke`, and the body of the request.
#[derive(Debug, Args, Serialize)]
#[command(
    after_help = EXAMPLES,
    group = ArgGroup::new("tokens").required(true).multiple(true).args(["user", "audience", "app", "all", "list"])
)]
pub(super) struct RevokeArgs {
    /// Tokens of the user with this id.
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,

    /// Only tokens with this audience (claim aud).
    #[arg(long, value_name = "AUDIENCE")]
    pub audience: Option<String>,

    /// Only tokens signed with the key of this app (--app-key of the nodes).
    #[arg(long, value_name = "NAME")]
    pub app: Option<String>,

    /// All tokens, including those of app servers that dial in and of REST callers.
    #[arg(long, conflicts_with_all = ["user", "audience", "app", "close"])]
    pub all: bool,

    /// Tokens issued at this time or before: as 2026-11-24T08:00:00Z, or in seconds since 1970. [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub issued_before: Option<u64>,

    /// Time for which nodes refuse the tokens; the lifetime of the longest-lived token is enough.
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = whole_seconds::<u64>(60..=KEEP_MAX_S))]
    #[serde(rename = "keep_s")]
    pub keep: u64,

    /// Also close the user's open connections, regardless of their token.
    #[arg(long, requires = "user", conflicts_with_all = ["audience", "app"])]
    pub close: bool,

    /// List the newest revocations of the node.
    #[arg(long, conflicts_with_all = ["user", "audience", "app", "all", "issued_before", "close"])]
    #[serde(skip)]
    pub list: bool,

    #[command(flatten)]
    #[serde(skip)]
    pub admin: AdminPortArgs,
}

/// Revokes tokens or lists revocations, and returns the text to print. Fails if a node refuses or does not answer.
pub(super) async fn revoke(args: &RevokeArgs) -> anyhow::Result<String> {
    let port = args.admin.port(ANSWER_MAX_BYTES)?;
    if args.list {
        return Ok(listed(&port.get(LIST_PATH).await?));
    }
    let report: RevocationReport = port.post(PATH, args).await?;
    complete(summary(&report), "nodes without an answer, which may still accept the tokens", &report.missing)
}

fn summary(report: &RevocationReport) -> String {
    let RevocationReport { tokens, nodes, clients, .. } = report;
    let closed = if *clients > 0 { format!("; {} closed", counted(*clients, "connection")) } else { String::new() };
    let (nodes, of, until) = (counted(*nodes, "node"), whose(tokens), time_text(tokens.kept_until));
    let stored = if report.stored == Some(false) { "; in effect, not stored yet" } else { "" };
    let issued = time_text(tokens.issued_before);
    format!("tokens {of} issued up to {issued} are void at {nodes} until {until}{closed}{stored}")
}

fn whose(tokens: &RevokedTokens) -> String {
    let named = [("of user", &tokens.user), ("for audience", &tokens.audience), ("signed by app", &tokens.app)];
    let named = named.into_iter().filter_map(|(word, name)| Some(format!("{word} {:?}", name.as_ref()?)));
    let words: Vec<_> = named.collect();
    if words.is_empty() { "of all users".into() } else { words.join(" ") }
}

fn listed(list: &RevocationList) -> String {
    let row = |tokens: &RevokedTokens| {
        let name = |name: &Option<String>| name.as_deref().map_or_else(|| "any".into(), |name| one_line(name).into());
        let names = [&tokens.user, &tokens.audience, &tokens.app].map(name);
        names.into_iter().chain([tokens.issued_before, tokens.kept_until].map(time_text)).collect()
    };
    let headings = ["USER", "AUDIENCE", "APP", "ISSUED UP TO", "KEPT UNTIL"];
    let mut lines = columns(&headings, &[], list.revocations.iter().map(row));
    let left_out = list.total.saturating_sub(list.revocations.len() as u64);
    lines.extend((left_out > 0).then(|| format!("and {left_out} older ones")));
    lines.join("\n")
}

/// Parses a time in seconds since 1970 or RFC 3339.
fn moment(text: &str) -> Result<u64, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    let time = humantime::parse_rfc3339_weak(text)
        .map_err(|error| format!("is not a time ({error}): write 2026-11-24T08:00:00Z, or seconds since 1970"))?;
    Ok(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

/// Formats a time as RFC 3339, or as seconds since 1970 if it is out of range.
fn time_text(seconds: u64) -> String {
    const LAST_S: u64 = 253_402_300_799;
    match UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).filter(|_| seconds <= LAST_S) {
        Some(time) => humantime::format_rfc3339_seconds(time).to_string(),
        None => seconds.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use axum::{Json, Router};
    use clap::Parser;
    use http::StatusCode;
    use serde_json::{Value, json};
    use tokio::net::TcpListener;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: RevokeArgs,
    }

    fn parse(typed: &[&str]) -> Result<RevokeArgs, String> {
        let typed = [&["revoke"], typed].concat();
        Command::try_parse_from(typed).map(|command| command.args).map_err(|error| error.to_string())
    }

    /// Revokes at a node that gives this answer. Also returns the request.
    async fn revoked(typed: &[&str], answer: Value) -> (Result<String, String>, Value) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, mut asked) = tokio::sync::mpsc::unbounded_channel();
        let (listing, of_get) = (answer.clone(), sender.clone());
        let route = get(async move || {
            of_get.send(Value::Null).unwrap();
            Json(listing)
        });
        let route = route.post(async move |Json(body): Json<Value>| {
            sender.send(body).unwrap();
            (StatusCode::OK, Json(answer))
        });
        let router = Router::new().route(PATH, route);
        tokio::spawn(async { axum::serve(listener, router).await });
        let args = parse(&[typed, &["--admin", &url]].concat()).unwrap();
        let summary = revoke(&args).await.map_err(|error| error.to_string().replace(&url, "URL"));
        (summary, asked.recv().await.unwrap())
    }

    #[tokio::test]
    async fn the_request_has_the_typed_values_and_the_report_has_the_result() {
        let report = json!({
            "user": "ann", "issued_before": 1_795_507_200_u64, "kept_until": 1_795_510_800_u64, "nodes": 3,
            "missing": [], "clients": 2,
        });
        let typed = ["--user", "ann", "--close", "--issued-before", "2026-11-24T08:00:00Z", "--keep", "1h"];
        let (summary, asked) = revoked(&typed, report).await;
        let order = json!({
            "user": "ann", "audience": null, "app": null, "all": false, "issued_before": 1_795_507_200_u64,
            "keep_s": 3600, "close": true,
        });
        assert_eq!(asked, order);
        let expected = "tokens of user \"ann\" issued up to 2026-11-24T08:00:00Z are void at 3 nodes until \
                        2026-11-24T09:00:00Z; 2 connections closed";
        assert_eq!(summary.unwrap(), expected);
    }

    #[tokio::test]
    async fn a_node_that_is_missing_is_an_error_that_names_it() {
        let report = json!({ "app": "shop", "issued_before": 1, "kept_until": 2, "nodes": 1, "missing": ["proxy-b"] });
        let (summary, asked) = revoked(&["--app", "shop"], report).await;
        assert_eq!((&asked["issued_before"], &asked["keep_s"]), (&Value::Null, &json!(2_592_000)));
        let expected = "tokens signed by app \"shop\" issued up to 1970-01-01T00:00:01Z are void at 1 node until \
                        1970-01-01T00:00:02Z; nodes without an answer, which may still accept the tokens: proxy-b";
        assert_eq!(summary.unwrap_err(), expected);
    }

    #[tokio::test]
    async fn a_list_has_a_line_for_each_revocation_and_the_number_of_omitted_ones() {
        let kept = json!([
            { "user": "a\u{1b}nn", "issued_before": 1, "kept_until": 2 },
            { "audience": "shop", "issued_before": 3, "kept_until": u64::MAX },
        ]);
        let (summary, asked) = revoked(&["--list"], json!({ "revocations": kept, "total": 5 })).await;
        assert_eq!(asked, Value::Null);
        let expected = [
            "USER  AUDIENCE  APP  ISSUED UP TO          KEPT UNTIL",
            "a\u{fffd}nn  any       any  1970-01-01T00:00:01Z  1970-01-01T00:00:02Z",
            "any   shop      any  1970-01-01T00:00:03Z  18446744073709551615",
            "and 3 older ones",
        ];
        assert_eq!(summary.unwrap().lines().map(str::trim_end).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn flags_name_tokens_or_all_and_a_close_needs_a_user() {
        for (typed, problem) in [
            (&[][..], "--user"),
            (&["--all", "--user", "ann"], "cannot be used with"),
            (&["--all", "--close"], "cannot be used with"),
            (&["--app", "shop", "--close"], "cannot be used with"),
            (&["--list", "--all"], "cannot be used with"),
            (&["--user", "ann", "--issued-before", "soon"], "is not a time"),
            (&["--user", "ann", "--keep", "1s"], "must be"),
        ] {
            let summary = parse(typed).unwrap_err();
            assert!(summary.contains(problem), "{typed:?}: {summary}");
        }
        assert_eq!(parse(&["--all", "--issued-before", "7"]).unwrap().issued_before, Some(7));
        assert!(parse(&["--user", "ann", "--audience", "shop", "--app", "store"]).is_ok());
    }
}
