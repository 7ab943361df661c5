//! Ctrl-C: the first ends the run early, with a report of what was done; the second ends everything.

use std::rc::Rc;

use tokio::signal::ctrl_c;

use crate::run::Run;

/// The exit status of a run that was cut short, as shells have it for what Ctrl-C ends.
pub(crate) const CUT_SHORT: u8 = 130;

/// Listens until it is aborted.
pub(crate) async fn listen(run: Rc<Run>) {
    if ctrl_c().await.is_ok() {
        run.stop();
        _ = ctrl_c().await;
        std::process::exit(CUT_SHORT.into());
    }
}
