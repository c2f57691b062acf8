//! The definition of an op. [`crate::ops`] contains the table of all ops.

use super::{Backward, Node};
use cpu_kernels::{ArgWords, Kernel};

/// How an op uses a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It is only read.
    Read,
    /// Every element is written, none is read.
    Write,
    /// Read and written, or written in part.
    ReadWrite,
}

/// The type of a buffer's elements. Shaders see two `F16` or `Bf16` in each word, and four `I8` or `U8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 16-bit float.
    F16,
    /// The upper half of a 32-bit float.
    Bf16,
    /// 32-bit unsigned integer.
    U32,
    /// 8-bit signed integer.
    I8,
    /// 8-bit unsigned integer, or bytes of packed codes.
    U8,
}

impl DType {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            DType::F32 | DType::U32 => 4,
            DType::F16 | DType::Bf16 => 2,
            DType::I8 | DType::U8 => 1,
        }
    }
}

/// A buffer of an op.
pub struct Binding {
    /// Its name in the shader.
    pub name: &'static str,
    /// How the op uses it.
    pub access: Access,
    /// The type of its elements.
    pub dtype: DType,
}

/// One dispatch of an op's shader.
pub struct Pass {
    /// The entry point, a function of the shader. That of the first pass is `main`.
    pub entry: &'static str,
    /// Workgroups in x, y and z. A pass without any does not run.
    pub grid: fn(&ArgWords) -> [u32; 3],
}

/// An op: an entry of the op table.
pub struct Op {
    /// Its name, also that of its shader and its kernel.
    pub name: &'static str,
    /// WGSL source. A line `//#import name` includes the snippet `shaders/shared/name.wgsl`.
    pub shader: &'static str,
    /// The CPU implementation.
    pub kernel: &'static Kernel,
    /// Name and WGSL type of each field of `Args`.
    pub fields: &'static [(&'static str, &'static str)],
    /// Its buffers, in the order in which shader and kernel take them.
    pub bindings: &'static [Binding],
    /// What a GPU runs, one after the other. A CPU's kernel does all at once.
    pub passes: &'static [Pass],
    /// Words of the memory in which a GPU's passes hand results on: `scratch` in the shader, its last buffer. Passes write it
    /// before they read it. `None` where the shader has none.
    pub scratch: Option<fn(&ArgWords) -> usize>,
    /// Elementary operations, roughly. They determine the number of threads on a CPU and the nodes in a GPU submission.
    pub work: fn(&ArgWords) -> u64,
    /// Floating-point or integer multiply-adds of a matrix product, counted as two each; 0 for other ops.
    pub flops: fn(&ArgWords) -> u64,
    /// Its gradient.
    pub grad: Grad,
}

/// How the gradients of an op's inputs follow from those of its outputs.
#[derive(Clone, Copy)]
pub enum Grad {
    /// The op has no gradient.
    None,
    /// The gradient of the first input is that of the first output, unchanged: the straight-through estimator (Bengio et al.
    /// 2013) of the quantisers.
    StraightThrough,
    /// The function appends the ops that compute the gradients.
    Append(fn(&mut Backward<'_>, &Node)),
}

impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}
