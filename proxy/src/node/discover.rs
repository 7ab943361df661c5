//! Follow one upstream's name: each address that it resolves to is watched as an app server of its own.
//!
//! An address that appears gets its pools. One that vanishes keeps them while its links live, so that an app server that
//! is about to stop can hand its clients over; then it is not dialled any more. A name that can't be resolved for a
//! while changes nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{info, warn};

use super::upstream;
use crate::config::{Address, Resolver};
use crate::observer::UpstreamProblems;
use crate::shard::Shared;

/// The addresses of a name, and whether each is still listed.
#[derive(Debug, Default)]
struct Listed(HashMap<SocketAddr, watch::Sender<bool>>);

/// Follows an upstream for ever; asks for its addresses again after each `interval`, never if that is zero.
pub(super) async fn follow(
    shared: Arc<Shared>,
    upstreams: Arc<UpstreamProblems>,
    address: Address,
    resolver: Resolver,
    interval: Duration,
) {
    // Whatever this machine's names resolve to, only one process of it is meant.
    if interval.is_zero() || address.is_loopback() || address.host().parse::<std::net::IpAddr>().is_ok() {
        let (_listed, is_listed) = watch::channel(true);
        return upstream::watch(shared, upstreams, address, is_listed).await;
    }
    let (mut listed, mut watchers) = (Listed::default(), JoinSet::new());
    let name = address.to_string();
    let mut is_known = true;
    loop {
        match resolver.resolve(&address).await.map(|all| of_one_family(&all)) {
            Ok(found) => {
                is_known = true;
                if listed.0.is_empty() {
                    upstreams.set(&name, None);
                }
                for (at, is_listed) in listed.update(&found) {
                    info!(upstream = %address, %at, "an address has appeared");
                    watchers.spawn(upstream::watch(shared.clone(), upstreams.clone(), address.at(at), is_listed));
                }
            }
            Err(error) => {
                if std::mem::take(&mut is_known) {
                    warn!(upstream = %address, %error, "the name can't be resolved");
                }
                if listed.0.is_empty() {
                    upstreams.set(&name, Some(format!("the name can't be resolved: {error}")));
                }
            }
        }
        sleep(interval).await;
        // Those that have ended were not listed any more.
        while watchers.try_join_next().is_some() {}
    }
}

/// Those of the family of the first, which the system prefers: an app server that has both would else be taken for two.
fn of_one_family(all: &[SocketAddr]) -> Vec<SocketAddr> {
    let is_v4 = all.first().is_some_and(SocketAddr::is_ipv4);
    all.iter().filter(|address| address.is_ipv4() == is_v4).copied().collect()
}

impl Listed {
    /// Notes what is listed now; returns those that are to be watched from now on. An empty list is no news.
    fn update(&mut self, found: &[SocketAddr]) -> Vec<(SocketAddr, watch::Receiver<bool>)> {
        // Nobody watches it any more.
        self.0.retain(|_, is_listed| !is_listed.is_closed());
        if found.is_empty() {
            return Vec::new();
        }
        for (at, is_listed) in &self.0 {
            let is_found = found.contains(at);
            is_listed.send_if_modified(|was| std::mem::replace(was, is_found) != is_found);
        }
        let mut new = Vec::new();
        for at in found {
            if !self.0.contains_key(at) {
                let (sender, is_listed) = watch::channel(true);
                self.0.insert(*at, sender);
                new.push((*at, is_listed));
            }
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_appears_is_watched_and_what_vanishes_is_told_so() {
        let mut listed = Listed::default();
        let (a, b) = (at("10.0.0.1:80"), at("10.0.0.2:80"));
        let [(first, of_a)] = listed.update(&[a]).try_into().unwrap();
        assert!(first == a && *of_a.borrow());
        let [(second, of_b)] = listed.update(&[a, b]).try_into().unwrap();
        assert_eq!(second, b);
        assert!(listed.update(&[b]).is_empty());
        assert!(!*of_a.borrow() && *of_b.borrow());
        assert!(listed.update(&[a, b]).is_empty(), "it is watched still");
        assert!(*of_a.borrow());
    }

    #[test]
    fn what_was_given_up_is_watched_anew_when_it_is_back_and_no_answer_changes_nothing() {
        let mut listed = Listed::default();
        let a = at("10.0.0.1:80");
        let of_a = listed.update(&[a]);
        assert!(listed.update(&[]).is_empty());
        assert!(*of_a[0].1.borrow());
        drop(of_a);
        assert_eq!(listed.update(&[a]).len(), 1);
    }

    #[test]
    fn one_family_counts_the_one_that_the_system_prefers() {
        let all = [at("[2001:db8::1]:80"), at("10.0.0.1:80"), at("[2001:db8::2]:80")];
        assert_eq!(of_one_family(&all), [all[0], all[2]]);
        assert!(of_one_family(&[]).is_empty());
    }
}
