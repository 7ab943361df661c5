//! Permits of links to app servers: of the node, of the address that dials in, and of a key or an upstream.
//!
//! Each link takes a file descriptor. Each upstream, and each of several keys, may have as many links as are free: one
//! app alone gets a half, two apps get a third each. So an app with few links always gets another one.

use std::fmt;
use std::net::IpAddr;

use super::address_key::{AddressKey, AddressPermit};
use super::signer_share::SignerShare;
use crate::auth::Signer;
use crate::bounded::{Full, Permit, Permits};
use crate::config::LinkSettings;

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
}

#[derive(Debug)]
pub(crate) struct LinkPermit {
    _link: Permit<LinkHolder>,
    _address: Option<AddressPermit>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkRefusal {
    #[error("this node has reached its limit of {limit} links to app servers: see --links-max")]
    Node { limit: usize },
    #[error(
        "{holder} has reached its share of links ({limit} are left for others): raise --links-max and the limit of open \
         files, or move some app servers to another node"
    )]
    Holder { holder: LinkHolder, limit: usize },
    #[error("this address has reached its limit of {limit} links: see --links-per-address-max")]
    Address { limit: usize },
}

impl LinkLimit {
    #[must_use]
    pub(super) fn new(settings: &LinkSettings) -> Self {
        let limit = |most: Option<u32>| most.filter(|most| *most > 0).map_or(usize::MAX, |most| most as usize);
        Self {
            links: Permits::new(limit(settings.links_max), usize::MAX),
            addresses: Permits::new(usize::MAX, limit(settings.links_per_address_max)),
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
        let holder = LinkHolder::Signer(share.signer().clone());
        let link = if share.has_others() { self.links.take_fair(holder) } else { self.links.take(Some(holder)) };
        Ok(LinkPermit { _link: link?, _address: address })
    }

    pub(crate) fn take_dialled(&self, upstream: &str) -> Result<LinkPermit, LinkRefusal> {
        Ok(LinkPermit { _link: self.links.take_fair(LinkHolder::Upstream(upstream.into()))?, _address: None })
    }

    /// Number of links, including opening ones.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }
}

impl LinkRefusal {
    #[must_use]
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
