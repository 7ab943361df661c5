//! Memory budgets that fit the container's memory limit, unless set by the operator.
//!
//! Otherwise a few slow clients would trigger the kernel's out-of-memory killer long before the default limits.

use std::path::{Path, PathBuf};

use tracing::{info, warn};

use crate::ground::config::{FrontendLimits, GroupLimits, OutboxLimits, Settings};

/// Divisor of the memory for client outboxes; the rest is for clients and socket buffers.
const OUTBOX_SHARE: usize = 4;

/// Divisor of the memory for unfinished messages, for request heads, and for names of groups.
const INBOUND_SHARE: usize = 8;

pub(super) fn fit_budgets(settings: &mut Settings) {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let limit = read(Path::new("/proc/self/cgroup")).and_then(|cgroups| memory_limit(&cgroups, read));
    let Some(limit) = limit else { return };
    if lower(settings, limit) {
        let Settings { outbox, limits, groups, .. } = &*settings;
        info!(
            memory_limit = limit,
            outboxes = outbox.total_bytes,
            unfinished = limits.unfinished_total_bytes,
            heads = limits.heads_total_bytes,
            group_names = groups.names_total_bytes,
            "memory budgets lowered to fit the cgroup's limit"
        );
    }
    let total = total(settings);
    if total > limit {
        warn!(
            memory_limit = limit,
            budgets = total,
            "the cgroup's memory limit is smaller than the sum of the budgets: lower --outbox-total-max-bytes, \
             --unfinished-total-max-bytes, --heads-total-max-bytes or --group-names-total-max-bytes, or raise the limit"
        );
    }
}

/// Lowers budgets; returns `false` if none changes.
fn lower(settings: &mut Settings, limit: usize) -> bool {
    let Settings { outbox, limits, groups, .. } = settings;
    let defaults = FrontendLimits::DEFAULT;
    let mut is_lower = false;
    for (budget, default, share) in [
        (&mut outbox.total_bytes, OutboxLimits::DEFAULT.total_bytes, OUTBOX_SHARE),
        (&mut limits.unfinished_total_bytes, defaults.unfinished_total_bytes, INBOUND_SHARE),
        (&mut limits.heads_total_bytes, defaults.heads_total_bytes, INBOUND_SHARE),
        (&mut groups.names_total_bytes, GroupLimits::DEFAULT.names_total_bytes, INBOUND_SHARE),
    ] {
        if *budget == default && limit / share < default {
            *budget = limit / share;
            is_lower = true;
        }
    }
    is_lower
}

fn total(Settings { outbox, limits, groups, .. }: &Settings) -> usize {
    let inbound = [limits.unfinished_total_bytes, limits.heads_total_bytes, groups.names_total_bytes];
    inbound.into_iter().fold(outbox.total_bytes, usize::saturating_add)
}

/// Smallest memory limit of the cgroups in `/proc/self/cgroup` and their parents; `None` without a limit.
fn memory_limit(cgroups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<usize> {
    let files = cgroups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        match controllers {
            "" => Some(("/sys/fs/cgroup", path, "memory.max")),
            of_v1 if of_v1.split(',').any(|name| name == "memory") => {
                Some(("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes"))
            }
            _ => None,
        }
    });
    files
        .flat_map(|(root, path, file)| {
            let folder = |folder: &Path| Some(PathBuf::from(root).join(folder.strip_prefix("/").ok()?).join(file));
            Path::new(path).ancestors().filter_map(folder).collect::<Vec<_>>()
        })
        // "max", and in cgroup v1 the largest number of pages, mean no limit.
        .filter_map(|file| read(&file)?.trim().parse().ok())
        .filter(|&bytes: &usize| bytes < 1 << 60)
        .min()
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::key::{AccessKey, AccessKeys};

    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn budgets_that_have_their_defaults_fit_into_the_limit() {
        let keys = AccessKeys::new(vec![AccessKey::random()]).unwrap();
        let mut settings = Settings::embedded(keys, Vec::new(), true);
        assert!(!lower(&mut settings, 64 * 1024 * MIB));
        settings.limits.heads_total_bytes = 100 * MIB;
        assert!(lower(&mut settings, 128 * MIB));
        assert_eq!((settings.outbox.total_bytes, settings.limits.unfinished_total_bytes), (32 * MIB, 16 * MIB));
        assert_eq!((settings.groups.names_total_bytes, total(&settings)), (16 * MIB, 164 * MIB));
        assert_eq!(settings.limits.heads_total_bytes, 100 * MIB, "a given number stays");
    }

    #[test]
    fn the_smallest_limit_of_a_cgroup_and_its_parents_counts() {
        let read = |path: &Path| {
            let text = match path.to_str()? {
                "/sys/fs/cgroup/pod/node/memory.max" => "max\n",
                "/sys/fs/cgroup/pod/memory.max" => "134217728\n",
                "/sys/fs/cgroup/memory/pod/memory.limit_in_bytes" => "9223372036854771712\n",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes" => "268435456\n",
                _ => return None,
            };
            Some(text.to_owned())
        };
        assert_eq!(memory_limit("0::/pod/node\n", read), Some(128 * MIB));
        assert_eq!(memory_limit("5:cpu,memory:/pod\n1:name=systemd:/x\n", read), Some(256 * MIB));
        assert_eq!(memory_limit("0::/other\n\nx", read), None);
    }
}
