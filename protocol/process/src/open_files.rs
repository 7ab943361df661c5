//! Limit of open files: raises the soft limit to the hard one, as Go programs do.
//!
//! Container engines set a soft limit of 1024, which protects only programs that use `select`, below a hard limit of
//! half a million.

use std::io;
use std::sync::{Once, OnceLock};

/// Limits of open files of this process; `None` means unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFiles {
    /// Soft limit at the start.
    pub soft_at_start: Option<u64>,
    /// Soft limit in force.
    pub soft: Option<u64>,
    /// Hard limit in force.
    pub hard: Option<u64>,
}

static OPEN_FILES: OnceLock<OpenFiles> = OnceLock::new();

/// Returns the limits of open files. The first call raises the soft limit to the hard one.
///
/// Child processes inherit the raised limit; [`restore_open_files`] reverts it.
pub fn open_files() -> OpenFiles {
    *OPEN_FILES.get_or_init(raise)
}

/// Logs the limits of open files once, after logging has started.
pub fn log_open_files() {
    static LOGGED: Once = Once::new();
    LOGGED.call_once(|| {
        let files = open_files();
        let shown = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
        let (soft_at_start, soft, hard) = (shown(files.soft_at_start), shown(files.soft), shown(files.hard));
        tracing::info!(soft, hard, soft_at_start, "limit of open files");
    });
}

#[cfg(unix)]
fn raise() -> OpenFiles {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, soft = current, hard = maximum, "cannot raise the limit of open files");
    }
    OpenFiles { soft_at_start: current, soft: getrlimit(Resource::Nofile).current, hard: maximum }
}

#[cfg(not(unix))]
fn raise() -> OpenFiles {
    OpenFiles { soft_at_start: None, soft: None, hard: None }
}

/// Sets a child's soft limit of open files back to the one at this process's start. On systems other than Linux the
/// child keeps the raised limit. Fails if the process does not exist or belongs to another user.
pub fn restore_open_files(child: u32) -> io::Result<()> {
    restore(child, open_files().soft_at_start)
}

#[cfg(target_os = "linux")]
fn restore(child: u32, soft: Option<u64>) -> io::Result<()> {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

    let pid = i32::try_from(child).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no process id"))?;
    let maximum = getrlimit(Resource::Nofile).maximum;
    prlimit(Some(pid), Resource::Nofile, Rlimit { current: soft, maximum })?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn restore(_child: u32, _soft: Option<u64>) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::{Command, Stdio};

    use rustix::process::{Pid, Resource, Rlimit, prlimit};

    use super::*;

    /// Marks the child run of the test below: limits apply to a whole process.
    const AS_CHILD: &str = "TRUNKLINE_TEST_OPEN_FILES";

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one_and_a_child_gets_the_old_one() {
        let name = "open_files::tests::the_soft_limit_is_raised_to_the_hard_one_and_a_child_gets_the_old_one";
        if std::env::var_os(AS_CHILD).is_none() {
            let command = format!("ulimit -Sn 256; ulimit -Hn 2000; exec \"$0\" --exact {name} --nocapture");
            let program = std::env::current_exe().unwrap();
            let shell = Command::new("sh").arg("-c").arg(command).arg(program).env(AS_CHILD, "1").output().unwrap();
            assert!(shell.status.success(), "{}", String::from_utf8_lossy(&shell.stderr));
            return;
        }
        let files = OpenFiles { soft_at_start: Some(256), soft: Some(2000), hard: Some(2000) };
        assert_eq!((open_files(), open_files()), (files, files));
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        // Setting an unchanged value reads another process's limit.
        let limit = |soft| prlimit(pid, Resource::Nofile, Rlimit { current: Some(soft), maximum: Some(2000) }).unwrap();
        assert_eq!(limit(2000).current, Some(2000), "it is inherited");
        restore_open_files(child.id()).unwrap();
        assert_eq!(limit(256).current, Some(256));
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        assert!(restore_open_files(0).is_err());
    }
}
