//! Dial-in: paths for app servers that dial in, and for their clients, compatible with Azure's SDK.
//!
//! ```text
//!  GET  /server/?hub=H            upgrade, token of an app server ─► a link, for this shard
//!  POST /client/negotiate?hub=H   token of a client ─► as for any hub, with the hub named in the query
//!  any  /client/?hub=H            likewise
//! ```
//!
//! Every client request carries its token, so pages of any origin may send them. Cookies from pages not allowed to
//! connect elsewhere are dropped.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::response::Response;
use http::header::{HOST, HeaderName};
use http::request::Parts;
use http::{HeaderMap, Request, StatusCode, Uri};
use tracing::{debug, warn};
use trunkline_protocol::cause::Cause;
use trunkline_protocol::dial_in::{CLIENT_PATH, SERVER_ID_HEADER, SERVER_PATH, TARGET_PARAMETER};
use trunkline_protocol::manifest::HubManifest;
use trunkline_protocol::token::ConnectionToken;
use trunkline_protocol::wire::CONNECTION_TOKEN_PARAMETER;

use crate::edge::frontend::bearer::{mark_revocations, refuse_token_because, token};
use crate::edge::frontend::endpoint::{Endpoint, STOPPING};
use crate::edge::frontend::forwarded_header::ForwardedScheme;
use crate::edge::frontend::hub_request::DialInClient;
use crate::edge::frontend::path_rule::{is_path, split_history, split_negotiate};
use crate::edge::frontend::plain_response::{ResponseNotes, because, plain, unavailable};
use crate::edge::frontend::request_context::{RequestContext, RequestHead, SourceChannel};
use crate::edge::frontend::request_query::RequestQuery;
use crate::edge::frontend::reverse_proxy::next_hop;
use crate::edge::frontend::upgrade_answer::{accept_key, is_upgrade_of, switching_protocols};
use crate::engine::shard::{ShardMessage, TargetVerdict};
use crate::engine::upstream::{Hub, HubOrigin, IncomingLink};
use crate::features::admission::{ServiceAudience, TokenError};
use crate::ground::auth::TokenSigner;
use crate::ground::condition::UNKNOWN_HUB;
use crate::ground::limits::{LinkPermit, LinkRefusal, SignerShare, TableFull};

const SERVER_ID: HeaderName = HeaderName::from_static(SERVER_ID_HEADER);

/// Maximum length of the name of a hub or app server.
const NAME_MAX_BYTES: usize = 256;

/// Prefix of ids assigned by the node, such as for webhooks. App servers that dial in can't have such ids.
const RESERVED_ID_START: char = '?';

/// App servers send their own keep-alives; those of this node are a fallback.
const KEEP_ALIVE_INTERVAL_MS: u64 = 20_000;

/// App servers time out their clients themselves; this is for clients without an app server.
const CLIENT_TIMEOUT_MS: u64 = 120_000;

/// Fails unless the query names exactly one hub.
fn hub_name(query: &RequestQuery) -> Result<String, Response> {
    let mut names = query.values_of_exactly(HUB_PARAMETER);
    match (names.next(), names.next()) {
        (Some(name), None) if !name.is_empty() && name.len() <= NAME_MAX_BYTES => Ok(name.to_ascii_lowercase()),
        (_, Some(_)) => Err(plain(StatusCode::BAD_REQUEST, "the query names more than one hub")),
        _ => Err(plain(StatusCode::BAD_REQUEST, "the query has to name a hub, in 1 to 256 bytes")),
    }
}

/// Verifies the token of a visitor; returns its hub, user and signer.
pub(crate) fn enter(
    endpoint: &Endpoint,
    (parts, context): (&Parts, &RequestContext),
    audience: ServiceAudience,
) -> Result<(Arc<Hub>, DialInClient, TokenSigner), Response> {
    let name = hub_name(&context.query)?;
    let (visitor, signer) = verify(endpoint, (parts, context), audience, &name)?;
    // Checked after the token: without a key, visitors can't make this node store anything.
    let (shared, share) = (&endpoint.shared, endpoint.shared.share_of(&signer.signer));
    let webhooks = endpoint.webhooks.as_ref().filter(|webhooks| webhooks.serve(&name));
    let hub = match webhooks {
        Some(webhooks) => webhooks.open_hub(shared, (&name, &client_path(&name)), HubOrigin::WebhookPattern, &share),
        None => shared.hubs.register_as(HubOrigin::DialIn, manifest(endpoint, &name), &share),
    };
    let hub = hub.map_err(|refusal| {
        shared.limits.refusals.count("hubs", refusal.label());
        full(&refusal, "hubs named by app servers and clients")
    })?;
    Ok((hub, visitor, signer))
}

/// Refuses a hub or an app server above the limit.
fn full(refusal: &TableFull, of: &str) -> Response {
    let known = refusal.describe(of);
    let text = format!("this node has {known}, and all of them have links or clients, or had some a moment ago");
    unavailable(Cause::NoAppServer, text)
}

fn verify(
    endpoint: &Endpoint,
    (parts, context): (&Parts, &RequestContext),
    audience: ServiceAudience,
    hub: &str,
) -> Result<(DialInClient, TokenSigner), Response> {
    let Some(token) = token(&parts.headers, &context.query) else {
        return Err(plain(StatusCode::UNAUTHORIZED, "an access token is needed: as 'Authorization: Bearer'"));
    };
    let verified_at = mark_revocations(endpoint, context);
    let verifier = &endpoint.admission.service_verifier;
    let mut comes_back = false;
    let verified = match verifier.verify(&token, audience, hub) {
        // The token is from the negotiation, and clients of open connections can't get another.
        Err(TokenError::Expired) if may_come_back(endpoint, (parts, context), hub) => {
            comes_back = true;
            verifier.verify_old(&token, audience, hub)
        }
        verified => verified,
    };
    let verified = verified.map(|(user, signer)| (DialInClient { user, verified_at, comes_back }, signer));
    verified.map_err(|error| match error {
        TokenError::TooLarge { .. } => {
            endpoint.admission.verifier.count_refused(&error);
            because(Cause::TokenRefused, plain(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()))
        }
        _ => refuse_token_because(endpoint, &error, error.describe(&token, (&audience.describe(hub), "none"))),
    })
}

/// Whether a request may resume an open connection of this hub. Connections that close with their token are closed by
/// then.
fn may_come_back(endpoint: &Endpoint, (parts, context): (&Parts, &RequestContext), hub: &str) -> bool {
    let is_connect = split_negotiate(parts.uri.path()).is_none() && is_upgrade_of(parts);
    let Some(sealed) = context.query.value(CONNECTION_TOKEN_PARAMETER).filter(|_| is_connect) else {
        return false;
    };
    let opened = ConnectionToken::open(sealed, &endpoint.shared.settings.keys);
    opened.is_ok_and(|token| token.is_stateful && token.hub.eq_ignore_ascii_case(&client_path(hub)))
}

/// Path of a hub's clients, as used in connection tokens.
fn client_path(hub: &str) -> String {
    format!("{CLIENT_PATH}?{HUB_PARAMETER}={hub}")
}

/// Settings of a hub without a manifest: its app servers keep theirs private.
fn manifest(endpoint: &Endpoint, name: &str) -> HubManifest {
    let mut manifest = HubManifest::new(name, &client_path(name));
    manifest.protocols.push("blazorpack".into());
    let settings = &endpoint.shared.settings;
    manifest.message_max_bytes = settings.message_max_bytes.min(settings.limits.dial_in_message_max_bytes);
    manifest.keep_alive_interval_ms = KEEP_ALIVE_INTERVAL_MS;
    manifest.client_timeout_ms = CLIENT_TIMEOUT_MS;
    manifest
}

pub(crate) async fn open_link(
    endpoint: &Endpoint,
    (parts, context): RequestHead,
    body: Body,
) -> Result<Response, Response> {
    if !is_upgrade_of(&parts) {
        return Err(plain(StatusCode::BAD_REQUEST, "app servers dial in by a WebSocket upgrade"));
    }
    let is_open_to_others = is_open_to_others(&context);
    let report = |refusal: &Response| report_refused(endpoint, &parts.headers, &context, refusal);
    if is_open_to_others && endpoint.shared.settings.needs_encrypted_dial_in {
        let refusal = plain(
            StatusCode::FORBIDDEN,
            "app servers must dial in by https: --require-encrypted-dial-in refuses plain HTTP from other machines",
        );
        report(&refusal);
        return Err(refusal);
    }
    let entered = enter(endpoint, (&parts, &context), ServiceAudience::Server);
    let (hub, server, signer) = entered.inspect_err(report)?;
    if is_open_to_others {
        warn_of_plain(endpoint, &parts.headers);
    }
    if endpoint.shared.refuses_clients() {
        return Err(unavailable(Cause::Drained, STOPPING));
    }
    let accept = accept_key(&parts.headers)?;
    let instance = text(&parts.headers, &SERVER_ID).map(str::to_owned).or(server.user.id).unwrap_or_default();
    if instance.is_empty() || instance.len() > NAME_MAX_BYTES || instance.starts_with(RESERVED_ID_START) {
        return Err(plain(
            StatusCode::BAD_REQUEST,
            "X-ASRS-Server-Id has to name the app server, in 1 to 256 bytes, and not begin with '?'",
        ));
    }
    let share = endpoint.shared.share_of(&signer.signer);
    check_room(endpoint, &instance, &share).inspect_err(report)?;
    let permit = take_permit(endpoint, &context, &share).inspect_err(report)?;
    let is_carried = matches!(context.source.channel, SourceChannel::Node);
    let mut refusal = None;
    // A link carried by another node is not carried on.
    let target = context.query.values_of_exactly(TARGET_PARAMETER).next().filter(|_| !is_carried);
    if let Some(target) = target.filter(|target| *target != endpoint.shared.boot) {
        match endpoint.shared.other_nodes().judge_target(&hub, &instance, target) {
            TargetVerdict::Refused => {
                refusal = Some("this connection is for another node, or for a node that is gone".into())
            }
            TargetVerdict::CarriedTo(node) => return next_hop::carry_link(endpoint, &node, (parts, permit)).await,
        }
    }
    let host = text(&parts.headers, &HOST).filter(|host| host.len() <= NAME_MAX_BYTES);
    let host = host.unwrap_or_default().to_ascii_lowercase();
    let incoming = IncomingLink {
        upgrade: hyper::upgrade::on(Request::from_parts(parts, body)),
        instance,
        from: context.source.peer.map(|peer| peer.ip().to_canonical()).filter(|_| !is_carried),
        endpoint: host,
        is_carried,
        signer,
        hub,
        refusal,
        permit,
    };
    endpoint.shard.put(ShardMessage::ServeLink(Box::new(incoming)));
    Ok(switching_protocols(&accept))
}

fn check_room(endpoint: &Endpoint, instance: &str, share: &SignerShare) -> Result<(), Response> {
    endpoint.shared.hubs.app_servers.check_room(instance, share).map_err(|refusal| {
        endpoint.shared.limits.refusals.count("app_servers", refusal.label());
        full(&refusal, "app servers")
    })
}

/// Takes a permit for a link of this signer. A link inside a channel uses the channel's permit. A link carried by
/// another node counts for its address there.
fn take_permit(
    endpoint: &Endpoint,
    context: &RequestContext,
    share: &SignerShare,
) -> Result<Arc<LinkPermit>, Response> {
    let (limits, source) = (&endpoint.shared.limits, &context.source);
    let address = match &source.channel {
        SourceChannel::AppServer(permit) => return Ok(permit.clone()),
        SourceChannel::Node => None,
        SourceChannel::None => source.counted_ip(&endpoint.shared.settings),
    };
    limits.links.take_dialled_in(share, address).map(Arc::new).map_err(|refusal| {
        limits.refusals.count("links", refusal.label());
        match refusal {
            LinkRefusal::Address { .. } => {
                because(Cause::LimitAddress, plain(StatusCode::TOO_MANY_REQUESTS, refusal.to_string()))
            }
            _ => unavailable(Cause::LimitConnections, refusal.to_string()),
        }
    })
}

/// Whether a link could be read and changed in transit: plain text from another machine, as far as detectable here.
fn is_open_to_others(context: &RequestContext) -> bool {
    let is_local = context.source.peer.is_none_or(|peer| peer.ip().to_canonical().is_loopback());
    matches!(context.source.channel, SourceChannel::None) && !is_local && context.scheme != Some(ForwardedScheme::Https)
}

/// Logs a warning about plain text, once. The caller has checked the token, so strangers can't trigger it or choose its
/// text.
fn warn_of_plain(endpoint: &Endpoint, headers: &HeaderMap) {
    if !endpoint.admission.has_warned_of_plain.swap(true, Ordering::Relaxed) {
        warn!(
            app = shown_id(headers),
            "an app server dials in from another machine by plain HTTP: anyone on the network path can read and forge \
             messages; use https:// in its connection string (logged once)"
        );
    }
}

/// Maximum length of an unknown hub's name in a report.
const SHOWN_CHARS: usize = 64;

/// Reports the refusal of an app server as a condition.
pub(crate) fn report_refused(endpoint: &Endpoint, headers: &HeaderMap, context: &RequestContext, refusal: &Response) {
    let shared = &endpoint.shared;
    let named = context.query.values_of_exactly(HUB_PARAMETER).next().unwrap_or_default().to_ascii_lowercase();
    let (hub, which) = match shared.hubs.named(&named) {
        Some(known) => (known.name().to_owned(), String::new()),
        None if shared.reports.known_hubs.has(&named) => (named, String::new()),
        // A channel names no hub.
        None if named.is_empty() => (UNKNOWN_HUB.to_owned(), String::new()),
        None => {
            // Without quotes, which limit the part of a report that does not make it new.
            let shown = named.chars().filter(|c| *c != '"').take(SHOWN_CHARS).collect::<String>();
            (UNKNOWN_HUB.to_owned(), format!("hub {shown:?}, "))
        }
    };
    let from = context.source.peer.map(|peer| peer.ip().to_string()).unwrap_or_default();
    let reason = ResponseNotes::from_answer(refusal).text.unwrap_or_default();
    let status = refusal.status().as_u16();
    let detail = format!("{which}from {from}, status {status}: {reason}; {}", hint(refusal.status(), &reason));
    shared.reports.conditions.report_refused_app(&hub, detail);
    debug!(app = shown_id(headers), status, from, "app server refused");
}

/// Advice for the log of a refusal; an app server shows its user only the status.
fn hint(status: StatusCode, reason: &str) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED if reason.contains("does not open this hub") => {
            "add the hub to the key of this app (--app-key, --app-key-file), or give the app server the key of an app \
             with this hub"
        }
        StatusCode::UNAUTHORIZED => {
            "compare the AccessKey of its connection string with --access-key, or with the --app-key of this hub, and \
             the clocks"
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            "this node, or the key of the app server, has reached its limit of hubs, app servers or links: see \
             --links-max, or move some app servers to another node"
        }
        StatusCode::TOO_MANY_REQUESTS => "its address has too many links: see --links-per-address-max and --trust",
        StatusCode::FORBIDDEN => "use https:// in its connection string, or remove --require-encrypted-dial-in",
        StatusCode::PAYLOAD_TOO_LARGE => "its token is too large: use fewer claims",
        StatusCode::TOO_EARLY => "synchronise the clocks of both machines (NTP)",
        _ => {
            "its request does not name a hub and an app server like Azure's SDK: a proxy in between may have changed \
              it"
        }
    }
}

/// Id of an app server for the log, limited to the maximum length.
fn shown_id(headers: &HeaderMap) -> &str {
    let id = text(headers, &SERVER_ID).unwrap_or_default();
    id.get(..NAME_MAX_BYTES).unwrap_or(id)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Query parameter with the hub's name.
pub(super) const HUB_PARAMETER: &str = "hub";

/// Visitor of dial-in: an app server that dials in, or its client, by request path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visitor {
    AppServer,
    Client { is_negotiate: bool },
}

/// Returns the visitor of a request, if its path belongs to dial-in and dial-in is enabled.
pub(crate) fn visitor(endpoint: &Endpoint, path: &str, query: &RequestQuery) -> Option<Visitor> {
    let visitor = visitor_of(path).filter(|_| endpoint.shared.settings.accepts_dial_in)?;
    names_hub(query).then_some(visitor)
}

/// Whether a path is a dial-in path for clients, with a hub name.
pub(crate) fn is_for_clients(uri: &Uri) -> bool {
    matches!(visitor_of(uri.path()), Some(Visitor::Client { .. })) && names_hub(&RequestQuery::parse(uri))
}

/// Whether the query names a hub. One with too many pairs counts, so that dial-in refuses it.
fn names_hub(query: &RequestQuery) -> bool {
    query.has_too_many_pairs() || query.values_of_exactly(HUB_PARAMETER).next().is_some()
}

fn visitor_of(path: &str) -> Option<Visitor> {
    match split_negotiate(path) {
        Some(base) if is_path(base, CLIENT_PATH) => Some(Visitor::Client { is_negotiate: true }),
        None if is_path(split_history(path).unwrap_or(path), CLIENT_PATH) => {
            Some(Visitor::Client { is_negotiate: false })
        }
        None if is_path(path, SERVER_PATH) => Some(Visitor::AppServer),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_a_hint_of_its_own() {
        for (status, word) in [
            (401, "--access-key"),
            (503, "--links-max"),
            (429, "--links-per-address-max"),
            (413, "claims"),
            (425, "NTP"),
            (403, "https://"),
            (400, "not name a hub"),
        ] {
            assert!(hint(StatusCode::from_u16(status).unwrap(), "").contains(word), "{status}");
        }
    }

    #[test]
    fn no_id_in_the_log_is_longer_than_one_that_is_accepted() {
        for (bytes, shown) in [(0, 0), (NAME_MAX_BYTES, NAME_MAX_BYTES), (8000, NAME_MAX_BYTES)] {
            let headers = HeaderMap::from_iter([(SERVER_ID, "x".repeat(bytes).parse().unwrap())]);
            assert_eq!(shown_id(&headers).len(), shown);
        }
    }

    #[test]
    fn a_request_has_to_name_one_hub() {
        let name =
            |uri: &str| hub_name(&RequestQuery::parse(&uri.parse().unwrap())).map_err(|refusal| refusal.status());
        assert_eq!(name("/client/?hub=Shop_Bench&x=1"), Ok("shop_bench".into()));
        for bad in ["/client/?hub=a&hub=a", "/client/?hub=", "/client/?HUB=a", "/client/"] {
            assert_eq!(name(bad), Err(StatusCode::BAD_REQUEST), "{bad}");
        }
    }

    fn at(uri: &str) -> Option<Visitor> {
        visitor_of(uri.parse::<Uri>().unwrap().path())
    }

    #[test]
    fn dial_in_paths_match_with_and_without_a_trailing_slash() {
        assert_eq!(at("/server/?hub=a"), Some(Visitor::AppServer));
        assert_eq!(at("/client/?hub=a"), Some(Visitor::Client { is_negotiate: false }));
        assert_eq!(at("/client?hub=a"), Some(Visitor::Client { is_negotiate: false }));
        assert_eq!(at("/cli%65nt/n%65gotiate?hub=a"), Some(Visitor::Client { is_negotiate: true }));
        assert_eq!(at("/client/negotiate?hub=a"), Some(Visitor::Client { is_negotiate: true }));
        for other in ["/", "/servers/", "/server/negotiate", "/x/client/", "/clients/negotiate"] {
            assert_eq!(at(other), None, "{other}");
        }
    }

    #[test]
    fn a_path_for_clients_names_a_hub() {
        let is_for_clients = |uri: &str| is_for_clients(&uri.parse().unwrap());
        assert!(!is_for_clients("/client/?x=1") && is_for_clients("/client/negotiate?hub=a"));
    }
}
