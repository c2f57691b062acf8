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

macro_rules! source {
    ($($file:literal),*) => {
        concat!($(include_str!(concat!("../../../shaders/cuda/", $file))),*)
    };
}

/// The kernel for products of one layout: whether their shared side is along the rows of a, and of b.
macro_rules! matmul {
    ($name:literal, a_along: $a:literal, b_along: $b:literal, $shared:expr) => {
        Native {
            name: $name,
            op: "matmul",
            source: concat!(
                concat!("#define PRODUCT ", $name, "\n#define FINISH ", $name, "_finish\n"),
                concat!("#define A_ALONG ", $a, "\n#define B_ALONG ", $b, "\n"),
                source!("tensor.cuh", "product.cuh", "matmul.cu")
            ),
            capability: (8, 0),
            exact: false,
            // Few rows times a transposed matrix read it at the speed of memory without tensor cores.
            takes: |words| {
                let a = MatmulArgs::from_words(words);
                a.fast == 0 && a.m > 8 && (a.a_transposed == 0) == $a && (a.b_transposed != 0) == $b
            },
            passes: &[
                product($name, $shared, |words| Tiles::matmul(words).grid()),
                pass(concat!($name, "_finish"), |words| Tiles::matmul(words).sums()),
            ],
            scratch: |words| Tiles::matmul(words).scratch(),
        }
    };
}

/// A pass of 256 threads that computes tiles of a product, with the shared memory of two stages.
const fn product(function: &'static str, shared: u32, grid: fn(&ArgWords) -> [u32; 3]) -> NativePass {
    NativePass { function, threads: 256, shared: 2 * shared, grid }
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
    Native {
        name: "ternary_matmul_backward_input_tensor",
        op: "ternary_matmul_backward_input",
        source: source!("tensor.cuh", "product.cuh", "ternary_matmul_backward_input.cu"),
        capability: (8, 0),
        exact: false,
        // Rows of dy are read four elements at a time.
        takes: |words| {
            let a = TernaryMatmulBackwardInputArgs::from_words(words);
            a.fast == 0 && a.outs.is_multiple_of(4)
        },
        passes: &[
            product("ternary_matmul_backward_input_tensor", 2 * ALONG + ACROSS, |words| {
                Tiles::backward_input(words).grid()
            }),
            pass("ternary_matmul_backward_input_tensor_finish", |words| Tiles::backward_input(words).sums()),
        ],
        scratch: |words| Tiles::backward_input(words).scratch(),
    },
    Native {
        name: "ternary_matmul_backward_weight_tensor",
        op: "ternary_matmul_backward_weight",
        source: source!("tensor.cuh", "product.cuh", "ternary_matmul_backward_weight.cu"),
        capability: (8, 0),
        exact: false,
        takes: |words| {
            let a = TernaryMatmulBackwardWeightArgs::from_words(words);
            a.fast == 0 && a.outs.is_multiple_of(4)
        },
        passes: &[
            product("ternary_matmul_backward_weight_tensor", 3 * ACROSS, |words| Tiles::backward_weight(words).grid()),
            pass("ternary_matmul_backward_weight_tensor_finish", |words| Tiles::backward_weight(words).sums()),
        ],
        scratch: |words| Tiles::backward_weight(words).scratch(),
    },
    matmul!("matmul_tensor", a_along: true, b_along: false, 2 * (ALONG + ACROSS)),
    matmul!("matmul_tensor_a_transposed", a_along: false, b_along: false, 4 * ACROSS),
    matmul!("matmul_tensor_b_transposed", a_along: true, b_along: true, 4 * ALONG),
    Native {
        name: "matmul_add_tensor",
        op: "matmul_add",
        source: source!("tensor.cuh", "product.cuh", "matmul_add.cu"),
        capability: (8, 0),
        exact: false,
        takes: |_| true,
        passes: &[
            product("matmul_add_tensor", 2 * (ALONG + ACROSS), |words| Tiles::matmul_add(words).grid()),
            pass("matmul_add_tensor_finish", |words| Tiles::matmul_add(words).sums()),
        ],
        scratch: |words| Tiles::matmul_add(words).scratch(),
    },
    Native {
        name: "attention_tensor",
        op: "attention",
        source: source!("tensor.cuh", "attention.cuh", "attention.cu"),
        capability: (8, 0),
        exact: false,
        takes: |words| AttentionArgs::from_words(words).head_dim <= 64,
        passes: &[NativePass {
            function: "attention_tensor",
            threads: 256,
            shared: 4 * walked(64),
            grid: |words| {
                let a = AttentionArgs::from_words(words);
                [a.seq.div_ceil(128), a.heads, a.batch]
            },
        }],
        scratch: |_| 0,
    },
    Native {
        name: "attention_backward_q_tensor",
        op: "attention_backward_q",
        source: source!("tensor.cuh", "attention.cuh", "attention_backward_q.cu"),
        capability: (8, 0),
        exact: false,
        takes: |words| AttentionBackwardQArgs::from_words(words).head_dim <= 64,
        passes: &[NativePass {
            function: "attention_backward_q_tensor",
            threads: 256,
            shared: 4 * walked(32),
            grid: |words| {
                let a = AttentionBackwardQArgs::from_words(words);
                [a.seq.div_ceil(128), a.heads, a.batch]
            },
        }],
        scratch: |_| 0,
    },
    Native {
        name: "attention_backward_kv_tensor",
        op: "attention_backward_kv",
        source: source!("tensor.cuh", "attention.cuh", "attention_backward_kv.cu"),
        capability: (8, 0),
        exact: false,
        takes: |words| AttentionBackwardKvArgs::from_words(words).head_dim <= 64,
        passes: &[NativePass {
            function: "attention_backward_kv_tensor",
            threads: 256,
            shared: 4 * walked(32) + 2 * 3 * 32 * 4,
            grid: |words| {
                let a = AttentionBackwardKvArgs::from_words(words);
                [a.seq.div_ceil(128), a.kv_heads, a.batch]
            },
        }],
        scratch: |_| 0,
    },
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
