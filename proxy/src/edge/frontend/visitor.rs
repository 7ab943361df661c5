//! Visitors of dial-in: app servers that dial in, and their clients, by request path.

use http::Uri;
use trunkline_protocol::dial_in::{CLIENT_PATH, SERVER_PATH};

use crate::edge::frontend::endpoint::Endpoint;
use crate::edge::frontend::path_rule::{is_path, split_negotiate};
use crate::edge::frontend::request_query::RequestQuery;

/// Query parameter with the hub's name.
pub(super) const HUB_PARAMETER: &str = "hub";

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
        None if is_path(path, CLIENT_PATH) => Some(Visitor::Client { is_negotiate: false }),
        None if is_path(path, SERVER_PATH) => Some(Visitor::AppServer),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
