//! Other shaders for an op, which need more than every device has, or suit some devices better. A variant takes the same `Args`
//! and buffers as the op's own shader and gives results within the same limits; those of the ternary product are the same bits. A
//! GPU uses it if it is faster there, which is measured when it is first needed.

use super::super::Slice;
use super::kept::Kept;
use super::{Wgpu, WgpuProgram};
use crate::Result;
use crate::graph::{DType, Graph, Node, Plan};
use crate::ops::QuantRows;
use cpu_kernels::ops::ternary_matmul::TernaryMatmulArgs;
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

    /// Those of an adapter, the largest first. None where subgroups differ in size.
    pub fn of(adapter: &wgpu::Adapter) -> Option<Self> {
        use wgpu::CooperativeScalarType::{F16, F32};
        let info = adapter.get_info();
        if !adapter.features().contains(Self::FEATURES) || info.subgroup_min_size != info.subgroup_max_size {
            return None;
        }
        let kinds = adapter.cooperative_matrix_properties();
        let has = |tile: &u32| {
            kinds.iter().any(|kind| {
                [kind.m_size, kind.n_size, kind.k_size] == [*tile; 3] && (kind.ab_type, kind.cr_type) == (F16, F32)
            })
        };
        let tile = [16, 8].into_iter().find(has)?;
        Some(Matrices { tile, width: info.subgroup_min_size })
    }
}

/// A shader that stands beside an op's own.
pub(super) struct Variant {
    pub name: &'static str,
    /// The op that it computes.
    pub op: &'static str,
    /// WGSL. With `matrices`, `coop_matT` is one in it, and TILE and WIDTH are as in [`Matrices`].
    shader: &'static str,
    /// Whether it needs cooperative matrices.
    matrices: bool,
    /// Whether it takes a node of these `Args`.
    takes: fn(&ArgWords) -> bool,
    /// Workgroups in x, y and z, for matrices of this size if it needs any.
    grid: fn(&ArgWords, u32) -> [u32; 3],
    /// Appends a node of a usual size that it takes, and that variants before it do not.
    trial: fn(&mut Graph),
}

/// A node runs the first that takes it and is faster than the op's own shader.
static VARIANTS: &[Variant] = &[
    Variant {
        name: "ternary_matmul_matrices",
        op: "ternary_matmul",
        shader: include_str!("../../../shaders/coop/ternary_matmul.wgsl"),
        matrices: true,
        takes: |words| {
            let a = TernaryMatmulArgs::from_words(words);
            a.rows > 8 && a.group.is_multiple_of(128)
        },
        grid: |words, tile| {
            let a = TernaryMatmulArgs::from_words(words);
            [a.outs.div_ceil(4 * tile), a.rows.div_ceil(2 * tile), 1]
        },
        trial: |g| ternary_product(g, 128),
    },
    // For Metal, which has no product of four bytes, and for DirectX 12 with the old compiler, which does not know it.
    Variant {
        name: "ternary_matmul_float",
        op: "ternary_matmul",
        shader: include_str!("../../../shaders/float/ternary_matmul.wgsl"),
        matrices: false,
        takes: |words| TernaryMatmulArgs::from_words(words).rows > 8,
        grid: |words, _| {
            let a = TernaryMatmulArgs::from_words(words);
            [a.outs.div_ceil(64), a.rows.div_ceil(32), 1]
        },
        trial: |g| ternary_product(g, 64),
    },
];

/// A ternary product with groups of this size.
fn ternary_product(g: &mut Graph, group: usize) {
    const ROWS: usize = 1024;
    let weight = g.ternary_weight("weight", 1024, 1024, group);
    let codes = g.persistent("codes", &[ROWS, 1024], DType::I8);
    let step = g.persistent("step", &[ROWS], DType::F32);
    g.ternary_matmul(QuantRows { codes, step }, &weight, 0..ROWS);
}

/// What a device could use, and what it uses.
#[derive(Debug)]
pub(super) struct Choice {
    matrices: Option<Matrices>,
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
    /// Uses every variant that the device allows, whatever is faster: for tests.
    pub fn prefer_variants(&mut self) {
        self.variants.used = Mutex::new(VARIANTS.iter().map(|variant| (variant.name, true)).collect());
    }

    /// The name of the variant that runs a node, if it is not the op's own shader.
    pub fn variant_of(&self, node: &Node) -> Option<&'static str> {
        self.variant(node).map(|variant| variant.name)
    }

    /// The variant that runs a node.
    pub(super) fn variant(&self, node: &Node) -> Option<&'static Variant> {
        VARIANTS.iter().find(|variant| {
            let fits = variant.op == node.op.name && (variant.takes)(&node.args);
            let allowed = !variant.matrices || self.variants.matrices.is_some();
            fits && allowed && self.uses(variant)
        })
    }

    /// The WGSL of a variant.
    pub(super) fn variant_source(&self, variant: &Variant) -> String {
        let Some(Matrices { tile, width }) = self.variants.matrices.filter(|_| variant.matrices) else {
            return variant.shader.to_string();
        };
        let shader = variant.shader.replace("coop_matT", &format!("coop_mat{tile}x{tile}"));
        format!(
            "enable f16;\nenable wgpu_cooperative_matrix;\nconst TILE = {tile}u;\nconst WIDTH = {width}u;\n{shader}"
        )
    }

    /// The workgroups of a node that a variant runs.
    pub(super) fn variant_grid(&self, variant: &Variant, args: &ArgWords) -> [u32; 3] {
        (variant.grid)(args, self.variants.matrices.map_or(0, |matrices| matrices.tile))
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
