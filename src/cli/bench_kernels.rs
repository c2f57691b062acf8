//! `nanotern bench kernels`: times the ternary products of decoding and of prefill, compares each with its roofline, and
//! prints the layout that decoding would choose.

use super::out::outln;
use cpu_kernels::matrix::bench::{Place, Record, gemm, gemv, peak_gops, read_bandwidth};
use cpu_kernels::matrix::ternary_gemv::{Layout, Layouts};
use nanotern::backend::Level;
use nanotern::ops::MAX_GROUP;
use nanotern::{Error, Result};
use serde_json::json;

#[derive(clap::Args)]
pub struct KernelArgs {
    /// Shapes as OUTSxINPUTS.
    #[arg(long = "shape", value_parser = shape, default_values = ["2048x2048", "4096x4096", "4096x11008"])]
    shapes: Vec<(usize, usize)>,
    /// Inputs per scale.
    #[arg(long, default_value_t = 128)]
    group: usize,
    /// Rows of the product that represents prefill.
    #[arg(long, default_value_t = 128)]
    rows: usize,
    /// CPU instruction-set level; by default every level above scalar.
    #[arg(long, env = "NANOTERN_CPU_LEVEL")]
    cpu_level: Option<Level>,
    /// Print one JSON object on each line.
    #[arg(long)]
    json: bool,
}

/// Most values of a measured matrix, its factor and its result: 256 MiB of codes.
const MAX_VALUES: usize = 1 << 30;

fn shape(text: &str) -> Result<(usize, usize), String> {
    let sizes = text.split_once('x').and_then(|(outs, dim)| Some((outs.parse().ok()?, dim.parse().ok()?)));
    sizes.filter(|(outs, dim)| *outs > 0 && *dim > 0).ok_or_else(|| format!("{text}: a shape is OUTSxINPUTS"))
}

/// The limits of a product at a level, in 10^9 per second.
struct Limits {
    /// Bytes read from the cache.
    cache: f64,
    /// Bytes read from memory.
    dram: f64,
    /// Operations, if known; a multiply-add counts as two.
    compute: Option<f64>,
}

impl Limits {
    /// The most operations per second that a measured product could reach, in 10^9.
    fn roofline(&self, r: &Record) -> Option<f64> {
        let bandwidth = if r.place == Place::Dram { self.dram } else { self.cache };
        let by_bytes = bandwidth * 2.0 * (r.rows * r.outs * r.dim) as f64 / r.bytes as f64;
        self.compute.map(|compute| compute.min(by_bytes))
    }
}

pub fn run(args: &KernelArgs) -> Result<()> {
    for (outs, dim) in &args.shapes {
        let (group, rows) = (args.group, args.rows);
        let fits = (1..=MAX_GROUP).contains(&group) && group.is_multiple_of(32) && dim.is_multiple_of(group);
        let large = [(*outs, *dim), (rows, *outs), (rows, *dim)].iter().any(|(a, b)| a.saturating_mul(*b) > MAX_VALUES);
        if !fits || large || rows == 0 {
            return Err(Error::usage(format!(
                "{rows} rows times {outs}x{dim} in groups of {group}: a group is a multiple of 32 up to {MAX_GROUP} that \
                 divides the inputs, and no matrix has more than 2^30 values"
            )));
        }
    }
    let levels: Vec<Level> = match args.cpu_level {
        Some(level) if !level.is_available() => return Err(Error::Device(format!("this processor has no {level}"))),
        Some(level) => vec![level],
        None => Level::available().into_iter().filter(|l| *l != Level::Scalar).collect(),
    };
    let [cache, dram] = [8 << 20, 512 << 20].map(read_bandwidth);
    if !args.json {
        outln!("one thread reads {cache:.1} GB/s of 8 MiB, {dram:.1} GB/s of 512 MiB")?;
    }
    for level in levels {
        let limits = Limits { cache, dram, compute: peak_gops(level) };
        if let (Some(peak), false) = (limits.compute, args.json) {
            outln!("{level}: {peak:.0} GOPS of byte multiply-adds")?;
        }
        for shape in &args.shapes {
            measure(args, level, *shape, &limits)?;
        }
    }
    Ok(())
}

fn measure(args: &KernelArgs, level: Level, shape: (usize, usize), limits: &Limits) -> Result<()> {
    let chosen = Layouts::new(level, None).choose(shape.0, shape.1, args.group);
    for layout in Layout::of(level) {
        for place in [Place::Cache, Place::Dram] {
            let record = gemv(level, *layout, 1, shape, args.group, place);
            report(args, &record, Some(*layout == chosen), limits.roofline(&record))?;
        }
    }
    let record = gemm(level, args.rows, shape, args.group);
    report(args, &record, None, limits.roofline(&record))
}

fn report(args: &KernelArgs, r: &Record, chosen: Option<bool>, roofline: Option<f64>) -> Result<()> {
    let (layout, place) = (r.layout.map(|l| l.to_string()), format!("{:?}", r.place).to_lowercase());
    let fraction = roofline.map(|roofline| r.gops() / roofline);
    if args.json {
        let object = json!({
            "kernel": r.kernel, "level": r.level.to_string(), "layout": layout, "chosen": chosen, "rows": r.rows,
            "outs": r.outs, "inputs": r.dim, "group": r.group, "weights_in": place, "seconds": r.median,
            "gops": r.gops(), "gb_per_s": r.gbps(), "roofline_share": fraction,
        });
        return outln!("{object}");
    }
    let layout = layout.unwrap_or_default();
    let name = format!("{} {} {layout} {}x{}x{} {place}", r.kernel, r.level, r.rows, r.outs, r.dim);
    let percent = fraction.map_or(String::new(), |fraction| format!("{:4.0} % of the roofline", 100.0 * fraction));
    let mark = if chosen == Some(true) { "  chosen" } else { "" };
    outln!("{name:44} {:7.1} GOPS {:6.1} GB/s {percent}{mark}", r.gops(), r.gbps())
}
