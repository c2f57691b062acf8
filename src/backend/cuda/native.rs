//! Kernels in CUDA C++ for what WGSL cannot say. `shaders/cuda/OP.cu` stands beside the translated shader of the op and takes the
//! same parameters; a node runs it where the device has the instructions and the kernel takes the node's sizes.

use super::translate::{Entry, Kernel, translate};
use crate::Result;
use crate::backend::shader_source;
use crate::graph::{Node, Op, Pass};
use cpu_kernels::ops::ternary_matmul::TernaryMatmulArgs;
use cpu_kernels::{ArgWords, Args, matrix};

/// A pass of a native kernel.
pub struct NativePass {
    /// Its function.
    pub function: &'static str,
    /// Threads of a block.
    pub threads: u32,
    /// Blocks in x, y and z.
    pub grid: fn(&ArgWords) -> [u32; 3],
}

/// A kernel in CUDA C++.
pub struct Native {
    /// Its name: that of the last pass.
    pub name: &'static str,
    /// The op that it computes.
    pub op: &'static str,
    /// CUDA C++ that follows [`super::PRELUDE`].
    pub source: &'static str,
    /// The least compute capability.
    pub capability: (usize, usize),
    /// Whether it takes a node of these `Args`.
    pub takes: fn(&ArgWords) -> bool,
    /// What runs, one after the other.
    pub passes: &'static [NativePass],
    /// Words of the memory in which passes hand results on, the last parameter.
    pub scratch: fn(&ArgWords) -> usize,
}

macro_rules! source {
    ($op:literal) => {
        concat!(
            include_str!("../../../shaders/cuda/tensor.cuh"),
            include_str!(concat!("../../../shaders/cuda/", $op, ".cu"))
        )
    };
}

/// Every native kernel.
pub static NATIVE: &[Native] = &[Native {
    name: "ternary_matmul_tensor",
    op: "ternary_matmul",
    source: source!("ternary_matmul"),
    capability: (8, 0),
    takes: |words| {
        let a = TernaryMatmulArgs::from_words(words);
        a.rows > 8 && [64, 128, 256].contains(&a.group)
    },
    passes: &[
        NativePass {
            function: "ternary_matmul_tensor_unpack",
            threads: 256,
            grid: |words| [(packed_bytes(words) / 4).div_ceil(256) as u32, 1, 1],
        },
        NativePass {
            function: "ternary_matmul_tensor",
            threads: 256,
            grid: |words| {
                let a = TernaryMatmulArgs::from_words(words);
                [a.outs.div_ceil(128), a.rows.div_ceil(128), 1]
            },
        },
    ],
    // A byte for each code, of which four are packed in one.
    scratch: packed_bytes,
}];

/// Bytes of a node's packed codes.
fn packed_bytes(words: &ArgWords) -> usize {
    let a = TernaryMatmulArgs::from_words(words);
    a.outs as usize * matrix::packed_row_bytes(a.dim as usize)
}

/// The name of a function, and the threads of its block.
pub(super) type Function = (String, [u32; 3]);

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
                    (name.clone(), *block)
                };
                Ok((source, op.passes.iter().map(function).collect()))
            }
            Code::Native(Native { source, passes, .. }) => {
                let function = |pass: &NativePass| (pass.function.to_string(), [pass.threads, 1, 1]);
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
