//! How much memory is free. What a file asks for is compared with it before it is allocated.

use crate::error::mib;
use crate::{Error, Result};

/// Refuses what takes more memory than is free; `advice` says what takes less.
pub(crate) fn check(bytes: usize, free: u64, advice: &str) -> Result<()> {
    if (bytes as u64) < free { Ok(()) } else { Err(too_little(bytes, free, advice)) }
}

/// The error of what takes more memory than the system gives.
pub(crate) fn too_little(bytes: usize, free: u64, advice: &str) -> Error {
    let (takes, free) = (mib(bytes as u64).ceil(), mib(free).ceil());
    Error::OutOfMemory(format!("this takes {takes} MiB of memory, and {free} MiB are free: {advice}"))
}

/// Free bytes: on Linux the available memory and swap, within the limits of the container and of the process; elsewhere the
/// address space.
pub(crate) fn free() -> u64 {
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let value = |path: &str, key: &str| {
        let words = file(path).lines().find_map(|line| Some(line.strip_prefix(key)?.trim_start().to_string()))?;
        words.split(' ').next()?.parse::<u64>().ok()
    };
    let kib = |path: &str, key: &str| value(path, key).map(|kib| kib << 10);
    let system = kib("/proc/meminfo", "MemAvailable:").map(|ram| ram + kib("/proc/meminfo", "SwapFree:").unwrap_or(0));
    let container = file("/sys/fs/cgroup/memory.max").trim().parse().ok();
    let used = || kib("/proc/self/status", "VmSize:").unwrap_or(0);
    let process = value("/proc/self/limits", "Max address space").map(|limit| limit.saturating_sub(used()));
    [system, container, process].into_iter().flatten().fold(usize::MAX as u64, u64::min)
}
