//! Catalogue of all conditions: name, severity, bound, text and remedy.

/// Severity of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Users are not served.
    Error,
    /// Users may soon not be served.
    Warning,
}

impl Severity {
    /// Label used in metrics and the API.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// Catalogue entry of a condition.
#[derive(Debug, Clone, Copy)]
pub struct CatalogueEntry {
    /// Stable name, in kebab case.
    pub name: &'static str,
    /// Whether users are not served, or soon may not be.
    pub severity: Severity,
    /// Seconds for which the state must last before the condition begins.
    pub after_s: u64,
    /// Whether the state is normal during the first minute of a node and during its drain.
    pub is_normal_at_start: bool,
    /// Whether another node serves clients better, so that this one is not ready.
    pub is_local: bool,
    /// State in a few words.
    pub text: &'static str,
    /// Action for the operator.
    pub remedy: &'static str,
}

/// All conditions, for the book.
#[must_use]
pub fn condition_entries() -> Vec<CatalogueEntry> {
    ConditionKind::ALL.iter().map(|kind| kind.entry()).collect()
}

/// Declares the conditions in the order of the book.
macro_rules! catalogue {
    ($($kind:ident = $severity:ident $name:literal after $after_s:literal $(normal at start $start:literal)? $(local $local:literal)?:
        $text:literal, $remedy:literal;)*) => {
        /// Condition of the catalogue.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum ConditionKind {
            $(#[doc = $text] $kind,)*
        }

        impl ConditionKind {
            /// All conditions in the order of the book.
            pub(crate) const ALL: [Self; [$($name),*].len()] = [$(Self::$kind),*];

            #[must_use]
            pub(crate) fn entry(self) -> CatalogueEntry {
                match self {
                    $(Self::$kind => CatalogueEntry {
                        name: $name,
                        severity: Severity::$severity,
                        after_s: $after_s,
                        is_normal_at_start: false $(|| $start)?,
                        is_local: false $(|| $local)?,
                        text: $text,
                        remedy: $remedy,
                    },)*
                }
            }
        }
    };
}

catalogue! {
    HubWithoutAppServer = Error "hub-without-app-server" after 1:
        "a hub has no app server",
        "start an app server of this hub, or check why none reaches this node";
    AppServerRefusesKey = Error "app-server-refuses-key" after 2:
        "an app server refuses the access key of this node",
        "give the app server and all nodes the same access key (--access-key)";
    AppServerIncompatible = Error "app-server-incompatible" after 2:
        "an upstream answers, but not as an app server of this version",
        "check that --upstream names an app server with the Trunkline SDK, and upgrade the older program";
    AppServerRefused = Warning "app-server-refused" after 0:
        "this node refuses an app server that dials in",
        "see the reason and the advice behind it; the app server itself logs only the status";
    AppServerUnreachable = Warning "app-server-unreachable" after 30 normal at start true:
        "an upstream has no usable app server",
        "check that the app server runs and that its address is correct (--upstream)";
    AppServerMissing = Warning "app-server-missing" after 30 normal at start true:
        "an app server was lost and has no successor; others serve its hubs",
        "start another app server, or check why the lost one does not restart";
    AppServerLinksLost = Warning "app-server-links-lost" after 5 normal at start true:
        "links to an app server are lost",
        "check the app server and the network between it and this node";
    AppServerSilent = Error "app-server-silent" after 0:
        "an app server does not respond on its open links",
        "check whether the process of the app server hangs, and restart it";
    WebhookFails = Error "webhook-fails" after 2:
        "requests to a webhook fail",
        "check that the back end runs, that its URL is correct (--upstream-webhook), and what it answers";
    WebhookRefusesSignature = Error "webhook-refuses-signature" after 2:
        "the back end of a webhook refuses the requests of this node",
        "compare --webhook-secret, or without it the access key, with the secret of the back end, and both clocks";
    WebhookSlow = Warning "webhook-slow" after 0:
        "the back end of a webhook answers slowly",
        "check the load of the back end; calls of one client wait for each other";
    LinksFull = Warning "links-full" after 10:
        "an app server is too slow: its links are full, and their clients are not read",
        "add app servers, or find out why its methods are slow";
    ClientsRefused = Warning "clients-refused" after 5:
        "this node refuses clients at a high rate",
        "see the reason: it names the flag, the token's fault or the origin";
    CallsFail = Warning "calls-fail" after 10:
        "one in five calls of a hub, or more, ends with an error",
        "find the method and its error in the log of the app server or back end, or in trunkline_app_invocations_total";
    CallsHang = Warning "calls-hang" after 0:
        "calls of a hub have no result after --calls-hang-after",
        "find the method that never ends in the app server; further calls of the same client wait for it";
    CallsQueue = Warning "calls-queue" after 10:
        "calls of a hub wait for earlier calls of the same client",
        "make the method faster, call it less often, or run calls in parallel (MaximumParallelInvocationsPerClient)";
    SlowClientsClosed = Warning "slow-clients-closed" after 0:
        "clients are closed because they read too slowly",
        "send less, let the hub drop messages to slow clients (Hub::slow_clients), or raise the named budget";
    ReconnectStorm = Warning "reconnect-storm" after 5:
        "clients connect at many times the usual rate",
        "find out whether a node, a load balancer or a network has disconnected them";
    DrainSlow = Warning "drain-slow" after 600:
        "this node has been draining for more than 10 minutes",
        "see which clients stay (/api/clients), or shorten --drain-grace and --drain-timeout";
    OpenFilesHigh = Warning "open-files-high" after 5:
        "more than 90 % of the open files for clients are in use",
        "raise the limit of open files (LimitNOFILE), or add nodes";
    MemoryBudgetHigh = Warning "memory-budget-high" after 5:
        "more than 90 % of a memory budget is in use",
        "raise the budget, add nodes, or send less to slow clients";
    LogLinesDropped = Warning "log-lines-dropped" after 0:
        "lines of the log are dropped",
        "check the reader of the log: it is too slow or has stopped";
    AuditLinesLost = Error "audit-lines-lost" after 0:
        "lines of the audit log are lost",
        "check the disk and the permissions of the audit log";
    CertificateInvalid = Error "certificate-invalid" after 0:
        "a certificate has expired or is not valid yet: clients refuse it",
        "replace the certificate, or correct the clock of this machine; this node reloads a changed file";
    CertificateEnds = Warning "certificate-ends" after 0:
        "a certificate expires within 14 days",
        "renew the certificate; this node reloads a changed file";
    FileUnreadable = Warning "file-unreadable" after 0:
        "changed files can't be loaded: the old contents stay in use, removed keys included",
        "correct the files; this node then reloads them";
    TokenKeysUnreachable = Warning "token-keys-unreachable" after 35:
        "the keys of an issuer of access tokens can't be read; the last keys stay in use",
        "check the URL of --jwt-jwks and the issuer";
    TelemetryFails = Warning "telemetry-fails" after 0:
        "a receiver of telemetry does not accept it",
        "check the receiver and its URL";
    ScrapeRefused = Warning "scrape-refused" after 0:
        "requests for metrics are refused: they have no valid token",
        "compare the token of Prometheus with --metrics-token";
    StoreUnreachable = Error "store-unreachable" after 3:
        "the store is not reachable: revocations are not written yet, memberships of users can't be changed",
        "see the server and what it said: check that it runs, its account and JetStream (--nats)";
    BrokerUnreachable = Error "broker-unreachable" after 3:
        "other nodes can't be reached through NATS: messages to their clients wait, and are lost after 30 s",
        "see the server and what it said: check that it runs, and the rights of its account (--fleet-by)";
    StoreUntrusted = Error "store-untrusted" after 0:
        "the store has values that this fleet has not sealed",
        "check which other clients use the account, or whether two fleets have the same --nats-prefix";
    RecordsRefused = Error "records-refused" after 0:
        "sends to recorded groups or users of a hub are refused",
        "see the reason: check the node that records, or the store";
    RecordRulesDiffer = Warning "record-rules-differ" after 60:
        "another node records groups or users of a hub that nothing at this node names as recorded",
        "give all nodes the same rules ([[history]]) and the same app servers";
    NodeMissing = Warning "node-missing" after 5:
        "a node of the fleet is missing",
        "check that the node runs, and that --peers names its admin port";
    NodeMissesMessages = Warning "node-misses-messages" after 0:
        "messages for clients of another node were dropped: it was lost, or took none for 5 seconds",
        "check the load of that node and the network between the nodes";
    NodeNotOfFleet = Error "node-not-of-fleet" after 2:
        "an address of --peers answers, but not as a node of this fleet",
        "give all nodes the same access key, compatible versions, and the admin ports of each other (--peers)";
    NodeClockDiffers = Error "node-clock-differs" after 2:
        "the clock of another node differs by more than 5 minutes",
        "compare the clocks of both machines, and synchronise them (NTP)";
    OwnClockRefused = Error "own-clock-refused" after 2 local true:
        "all other nodes refuse this one because its clock differs by more than 5 minutes",
        "synchronise the clock of this machine (NTP)";
    NodeNameShared = Warning "node-name-shared" after 10:
        "several nodes of the fleet have the same name",
        "give each node its own --node-name";
    NodeAddressUnreachable = Warning "node-address-unreachable" after 20:
        "another node can't be reached at the address that it advertises: SSE and long polling fail",
        "correct --advertise of that node, or check the network between the nodes";
    NodeVersionDiffers = Warning "node-version-differs" after 3600:
        "nodes of several versions have run side by side for an hour",
        "finish the upgrade";
    FleetDisagrees = Error "fleet-disagrees" after 60 normal at start true:
        "the nodes of the fleet see different members",
        "check that all nodes reach each other's admin ports, and that --peers is equal everywhere";
    ClientsUneven = Warning "clients-uneven" after 900:
        "one node has far more clients than the others",
        "check the load balancer, or run `trunkline rebalance`";
    NodeGetsNoClients = Warning "node-gets-no-clients" after 20:
        "a ready node gets no new clients while another one does",
        "check that the load balancer lists the node, and that its health checks of the node succeed";
    ShardStuck = Error "shard-stuck" after 0 local true:
        "a shard thread has stopped",
        "restart this node, and report the fault with its log";
    ControlThreadStuck = Error "control-thread-stuck" after 0:
        "the control thread was stopped for more than 5 seconds",
        "check the CPU and disk load of this machine; if it persists, restart this node and report the fault";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_in_kebab_case() {
        let names: BTreeSet<_> = ConditionKind::ALL.iter().map(|kind| kind.entry().name).collect();
        assert_eq!(names.len(), ConditionKind::ALL.len());
        assert!(names.iter().all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '-')));
    }
}
