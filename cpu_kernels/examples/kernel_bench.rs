//! Speed of the ternary products on one thread, beside the limits of the machine:
//! `cargo run --release -p cpu_kernels --example kernel_bench [filter]`, where the filter is part of a line's name.

use cpu_kernels::bench::{self, Place, Record};
use cpu_kernels::{Level, ternary_gemv::Layout};

const SHAPES: [(usize, usize); 4] = [(256, 2048), (2048, 2048), (4096, 4096), (4096, 11008)];
const GROUP: usize = 128;

fn wanted(name: &str) -> bool {
    std::env::args().nth(1).is_none_or(|filter| name.contains(&filter))
}

fn limits(levels: &[Level]) {
    let reads = [256 << 10, 8 << 20, 512 << 20].map(bench::read_bandwidth);
    println!("limits: read {reads:.1?} GB/s of 256 KiB, 8 MiB, 512 MiB");
    for &level in levels {
        if let Some(peak) = bench::peak_gops(level) {
            println!("limits: {level} {peak:.0} GOPS of byte multiply-adds");
        }
    }
}

fn print(name: &str, r: &Record) {
    let best = r.gops() * r.median / r.least;
    println!("{name:52} {:7.1} GOPS (best {best:7.1}) {:6.1} GB/s", r.gops(), r.gbps());
}

fn main() {
    let levels: Vec<Level> = Level::available().into_iter().rev().filter(|&l| l != Level::Scalar).collect();
    if wanted("limits") {
        limits(&levels);
    }
    for shape @ (outs, dim) in SHAPES {
        for place in [Place::Cache, Place::Dram] {
            for &level in &levels {
                for &layout in Layout::of(level) {
                    for rows in [1, 2, 4, 8, 128] {
                        let name = format!("gemv {level} {layout} {rows}x{outs}x{dim} {place:?}");
                        if wanted(&name) {
                            print(&name, &bench::gemv(level, layout, rows, shape, GROUP, place));
                        }
                    }
                }
            }
        }
    }
    for rows in [64, 128, 512] {
        for shape @ (outs, dim) in SHAPES {
            for &level in &levels {
                let name = format!("gemm {level} {rows}x{outs}x{dim}");
                if wanted(&name) {
                    print(&name, &bench::gemm(level, rows, shape, GROUP));
                }
            }
        }
    }
}
