//! Other shaders for an op, which need more than every device has, or suit some devices better. A variant takes the same `Args`
//! and buffers as the op's own shader and gives results within the same limits. What a forward pass computes has the same bits in
//! each. A GPU uses a variant if it is faster there, which is measured when it is first needed.

use super::super::Slice;
use super::kept::Kept;
use super::shader::source_with;
use super::{Wgpu, WgpuProgram};
use crate::Result;
use crate::graph::{DType, Graph, Node, Plan, TensorId};
use crate::ops::{self, Product, QuantRows, SMALL, TernaryWeight};
use cpu_kernels::ops::matmul::MatmulArgs;
use cpu_kernels::ops::matmul_add::MatmulAddArgs;
use cpu_kernels::ops::ternary_matmul::TernaryMatmulArgs;
use cpu_kernels::ops::ternary_matmul_backward_input::TernaryMatmulBackwardInputArgs;
use cpu_kernels::ops::ternary_matmul_backward_weight::TernaryMatmulBackwardWeightArgs;
use cpu_kernels::{ArgWords, Args};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Cooperative matrices of f16 with sums in f32, as a device has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Matrices {
    /// Rows and columns.
    pub tile: u32,
    /// Threads of a subgroup, which share a matrix.
    pub width: u32,
}

impl Matrices {
    /// What a device must have.
    pub const FEATURES: wgpu::Features = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX
        .union(wgpu::Features::SHADER_F16)
        .union(wgpu::Features::SUBGROUP);

    /// Tiles, and the bytes of workgroup memory that shaders take with them.
    const TILES: [(u32, u32); 2] = [(16, 40 << 10), (8, 32 << 10)];

    /// Those of an adapter, the largest that its workgroup memory is enough for. None where subgroups differ in size.
    pub fn of(adapter: &wgpu::Adapter) -> Option<Self> {
        use wgpu::CooperativeScalarType::{F16, F32};
        let info = adapter.get_info();
        if !adapter.features().contains(Self::FEATURES) || info.subgroup_min_size != info.subgroup_max_size {
            return None;
        }
        let kinds = adapter.cooperative_matrix_properties();
        let memory = adapter.limits().max_compute_workgroup_storage_size;
        let has = |(tile, takes): &(u32, u32)| {
            let fits = |kind: &wgpu::CooperativeMatrixProperties| {
                [kind.m_size, kind.n_size, kind.k_size] == [*tile; 3] && (kind.ab_type, kind.cr_type) == (F16, F32)
            };
            memory >= *takes && kinds.iter().any(fits)
        };
        let (tile, _) = Self::TILES.into_iter().find(has)?;
        Some(Matrices { tile, width: info.subgroup_min_size })
    }
}

/// Workgroups in x, y and z, for matrices of a size if there are any.
type Grid = fn(&ArgWords, u32) -> [u32; 3];

/// A shader that stands beside an op's own.
pub(super) struct Variant {
    pub name: &'static str,
    /// The op that it computes.
    pub op: &'static str,
    /// WGSL. With `matrices`, `coop_matT` is one in it, and TILE and WIDTH are as in [`Matrices`].
    shader: fn() -> String,
    /// Whether it needs cooperative matrices.
    matrices: bool,
    /// Whether it takes a node of these `Args`.
    takes: fn(&ArgWords) -> bool,
    /// Its entry points.
    passes: &'static [(&'static str, Grid)],
    /// Words of the memory in which passes hand results on.
    scratch: fn(&ArgWords) -> usize,
    /// Appends a node of a usual size that it takes, and that variants before it do not.
    trial: fn(&mut Graph),
}

/// The variant of a matrix product: the op's own shader with other passes, in small tiles. The last two are which `Args` it takes,
/// of those that fill a tile, and its trial.
macro_rules! product {
    ($name:literal, $op:ident, $args:ident, $takes:expr, $trial:expr) => {
        Variant {
            name: $name,
            op: ops::$op.name,
            matrices: true,
            shader: || source_with(&ops::$op, &[("gemm_passes", include_str!("../../../shaders/coop/gemm.wgsl"))]),
            takes: |words| {
                let (a, takes): ($args, fn($args) -> bool) = (Args::from_words(words), $takes);
                takes(a) && Product::from(a).fills_a_tile()
            },
            passes: &[
                ("matrices", |words, _| Product::from($args::from_words(words)).small().tiles(SMALL)),
                ("finish_matrices", |words, _| Product::from($args::from_words(words)).small().sums(SMALL)),
            ],
            scratch: |words| Product::from($args::from_words(words)).small().scratch(),
            trial: $trial,
        }
    };
}

/// Rows and columns of the matrices of trials.
const TRIAL: usize = 1024;

/// A node runs the first that takes it and is faster than the op's own shader.
static VARIANTS: &[Variant] = &[
    Variant {
        name: "ternary_matmul_matrices",
        op: "ternary_matmul",
        shader: || include_str!("../../../shaders/coop/ternary_matmul.wgsl").to_string(),
        matrices: true,
        takes: |words| {
            let a = TernaryMatmulArgs::from_words(words);
            a.rows > 8 && a.group.is_multiple_of(128)
        },
        passes: &[("main", |words, tile| {
            let a = TernaryMatmulArgs::from_words(words);
            [a.outs.div_ceil(4 * tile), a.rows.div_ceil(2 * tile), 1]
        })],
        scratch: |_| 0,
        trial: |g| ternary_product(g, 128),
    },
    // For Metal, which has no product of four bytes, and for DirectX 12 with the old compiler, which does not know it.
    Variant {
        name: "ternary_matmul_float",
        op: "ternary_matmul",
        shader: || include_str!("../../../shaders/float/ternary_matmul.wgsl").to_string(),
        matrices: false,
        takes: |words| TernaryMatmulArgs::from_words(words).rows > 8,
        passes: &[("main", |words, _| {
            let a = TernaryMatmulArgs::from_words(words);
            [a.outs.div_ceil(64), a.rows.div_ceil(32), 1]
        })],
        scratch: |_| 0,
        trial: |g| ternary_product(g, 64),
    },
    product!(
        "ternary_matmul_backward_input_matrices",
        TERNARY_MATMUL_BACKWARD_INPUT,
        TernaryMatmulBackwardInputArgs,
        |_| true,
        |g| {
            let [dy, dx] = ["dy", "dx"].map(|name| square(g, name));
            let TernaryWeight { codes, scales, outs, dim, group } = g.ternary_weight("weight", TRIAL, TRIAL, 128);
            let (rows, beta, [x_row, first, second, fast]) = (outs, 0.0, [0; 4]);
            let args = TernaryMatmulBackwardInputArgs { rows, outs, dim, group, x_row, beta, first, second, fast };
            g.push(&ops::TERNARY_MATMUL_BACKWARD_INPUT, args, &[dy, codes, scales, dx]);
        }
    ),
    product!(
        "ternary_matmul_backward_weight_matrices",
        TERNARY_MATMUL_BACKWARD_WEIGHT,
        TernaryMatmulBackwardWeightArgs,
        |_| true,
        |g| {
            let ([dy, dw], x) = (["dy", "dw"].map(|name| square(g, name)), quantized(g));
            let [rows, outs, dim] = [TRIAL as u32; 3];
            let args = TernaryMatmulBackwardWeightArgs { rows, outs, dim, x_row: 0, fast: 0 };
            g.push(&ops::TERNARY_MATMUL_BACKWARD_WEIGHT, args, &[dy, x.codes, x.step, dw]);
        }
    ),
    // Not the head's logits, x w^T: their bits do not depend on the variant either.
    product!(
        "matmul_matrices",
        MATMUL,
        MatmulArgs,
        |a| a.a_transposed != 0 || a.b_transposed == 0 || a.symmetric != 0,
        |g| {
            let tensors = ["a", "b", "d"].map(|name| square(g, name));
            let [m, n, k] = [TRIAL as u32; 3];
            g.push(&ops::MATMUL, MatmulArgs { m, n, k, ..MatmulArgs::default() }, &tensors);
        }
    ),
    product!("matmul_add_matrices", MATMUL_ADD, MatmulAddArgs, |_| true, |g| {
        let [a, b, c] = ["a", "b", "c"].map(|name| g.persistent(name, &[1, TRIAL, TRIAL], DType::F32));
        g.matmul_add(1.0, a, b, 1.0, c);
    }),
];

fn square(g: &mut Graph, name: &str) -> TensorId {
    g.persistent(name, &[TRIAL, TRIAL], DType::F32)
}

/// A ternary product with groups of this size.
fn ternary_product(g: &mut Graph, group: usize) {
    let weight = g.ternary_weight("weight", TRIAL, TRIAL, group);
    let x = quantized(g);
    g.ternary_matmul(x, &weight, 0..TRIAL);
}

fn quantized(g: &mut Graph) -> QuantRows {
    let codes = g.persistent("codes", &[TRIAL, TRIAL], DType::I8);
    QuantRows { codes, step: g.persistent("step", &[TRIAL], DType::F32) }
}

impl Variant {
    /// Its WGSL, for a device with such matrices, if it has any.
    pub fn source(&self, matrices: Option<Matrices>) -> String {
        let Some(Matrices { tile, width }) = matrices.filter(|_| self.matrices) else { return (self.shader)() };
        let shader = (self.shader)().replace("coop_matT", &format!("coop_mat{tile}x{tile}"));
        format!(
            "enable f16;\nenable wgpu_cooperative_matrix;\nconst TILE = {tile}u;\nconst WIDTH = {width}u;\n{shader}"
        )
    }

    /// Its entry points.
    pub fn entries(&self) -> Vec<&'static str> {
        self.passes.iter().map(|(entry, _)| *entry).collect()
    }

    /// Workgroups of each pass for a node.
    pub fn grids(&self, words: &ArgWords, matrices: Option<Matrices>) -> Vec<[u32; 3]> {
        let tile = matrices.map_or(0, |matrices| matrices.tile);
        self.passes.iter().map(|(_, grid)| grid(words, tile)).collect()
    }
}

/// What a device could use, and what it uses.
#[derive(Debug)]
pub(super) struct Choice {
    pub matrices: Option<Matrices>,
    /// The answers of earlier runs.
    kept: Kept,
    /// Whether each variant is used, by its name, as far as this is known.
    used: Mutex<HashMap<&'static str, bool>>,
}

impl Choice {
    pub fn new(adapter: &wgpu::Adapter, kept: Kept) -> Self {
        Choice { matrices: Matrices::of(adapter), kept, used: Mutex::default() }
    }

    /// The features that the device must be opened with.
    pub fn features(&self) -> wgpu::Features {
        self.matrices.map_or(wgpu::Features::empty(), |_| Matrices::FEATURES)
    }

    /// The consent to features that wgpu has on trial.
    pub fn experimental(&self) -> wgpu::ExperimentalFeatures {
        match self.matrices {
            None => wgpu::ExperimentalFeatures::disabled(),
            #[expect(unsafe_code, reason = "wgpu does not check the use of cooperative matrices")]
            // SAFETY: only the shaders of this module use the features. Their matrices lie within workgroup memory, of which they
            // load and store whole tiles in uniform control flow, and have a size that the device offers.
            Some(_) => unsafe { wgpu::ExperimentalFeatures::enabled() },
        }
    }
}

impl Wgpu {
    /// Uses every variant that the device allows, or none, whatever is faster: for tests.
    pub fn use_variants(&mut self, used: bool) {
        self.variants.used = Mutex::new(VARIANTS.iter().map(|variant| (variant.name, used)).collect());
    }

    /// Whether the device has cooperative matrices.
    pub fn has_matrices(&self) -> bool {
        self.variants.matrices.is_some()
    }

    /// The name of the variant that runs a node, if it is not the op's own shader.
    pub fn variant_of(&self, node: &Node) -> Option<&'static str> {
        self.variant(node).map(|variant| variant.name)
    }

    /// Bytes of the memory in which the passes of variants hand results on: what the node that needs most takes.
    pub(super) fn variant_scratch(&self, nodes: &[Node]) -> usize {
        let words = |node| self.variant(node).map_or(0, |variant| (variant.scratch)(&node.args));
        nodes.iter().map(words).max().unwrap_or(0).saturating_mul(4)
    }

    /// The variant that runs a node.
    pub(super) fn variant(&self, node: &Node) -> Option<&'static Variant> {
        VARIANTS.iter().find(|variant| {
            let fits = variant.op == node.op.name && (variant.takes)(&node.args);
            let allowed = !variant.matrices || self.has_matrices();
            fits && allowed && self.uses(variant)
        })
    }

    fn uses(&self, variant: &'static Variant) -> bool {
        let known = self.used().get(variant.name).copied();
        known.unwrap_or_else(|| self.try_out(variant))
    }

    fn used(&self) -> std::sync::MutexGuard<'_, HashMap<&'static str, bool>> {
        self.variants.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Measures whether a variant is faster than the op's shader, and keeps the answer. It never is on a software device.
    fn try_out(&self, variant: &'static Variant) -> bool {
        if let Some(&[faster]) = self.variants.kept.read(variant.name).as_deref() {
            self.used().insert(variant.name, faster == 1);
            return faster == 1;
        }
        let time = |used| {
            self.used().insert(variant.name, used);
            self.time(variant).unwrap_or(f64::INFINITY)
        };
        let faster = self.info.is_gpu() && time(false) > time(true);
        self.used().insert(variant.name, faster);
        self.variants.kept.write(variant.name, &[u8::from(faster)]);
        faster
    }

    /// Seconds of a variant's trial, with the shader that is in use.
    fn time(&self, variant: &Variant) -> Result<f64> {
        /// Runs that are timed together, so that their submission does not count.
        const RUNS: usize = 10;
        let mut g = Graph::new();
        let (section, ()) = g.section("trial", variant.trial);
        let mut program = WgpuProgram::new(self, &Plan::new(g))?;
        let mut best = f64::INFINITY;
        for _ in 0..4 {
            let start = Instant::now();
            for _ in 0..RUNS {
                program.run(section.nodes())?;
            }
            pollster::block_on(program.read(&[Slice { slot: 0, start: 0, bytes: 4 }]))?;
            best = best.min(start.elapsed().as_secs_f64());
        }
        Ok(best / RUNS as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use naga::valid::{Capabilities, ValidationFlags, Validator};
    use naga::{AddressSpace, proc::Layouter};

    /// For every size of a matrix and of a subgroup, not only those of this machine.
    #[test]
    fn shaders_are_valid_and_fit() {
        let sizes = Matrices::TILES.into_iter().flat_map(|tile| [8, 16, 32, 64].map(|width| (tile, width)));
        for ((tile, memory), width) in sizes {
            for variant in VARIANTS {
                let what = format!("{} with {tile} x {tile} by {width} threads", variant.name);
                let source = variant.source(Some(Matrices { tile, width }));
                let module = naga::front::wgsl::parse_str(&source).unwrap_or_else(|e| panic!("{what}: {e:?}"));
                let needs = Capabilities::SHADER_FLOAT16 | Capabilities::COOPERATIVE_MATRIX | Capabilities::SUBGROUP;
                let mut validator = Validator::new(ValidationFlags::all(), needs);
                validator
                    .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
                    .subgroup_operations(naga::valid::SubgroupOperationSet::all());
                let info = validator.validate(&module).unwrap_or_else(|e| panic!("{what}: {e:?}"));
                let mut layouts = Layouter::default();
                layouts.update(module.to_ctx()).unwrap();
                for entry in variant.entries() {
                    let at = module.entry_points.iter().position(|e| e.name == entry).expect(entry);
                    let used =
                        |handle: naga::Handle<naga::GlobalVariable>| !info.get_entry_point(at)[handle].is_empty();
                    let shared = module.global_variables.iter().filter(|(handle, _)| used(*handle));
                    let shared = shared.filter(|(_, v)| v.space == AddressSpace::WorkGroup);
                    let bytes: u32 = shared.map(|(_, v)| layouts[v.ty].size.next_multiple_of(16)).sum();
                    assert!(bytes <= memory, "{what}, {entry}: {bytes} bytes of workgroup memory");
                }
            }
        }
    }
}
