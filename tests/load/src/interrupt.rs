//! Ctrl-C: the first one ends the run early, with a report of completed work; the second one exits immediately.

use std::rc::Rc;

use tokio::signal::ctrl_c;

use crate::run::Run;

/// Exit status of an interrupted run, as used by shells for Ctrl-C.
pub(crate) const CUT_SHORT: u8 = 130;

/// Waits for Ctrl-C until it is aborted.
pub(crate) async fn listen(run: Rc<Run>) {
    if ctrl_c().await.is_ok() {
        run.stop();
        _ = ctrl_c().await;
        std::process::exit(CUT_SHORT.into());
    }
}
