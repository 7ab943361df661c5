//! `trunkline doctor`: tests a running fleet like a client, and recommends changes.
//!
//! Each check collects facts (I/O with a deadline and a size limit), then judges them in a pure function. Nothing is
//! sent without verified TLS, so that a token can't leak.

mod clock_check;
mod event_carrier;
mod finding;
mod header_check;
mod hub_connection;
mod hub_url;
mod idle_check;
mod negotiate_check;
mod node_check;
mod probe_client;
mod reach_check;
mod report_check;
mod rest_check;
mod tls_check;
mod transport_check;
mod websocket_carrier;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use http::HeaderValue;
use serde_json::json;
use trunkline_protocol::json_text::JsonText;
use trunkline_protocol::key::without_mark;
use trunkline_protocol::manifest::Transport;
use trunkline_proxy::parts::{ClientTls, Connector, TlsError, shown_url};

#[cfg(feature = "nats")]
use trunkline_proxy::parts::{NatsSettings, check_nats};

use super::admin_client::{AdminTokenArgs, token_text};
use super::flag::NatsArgs;
use super::flag::value_parser::{json_list, seconds};
use super::output::print;
use clock_check::check_clock;
use finding::{Finding, Verdict};
use header_check::{check_cors, check_host, judge_headers};
use hub_connection::ProbeCall;
use hub_url::HubUrl;
use idle_check::check_idle;
use negotiate_check::{Negotiated, check_negotiate};
use node_check::{check_nodes, judge_node_name};
use probe_client::ProbeClient;
use reach_check::check_reach;
use report_check::{ReportingNode, check_conditions, check_webhooks};
use rest_check::{RestTarget, check_rest};
use tls_check::check_tls;
use transport_check::{judge_transport, not_offered, try_transport};

const EXAMPLES: &str = "\
Examples:
  trunkline doctor https://chat.example/chat
  trunkline doctor https://chat.example/chat --token-file token --idle 2m
  trunkline doctor http://127.0.0.1:8080/chat --invoke Echo --arguments '[\"hello\"]' --json

The command connects like official clients, over each offered transport, and prints a line for
each check: ok, warning or failed, the observation, and the remedy at the nodes or in the load
balancer. Without --invoke it calls an unknown method: the app server's error proves the path in
both directions, and no method runs. `trunkline token user ID` makes a token. Nothing is sent to
a server with an invalid certificate.
The exit status is 1 if a check failed; warnings don't count.";

/// Flags of `trunkline doctor`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DoctorArgs {
    #[arg(help = "URL of a hub, as used by clients", value_name = "URL")]
    pub url: String,

    /// Access token of a user, if the hub requires one.
    #[arg(long, env = "TRUNKLINE_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,

    /// File with the access token.
    #[arg(long, env = "TRUNKLINE_TOKEN_FILE", value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,

    /// PEM file with CA certificates for the server. May be given several times. [default: the CA
    /// certificates of this system]
    #[arg(long = "ca-file", value_name = "FILE")]
    pub ca_files: Vec<PathBuf>,

    /// Admin port of a node: the conditions of its fleet are checked first.
    /// [default: http://127.0.0.1:8090 for a hub of this machine]
    #[arg(long, env = "TRUNKLINE_ADMIN", value_name = "URL")]
    pub admin: Option<String>,

    #[command(flatten)]
    pub admin_token: AdminTokenArgs,

    /// URL of the REST data plane, such as `http://127.0.0.1:8091` with `--rest-listen`: checks it, too.
    /// [default: the server of the hub, with a REST token]
    #[arg(long, value_name = "URL", value_parser = rest_url)]
    rest: Option<HubUrl>,

    /// Token for the REST data plane, from `trunkline token rest`.
    #[arg(long, env = "TRUNKLINE_REST_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub rest_token: Option<String>,

    /// File with the token for the REST data plane.
    #[arg(long, env = "TRUNKLINE_REST_TOKEN_FILE", value_name = "FILE", conflicts_with = "rest_token")]
    pub rest_token_file: Option<PathBuf>,

    #[command(flatten)]
    pub nats: NatsArgs,

    /// Origin of the connecting page, such as `https://app.example`: checks CORS, too.
    #[arg(long, value_name = "ORIGIN")]
    pub origin: Option<HeaderValue>,

    /// Method to call, instead of an unknown one. It is called 5 times over each transport.
    #[arg(long, value_name = "METHOD")]
    pub invoke: Option<String>,

    /// Arguments of the method, as a JSON list.
    #[arg(long, value_name = "JSON", default_value = "[]", requires = "invoke", value_parser = json_list)]
    pub arguments: JsonText,

    /// Time for which connections stay idle, to find timeouts. [default: none]
    #[arg(long, value_name = "DURATION", value_parser = seconds(1..=3600))]
    pub idle: Option<Duration>,

    /// Time limit for each step.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = seconds(1..=120))]
    pub timeout: Duration,

    /// Print one JSON object at the end.
    #[arg(long)]
    pub json: bool,
}

/// Tests the hub and prints the findings. A failed check is an error.
pub(super) async fn doctor(args: &DoctorArgs) -> anyhow::Result<()> {
    let wrong = |problem: String| anyhow!("{:?} {problem}", shown_url(&args.url));
    let url: HubUrl = args.url.parse().map_err(wrong)?;
    let tls = ClientTls { roots: args.ca_files.clone(), identity: None };
    let token = token("token", args.token.as_deref(), args.token_file.as_deref())?;
    let rest = rest_target(args, &url)?;
    let admin = ReportingNode::new(args.admin.as_deref(), url.address.is_loopback(), &args.admin_token);
    let mut report = DoctorReport { findings: Vec::new(), is_json: args.json };
    if let Some(port) = &admin {
        report.add_all(check_conditions(port).await);
    }
    #[cfg(feature = "nats")]
    if let Some(settings) = args.nats.settings()? {
        report.add(check_store(&settings).await);
    }
    if let Some(connector) = reach(&url, tls, args.timeout, &mut report).await? {
        let client = ProbeClient::new(connector.clone(), url.clone(), token, args.origin.clone(), args.timeout);
        speak(&client, args, &mut report).await;
        if let Some(target) = rest {
            report.add(check_rest(&target, connector, args.timeout).await);
        }
    }
    if let Some(port) = &admin {
        report.add_all(check_webhooks(port, &url.hub()).await);
    }
    report.end(&url)
}

/// Checks the store in NATS from here, as a node does at its start.
#[cfg(feature = "nats")]
async fn check_store(settings: &NatsSettings) -> Finding {
    match check_nats(settings).await {
        Ok(seen) => Finding::ok("store", seen),
        Err(problem) => {
            Finding::failed("store", problem, "check the servers, their JetStream, and the rights of the user")
        }
    }
}

/// Checks the layers below HTTP. Returns a connector if HTTP can be tested.
async fn reach(
    url: &HubUrl,
    tls: ClientTls,
    deadline: Duration,
    report: &mut DoctorReport,
) -> anyhow::Result<Option<Connector>> {
    let (findings, at) = check_reach(&url.address, deadline).await;
    report.add_all(findings);
    let Some(at) = at else { return Ok(None) };
    let finding = check_tls(&url.address, at, &tls, deadline).await;
    let is_secure = finding.verdict != Verdict::Failed;
    report.add(finding);
    if !is_secure {
        return Ok(None);
    }
    match Connector::with_tls(tls) {
        // TLS would only be needed after a redirect.
        Err(TlsError::NoRoots) => Ok(Some(Connector::default())),
        connector => connector.map(Some).context("--ca-file"),
    }
}

/// Checks everything from the negotiation on.
async fn speak(client: &ProbeClient, args: &DoctorArgs, report: &mut DoctorReport) {
    let negotiation = check_negotiate(client).await;
    report.add_all(negotiation.findings);
    if let Some(answer) = &negotiation.answer {
        report.add_all(check_clock(answer, negotiation.client.token.as_deref(), SystemTime::now()));
    }
    let (Some(answer), Some(Negotiated { transports, .. })) = (negotiation.answer, negotiation.negotiated) else {
        return;
    };
    report.add(judge_headers(&answer));
    report.add_all(judge_node_name(&answer));
    report.add_all(check_host(&negotiation.client).await);
    report.add_all(check_cors(&negotiation.client).await);
    let call = match &args.invoke {
        Some(method) => ProbeCall::of(method, &args.arguments.items().unwrap_or_default()),
        None => ProbeCall::of_no_method(),
    };
    let mut usual = None;
    let (mut working, mut served) = (Vec::new(), Vec::new());
    for transport in Transport::ALL {
        if !transports.contains(&transport) {
            report.add(not_offered(transport));
            continue;
        }
        let Some(seen) = try_transport(client, transport, &call).await else {
            report.add(Finding::failed(transport_check::check_name(transport), AGAIN, AGAIN_ADVICE));
            continue;
        };
        if transport == Transport::WebSockets {
            usual = seen.round_trip();
        }
        if seen.works() {
            working.push(transport);
        }
        if !seen.is_refused() {
            served.push(transport);
        }
        report.add(judge_transport(transport, &seen, usual, &call));
    }
    report.add_all(check_nodes(client, &served).await);
    if let Some(time) = args.idle {
        report.add_all(check_idle(client, &working, time).await);
    }
}

const AGAIN: &str = "the first negotiation succeeded, but this one failed";
const AGAIN_ADVICE: &str =
    "check that all nodes behind the load balancer are ready and reach app servers: `trunkline health`";

fn rest_url(text: &str) -> Result<HubUrl, &'static str> {
    text.parse().map_err(|_| "must be the URL above /api/, such as http://127.0.0.1:8091 or https://chat.example/live")
}

/// Data plane to check, if a flag asks for it.
fn rest_target(args: &DoctorArgs, url: &HubUrl) -> anyhow::Result<Option<RestTarget>> {
    let token = token("rest-token", args.rest_token.as_deref(), args.rest_token_file.as_deref())?;
    let base = args.rest.clone().or_else(|| token.as_ref().map(|_| url.root()));
    let is_given = args.rest.is_some();
    Ok(base.map(|base| RestTarget { base, hub: url.hub(), token, is_given }))
}

/// Token from its flag, or the flag of its file.
fn token(flag: &'static str, text: Option<&str>, file: Option<&Path>) -> anyhow::Result<Option<String>> {
    let text =
        token_text(flag, text, file)?.map(|text| without_mark(&text).trim().to_owned()).filter(|text| !text.is_empty());
    match text {
        Some(text) if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            bail!("--{flag} is invalid: expected one line of printable text")
        }
        text => Ok(text),
    }
}

/// Findings so far. In text mode each is printed immediately.
struct DoctorReport {
    findings: Vec<Finding>,
    is_json: bool,
}

impl DoctorReport {
    fn add(&mut self, finding: Finding) {
        if !self.is_json {
            print(&finding.to_string());
        }
        self.findings.push(finding);
    }

    fn add_all(&mut self, findings: impl IntoIterator<Item = Finding>) {
        findings.into_iter().for_each(|finding| self.add(finding));
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|finding| finding.verdict == verdict).count()
    }

    fn end(self, url: &HubUrl) -> anyhow::Result<()> {
        let (failed, warnings) = (self.count(Verdict::Failed), self.count(Verdict::Warning));
        if self.is_json {
            let url = url.to_string();
            print(&json!({ "url": url, "failed": failed, "warnings": warnings, "checks": self.findings }).to_string());
        }
        match failed {
            0 => Ok(()),
            failed => bail!("{failed} of {} checks failed", self.findings.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct DoctorParser {
        #[command(flatten)]
        args: DoctorArgs,
    }

    fn parse(typed: &[&str]) -> Result<DoctorArgs, String> {
        let typed = [&["doctor", "http://127.0.0.1:1/chat"], typed].concat();
        DoctorParser::try_parse_from(typed).map(|command| command.args).map_err(|error| error.to_string())
    }

    #[test]
    fn arguments_belong_to_a_method_and_times_have_units() {
        let args = parse(&["--invoke", "Echo", "--arguments", "[1]", "--idle", "2m"]).unwrap();
        assert_eq!((args.arguments.get(), args.idle), ("[1]", Some(Duration::from_secs(120))));
        assert!(parse(&["--arguments", "[1]"]).unwrap_err().contains("--invoke"));
        assert!(parse(&["--idle", "2h"]).unwrap_err().contains("must be from 1s to 1h"));
    }

    #[test]
    fn a_token_is_one_printable_text_and_an_empty_text_is_absent() {
        let of = |text: &str| token("token", Some(text), None);
        assert_eq!(of("abc\n").unwrap().as_deref(), Some("abc"));
        assert_eq!(of("").unwrap(), None);
        assert!(of("a b").is_err());
        let missing = token("token", None, Some(Path::new("no-such-file"))).unwrap_err().to_string();
        assert!(missing.starts_with("--token-file no-such-file can't be read"), "{missing}");
    }

    #[test]
    fn rest_is_checked_with_a_token_or_a_url_of_its_own() {
        let target = |typed: &[&str]| rest_target(&parse(typed).unwrap(), &"http://x:1/chat".parse().unwrap()).unwrap();
        let shown = |typed: &[&str]| target(typed).map(|rest| (rest.base.to_string(), rest.hub, rest.token));
        assert_eq!(shown(&[]), None);
        assert_eq!(shown(&["--rest-token", "t"]), Some(("http://x:1".into(), "chat".into(), Some("t".into()))));
        assert_eq!(shown(&["--rest", "http://y:2"]), Some(("http://y:2/".into(), "chat".into(), None)));
        assert!(parse(&["--rest", "y"]).unwrap_err().contains("--rest"));
    }

    #[tokio::test]
    async fn an_invalid_url_is_refused_before_any_check() {
        let args = DoctorArgs { url: "chat".into(), ..parse(&[]).unwrap() };
        let problem = doctor(&args).await.unwrap_err().to_string();
        assert!(problem.starts_with("\"chat\" is not a URL of a hub"), "{problem}");
    }

    #[test]
    fn only_failed_checks_make_the_command_fail() {
        let end = |findings| DoctorReport { findings, is_json: false }.end(&"http://x/chat".parse().unwrap());
        assert!(end(vec![Finding::ok("a", ""), Finding::warning("b", "", "")]).is_ok());
        let problem = end(vec![Finding::ok("a", ""), Finding::failed("b", "", "")]).unwrap_err().to_string();
        assert_eq!(problem, "1 of 2 checks failed");
    }
}
