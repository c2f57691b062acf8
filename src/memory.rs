//! How much memory is free. What a file asks for is compared with it before it is allocated.

use crate::error::mib;
use crate::{Error, Result};
use std::path::Path;

/// Refuses what takes more memory than is free; `advice` says what takes less.
pub(crate) fn check(bytes: usize, free: u64, advice: &str) -> Result<()> {
    if (bytes as u64) < free { Ok(()) } else { Err(too_little(bytes, free, advice)) }
}

/// The error of what takes more memory than the system gives.
pub(crate) fn too_little(bytes: usize, free: u64, advice: &str) -> Error {
    let (takes, free) = (mib(bytes as u64).ceil(), mib(free).ceil());
    Error::OutOfMemory(format!("this takes {takes} MiB of memory, and {free} MiB are free: {advice}"))
}

/// Free bytes: on Linux the available memory and swap, within what is left to the container and to the process; elsewhere the
/// address space.
pub(crate) fn free() -> u64 {
    let kib = |path: &str, key: &str| value(Path::new(path), key).map(|kib| kib << 10);
    let system = kib("/proc/meminfo", "MemAvailable:").map(|ram| ram + kib("/proc/meminfo", "SwapFree:").unwrap_or(0));
    let container = left_to_groups(Path::new("/sys/fs/cgroup"), &text(Path::new("/proc/self/cgroup")));
    let used = || kib("/proc/self/status", "VmSize:").unwrap_or(0);
    let limit = value(Path::new("/proc/self/limits"), "Max address space");
    let process = limit.map(|limit| limit.saturating_sub(used()));
    [system, container, process].into_iter().flatten().fold(usize::MAX as u64, u64::min)
}

/// The least that is left to the control groups in `list`, which is a `/proc/self/cgroup`, and to the groups around them.
/// Pages of files that were not used of late can be given up, so they count as free.
fn left_to_groups(root: &Path, list: &str) -> Option<u64> {
    let left = |group: &Path, [limit, used, unused]: [&str; 3]| {
        let number = |name: &str| text(&group.join(name)).trim().parse::<u64>().ok();
        let used = number(used)?.saturating_sub(value(&group.join("memory.stat"), unused).unwrap_or(0));
        Some(number(limit)?.saturating_sub(used))
    };
    let of_line = |line: &str| {
        // `0::/a/b` in version 2; `4:cpu,memory:/a/b` in version 1.
        let [_, controllers, path] = line.splitn(3, ':').collect::<Vec<_>>().try_into().ok()?;
        let (root, names) = match controllers {
            "" => (root.to_path_buf(), ["memory.max", "memory.current", "inactive_file "]),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "])
            }
            _ => return None,
        };
        Path::new(path.trim_start_matches('/')).ancestors().filter_map(|group| left(&root.join(group), names)).min()
    };
    list.lines().filter_map(of_line).min()
}

/// The contents of a small file of the system; empty if it has none.
fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The number after `key` in a file of the system.
fn value(path: &Path, key: &str) -> Option<u64> {
    text(path).lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;

    #[test]
    fn what_a_container_uses_is_not_free() {
        let dir = tempfile::tempdir().unwrap();
        let group = |path: &str, files: [(&str, &str); 3]| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(&path).unwrap();
            files.iter().for_each(|(name, text)| std::fs::write(path.join(name), text).unwrap());
        };
        let two = |limit, used, stat| [("memory.max", limit), ("memory.current", used), ("memory.stat", stat)];
        group("a", two("1000\n", "700\n", "anon 600\ninactive_file 50\nactive_file 9\n"));
        group("a/b", two("max\n", "400\n", "inactive_file 50\n"));
        group("c", two("500\n", "600\n", "inactive_file 0\n"));
        let one = [("memory.limit_in_bytes", "90"), ("memory.usage_in_bytes", "30"), ("memory.stat", "cache 7\n")];
        group("memory/d", one);
        let left = |list: &str| left_to_groups(dir.path(), list);
        assert_eq!(left("0::/a\n"), Some(350));
        assert_eq!(left("0::/a/b\n"), Some(350), "the group around it");
        assert_eq!(left("0::/c\n"), Some(0));
        assert_eq!(left("1:cpu:/a\n0::/elsewhere:of\n"), None);
        assert_eq!(left("4:cpuset,memory:/d\n0::/\n"), Some(60));
        assert_eq!(left("4:memory:/d/gone\n0::/a\n"), Some(60));
        assert_eq!(left(""), None);
    }
}
