//! Compiles translated shaders, the same text as for NVRTC, with the host's C++ compiler and runs them on the CPU.

use nanotern::backend::cuda::{Entry, Kernel, PRELUDE};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Command;
use tempfile::TempDir;

/// A buffer of a call.
pub enum Buffer {
    Words(Vec<u32>),
    /// The same buffer as an earlier one.
    Same(usize),
}

/// Launches on the same buffers, one after the other.
pub struct Call {
    /// Each a function, by its number among those of all kernels, its grid, and the bytes of shared memory that it adds.
    pub launches: Vec<(usize, [u32; 3], u32)>,
    pub args: [u32; 16],
    pub buffers: Vec<Buffer>,
}

pub struct Emulator {
    dir: TempDir,
}

impl Emulator {
    /// Compiles kernels, by name. Without a C++ compiler it fails with NANOTERN_REQUIRE_CXX=1 and otherwise returns `None`.
    pub fn new(kernels: &[(&str, Kernel)]) -> Option<Emulator> {
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
        if Command::new(&compiler).arg("--version").output().is_err() {
            assert!(std::env::var("NANOTERN_REQUIRE_CXX").as_deref() != Ok("1"), "no {compiler}, and it is required");
            let _ = writeln!(std::io::stderr(), "NOT TESTED: translated shaders on the CPU, for want of {compiler}");
            return None;
        }
        let mut source = format!("{}\n{PRELUDE}\n", include_str!("emulator.h"));
        let mut table = String::new();
        for (name, kernel) in kernels {
            let text = &kernel.source;
            writeln!(source, "namespace n_{name} {{\n{text}}}").unwrap();
            let barriers = text.contains("__syncthreads");
            for Entry { name: function, block: [x, y, z], .. } in &kernel.entries {
                let kernel = format!("n_{name}::{function}");
                writeln!(table, "{{\"{function}\", call<{kernel}>, count({kernel}), {{{x}, {y}, {z}}}, {barriers}}},")
                    .unwrap();
            }
        }
        let entries: usize = kernels.iter().map(|(_, kernel)| kernel.entries.len()).sum();
        write!(source, "const Entry table[] = {{\n{table}}};\nconst size_t entries = {entries};\n").unwrap();
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("kernels.cpp"), source).unwrap();
        for words in [
            "-std=c++17 -O1 -U_FORTIFY_SOURCE -w -fPIC -c kernels.cpp",
            "kernels.o -o kernels",
            "kernels.o -shared -o libcuda.so.1",
        ] {
            let output = Command::new(&compiler).args(words.split(' ')).current_dir(dir.path()).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        Some(Emulator { dir })
    }

    /// The library path with which the driver is the emulated one.
    pub fn libraries(&self) -> OsString {
        let others = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let all = std::iter::once(self.dir.path().to_path_buf()).chain(std::env::split_paths(&others));
        std::env::join_paths(all).unwrap()
    }

    /// Runs calls; returns the words of each buffer after each call.
    pub fn run(&self, calls: &[Call]) -> Vec<Vec<Vec<u32>>> {
        let mut input: Vec<u32> = Vec::new();
        for call in calls {
            input.push(call.launches.len() as u32);
            input.extend(
                call.launches.iter().flat_map(|(function, [x, y, z], shared)| [*function as u32, *x, *y, *z, *shared]),
            );
            input.extend(call.args);
            input.push(call.buffers.len() as u32);
            for buffer in &call.buffers {
                match buffer {
                    Buffer::Words(words) => input.extend([&[u32::MAX, words.len() as u32], &words[..]].concat()),
                    Buffer::Same(i) => input.extend([*i as u32, 0]),
                }
            }
        }
        let (from, to) = (self.dir.path().join("input"), self.dir.path().join("output"));
        std::fs::write(&from, bytemuck::cast_slice::<u32, u8>(&input)).unwrap();
        let output = Command::new(self.dir.path().join("kernels")).args([&from, &to]).output().unwrap();
        assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        let words: Vec<u32> = bytemuck::pod_collect_to_vec(&std::fs::read(&to).unwrap());
        let mut rest = &words[..];
        let mut take = |n: usize| {
            let (now, later) = rest.split_at(n);
            rest = later;
            now.to_vec()
        };
        let mut results = Vec::new();
        for call in calls {
            let mut lengths: Vec<usize> = Vec::new();
            for buffer in &call.buffers {
                lengths.push(match buffer {
                    Buffer::Words(words) => words.len(),
                    Buffer::Same(i) => lengths[*i],
                });
            }
            results.push(lengths.into_iter().map(&mut take).collect());
        }
        assert!(rest.is_empty(), "{} words too many came back", rest.len());
        results
    }
}
