//! Members of a group, or connections of a user, listed page by page and proxy by proxy.

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytestring::ByteString;
use trunkline_protocol::service::{
    AckStatus, GroupMember, GroupMemberQuery, MEMBERS_PER_PAGE_MAX, MemberPage, ServiceMessage, UserConnectionQuery,
};

use super::question::{self, Answer, Missing, all_nodes, query_limited};
use crate::brief_debug::brief_debug;
use crate::error::AskError;
use crate::hub_core::HubCore;
use crate::node::Node;

const PAGE_SIZE: usize = 100;

/// Maximum number of queries per page, because proxies may return short pages.
const QUESTIONS_PER_PAGE_MAX: usize = 64;

/// Maximum number of members in one result.
const MEMBERS_READ_MAX: usize = 100_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ListedSet {
    Group(ByteString),
    User(ByteString),
}

/// Member of a group, or connection of a user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Member {
    /// Public ID of the connection.
    pub connection_id: String,
    /// User of the connection; `None` if not authenticated.
    pub user_id: Option<String>,
}

/// Paged list of a group's members or a user's connections.
///
/// Every connection that is a member throughout appears exactly once; connections that join or leave meanwhile appear
/// at most once.
///
/// ```no_run
/// # async fn f(handle: trunkline::ServerHandle) -> Result<(), Box<dyn std::error::Error>> {
/// let mut members = handle.hub("chat")?.groups().members("kitchen").page_size(50);
/// while let Some(page) = members.next_page().await? {
///     for member in page.iter() {
///         println!("{} ({:?})", member.connection_id, member.user_id);
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "nothing is asked until `next_page` is called"]
pub struct Members {
    core: Arc<HubCore>,
    set: ListedSet,
    page_size: usize,
    place: Place,
    missing: Missing,
    /// Number of proxies that have been read completely.
    read: usize,
    is_over: bool,
}

/// Position in the list. Proxies are queried in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Place {
    /// Name and boot ID of the proxy queried last.
    node: Option<(String, String)>,
    /// That proxy's continuation token; `None` if it has no further members.
    token: Option<ByteString>,
    missing: usize,
}

impl Members {
    pub(super) fn new(core: &Arc<HubCore>, set: ListedSet) -> Self {
        let (place, missing) = (Place::default(), Missing::default());
        Self { core: Arc::clone(core), set, page_size: PAGE_SIZE, place, missing, read: 0, is_over: false }
    }

    /// Sets the page size, from 1 to 1000; 100 by default. The last page may be shorter, and so may others.
    pub fn page_size(mut self, members: usize) -> Self {
        self.page_size = members.clamp(1, MEMBERS_PER_PAGE_MAX);
        self
    }

    /// Continues after the page that came with this [token](Self::continuation_token), which may be from another app
    /// server.
    ///
    /// # Errors
    /// If the token is invalid.
    pub fn resume(mut self, token: &str) -> Result<Self, AskError> {
        self.place = Place::from_token(token).ok_or(AskError::Token)?;
        self.missing = Missing::unnamed(self.place.missing);
        Ok(self)
    }

    /// Token for the rest of the list, for use in an HTTP API; `None` at the end. It contains no secret, and is valid
    /// while the proxy that it refers to is running.
    #[must_use]
    pub fn continuation_token(&self) -> Option<String> {
        (!self.is_over).then(|| self.place.to_token())
    }

    /// Returns the next page, or `None` at the end of the list.
    ///
    /// A proxy that does not reply within 10 s is skipped. Each later page reports [how
    /// many](Answer::proxies_missing) were skipped so far.
    ///
    /// # Errors
    /// If the group name is empty, no proxy is linked, or none replied to the query for the first page.
    pub async fn next_page(&mut self) -> Result<Option<Answer<Vec<Member>>>, AskError> {
        if self.is_over {
            return Ok(None);
        }
        if self.set.is_nameless_group() {
            return Err(AskError::EmptyGroupName);
        }
        let (as_of, is_first) = (SystemTime::now(), self.place.node.is_none());
        let nodes = sorted(&all_nodes(&self.core)?);
        let (mut members, mut answered, mut no_reply) = (Vec::new(), 0, None);
        for _ in 0..QUESTIONS_PER_PAGE_MAX {
            if members.len() >= self.page_size {
                break;
            }
            let Some(node) = self.place.next_node(&nodes, &mut self.missing) else {
                self.is_over = true;
                break;
            };
            match self.page_of(&node, self.page_size - members.len()).await {
                Ok(page) => {
                    answered += 1;
                    self.read += usize::from(page.continuation_token.is_none());
                    members.extend(page.members.into_iter().map(Member::from));
                    self.place.leave(&node, page.continuation_token);
                }
                // A local limit, not a missing reply.
                Err(error @ AskError::TooManyQuestions(_)) => return Err(error),
                Err(error) => {
                    self.place.note_missing(node.name(), &mut self.missing);
                    self.place.leave(&node, None);
                    no_reply = Some(error);
                }
            }
        }
        match no_reply {
            Some(error) if answered == 0 && is_first => Err(error),
            _ => Ok(Some(Answer::new(members, as_of, answered, self.missing.clone()))),
        }
    }

    /// Returns the rest of the list.
    ///
    /// # Errors
    /// The errors of [`next_page`](Self::next_page), and if there are more than 100 000 members.
    pub async fn all(self) -> Result<Answer<Vec<Member>>, AskError> {
        let (as_of, mut list, mut members) = (SystemTime::now(), self.page_size(MEMBERS_PER_PAGE_MAX), Vec::new());
        while let Some(page) = list.next_page().await? {
            members.extend(page.into_value());
            if members.len() > MEMBERS_READ_MAX {
                return Err(AskError::TooMany(MEMBERS_READ_MAX));
            }
        }
        Ok(Answer::new(members, as_of, list.read, list.missing))
    }

    async fn page_of(&self, node: &Arc<Node>, page_size: usize) -> Result<MemberPage, AskError> {
        let token = self.place.token.clone();
        let mut pages = query(&self.core, std::slice::from_ref(node), &self.set, page_size, token.as_ref()).await?;
        pages.pop().map_or(Err(AskError::LinkLost), |(_, page)| page)
    }
}

/// Number of members of a set, over all proxies. Fails if no proxy replied, or too many queries are pending.
pub(super) async fn count(core: &HubCore, set: &ListedSet) -> Result<Answer<u64>, AskError> {
    let as_of = SystemTime::now();
    let (mut members, mut answered, mut missing, mut failed) = (0, 0, Missing::default(), None);
    for (node, page) in query(core, &all_nodes(core)?, set, 0, None).await? {
        match page {
            Ok(page) => {
                members += page.count.unwrap_or(page.members.len() as u64);
                answered += 1;
            }
            Err(error) => {
                missing.add_node(node.name());
                failed = Some(error);
            }
        }
    }
    Answer::of_any(members, as_of, (answered, missing), failed)
}

type QueriedPage = (Arc<Node>, Result<MemberPage, AskError>);

/// Queries proxies for members of a set; page size 0 requests only the count. Fails if the query is too large for a
/// link, or too many queries are pending.
async fn query(
    core: &HubCore,
    nodes: &[Arc<Node>],
    set: &ListedSet,
    page_size: usize,
    token: Option<&ByteString>,
) -> Result<Vec<QueriedPage>, AskError> {
    let (able, unable): (Vec<_>, Vec<_>) = nodes.iter().cloned().partition(|node| set.is_listed_by(node));
    let (page_size, continuation_token) = (i64::try_from(page_size).ok(), token.cloned());
    let message = |ack_id| set.query(ack_id, page_size, continuation_token.clone());
    let replies = query_limited(core, &able, message).await?;
    let pages = able.into_iter().zip(replies.into_iter().map(page_in));
    Ok(pages.chain(unable.into_iter().map(|node| (node, Err(set.not_listed())))).collect())
}

impl ListedSet {
    fn is_nameless_group(&self) -> bool {
        matches!(self, Self::Group(name) if name.is_empty())
    }

    fn is_listed_by(&self, node: &Node) -> bool {
        // An older proxy would close the link on a query of a group's members, and ignore a query of a user's
        // connections.
        match self {
            Self::Group(_) => node.capabilities.lists_members,
            Self::User(_) => node.capabilities.tells_presence,
        }
    }

    fn query(&self, ack_id: i64, page_size: Option<i64>, continuation_token: Option<ByteString>) -> ServiceMessage {
        match self.clone() {
            Self::Group(group) => ServiceMessage::GroupMemberQuery(GroupMemberQuery {
                group,
                ack_id,
                page_size,
                top: None,
                continuation_token,
            }),
            Self::User(user_id) => {
                let query = UserConnectionQuery { user_id, ack_id, page_size, continuation_token };
                ServiceMessage::UserConnectionQuery(query)
            }
        }
    }

    fn not_listed(&self) -> AskError {
        AskError::Failed(match self {
            Self::Group(_) => "it does not support listing members".into(),
            Self::User(_) => "it does not support listing the connections of a user".into(),
        })
    }
}

fn page_in(reply: question::ProxyReply) -> Result<MemberPage, AskError> {
    let ack = reply?;
    match (&ack.status, &ack.payload) {
        (AckStatus::Ok, Some(payload)) => {
            MemberPage::from_payload(payload).map_err(|error| AskError::Failed(error.to_string()))
        }
        (AckStatus::NotFound, _) => Ok(MemberPage::default()),
        _ => Err(question::failure(ack)),
    }
}

fn sorted(nodes: &[Arc<Node>]) -> Vec<Arc<Node>> {
    let mut nodes = nodes.to_vec();
    nodes.sort_by(|one, other| key_of(one).cmp(&key_of(other)));
    nodes
}

fn key_of(node: &Node) -> (&str, &str) {
    node.peer_name()
}

impl Place {
    /// Returns the proxy to query next, or `None` at the end. Counts a disconnected proxy as missing.
    fn next_node(&mut self, nodes: &[Arc<Node>], missing: &mut Missing) -> Option<Arc<Node>> {
        let Some((name, boot)) = &self.node else { return nodes.first().cloned() };
        let key = (name.as_str(), boot.as_str());
        if self.token.is_some() {
            if let Some(node) = nodes.iter().find(|node| key_of(node) == key) {
                return Some(Arc::clone(node));
            }
            self.token = None;
            self.missing += 1;
            missing.add_node(name);
        }
        nodes.iter().find(|node| key_of(node) > key).cloned()
    }

    /// Records that a proxy did not reply.
    fn note_missing(&mut self, name: &str, missing: &mut Missing) {
        self.missing += 1;
        missing.add_node(name);
    }

    /// Moves the position past the page of a proxy, with the token for its further members.
    fn leave(&mut self, node: &Node, token: Option<ByteString>) {
        let (name, boot) = key_of(node);
        self.node = Some((name.to_owned(), boot.to_owned()));
        self.token = token;
    }

    fn to_token(&self) -> String {
        let (name, boot) = self.node.as_ref().map_or(("", ""), |(name, boot)| (name, boot));
        let parts = [&self.missing.to_string(), boot, self.token.as_deref().unwrap_or_default(), name];
        BASE64_URL_SAFE_NO_PAD.encode(parts.join("~"))
    }

    fn from_token(token: &str) -> Option<Self> {
        let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        let mut parts = text.splitn(4, '~');
        let missing = parts.next()?.parse().ok()?;
        let (boot, token, name) = (parts.next()?, parts.next()?, parts.next()?);
        let node = (!name.is_empty()).then(|| (name.to_owned(), boot.to_owned()));
        Some(Self { node, token: (!token.is_empty()).then(|| token.into()), missing })
    }
}

impl From<GroupMember> for Member {
    fn from(member: GroupMember) -> Self {
        Self { connection_id: member.connection_id.to_string(), user_id: member.user_id.map(|user| user.to_string()) }
    }
}

brief_debug!(Members, |it| "Members of {:?} of {}", it.set, it.core.name());

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(names: &[&str]) -> Vec<Arc<Node>> {
        names
            .iter()
            .map(|name| {
                Arc::new(Node::new(
                    crate::node::NodeName::proxy(name, "boot"),
                    trunkline_protocol::service::Capabilities::plain(),
                ))
            })
            .collect()
    }

    fn next(place: &mut Place, nodes: &[Arc<Node>]) -> Option<String> {
        place.next_node(nodes, &mut Missing::default()).map(|node| node.name().to_owned())
    }

    #[test]
    fn proxies_are_queried_in_turn_until_each_list_ends() {
        let (nodes, mut place) = (nodes(&["a", "b"]), Place::default());
        assert_eq!(next(&mut place, &nodes).as_deref(), Some("a"));
        place.leave(&nodes[0], Some("t".into()));
        assert_eq!(next(&mut place, &nodes).as_deref(), Some("a"));
        place.leave(&nodes[0], None);
        assert_eq!(next(&mut place, &nodes).as_deref(), Some("b"));
        place.leave(&nodes[1], None);
        assert_eq!(next(&mut place, &nodes), None);
        assert_eq!(place.missing, 0);
    }

    #[test]
    fn a_proxy_lost_during_a_listing_is_missing_once() {
        let (before, after, mut place) = (nodes(&["a", "b"]), nodes(&["b"]), Place::default());
        place.leave(&before[0], Some("t".into()));
        assert_eq!(next(&mut place, &after).as_deref(), Some("b"));
        assert_eq!(next(&mut place, &after).as_deref(), Some("b"));
        assert_eq!((place.missing, place.token), (1, None));
    }

    #[test]
    fn a_token_round_trips_for_any_proxy_name() {
        let node = Some(("a~b~c/ü".to_owned(), "boot".to_owned()));
        for place in [Place { node, token: Some("boot.1.2".into()), missing: 3 }, Place::default()] {
            assert_eq!(Place::from_token(&place.to_token()), Some(place));
        }
        for bad in ["", "?", "AAAA", "fn5-"] {
            assert_eq!(Place::from_token(bad), None, "{bad}");
        }
    }
}
