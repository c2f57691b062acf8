//! Kernels in CUDA C++ for what WGSL cannot say. `shaders/cuda/OP.cu` stands beside the translated shader of the op and takes the
//! same parameters; a node runs it where the device has the instructions and the kernel takes the node's sizes.

use super::tiles::Tiles;
use super::translate::{Entry, Kernel, translate};
use crate::Result;
use crate::backend::shader_source;
use crate::graph::{Node, Op, Pass};
use cpu_kernels::ops::attention::AttentionArgs;
use cpu_kernels::ops::attention_backward_kv::AttentionBackwardKvArgs;
use cpu_kernels::ops::attention_backward_q::AttentionBackwardQArgs;
use cpu_kernels::ops::matmul::MatmulArgs;
use cpu_kernels::ops::ternary_matmul::TernaryMatmulArgs;
use cpu_kernels::ops::ternary_matmul_backward_input::TernaryMatmulBackwardInputArgs;
use cpu_kernels::ops::ternary_matmul_backward_weight::TernaryMatmulBackwardWeightArgs;
use cpu_kernels::{ArgWords, Args, matrix};

/// A pass of a native kernel.
pub struct NativePass {
    /// Its function.
    pub function: &'static str,
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of shared memory, besides what the function declares.
    pub shared: u32,
    /// Blocks in x, y and z; none where a node does not need the pass.
    pub grid: fn(&ArgWords) -> [u32; 3],
}

/// A kernel in CUDA C++.
pub struct Native {
    /// Its name: that of the op, and what it computes with.
    pub name: &'static str,
    /// The op that it computes.
    pub op: &'static str,
    /// CUDA C++ that follows [`super::PRELUDE`].
    pub source: &'static str,
    /// The least compute capability.
    pub capability: (usize, usize),
    /// Whether it gives the bits of the scalar kernel, not only results within the op's limits.
    pub exact: bool,
    /// Whether it takes a node of these `Args`.
    pub takes: fn(&ArgWords) -> bool,
    /// What runs, one after the other.
    pub passes: &'static [NativePass],
    /// Words of the memory in which passes hand results on, the last parameter.
    pub scratch: fn(&ArgWords) -> usize,
}

/// The least compute capability of the kernels that multiply floats as terms of f16.
pub(super) const PAIRS: (usize, usize) = (8, 0);

macro_rules! source {
    ($($file:literal),*) => {
        concat!($(include_str!(concat!("../../../shaders/cuda/", $file))),*)
    };
}

/// The kernel `name` for the products of an op: what its source is to define, its tiles, the bytes of shared memory of a stage,
/// and the nodes that it takes.
macro_rules! product {
    ($name:literal, $op:literal, [$($key:ident $value:literal),*], $tiles:expr, $shared:expr, $takes:expr) => {
        Native {
            name: $name,
            op: $op,
            source: concat!(
                "#define PRODUCT ", $name, "\n#define FINISH ", $name, "_finish\n",
                $("#define ", stringify!($key), " ", $value, "\n",)*
                source!("tensor.cuh", "product.cuh"),
                include_str!(concat!("../../../shaders/cuda/", $op, ".cu")),
                "#undef PRODUCT\n#undef FINISH\n" $(, "#undef ", stringify!($key), "\n")*
            ),
            capability: PAIRS,
            exact: false,
            takes: $takes,
            passes: &[
                NativePass { function: $name, threads: 256, shared: 2 * ($shared), grid: |words| $tiles(words).grid() },
                pass(concat!($name, "_finish"), |words| $tiles(words).sums()),
            ],
            scratch: |words| $tiles(words).scratch(),
        }
    };
}

/// The kernel for matrix products of one layout: whether their shared side is along the rows of a, and of b. It has so many terms of
/// f16 for each float.
macro_rules! matmul {
    ($name:literal, $a_along:literal $a:expr, $b_along:literal $b:expr, $terms:literal) => {
        product!(
            $name,
            "matmul",
            [A_ALONG $a_along, B_ALONG $b_along, FLOAT_TERMS $terms],
            Tiles::matmul,
            $terms * ($a + $b),
            // Few rows times a transposed matrix read it at the speed of memory without tensor cores.
            |words| {
                let a = MatmulArgs::from_words(words);
                let layout = (a.a_transposed == 0, a.b_transposed != 0) == ($a_along, $b_along);
                layout && a.m > 8 && terms(a.fast) == $terms
            }
        )
    };
}

/// Two gradients of a ternary product, with so many terms of f16 for each float. Rows of dy are read four elements at a time.
macro_rules! backward_input {
    ($name:literal, $terms:literal) => {
        product!(
            $name,
            "ternary_matmul_backward_input",
            [FLOAT_TERMS $terms],
            Tiles::backward_input,
            $terms * ALONG + ACROSS,
            |words| {
                let a = TernaryMatmulBackwardInputArgs::from_words(words);
                a.outs.is_multiple_of(4) && terms(a.fast) == $terms
            }
        )
    };
}
macro_rules! backward_weight {
    ($name:literal, $terms:literal) => {
        product!(
            $name,
            "ternary_matmul_backward_weight",
            [FLOAT_TERMS $terms],
            Tiles::backward_weight,
            ($terms + 1) * ACROSS,
            |words| {
                let a = TernaryMatmulBackwardWeightArgs::from_words(words);
                a.outs.is_multiple_of(4) && terms(a.fast) == $terms
            }
        )
    };
}

/// Attention or a part of its gradient, for heads of up to 64 values.
macro_rules! attention {
    ($name:literal, $op:literal, $args:ident, $heads:ident, $shared:expr) => {
        Native {
            name: $name,
            op: $op,
            source: concat!(
                source!("tensor.cuh", "attention.cuh"),
                include_str!(concat!("../../../shaders/cuda/", $op, ".cu"))
            ),
            capability: PAIRS,
            exact: false,
            takes: |words| $args::from_words(words).head_dim <= 64,
            passes: &[NativePass {
                function: $name,
                threads: 256,
                shared: $shared,
                grid: |words| {
                    let a = $args::from_words(words);
                    [a.seq.div_ceil(128), a.$heads, a.batch]
                },
            }],
            scratch: |_| 0,
        }
    };
}

/// Terms of f16 for each float of a product.
fn terms(fast: u32) -> u32 {
    if fast == 0 { 2 } else { 1 }
}

/// A pass of 256 threads.
const fn pass(function: &'static str, grid: fn(&ArgWords) -> [u32; 3]) -> NativePass {
    NativePass { function, threads: 256, shared: 0, grid }
}

/// Bytes of a factor's tile, `Tile::BYTES` in `product.cuh`: with the product's shared side along a row, or across rows.
const ALONG: u32 = 128 * 80;
const ACROSS: u32 = 32 * 272;

/// Every native kernel.
pub static NATIVE: &[Native] = &[
    Native {
        name: "ternary_matmul_tensor",
        op: "ternary_matmul",
        source: source!("tensor.cuh", "ternary_matmul.cu"),
        capability: (8, 0),
        exact: true,
        takes: |words| {
            let a = TernaryMatmulArgs::from_words(words);
            a.rows > 8 && [64, 128, 256].contains(&a.group)
        },
        passes: &[
            pass("ternary_matmul_tensor_unpack", |words| [(packed_bytes(words) / 4).div_ceil(256) as u32, 1, 1]),
            pass("ternary_matmul_tensor", |words| {
                let a = TernaryMatmulArgs::from_words(words);
                [a.outs.div_ceil(128), a.rows.div_ceil(128), 1]
            }),
        ],
        // A byte for each code, of which four are packed in one.
        scratch: packed_bytes,
    },
    backward_input!("ternary_matmul_backward_input_tensor", 2),
    backward_input!("ternary_matmul_backward_input_tensor_fast", 1),
    backward_weight!("ternary_matmul_backward_weight_tensor", 2),
    backward_weight!("ternary_matmul_backward_weight_tensor_fast", 1),
    matmul!("matmul_tensor", true ALONG, false ACROSS, 2),
    matmul!("matmul_tensor_fast", true ALONG, false ACROSS, 1),
    matmul!("matmul_tensor_a_transposed", false ACROSS, false ACROSS, 2),
    matmul!("matmul_tensor_a_transposed_fast", false ACROSS, false ACROSS, 1),
    matmul!("matmul_tensor_b_transposed", true ALONG, true ALONG, 2),
    matmul!("matmul_tensor_b_transposed_fast", true ALONG, true ALONG, 1),
    product!("matmul_add_tensor", "matmul_add", [], Tiles::matmul_add, 2 * (ALONG + ACROSS), |_| true),
    attention!("attention_tensor", "attention", AttentionArgs, heads, 4 * walked(64)),
    attention!("attention_backward_q_tensor", "attention_backward_q", AttentionBackwardQArgs, heads, 4 * walked(32)),
    attention!(
        "attention_backward_kv_tensor",
        "attention_backward_kv",
        AttentionBackwardKvArgs,
        kv_heads,
        4 * walked(32) + 2 * 3 * 32 * 4
    ),
];

/// Bytes of so many rows of one factor of attention, `Walked::BYTES` in `attention.cuh`.
const fn walked(rows: u32) -> u32 {
    2 * rows * 144 + 32
}

/// Bytes of a node's packed codes.
fn packed_bytes(words: &ArgWords) -> usize {
    let a = TernaryMatmulArgs::from_words(words);
    a.outs as usize * matrix::packed_row_bytes(a.dim as usize)
}

/// A function: its name, the threads of its block, and the bytes of shared memory besides what it declares.
pub(super) type Function = (String, [u32; 3], u32);

/// What computes a node.
#[derive(Clone, Copy)]
pub(super) enum Code {
    /// The shader of its op, translated.
    Shader(&'static Op),
    Native(&'static Native),
}

impl Code {
    /// The code for a node on a device of this compute capability.
    pub fn of(node: &Node, capability: (usize, usize)) -> Code {
        let fits = |native: &&Native| {
            native.op == node.op.name && capability >= native.capability && (native.takes)(&node.args)
        };
        NATIVE.iter().find(fits).map_or(Code::Shader(node.op), Code::Native)
    }

    pub fn name(self) -> &'static str {
        match self {
            Code::Shader(op) => op.name,
            Code::Native(native) => native.name,
        }
    }

    /// CUDA C++, and what each pass runs.
    pub fn source(self) -> Result<(String, Vec<Function>)> {
        match self {
            Code::Shader(op) => {
                let Kernel { source, entries } = translate(op.name, &shader_source(op))?;
                let function = |pass: &Pass| {
                    let entry = entries.iter().find(|entry| entry.point == pass.entry);
                    let Entry { name, block, .. } = entry.expect("a pass is an entry point of the shader");
                    (name.clone(), *block, 0)
                };
                Ok((source, op.passes.iter().map(function).collect()))
            }
            Code::Native(Native { source, passes, .. }) => {
                let function = |pass: &NativePass| (pass.function.to_string(), [pass.threads, 1, 1], pass.shared);
                Ok((source.to_string(), passes.iter().map(function).collect()))
            }
        }
    }

    /// Blocks of each pass.
    pub fn grids(self, args: &ArgWords) -> Vec<[u32; 3]> {
        match self {
            Code::Shader(op) => op.passes.iter().map(|pass| (pass.grid)(args)).collect(),
            Code::Native(native) => native.passes.iter().map(|pass| (pass.grid)(args)).collect(),
        }
    }

    /// Words of scratch memory, where it has this parameter.
    pub fn scratch(self, args: &ArgWords) -> Option<usize> {
        match self {
            Code::Shader(op) => op.scratch.map(|words| words(args)),
            Code::Native(native) => Some((native.scratch)(args)),
        }
    }
}
