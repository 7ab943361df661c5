//! Permits of links to app servers: of the node, of the address that dials in, and of a key or an upstream.
//!
//! Each link takes a file descriptor. Each upstream, and each of several keys, has a
//! [fair share](crate::ground::bounded), so an app with few links gets another one. Shares shrink as others open links,
//! so a holder may open again the links that it lost within the last minute.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::address_key::{AddressKey, AddressPermit};
use super::signer_share::SignerShare;
use crate::ground::auth::Signer;
use crate::ground::bounded::{Full, Permit, Permits};
use crate::ground::config::LinkSettings;

/// Time for which a holder may open lost links again beyond its share.
const REOPEN_TIME: Duration = Duration::from_secs(60);

/// Key or app server that a link counts for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum LinkHolder {
    /// Key of the app servers that dial in.
    Signer(Signer),
    /// Address of an app server that the node dials.
    Upstream(Box<str>),
}

#[derive(Debug)]
pub(crate) struct LinkLimit {
    links: Permits<LinkHolder>,
    addresses: Permits<AddressKey>,
    lost: LostLinks,
}

#[derive(Debug)]
pub(crate) struct LinkPermit {
    link: Permit<LinkHolder>,
    _address: Option<AddressPermit>,
    lost: LostLinks,
}

/// Links that holders closed or lost, until they open them again.
#[derive(Debug, Clone, Default)]
struct LostLinks(Arc<Mutex<HashMap<LinkHolder, Lost>>>);

#[derive(Debug)]
struct Lost {
    links: usize,
    until: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkRefusal {
    #[error("this node has reached its limit of {limit} links to app servers: see --links-max")]
    Node { limit: usize },
    #[error(
        "{holder} has reached its share of links, now {limit}: raise --links-max and the limit of open files, or move \
         some app servers to another node"
    )]
    Holder { holder: LinkHolder, limit: usize },
    #[error("this address has reached its limit of {limit} links: see --links-per-address-max")]
    Address { limit: usize },
}

impl LinkLimit {
    pub(super) fn new(settings: &LinkSettings) -> Self {
        let limit = |most: Option<u32>| most.filter(|most| *most > 0).map_or(usize::MAX, |most| most as usize);
        Self {
            links: Permits::new(limit(settings.links_max), usize::MAX),
            addresses: Permits::new(usize::MAX, limit(settings.links_per_address_max)),
            lost: LostLinks::default(),
        }
    }

    /// Takes a permit for a link that an app server dials. Addresses of many app servers are not counted.
    pub(crate) fn take_dialled_in(
        &self,
        share: &SignerShare,
        address: Option<IpAddr>,
    ) -> Result<LinkPermit, LinkRefusal> {
        let address = address.map(|ip| self.addresses.take(Some(ip.into()))).transpose();
        let address = address.map_err(|full| LinkRefusal::Address { limit: full.limit })?;
        let holder = LinkHolder::Signer(share.signer.clone());
        let link = if share.has_others { self.take_fair(holder) } else { self.links.take(Some(holder)) };
        Ok(LinkPermit { link: link?, _address: address, lost: self.lost.clone() })
    }

    pub(crate) fn take_dialled(&self, upstream: &str) -> Result<LinkPermit, LinkRefusal> {
        let link = self.take_fair(LinkHolder::Upstream(upstream.into()))?;
        Ok(LinkPermit { link, _address: None, lost: self.lost.clone() })
    }

    fn take_fair(&self, holder: LinkHolder) -> Result<Permit<LinkHolder>, Full<LinkHolder>> {
        if !self.lost.take(&holder) {
            return self.links.take_fair(holder);
        }
        let reopened = self.links.take(Some(holder.clone()));
        if reopened.is_err() {
            self.lost.add(&holder);
        }
        reopened
    }

    /// Number of links, including opening ones.
    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }
}

impl LostLinks {
    fn lock(&self) -> MutexGuard<'_, HashMap<LinkHolder, Lost>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, holder: &LinkHolder) {
        let (now, mut lost) = (Instant::now(), self.lock());
        lost.retain(|_, lost| lost.until > now);
        let entry = lost.entry(holder.clone()).or_insert(Lost { links: 0, until: now });
        *entry = Lost { links: entry.links + 1, until: now + REOPEN_TIME };
    }

    /// Takes a lost link of the holder, if any.
    fn take(&self, holder: &LinkHolder) -> bool {
        let mut lost = self.lock();
        let entry = lost.get_mut(holder).filter(|lost| lost.links > 0 && lost.until > Instant::now());
        entry.map(|lost| lost.links -= 1).is_some()
    }
}

impl Drop for LinkPermit {
    fn drop(&mut self) {
        if let Some(holder) = self.link.key() {
            self.lost.add(holder);
        }
    }
}

impl LinkRefusal {
    pub(crate) fn label(&self) -> &str {
        match self {
            Self::Node { .. } => "(node)",
            Self::Address { .. } => "(address)",
            Self::Holder { holder: LinkHolder::Signer(signer), .. } => signer.label(),
            Self::Holder { holder: LinkHolder::Upstream(address), .. } => address,
        }
    }
}

impl From<Full<LinkHolder>> for LinkRefusal {
    fn from(Full { limit, key }: Full<LinkHolder>) -> Self {
        key.map_or(Self::Node { limit }, |holder| Self::Holder { holder, limit })
    }
}

impl fmt::Display for LinkHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signer(signer) => write!(f, "{signer}"),
            Self::Upstream(address) => write!(f, "the app server at {address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn limit(links_max: u32, links_per_address_max: u32) -> LinkLimit {
        let (links_max, links_per_address_max) = (Some(links_max), Some(links_per_address_max));
        LinkLimit::new(&LinkSettings { links_max, links_per_address_max, ..LinkSettings::DEFAULT })
    }

    fn share(app: &str) -> SignerShare {
        SignerShare::new(Signer::App(app.into()), true)
    }

    fn ip(last: u32) -> Option<IpAddr> {
        Some(IpAddr::V4(last.into()))
    }

    #[test]
    fn one_app_leaves_links_to_others_however_many_it_opens() {
        let links = limit(100, 0);
        let open =
            |app: &str| std::iter::from_fn(|| links.take_dialled_in(&share(app), ip(1)).ok()).collect::<Vec<_>>();
        let (shop, news) = (open("shop"), open("news"));
        assert_eq!((shop.len(), news.len()), (50, 25));
        let refusal = links.take_dialled_in(&share("shop"), ip(1)).unwrap_err();
        assert!(refusal.to_string().starts_with("the key of app shop has reached its share of links"), "{refusal}");
        assert_eq!(refusal.label(), "shop");
        assert!(links.take_dialled("10.0.0.1:5000").is_ok(), "for an app server that the node dials, too");
        drop((shop, news));
        assert_eq!(links.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_app_opens_lost_links_again_beyond_its_share() {
        let links = limit(100, 0);
        let take = |app: &str| links.take_dialled_in(&share(app), ip(1));
        let open = |app: &str| std::iter::from_fn(|| take(app).ok()).collect::<Vec<_>>();
        let (mut shop, _news) = (open("shop"), open("news"));
        shop.truncate(48);
        shop.extend([take("shop").unwrap(), take("shop").unwrap()]);
        assert!(take("shop").is_err(), "two were lost");
        shop.truncate(48);
        advance(REOPEN_TIME).await;
        assert!(take("shop").is_err(), "a minute ago");
        let mut upstream = vec![links.take_dialled("10.0.0.1:5000").unwrap()];
        upstream.extend(std::iter::from_fn(|| links.take_dialled("10.0.0.1:5000").ok()));
        let share = upstream.len();
        let _others = [open("chat"), open("mail")];
        upstream.pop();
        upstream.push(links.take_dialled("10.0.0.1:5000").unwrap());
        assert!(links.take_dialled("10.0.0.1:5000").is_err() && upstream.len() == share);
    }

    #[test]
    fn a_key_without_others_may_have_all_links() {
        let links = limit(10, 0);
        let fleet = SignerShare::new(Signer::Fleet, false);
        let taken: Vec<_> = std::iter::from_fn(|| links.take_dialled_in(&fleet, None).ok()).collect();
        let refusal = links.take_dialled_in(&fleet, None).unwrap_err();
        assert_eq!((taken.len(), refusal.label()), (10, "(node)"));
        assert!(refusal.to_string().contains("--links-max"), "{refusal}");
    }

    #[test]
    fn an_address_has_a_limit_that_its_refusal_names() {
        let links = limit(0, 3);
        let taken: Vec<_> = (0..9).filter_map(|_| links.take_dialled_in(&share("shop"), ip(1)).ok()).collect();
        let refusal = links.take_dialled_in(&share("news"), ip(1)).unwrap_err();
        assert_eq!((taken.len(), refusal.label()), (3, "(address)"));
        assert!(refusal.to_string().contains("--links-per-address-max"), "{refusal}");
        assert!(links.take_dialled_in(&share("news"), ip(2)).is_ok());
        assert!(links.take_dialled_in(&share("news"), None).is_ok(), "an address of many is not counted");
    }
}
