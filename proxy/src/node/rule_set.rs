//! Active rules of a node and their groups: applied at the start, and whenever their file changes.
//!
//! Groups are applied before routes, so that no client is routed to an unknown group. Clients move once their new group
//! has a reachable app server.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::info;
use trunkline_protocol::key::PeerKind;

use super::file_check::{FileWatch, off_thread};
use super::start_error::GroupError;
use super::upstream_discovery::UpstreamSet;
use crate::engine::shard::Shared;
use crate::engine::shard::drain::reroute::reroute;
use crate::engine::upstream::{GroupTerms, ServerGroup};
use crate::features::admission::Admission;
use crate::features::webhook::{HubUser, Reported, Webhooks};
use crate::ground::auth::AccessTables;
use crate::ground::condition::{ConditionKind, Finding};
use crate::ground::metrics::Outcome;
use crate::ground::net::address::Address;
use crate::ground::net::connector::Connector;
#[cfg(feature = "tls")]
use crate::ground::net::tls::{ClientTls, IdentityFiles};
use crate::ground::routing::{DEFAULT_GROUP, GroupRule, NamedFiles, RuleFile, Ruleset, WebhookTable};

#[derive(Debug)]
pub(crate) struct RuleSet {
    shared: Arc<Shared>,
    admission: Arc<Admission>,
    webhooks: Arc<Webhooks>,
    /// Addresses of the default group.
    upstreams: Vec<Address>,
    /// TLS settings for groups without their own.
    #[cfg(feature = "tls")]
    tls: ClientTls,
    /// Upstreams of the active groups, for the task that watches them.
    wanted: watch::Sender<Vec<(Arc<ServerGroup>, Address)>>,
}

impl RuleSet {
    pub(crate) fn new(
        shared: Arc<Shared>,
        admission: Arc<Admission>,
        webhooks: Arc<Webhooks>,
        upstreams: Vec<Address>,
        #[cfg(feature = "tls")] tls: ClientTls,
    ) -> Self {
        let wanted = watch::Sender::new(Vec::new());
        Self {
            shared,
            admission,
            webhooks,
            upstreams,
            #[cfg(feature = "tls")]
            tls,
            wanted,
        }
    }

    /// Applies rules: groups, upstreams, then routes. Changes nothing if a group's files are unreadable. Fails if a TLS
    /// file is missing or unusable, two groups share an address, or an app would get another app's hubs.
    pub(crate) fn apply(&self, rules: &Ruleset, access: &AccessTables) -> Result<(), GroupError> {
        self.ensure_apart(rules)?;
        self.ensure_roles(rules)?;
        self.ensure_issuers_differ(access)?;
        self.ensure_webhooks(&rules.webhooks).map_err(GroupError::Webhook)?;
        let terms = rules.groups.iter().map(|rule| self.terms(rule)).collect::<Result<Vec<_>, _>>()?;
        self.admission.signing_keys.set_rules(&access.app_keys)?;
        self.admission.verifier.set_issuers(&access.issuers);
        let hubs = &self.shared.hubs;
        let default = hubs.groups.set(&DEFAULT_GROUP.into(), self.default_terms(rules), false);
        let mut wanted: Vec<_> = self.upstreams.iter().map(|address| (default.clone(), address.clone())).collect();
        for (rule, terms) in rules.groups.iter().zip(terms) {
            let group = hubs.groups.set(&rule.name, terms, rules.is_mirror(&rule.name));
            wanted.extend(rule.upstreams.iter().map(|upstream| (group.clone(), upstream.address.clone())));
        }
        hubs.apply_rules(rules);
        self.webhooks.set_tables(&self.shared, &rules.webhooks);
        self.wanted.send_replace(wanted);
        for shard in self.shared.shards() {
            shard.post(reroute);
        }
        Ok(())
    }

    /// Watches the upstreams of the active groups, forever.
    pub(super) fn watch(&self, mut upstreams: UpstreamSet) -> impl Future<Output = ()> + use<> {
        let mut wanted = self.wanted.subscribe();
        async move {
            loop {
                let now = wanted.borrow_and_update().clone();
                upstreams.want(now);
                loop {
                    tokio::select! {
                        changed = wanted.changed() => match changed {
                            Ok(()) => break,
                            Err(_) => std::future::pending().await,
                        },
                        () = upstreams.next_end() => {}
                    }
                }
            }
        }
    }

    /// Checks that no group with linked app servers starts or stops being a mirror, which would change the effect of
    /// their messages midway.
    fn ensure_roles(&self, rules: &Ruleset) -> Result<(), GroupError> {
        let hubs = &self.shared.hubs;
        let is_linked = |name| hubs.all().iter().any(|hub| !hub.pools_of(name).is_empty());
        let changed = rules.groups.iter().find(|rule| {
            let known = hubs.groups.find(&rule.name);
            known.is_some_and(|group| group.is_mirror() != rules.is_mirror(&rule.name)) && is_linked(&rule.name)
        });
        changed.map_or(Ok(()), |rule| {
            Err(GroupError::Role { group: rule.name.to_string(), was_mirror: !rules.is_mirror(&rule.name) })
        })
    }

    /// Checks that the node can do what the tables of webhook hubs say.
    fn ensure_webhooks(&self, tables: &[WebhookTable]) -> Result<(), String> {
        self.shared.settings.webhooks.check_tables(tables)?;
        let most = self.shared.settings.message_max_bytes;
        for WebhookTable { hubs, settings, .. } in tables {
            if let Some(bytes) = settings.message_max_bytes.filter(|bytes| *bytes > most) {
                return Err(format!(
                    "message-max-bytes of [webhooks.{hubs}] is {bytes}, but --message-max-bytes allows at most {most}"
                ));
            }
            if settings.requires_authentication == Some(false) && self.admission.verifier.is_required() {
                return Err(format!(
                    "require-authentication of [webhooks.{hubs}] is false, but --require-authentication is about all \
                     hubs: remove the flag, and require users by the tables of the other hubs"
                ));
            }
            if settings.presence == Some(true) && HubUser::presence(&self.webhooks).is_none() {
                return Err(format!(
                    "presence of [webhooks.{hubs}] is true, but this node was started without it: restart the node \
                     (all nodes need the same setting)"
                ));
            }
        }
        Ok(())
    }

    /// Checks that no table has the `iss` of the flags: only the table's keys would then be used.
    fn ensure_issuers_differ(&self, access: &AccessTables) -> Result<(), GroupError> {
        let Some(issuer) = &self.admission.verifier.policy.issuer else { return Ok(()) };
        let table = access.issuers.iter().find(|table| table.is_named(issuer));
        table.map_or(Ok(()), |table| {
            Err(GroupError::IssuerTwice { table: table.name().to_owned(), issuer: issuer.clone() })
        })
    }

    /// Checks that groups share no address, and that the development key stays on this machine.
    fn ensure_apart(&self, rules: &Ruleset) -> Result<(), GroupError> {
        let mut seen: HashMap<&Address, &str> = self.upstreams.iter().map(|address| (address, DEFAULT_GROUP)).collect();
        for rule in &rules.groups {
            for upstream in &rule.upstreams {
                let is_remote = !upstream.address.is_loopback();
                if is_remote && rule.keys.is_none() && self.shared.settings.is_development {
                    let address = upstream.address.to_string();
                    return Err(GroupError::NoKey { group: rule.name.to_string(), address });
                }
                let known = seen.insert(&upstream.address, &rule.name).filter(|known| **known != *rule.name);
                if let Some(one) = known {
                    let address = upstream.address.to_string();
                    return Err(GroupError::Twice { address, one: one.into(), other: rule.name.to_string() });
                }
            }
        }
        Ok(())
    }

    fn default_terms(&self, rules: &Ruleset) -> GroupTerms {
        let terms = self.shared.default_terms();
        let group = &rules.default_group;
        GroupTerms { pool_size: group.pool_size.unwrap_or(terms.pool_size), weights: weights(&group.weights), ..terms }
    }

    fn terms(&self, rule: &GroupRule) -> Result<GroupTerms, GroupError> {
        let terms = self.shared.default_terms();
        let plain = self.connector(rule, &terms.plain)?;
        let keys = rule.keys.as_ref().unwrap_or(&self.shared.settings.keys);
        Ok(GroupTerms {
            pool_size: rule.pool_size.unwrap_or(terms.pool_size),
            pool_turn: terms.pool_turn,
            channels: plain.through_channels(keys, PeerKind::AppServer),
            plain,
            weights: weights(&rule.upstreams),
        })
    }

    /// Connector to the app servers of a group, with the group's TLS files if any.
    #[cfg(feature = "tls")]
    fn connector(&self, rule: &GroupRule, of_node: &Connector) -> Result<Connector, GroupError> {
        let speaks_tls = rule.upstreams.iter().any(|upstream| upstream.address.is_tls());
        if !speaks_tls || (rule.roots.is_empty() && rule.identity.is_none() && of_node.can_tls()) {
            return Ok(of_node.clone());
        }
        let mut tls = self.tls.clone();
        if !rule.roots.is_empty() {
            tls.roots.clone_from(&rule.roots);
        }
        if let Some((certificate, key)) = rule.identity.clone() {
            tls.identity = Some(IdentityFiles { certificate, key });
        }
        Connector::with_tls(tls).map_err(|source| GroupError::Tls { group: rule.name.to_string(), source })
    }

    #[cfg(not(feature = "tls"))]
    fn connector(&self, _rule: &GroupRule, of_node: &Connector) -> Result<Connector, GroupError> {
        Ok(of_node.clone())
    }
}

fn weights(upstreams: &[crate::ground::routing::WeightedUpstream]) -> HashMap<Box<str>, u32> {
    upstreams.iter().map(|upstream| (upstream.address.authority().into(), upstream.weight)).collect()
}

/// Interval of file checks: symbolic links swapped by deployment tools can't be watched reliably.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Subject of the condition that reports an unreadable file.
const SUBJECT: &str = "rules";

/// Reloads the rules when their file or a referenced file changes, or on SIGHUP. An invalid file is logged with line
/// and column, and the current rules stay active. No client is disconnected.
pub(crate) async fn watch_file(shared: Arc<Shared>, rules: RuleSet, path: PathBuf) {
    let rules = Arc::new(rules);
    let mut watch =
        FileWatch::new(FILE_CHECK_INTERVAL, files_of(&path).await.unwrap_or_else(|| vec![path.clone()])).await;
    loop {
        watch.changed().await;
        if let Some(files) = files_of(&path).await {
            watch.follow(files).await;
        }
        let (rules, file) = (rules.clone(), path.clone());
        let outcome = off_thread(move || {
            let RuleFile { rules: read, access } = RuleFile::read(&file).map_err(|error| error.to_string())?;
            rules.apply(&read, &access).map(|()| read).map_err(|error| error.to_string())
        });
        let outcome = outcome.await;
        let outcomes = &shared.counters_of(0).rule_reads;
        match outcome {
            Ok(rules) => {
                outcomes.of(Outcome::Done).increment();
                shared.reports.conditions.clear(ConditionKind::FileUnreadable, SUBJECT);
                let (groups, routes) = (rules.groups.len(), rules.routes.len());
                info!(file = %path.display(), groups, routes, "rules reloaded");
            }
            Err(problem) => {
                outcomes.of(Outcome::Invalid).increment();
                shared.reports.conditions.report(Finding::new(ConditionKind::FileUnreadable, SUBJECT, problem), None);
            }
        }
    }
}

/// The rules file and the files it references; a replaced key applies immediately. `None` if the rules file is
/// unreadable.
async fn files_of(path: &Path) -> Option<Vec<PathBuf>> {
    let path = path.to_owned();
    off_thread(move || {
        let NamedFiles { secrets, issuer_keys, key_sets, pages, .. } = NamedFiles::of(&path)?;
        let keys = secrets.into_iter().chain(issuer_keys).chain(key_sets);
        Some([path].into_iter().chain(keys).chain(pages).collect())
    })
    .await
}
