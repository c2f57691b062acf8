//! What an op is. Which ops there are is said by the table in `ops`.

use super::{Backward, Node};
use cpu_kernels::{ArgWords, Kernel, Packing};

/// How an op uses a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    /// Every element is written, none is read.
    Write,
    /// Read and written, or written in part.
    ReadWrite,
}

/// What a buffer holds. `I8` and `U8` are four to a word in a shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    F32,
    U32,
    I8,
    U8,
}

impl DType {
    pub fn bytes(self) -> usize {
        match self {
            DType::F32 | DType::U32 => 4,
            DType::I8 | DType::U8 => 1,
        }
    }
}

pub struct Binding {
    pub name: &'static str,
    pub access: Access,
    pub dtype: DType,
}

/// An entry of the table.
pub struct Op {
    pub name: &'static str,
    /// WGSL source; a line `//#import name` stands for the snippet `shaders/shared/name.wgsl`.
    pub shader: &'static str,
    pub kernel: Kernel,
    /// Name and WGSL type of each field of `Args`.
    pub fields: &'static [(&'static str, &'static str)],
    pub bindings: &'static [Binding],
    /// Workgroups in x, y, z.
    pub grid: fn(&ArgWords) -> [u32; 3],
    /// Elementary operations, roughly: decides over how many threads a CPU splits the op.
    pub work: fn(&ArgWords) -> u64,
    /// Floating-point or integer multiply-adds of a matrix product, counted as two each; 0 for all else.
    pub flops: fn(&ArgWords) -> u64,
    pub grad: Grad,
    /// How the kernel packs constant operands.
    pub packing: Option<&'static Packing>,
}

/// How the gradient of an op's inputs follows from that of its outputs.
#[derive(Clone, Copy)]
pub enum Grad {
    /// It has none.
    None,
    /// The gradient of the first output is that of the first input, unchanged (the quantisers' straight-through estimate).
    StraightThrough,
    /// The function appends the ops that compute it.
    Append(fn(&mut Backward<'_>, &Node)),
}

impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}
