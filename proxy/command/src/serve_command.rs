//! `trunkline serve`: runs a node until it is stopped.

use anyhow::{Context, bail};
use tokio::runtime::Runtime;
use tracing::{info, warn};
use trunkline_process::open_files;
use trunkline_proxy::parts::{AUDIT_TARGET, client_files_max};
use trunkline_proxy::{Config, Node};

use super::flag::ServeArgs;
use super::output::print_state;
use super::runtime::runtime;
use super::stop_signal::{StopRequest, StopSignals};
use super::supervisor::{NodeState, feed_watchdog, inherited_sockets, notify};
use crate::logging::{self, LOG_TARGET};

/// Error after a signal that ends the process without a drain.
const STOPPED_IMMEDIATELY: &str =
    "ended without a drain by SIGQUIT or a second interrupt (SIGINT): the remaining clients are disconnected";

/// Log line of a node without upstreams. Such a node is ready, so nothing else would reveal a missing `--upstream`.
const DIALS_NOBODY: &str = "no --upstream: app servers with Azure's SDK can dial in with the output of `trunkline \
                            connection-string`; app servers with the Rust SDK need --upstream";

/// Runs a node until a signal stops it, and logs `warnings` about its command line.
pub(super) fn serve(args: ServeArgs, warnings: &[String]) -> anyhow::Result<()> {
    let audit = (args.log.audit_log.as_deref(), args.log.audit_required);
    logging::begin(&args.log.log, args.log.log_format, audit)?;
    open_files();
    let runtime = runtime()?;
    // Installed before any slow step: for a container's first process, signals without a handler are lost.
    let mut signals = {
        let _entered = runtime.enter();
        StopSignals::new()?
    };
    runtime.spawn(reopen_on_signals(&runtime));
    let note = args.relay.0.note_of_files(client_files_max());
    let config = Config::try_from(args)?;
    let sockets = inherited_sockets().context("a socket passed by the supervisor (LISTEN_FDS) can't be used")?;
    logging::name_node(&config.settings.node);
    warnings.iter().for_each(|warning| warn!(target: LOG_TARGET, "{warning}"));
    note.iter().for_each(|note| warn!(target: LOG_TARGET, "{note}"));
    let dials_nobody = !config.settings.has_upstreams && config.settings.webhooks.rules.is_empty();
    let outcome = runtime.block_on(async {
        let node = tokio::select! {
            node = Node::start_on(sockets, config) => node?,
            // There are no clients to drain yet.
            stop = signals.next() => {
                stop?;
                info!(target: LOG_TARGET, "stopped by a signal before the start was complete");
                return Ok(());
            }
        };
        print_state(&format!("listening on http://{}", node.listen()));
        if let Some(listen) = node.tls_listen() {
            print_state(&format!("listening on https://{listen}"));
        }
        print_state(&format!("admin on http://{}", node.admin()));
        if dials_nobody {
            info!(target: LOG_TARGET, "{DIALS_NOBODY}");
        }
        notify(NodeState::Ready);
        tokio::spawn(feed_watchdog(node.heartbeat()));
        if signals.next().await? == StopRequest::Immediate {
            bail!("{STOPPED_IMMEDIATELY}");
        }
        info!(target: AUDIT_TARGET, act = "stop", outcome = "begun", by = "signal to the process", "operator");
        notify(NodeState::Stopping);
        tokio::select! {
            () = node.stop() => Ok(()),
            // The process exits with all its threads, whatever they wait for.
            ended = signals.immediate() => ended.map_err(Into::into).and_then(|()| bail!("{STOPPED_IMMEDIATELY}")),
        }
    });
    // A blocked file or name server occupies a thread, which must not delay the exit.
    runtime.shutdown_background();
    outcome
}

/// Reopens the audit log on SIGHUP and SIGUSR1, forever. From this call on, these signals no longer end the process,
/// nor does SIGXFSZ: exceeding a file size limit becomes a write error.
#[cfg(unix)]
fn reopen_on_signals(runtime: &Runtime) -> impl Future<Output = ()> + use<> {
    use rustix::process::Signal;
    use tokio::signal::unix::{SignalKind, signal};

    let _entered = runtime.enter();
    let [hangups, users, _] =
        [Signal::HUP, Signal::USR1, Signal::XFSZ].map(|number| signal(SignalKind::from_raw(number.as_raw())));
    async move {
        let (Ok(mut hangups), Ok(mut users)) = (hangups, users) else { return };
        loop {
            tokio::select! {
                _ = hangups.recv() => {}
                _ = users.recv() => {}
            }
            logging::reopen();
        }
    }
}

#[cfg(not(unix))]
fn reopen_on_signals(_: &Runtime) -> impl Future<Output = ()> + use<> {
    std::future::ready(())
}
