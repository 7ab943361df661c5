//! Reload of certificates when their files change, or on SIGHUP. Open connections are kept.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tracing::info;

use super::file_check::{FileCheck, FileChecks, FileVersion, off_thread, version};
use crate::engine::shard::Shared;
use crate::ground::condition::{ConditionKind, Finding};
use crate::ground::metrics::Outcome;
use crate::ground::net::connector::Connector;
use crate::ground::net::tls::{Certificates, PresentedChain, TlsError, ValidityProblem};

/// Interval of file checks. They are cheap, and symbolic links swapped by deployment tools can't be watched reliably.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Subject of the condition that reports unreadable files.
const SUBJECT: &str = "certificates";

struct CertificateUsers {
    certificates: Option<Arc<Certificates>>,
    /// Connectors with client certificates and trusted root certificates.
    connectors: [Connector; 2],
    /// Groups of app servers, which may have their own.
    shared: Arc<Shared>,
}

impl CertificateUsers {
    fn stamps(&self) -> Vec<FileVersion> {
        let own = self.certificates.iter().flat_map(|certificates| certificates.files());
        let stamp = |path: &Path| version(path.to_owned());
        let of_node = self.connectors.iter().flat_map(Connector::files);
        let mut stamps: Vec<_> = own.chain(of_node).map(stamp).collect();
        for group in self.groups() {
            stamps.extend(group.files().map(stamp));
        }
        stamps
    }

    /// Chains that this node presents, as listener and as client.
    fn chains(&self) -> Vec<PresentedChain> {
        let own = self.certificates.iter().flat_map(|certificates| certificates.chains());
        let connectors = self.connectors.clone().into_iter();
        let mut chains: Vec<_> = own.collect();
        chains.extend(connectors.chain(self.groups()).filter_map(|connector| connector.presented_chain()));
        chains
    }

    /// Publishes the ends of these chains, and reports those that are invalid or expire soon.
    fn report_ends(&self, chains: &[PresentedChain]) {
        let ends = chains.iter().filter_map(|chain| Some(((shown(&chain.file), chain.role), chain.ends_s()?)));
        self.shared.reports.certificate_ends.store(Arc::new(ends.collect()));
        for (chain, (problem, text)) in chains.iter().filter_map(|chain| Some((chain, chain.problem()?))) {
            let kind = match problem {
                ValidityProblem::ExpiresSoon => ConditionKind::CertificateEnds,
                ValidityProblem::Expired | ValidityProblem::NotYetValid => ConditionKind::CertificateInvalid,
            };
            let finding = Finding::new(kind, shown(&chain.file), text);
            self.shared.reports.conditions.report(finding, Some(3 * CHECK_INTERVAL));
        }
    }

    fn reload(&self) -> Result<(), TlsError> {
        // An unreadable file does not keep the others from being reloaded.
        let own = self.certificates.as_ref().map_or(Ok(()), |certificates| certificates.read_again());
        let groups = self.groups();
        let outcomes: Vec<_> = self.connectors.iter().chain(&groups).map(Connector::read_again).collect();
        std::iter::once(own).chain(outcomes).collect()
    }

    /// Connectors to the app servers of groups. Groups without their own settings share the node's files.
    fn groups(&self) -> Vec<Connector> {
        let hubs = &self.shared.hubs;
        let rules = hubs.rules();
        rules.groups.iter().filter_map(|rule| Some(hubs.groups.find(&rule.name)?.terms().plain.clone())).collect()
    }
}

fn shown(file: &Path) -> String {
    file.display().to_string()
}

pub(super) async fn run(
    shared: Arc<Shared>,
    connectors: [Connector; 2],
    certificates: Option<Arc<Certificates>>,
    has_rules_file: bool,
) {
    let users = Arc::new(CertificateUsers { certificates, connectors, shared: shared.clone() });
    let stamps = || {
        let users = users.clone();
        off_thread(move || users.stamps())
    };
    let mut seen = stamps().await;
    if seen.is_empty() && !has_rules_file {
        return;
    }
    let read_chains = || {
        let users = users.clone();
        off_thread(move || users.chains())
    };
    let (mut checks, mut chains) = (FileChecks::every(CHECK_INTERVAL), read_chains().await);
    loop {
        users.report_ends(&chains);
        let is_requested = checks.next().await == FileCheck::Hangup;
        let now = stamps().await;
        // On SIGHUP, rules are reloaded too, and there may be no certificates.
        if now.is_empty() || (!is_requested && now == seen) {
            continue;
        }
        seen = now;
        let outcomes = &shared.counters_of(0).certificate_reads;
        let reloaded = users.clone();
        match off_thread(move || reloaded.reload()).await {
            Ok(()) => {
                chains = read_chains().await;
                outcomes.of(Outcome::Done).increment();
                shared.reports.conditions.clear(ConditionKind::FileUnreadable, SUBJECT);
                info!("certificates reloaded");
            }
            Err(error) => {
                outcomes.of(Outcome::Invalid).increment();
                let finding = Finding::new(ConditionKind::FileUnreadable, SUBJECT, error.to_string());
                shared.reports.conditions.report(finding, None);
            }
        }
    }
}
