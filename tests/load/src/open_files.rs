//! Limit of open files, because each socket is one: raises it as far as possible, and fails if it is too low.

use anyhow::{Result, bail};

/// Files in addition to the clients' sockets.
const RESERVE: u64 = 64;

/// Ensures that this many sockets can be opened.
#[cfg(unix)]
pub(crate) fn allow(sockets: usize) -> Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let needed = sockets as u64 + RESERVE;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    limit.current = limit.maximum;
    if setrlimit(Resource::Nofile, limit).is_err() || limit.maximum.is_some_and(|maximum| maximum < needed) {
        let maximum = limit.maximum.unwrap_or(0);
        bail!(
            "{sockets} sockets need {needed} open files, and this system allows {maximum}: raise it \
             (`ulimit -Hn {needed}`), or use fewer clients in each of several generators and `merge` their reports"
        );
    }
    Ok(())
}

/// Does nothing, because the system has no such limit.
#[cfg(not(unix))]
pub(crate) fn allow(_: usize) -> Result<()> {
    Ok(())
}
