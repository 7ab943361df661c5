//! Cores available to this process, according to the system.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Returns the numbers of the cores in ascending order.
pub fn allowed() -> Result<Vec<u16>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.and_then(parse).context("the system does not tell which cores there are")
}

/// Binds all current and future threads of a process to one core.
pub fn pin(pid: u32, core: u16) -> Result<()> {
    let mut taskset = Command::new("taskset");
    taskset.args(["-a", "-c", "-p", &core.to_string(), &pid.to_string()]).stdout(Stdio::null());
    let status = taskset.status().context("running taskset")?;
    ensure!(status.success(), "process {pid} can't be bound to core {core}");
    Ok(())
}

/// Parses a list such as `0-2,5`.
fn parse(list: &str) -> Option<Vec<u16>> {
    let mut cores = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cores.extend(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?);
    }
    Some(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_single_cores_are_read() {
        assert_eq!(parse("\t0-2,5\n"), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse("7"), Some(vec![7]));
        assert_eq!(parse("x"), None);
        assert!(!allowed().unwrap().is_empty());
    }
}
