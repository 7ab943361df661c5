//! `trunkline serve`: runs a node until it is told to stop.

use anyhow::{Context, bail};
use tracing::{info, warn};
use trunkline_proxy::parts::{AUDIT_TARGET, client_files_max};
use trunkline_proxy::{Config, Node};

use super::flag::ServeArgs;
use super::output::print_state;
use super::runtime::runtime;
use super::stop_signal::StopSignals;
use super::supervisor::{NodeState, feed_watchdog, inherited_sockets, notify};
use crate::logging::{self, LOG_TARGET};

/// Error after a second signal to stop.
const STOPPED_AT_ONCE: &str = "told to stop a second time: ended at once, and clients that were left are cut";

/// Log line of a node that dials nobody. Such a node is ready, so a forgotten `--upstream` would be seen nowhere.
const DIALS_NOBODY: &str = "no --upstream: app servers with Azure's SDK may dial in, by the line that \
    `trunkline connection-string` prints; one with the SDK for Rust has to be named by --upstream";

/// Runs a node until a signal stops it; `warnings` about its command line are logged.
pub(super) fn serve(args: ServeArgs, warnings: &[String]) -> anyhow::Result<()> {
    logging::begin(&args.log.log, args.log.log_format, args.log.audit_log.as_deref())?;
    let note = args.relay.0.note_of_files(client_files_max());
    let config = Config::try_from(args)?;
    let sockets = inherited_sockets().context("a socket that the supervisor hands over (LISTEN_FDS) can't be used")?;
    logging::name_node(&config.settings.node);
    warnings.iter().for_each(|warning| warn!(target: LOG_TARGET, "{warning}"));
    note.iter().for_each(|note| warn!(target: LOG_TARGET, "{note}"));
    let dials_nobody = !config.settings.has_upstreams && config.settings.webhooks.rules.is_empty();
    runtime()?.block_on(async {
        let node = Node::start_on(sockets, config).await?;
        print_state(&format!("listening on http://{}", node.listen()));
        if let Some(listen) = node.tls_listen() {
            print_state(&format!("listening on https://{listen}"));
        }
        print_state(&format!("admin on http://{}", node.admin()));
        if dials_nobody {
            info!(target: LOG_TARGET, "{DIALS_NOBODY}");
        }
        let mut signals = StopSignals::new()?;
        notify(NodeState::Ready);
        tokio::spawn(feed_watchdog(node.heartbeat()));
        signals.next().await?;
        info!(target: AUDIT_TARGET, act = "stop", outcome = "begun", by = "signal to the process", "operator");
        notify(NodeState::Stopping);
        tokio::select! {
            () = node.stop() => Ok(()),
            // The process ends with all its threads, whatever they are waiting for.
            second = signals.next() => second.map_err(Into::into).and_then(|()| bail!("{STOPPED_AT_ONCE}")),
        }
    })
}
