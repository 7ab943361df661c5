//! `trunkline announce`: sends a message to clients of the whole fleet through a node.

use clap::Args;
use serde::Serialize;
use trunkline_protocol::json_text::JsonText;
use trunkline_proxy::parts::AnnouncementReport;

use super::admin_client::{AdminPortArgs, complete};
use super::flag::value_parser::json_list;
use crate::quantity::counted;

/// Maximum answer size: counts, and the names of missing nodes.
const ANSWER_MAX_BYTES: usize = 1024 * 1024;

const EXAMPLES: &str = "\
Examples:
  trunkline announce --hub chat --target Notice --arguments '[\"We restart in five minutes.\"]'
  trunkline announce --hub chat --target Notice --group room-7 --arguments '[\"Moved\", 8]'

Clients receive the message like a call from their app server: connection.on(\"Notice\", text => …).
The node forwards the message to the other nodes of its fleet (--peers).
The exit status is 1 if a node did not answer: its clients may not have received the message.";

/// Flags of `trunkline announce`, and the body of the request. Numbers keep their digits.
#[derive(Debug, Args, Serialize)]
#[command(after_help = EXAMPLES)]
pub(super) struct AnnounceArgs {
    /// Name of the hub.
    #[arg(long, value_name = "HUB")]
    pub hub: String,

    /// Client method to call.
    #[arg(long, value_name = "METHOD")]
    pub target: String,

    /// Send only to members of this group.
    #[arg(long, value_name = "GROUP", conflicts_with = "user")]
    pub group: Option<String>,

    /// Send only to connections of this user.
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,

    /// Arguments of the method, as a JSON list.
    #[arg(long, value_name = "JSON", default_value = "[]", value_parser = json_list)]
    pub arguments: JsonText,

    #[command(flatten)]
    #[serde(skip)]
    pub admin: AdminPortArgs,
}

/// Sends an announcement and returns its reach. Fails if a node refuses or does not answer.
pub(super) async fn announce(args: &AnnounceArgs) -> anyhow::Result<String> {
    let report: AnnouncementReport = args.admin.port(ANSWER_MAX_BYTES)?.post("/api/announce", args).await?;
    let summary = format!("sent to {} at {}", counted(report.clients, "client"), counted(report.nodes, "node"));
    complete(summary, "clients of nodes without an answer may have missed it", &report.missing)
}

#[cfg(test)]
mod tests {
    use axum::routing::post;
    use axum::{Json, Router};
    use clap::Parser;
    use http::header::AUTHORIZATION;
    use http::{HeaderMap, StatusCode};
    use serde_json::{Value, json};
    use tokio::net::TcpListener;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: AnnounceArgs,
    }

    fn parse(typed: &[&str]) -> Result<AnnounceArgs, String> {
        let typed = [&["announce", "--hub", "chat", "--target", "Notice"], typed].concat();
        Command::try_parse_from(typed).map(|command| command.args).map_err(|error| error.to_string())
    }

    /// Announces at a node that gives this answer. Also returns the request.
    async fn announced(typed: &[&str], status: u16, answer: Value) -> (Result<String, String>, Value) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, mut asked) = tokio::sync::mpsc::unbounded_channel();
        let router = Router::new().route(
            "/api/announce",
            post(async move |headers: HeaderMap, Json(mut body): Json<Value>| {
                body["token"] = headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned()).into();
                sender.send(body).unwrap();
                (StatusCode::from_u16(status).unwrap(), Json(answer))
            }),
        );
        tokio::spawn(async { axum::serve(listener, router).await });
        let args = parse(&[typed, &["--admin", &url]].concat()).unwrap();
        let summary = announce(&args).await.map_err(|error| error.to_string().replace(&url, "URL"));
        (summary, asked.recv().await.unwrap())
    }

    #[tokio::test]
    async fn the_reach_of_an_announcement_is_reported() {
        let typed = ["--group", "red", "--arguments", "[\"text\", {\"n\": 5}]", "--admin-token", "0123456789abcdef"];
        let answer = json!({ "nodes": 3, "missing": [], "clients": 1 });
        let (summary, asked) = announced(&typed, 200, answer).await;
        assert_eq!(summary.unwrap(), "sent to 1 client at 3 nodes");
        let expected = json!({
            "hub": "chat", "target": "Notice", "group": "red", "user": null, "arguments": ["text", { "n": 5 }],
            "token": "Bearer 0123456789abcdef",
        });
        assert_eq!(asked, expected);
    }

    #[tokio::test]
    async fn a_node_that_is_missing_is_an_error_that_names_it() {
        let answer = json!({ "nodes": 1, "missing": ["proxy-b", "proxy-c"], "clients": 4 });
        let problem = announced(&[], 200, answer).await.0.unwrap_err();
        let expected =
            "sent to 4 clients at 1 node; clients of nodes without an answer may have missed it: proxy-b, proxy-c";
        assert_eq!(problem, expected);
    }

    #[tokio::test]
    async fn a_refusal_has_the_text_of_the_node() {
        let answer = json!({ "error": "no reachable node has a hub \"chat\"", "field": null });
        let problem = announced(&[], 404, answer).await.0.unwrap_err();
        assert_eq!(problem, "URL refuses: no reachable node has a hub \"chat\"");
        assert_eq!(announced(&[], 401, json!({})).await.0.unwrap_err(), "URL refuses: --admin-token is required");
        assert_eq!(announced(&[], 502, json!({})).await.0.unwrap_err(), "URL refuses: it answers 502 Bad Gateway");
    }

    #[test]
    fn arguments_are_a_list_and_receivers_are_a_group_or_a_user() {
        for wrong in ["5", "{}", "[1", "text"] {
            let problem = parse(&["--arguments", wrong]).unwrap_err();
            assert!(problem.contains("must be a JSON list, such as"), "{problem}");
        }
        assert_eq!(parse(&[]).unwrap().arguments.get(), "[]");
        assert!(parse(&["--group", "g", "--user", "u"]).unwrap_err().contains("cannot be used with"));
    }
}
