//! Lists of clients, groups and users, page by page, over all shards of this node and over all nodes.
//!
//! Clients are listed node by node, by their places; names in their own order, summed over all who have them. A page of
//! names is exact: whoever has one of the first names has it among its own first ones.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use axum::http::StatusCode;
use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::view::{Client, ClientDetails};
use super::{Observer, node};
use crate::shard::{ClientFilter, NameSearch};
use crate::shard::{Location, Slot};
use crate::upstream::HubIndex;

/// Some of a list, and where it goes on.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Page<T> {
    pub items: Vec<T>,
    /// What `after` is to be for the next page; `None` on the last one.
    pub next: Option<String>,
    /// How many there are in all, where that is known without counting.
    pub total: Option<u64>,
}

/// Names with the numbers of their clients.
pub(crate) type NamePage = Page<(String, u64)>;

/// Which clients are listed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listing {
    pub hub: Option<String>,
    /// In this group of it.
    pub group: Option<String>,
    pub user: Option<String>,
    pub node: Option<String>,
    pub after: Option<Cursor>,
    pub limit: usize,
}

/// A place in the list of all clients of all nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    node: String,
    instance: String,
    shard: u16,
    slot: Slot,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}~{}~{}~{}", self.node, self.instance, self.shard, self.slot)
    }
}

impl FromStr for Cursor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let problem = "is not what `next` of a page was";
        let mut parts = text.split('~');
        let mut part = || parts.next().ok_or(problem);
        let (node, instance) = (part()?.into(), part()?.into());
        let (shard, slot) = (part()?.parse().map_err(|_| problem)?, part()?.parse().map_err(|_| problem)?);
        if parts.next().is_some() { Err(problem) } else { Ok(Self { node, instance, shard, slot }) }
    }
}

impl Observer {
    /// Some of this node's clients; `None` when it does not know the hub.
    pub(crate) async fn clients_here(&self, listing: &Listing) -> Option<Page<Client>> {
        let _turn = self.questions.acquire().await.ok()?;
        let own = self.node().await?;
        let which = self.which(listing)?;
        let place = |shard, slot| Cursor { node: own.name.clone(), instance: own.instance.clone(), shard, slot };
        let start = place(0, 0);
        let mut at = listing.after.clone().unwrap_or_default().max(start.clone());
        let mut page = Page { total: self.size(&which).await, ..Page::default() };
        if (&at.node, &at.instance) != (&start.node, &start.instance) {
            return Some(page);
        }
        let shared = &self.admin.shared;
        while let Some(shard) = shared.shards().get(usize::from(at.shard)) {
            let (wanted, from, most) = (which.clone(), at.slot, listing.limit - page.items.len());
            let (rows, next) = shard.inspect(move |state| state.inspector().list(&wanted, from, most)).await?;
            page.items.extend(rows.iter().map(|row| node::client(shared, row)));
            at = next.map_or_else(|| place(at.shard.saturating_add(1), 0), |slot| place(at.shard, slot));
            if page.items.len() >= listing.limit {
                let is_more = usize::from(at.shard) < shared.shards().len();
                page.next = is_more.then(|| at.to_string());
                break;
            }
        }
        Some(page)
    }

    /// Some of all clients of all nodes; `None` when no node knows the hub.
    pub(crate) async fn clients(&self, listing: &Listing) -> Option<Page<Client>> {
        let fleet = self.fleet().await?;
        let (own, after) = (self.node().await?, listing.after.clone().unwrap_or_default());
        let (mut page, mut is_known) = (Page::default(), false);
        for known in &fleet.nodes {
            let is_behind = (&known.name, &known.instance) < (&after.node, &after.instance);
            if is_behind || listing.node.as_ref().is_some_and(|node| *node != known.name) {
                continue;
            }
            let start = Cursor { node: known.name.clone(), instance: known.instance.clone(), shard: 0, slot: 0 };
            if page.items.len() >= listing.limit {
                page.next.get_or_insert_with(|| start.to_string());
                break;
            }
            let limit = listing.limit - page.items.len();
            let part = Listing { after: Some(after.clone().max(start)), limit, ..listing.clone() };
            let found = match known.instance == own.instance {
                true => self.clients_here(&part).await,
                false => self.clients_at(&known.instance, &part).await,
            };
            let Some(mut found) = found else { continue };
            is_known = true;
            page.items.append(&mut found.items);
            page.next = found.next;
            if page.next.is_some() {
                break;
            }
        }
        is_known.then_some(page)
    }

    async fn clients_at(&self, instance: &str, listing: &Listing) -> Option<Page<Client>> {
        let after = listing.after.as_ref().map(Cursor::to_string);
        // Only the node that is named tells anything.
        let given = [
            ("instance", Some(instance)),
            ("hub", listing.hub.as_deref()),
            ("group", listing.group.as_deref()),
            ("user", listing.user.as_deref()),
            ("after", after.as_deref()),
        ];
        let target = target("clients", listing.limit, &given);
        let answers = self.peers().ask_all(Method::GET, &target, &Bytes::new()).await;
        answers.iter().flatten().find_map(|answer| answer.read::<Page<Client>>().ok())
    }

    /// Some of this node's groups of a hub, or of its users; `None` when it does not know the hub.
    pub(crate) async fn names_here(
        &self,
        kind: &str,
        hub: &str,
        after: Option<String>,
        limit: usize,
    ) -> Option<NamePage> {
        let _turn = self.questions.acquire().await.ok()?;
        let hub = self.hub(hub)?;
        let mut all = BTreeMap::new();
        for shard in self.admin.shared.shards() {
            let mut names = match kind {
                "users" => NameSearch::users(hub, after.clone(), limit + 1),
                _ => NameSearch::groups(hub, after.clone(), limit + 1),
            };
            let mut is_done = false;
            while !is_done {
                let step = shard.inspect(move |state| {
                    let is_done = state.inspector().search_names(&mut names);
                    (names, is_done)
                });
                (names, is_done) = step.await?;
            }
            add(&mut all, names.found);
        }
        Some(page_of(all, limit))
    }

    /// Some of all groups of a hub, or of its users, at all nodes; `None` when no node knows the hub.
    pub(crate) async fn names(&self, kind: &str, hub: &str, after: Option<String>, limit: usize) -> Option<NamePage> {
        // One more than is shown tells whether there is more.
        let target = target(kind, limit + 1, &[("hub", Some(hub)), ("after", after.as_deref())]);
        let nothing = Bytes::new();
        let others = self.peers().ask_all(Method::GET, &target, &nothing);
        let (own, others) = tokio::join!(self.names_here(kind, hub, after, limit + 1), others);
        let own_instance = self.node().await?.instance.clone();
        let others = others.into_iter().flatten().filter_map(|answer| answer.read::<NodeNames>().ok());
        let others = others.filter(|names| names.instance != own_instance).map(|names| names.page);
        let pages: Vec<NamePage> = own.into_iter().chain(others).collect();
        if pages.is_empty() {
            return None;
        }
        let mut all = BTreeMap::new();
        pages.into_iter().for_each(|page| add(&mut all, page.items));
        Some(page_of(all, limit))
    }

    /// All that this node knows of a client.
    pub(crate) async fn client_here(&self, id: &str) -> Option<ClientDetails> {
        let shared = &self.admin.shared;
        let Location { shard, slot } = shared.routes.find(id)?;
        let wanted = id.to_owned();
        let details = shared
            .shards()
            .get(usize::from(shard))?
            .inspect(move |state| state.inspector().details(slot, &wanted))
            .await??;
        Some(ClientDetails {
            client: node::client(shared, &details.row),
            user_agent: details.user_agent,
            groups: details.groups,
            group_count: details.group_count as u64,
            outbox_bytes: details.outbox_bytes as u64,
            pending_calls: details.pending_calls as u64,
            heard_s: details.heard_s,
            sent_s: details.sent_s,
        })
    }

    /// All that any node knows of a client.
    pub(crate) async fn client(&self, id: &str) -> Option<ClientDetails> {
        if let Some(here) = self.client_here(id).await {
            return Some(here);
        }
        let target = format!("/api/clients/{}?scope=node", quoted(id));
        let answers = self.peers().ask_all(Method::GET, &target, &Bytes::new()).await;
        answers.iter().flatten().find_map(|answer| answer.read().ok())
    }

    /// Closes a client of this node; `false` when it is not here.
    pub(crate) async fn close_here(&self, id: &str, reason: Option<String>) -> bool {
        let shared = &self.admin.shared;
        let Some(Location { shard, slot }) = shared.routes.find(id) else { return false };
        let Some(shard) = shared.shards().get(usize::from(shard)) else { return false };
        let id = id.to_owned();
        shard.inspect(move |state| state.close_by_operator(slot, &id, reason.as_deref())).await.unwrap_or_default()
    }

    /// Closes a client of any node; `false` when it is nowhere.
    pub(crate) async fn close(&self, id: &str, reason: Option<String>) -> bool {
        if self.close_here(id, reason.clone()).await {
            return true;
        }
        let target = format!("/api/clients/{}/close?scope=node", quoted(id));
        let body = reason.map_or_else(|| serde_json::json!({}), |reason| serde_json::json!({ "reason": reason }));
        let answers = self.peers().ask_all(Method::POST, &target, &Bytes::from(body.to_string())).await;
        answers.iter().flatten().any(|answer| answer.status == StatusCode::OK)
    }

    fn which(&self, listing: &Listing) -> Option<ClientFilter> {
        let hub = listing.hub.as_deref().map(|name| self.hub(name).ok_or(())).transpose().ok()?;
        let every = || self.admin.shared.hubs.all().iter().map(|hub| hub.index()).collect();
        Some(match (hub, &listing.group, &listing.user) {
            (Some(hub), Some(group), _) => ClientFilter::Group(hub, group.clone()),
            (hub, _, Some(user)) => ClientFilter::User(hub.map_or_else(every, |hub| vec![hub]), user.clone()),
            (Some(hub), None, None) => ClientFilter::Hub(hub),
            (None, _, None) => ClientFilter::Everyone,
        })
    }

    fn hub(&self, name: &str) -> Option<HubIndex> {
        self.admin.shared.hubs.all().iter().find(|hub| hub.name() == name).map(|hub| hub.index())
    }

    async fn size(&self, which: &ClientFilter) -> Option<u64> {
        let sizes = self.admin.shared.shards().iter().map(|shard| {
            let which = which.clone();
            shard.inspect(move |state| state.inspector().set_size(&which) as u64)
        });
        match which {
            ClientFilter::Everyone => Some(self.node().await?.clients),
            _ => Some(join_all(sizes).await.into_iter().flatten().sum()),
        }
    }
}

/// A page of names as one node tells it to others.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeNames {
    instance: String,
    #[serde(flatten)]
    page: NamePage,
}

/// What another node is asked, for itself.
fn target(list: &str, limit: usize, given: &[(&str, Option<&str>)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("scope", "node").append_pair("limit", &limit.to_string());
    query.extend_pairs(given.iter().filter_map(|(name, value)| Some((name, (*value)?))));
    format!("/api/{list}?{}", query.finish())
}

fn add(all: &mut BTreeMap<String, u64>, names: impl IntoIterator<Item = (String, u64)>) {
    names.into_iter().for_each(|(name, clients)| *all.entry(name).or_default() += clients);
}

fn page_of(all: BTreeMap<String, u64>, limit: usize) -> NamePage {
    let is_more = all.len() > limit;
    let items: Vec<_> = all.into_iter().take(limit).collect();
    let next = items.last().filter(|_| is_more).map(|(name, _)| name.clone());
    Page { items, next, total: None }
}

/// As it stands in a path.
pub(super) fn quoted(id: &str) -> String {
    utf8_percent_encode(id, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_told_and_places_are_in_order() {
        let at = |node: &str, shard, slot| Cursor { node: node.into(), instance: "i".into(), shard, slot };
        assert_eq!(at("a-1", 2, 30).to_string().parse(), Ok(at("a-1", 2, 30)));
        assert!(at("a", 2, 30) < at("a", 3, 0) && at("a", 9, 9) < at("b", 0, 0));
        for wrong in ["", "a~b~c~d", "a~b~1", "a~b~1~2~3", "a~b~70000~1"] {
            assert!(wrong.parse::<Cursor>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_page_of_names_tells_whether_there_are_more() {
        let all = BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 2), ("c".to_owned(), 3)]);
        let page = page_of(all.clone(), 2);
        assert_eq!((page.items.len(), page.next.as_deref()), (2, Some("b")));
        assert_eq!(page_of(all, 3).next, None);
    }
}
